"""Two runtimes find the same boxes, or do not."""

import numpy as np
import pytest
from tests.contracts import make_contract

from plantml.errors import GateError
from plantml.export import proof
from plantml.export.samples import AnnotatedBoxes
from plantml.model.contract import Detection
from plantml.targets import Target

CATEGORY = Target("category", "class", ("bean", "maize"))
DETECTION = Detection(boxes=3, slope=1.0, offset=0.0, threshold=0.3, accept=0.6)
CONTRACT = make_contract(CATEGORY, detection=DETECTION)


def outputs():
    return {
        "boxes": np.array([[[0, 0, 10, 10], [30, 30, 9, 9], [50, 50, 1, 1]]] * 2, np.float32),
        "score": np.array([[0.9, 0.4, 0.01], [0.5, 0.5, 0.01]], np.float32),
        "target.category": np.array([[[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]] * 2, np.float32),
    }


def compare(**changes):
    return proof.compare(CONTRACT, outputs(), outputs() | changes)


def changed(name, index, value):
    array = outputs()[name]
    array[index] = value
    return {name: array}


def test_equal_boxes_are_equal_in_any_order():
    assert compare().holds
    swapped = {name: values[:, [1, 0, 2]] for name, values in outputs().items()}
    both = proof.compare(CONTRACT, {n: v[1:] for n, v in outputs().items()}, {n: v[1:] for n, v in swapped.items()})
    assert both.holds, both.unequal


@pytest.mark.parametrize(
    "change",
    [
        changed("boxes", (0, 0, 0), 2.0),  # moved
        changed("boxes", (0, 1), np.nan),
        changed("score", (0, 0), 0.4),  # no longer accepted
        changed("score", (0, 1), 0.1),  # does not count
        changed("score", (1, 2), 0.5),  # counts in addition
        changed("target.category", (0, 0), [0.1, 0.9]),  # another label
        changed("target.category", (0, 0), [0.7, 0.3]),
        changed("score", (0, 0), np.nan),
    ],
)
def test_each_difference_is_noticed(change):
    equality = compare(**change)
    assert not equality.holds
    assert equality.photos == 2


def test_boxes_that_do_not_count_may_differ():
    assert compare(**changed("boxes", (0, 2, 0), 0.0)).holds
    assert compare(**changed("score", (0, 0), 0.90005)).holds


def test_boxes_in_one_place_are_told_apart():
    cut = changed("boxes", (0, 1), [0, 0, 10, 10])  # two boxes that the edges of the photo make equal
    assert proof.compare(CONTRACT, outputs() | cut, outputs() | cut).holds


def test_ties_are_no_bug():
    tied = outputs() | changed("target.category", (0, 0), [0.50002, 0.49998])
    label = proof.compare(CONTRACT, tied, outputs() | changed("target.category", (0, 0), [0.49998, 0.50002]))
    neighbour = compare(**changed("boxes", (0, 0), [2, 0, 10, 10]))
    doubled = {"boxes": outputs()["boxes"], "score": outputs()["score"]}
    doubled["boxes"][0, 2], doubled["score"][0, 2] = [0, 2, 10, 10], 0.9
    for tie in (label, neighbour, compare(**doubled)):
        assert not tie.holds
        assert "hardly learnt" in tie.cause


def test_a_box_that_is_elsewhere_or_missing_is_a_bug():
    for change in (changed("boxes", (0, 0), [60, 60, 10, 10]), changed("score", (0, 1), 0.1)):
        assert "bug in the exporter" in compare(**change).cause


def test_a_missing_output_is_named():
    with pytest.raises(GateError, match="no output score"):
        proof.compare(CONTRACT, outputs(), {name: each for name, each in outputs().items() if name != "score"})


# --- forms with thresholds of their own -------------------------------------------------------


def alike(served=CONTRACT, **changes):
    return proof.compare(CONTRACT, outputs(), outputs() | changes, served=served)


@pytest.mark.parametrize(
    ("change", "labels", "decisions"),
    [
        ({}, 1, 1),
        (changed("boxes", (0, 0, 0), 2.0), 1, 1),  # still an IoU above 0.5
        (changed("boxes", (0, 0, 0), 8.0), 6 / 8, 6 / 8),
        (changed("score", (0, 1), 0.1), 6 / 7, 6 / 7),
        (changed("score", (0, 0), 0.5), 1, 6 / 8),
        (changed("target.category", (0, 0), [0.1, 0.9]), 6 / 8, 6 / 8),
    ],
)
def test_alike_boxes_are_counted(change, labels, decisions):
    proven = alike(**change)
    assert (proven.agreement, proven.decisions) == pytest.approx((labels, decisions))


def test_each_form_has_its_own_thresholds():
    detection = DETECTION.model_copy(update={"threshold": 0.6, "accept": 0.8})
    served = CONTRACT.model_copy(update={"detection": detection})
    shifted = {"score": outputs()["score"] + np.float32(0.25)}
    proven = alike(served, **shifted)
    assert (proven.agreement, proven.decisions) == (1, 1)
    assert proven.difference == pytest.approx(0.25)
    assert alike(served).agreement == pytest.approx(2 / 5)


def test_the_score_of_boxes_needs_the_right_class():
    truth = AnnotatedBoxes([outputs()["boxes"][0][:2]] * 2, [{"category": np.array([0, 1])}] * 2)
    named = changed("target.category", (0, 0), [0.1, 0.9])
    change = proof.change_of_boxes(CONTRACT, truth, outputs(), outputs() | named)
    assert change.before == 1
    assert change.after < 0.95
    unlabelled = AnnotatedBoxes(truth.sides, [{"category": np.array([-1, 1])}] * 2)
    assert proof.change_of_boxes(CONTRACT, unlabelled, outputs(), outputs() | named).after == 1
