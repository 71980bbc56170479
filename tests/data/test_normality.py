"""Which photos are normal."""

import pytest

from plantml.data import normality
from plantml.data.manifest import Version
from plantml.errors import InputError
from plantml.targets import Target

HEALTH = Target("health", "class", ("diseased", "healthy"))
DISEASE = Target("disease", "class", ("none", "rust"))
SIGNS = Target("signs", "multilabel", ("clean", "spots"))


def version(make_rows, records, *targets):
    return Version("data", 1, make_rows(records, targets), targets)


def test_labels_and_kinds(make_rows):
    rows = [
        {"health": "healthy", "disease": "none"},
        {"health": "diseased", "disease": "rust"},
        {"health": "diseased"},
        {},
    ]
    dataset = version(make_rows, rows, HEALTH, DISEASE)
    assert normality.labels(dataset, "health=healthy").to_list() == ["normal", "anomalous", "anomalous", None]
    assert normality.kinds(dataset.rows, "health=healthy").to_list() == ["healthy", "rust", "diseased", None]
    assert normality.of_dataset(dataset)[0] == "health=healthy"


def test_of_several_labels_the_class_alone_is_normal(make_rows):
    dataset = version(make_rows, [{"signs": ["clean"]}, {"signs": ["clean", "spots"]}, {"signs": []}, {}], SIGNS)
    assert normality.labels(dataset, "signs=clean").to_list() == ["normal", "anomalous", "anomalous", None]


def test_normal_photos_differ_by_crop_unless_asked_otherwise(make_rows):
    crop = Target("category", "class", ("bean", "tomato"))
    dataset = version(make_rows, [{"category": "bean"}, {"category": "tomato"}], crop, HEALTH, SIGNS)
    rows = dataset.rows
    assert normality.differing_by(dataset, rows, "auto", "health=healthy")[0] == "category"
    assert normality.differing_by(dataset, rows[:1], "auto", "health=healthy") == ("", "")
    assert normality.differing_by(dataset, rows, "off", "health=healthy") == ("", "")
    assert normality.differing_by(dataset, rows, "auto", "category=bean") == ("", "")
    for name in ("signs", "health", "colour"):
        with pytest.raises(InputError, match="cannot differ by") as error:
            normality.differing_by(dataset, rows, name, "health=healthy")
        assert "category" in str(error.value.why)


def test_without_health_the_disease_none_is_normal(make_rows):
    assert normality.of_dataset(version(make_rows, [{"disease": "none"}], DISEASE))[0] == "disease=none"
    with pytest.raises(InputError, match="does not say which photos are normal"):
        normality.of_dataset(version(make_rows, [{"signs": ["clean"]}], SIGNS))


@pytest.mark.parametrize("normal", ["health", "health=blue", "colour=green", "=healthy"])
def test_a_class_that_is_not_there_is_refused_with_an_example(make_rows, normal):
    with pytest.raises(InputError) as error:
        normality.labels(version(make_rows, [{"health": "healthy"}], HEALTH), normal)
    assert "health=diseased" in str(error.value.why)
