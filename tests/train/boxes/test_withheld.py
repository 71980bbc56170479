"""What training learns of targets that do not apply where another one has some class."""

import polars as pl
import pytest

from plantml.model.contract import Withheld
from plantml.targets import Target
from plantml.train.boxes import withheld

TARGETS = (
    Target("category", "class", ("bean", "maize")),
    Target("severity", "value", unit="fraction"),
    Target("viability", "class", ("missing", "viable")),
)
EMPTY = (None, None, "missing")
BEAN = ("bean", 0.25, "viable")
MAIZE = ("maize", None, "viable")


def learn(*photos):
    """The rules that are learnt from photos, each a list of boxes: category, severity, viability."""
    rows = [dict(zip(("category", "severity", "viability"), box, strict=True)) for photo in photos for box in photo]
    schema = {"category": pl.String, "severity": pl.Float64, "viability": pl.String}
    of_photo = pl.Series([number for number, photo in enumerate(photos) for _ in photo])
    return withheld.learn(pl.DataFrame(rows, schema=schema), of_photo, TARGETS)


def test_an_empty_cell_has_no_species():
    rules = learn(*[[EMPTY, BEAN, BEAN]] * 20)
    assert rules == (Withheld(targets=("category", "severity"), where="viability", label="missing"),)
    assert str(rules[0]) == "category and severity where viability is missing"


@pytest.mark.parametrize(
    ("photos", "why"),
    [
        ([[EMPTY, BEAN]] * 19, "few boxes of the class"),
        ([[EMPTY] * 20, [BEAN] * 20], "no photo shows both"),
        ([[EMPTY, EMPTY, BEAN]] * 10, "few boxes beside them"),
        ([*[[EMPTY, BEAN]] * 40, [("bean", 0.1, "missing")]], "one box of the class has the targets"),
        ([[EMPTY, BEAN, (None, None, "viable")]] * 40, "half of the boxes beside them lack the targets, too"),
        ([[EMPTY, BEAN, (None, None, None)]] * 10, "boxes without any label are not beside them"),
    ],
)
def test_no_rule_without_evidence(photos, why):
    assert learn(*photos) == (), why


def test_a_species_whose_diseases_are_never_labelled_in_photos_of_its_own_may_have_them():
    assert learn(*[[BEAN, BEAN]] * 20, *[[MAIZE, MAIZE]] * 20) == ()


def test_each_target_has_a_rule_of_its_own():
    (empty, maize) = learn(*[[EMPTY, MAIZE, *[BEAN] * 19]] * 20)[::-1]
    assert empty.targets == ("category", "severity")
    assert (maize.targets, maize.where, maize.label) == (("severity",), "category", "maize")
