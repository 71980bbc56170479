"""Predicted and annotated boxes, matched and scored."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plantml.targets import Target
from plantml.train import box_evaluation
from plantml.train.box_evaluation import Predicted, assign, at_best_f1, average_precision, iou, match
from plantml.train.box_photos import BoxPhotos

CATEGORY = Target("category", "class", ("bean", "maize"))
BOXES = st.lists(st.tuples(*[st.integers(0, 40)] * 2, *[st.integers(1, 30)] * 2), max_size=6).map(
    lambda rows: np.array(rows, np.float32).reshape(-1, 4)
)
many = settings(max_examples=100, deadline=None)


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def test_iou_is_that_of_the_textbook():
    overlaps = iou(boxes((0, 0, 10, 10), (100, 100, 5, 5)), boxes((0, 0, 10, 10), (5, 0, 10, 10), (0, 0, 5, 5)))
    np.testing.assert_allclose(overlaps, [[1, 1 / 3, 1 / 4], [0, 0, 0]])


@given(BOXES, BOXES)
@many
def test_iou_is_symmetric_and_within_0_and_1(first, second):
    overlaps = iou(first, second)
    np.testing.assert_allclose(overlaps, iou(second, first).T)
    assert ((overlaps >= 0) & (overlaps <= 1)).all()


@given(BOXES, BOXES)
@many
def test_no_annotated_box_is_taken_twice_and_less_is_found_where_more_is_asked(predicted, truth):
    assigned = assign(predicted, truth)
    for column in assigned.T:
        taken = column[column >= 0].tolist()
        assert len(taken) == len(set(taken))
    found = (assigned >= 0).sum(axis=0)
    assert (np.diff(found) <= 0).all()


def test_the_best_box_takes_the_annotated_one():
    assert assign(boxes((0, 0, 10, 10), (0, 0, 10, 10)), boxes((0, 0, 10, 10)))[:, 0].tolist() == [0, -1]


@pytest.mark.parametrize(
    ("right", "annotated", "expected"),
    [([True, True], 2, 1.0), ([False, False], 2, 0.0), ([True, False], 2, 51 / 101), ([], 3, 0.0)],
)
def test_average_precision_of_simple_cases(right, annotated, expected):
    scores = np.linspace(1, 0.5, len(right)).astype(np.float32)
    assert average_precision(scores, np.array(right, bool), annotated) == pytest.approx(expected)


def test_the_best_f1_is_found():
    point = at_best_f1(np.array([0.9, 0.8, 0.7, 0.6], np.float32), np.array([True, True, False, False]), 3)
    assert point.score == pytest.approx(0.8, abs=1e-5)
    assert (point.precision, point.recall, point.f1) == (1.0, pytest.approx(2 / 3), pytest.approx(0.8))
    assert at_best_f1(np.empty(0, np.float32), np.empty(0, bool), 3).f1 == 0


def photos(*truth, labels):
    count = len(truth)
    return BoxPhotos(
        np.zeros((count, 8, 8, 3), np.uint8), np.zeros(count, np.uint64), np.arange(count), truth,
        [{"category": np.array(each)} for each in labels],
    )  # fmt: skip


def test_boxes_of_all_photos_are_matched_with_their_labels():
    truth = photos(boxes((0, 0, 10, 10), (50, 50, 10, 10)), boxes(), labels=[[1, 0], []])
    predicted = Predicted(
        np.array([1, 0]),
        np.stack([boxes((0, 0, 10, 10), (1, 1, 1, 1)), boxes((50, 50, 10, 10), (0, 0, 10, 9))]),
        np.array([[0.9, 0.0], [0.8, 0.7]], np.float32),
        {"target.category": torch.arange(8.0).view(2, 2, 2)},
        0.0,
    )
    matched = match(predicted, truth, [CATEGORY])
    assert matched.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert matched.photo.tolist() == [0, 1, 1]
    assert matched.right[:, 0].tolist() == [False, True, True]
    assert matched.right[:, -1].tolist() == [False, True, False]
    assert matched.annotated.tolist() == [0, 2]
    assert matched.labels["category"].tolist() == [0, 1]
    assert matched.logits["category"].tolist() == [[4, 5], [6, 7]]
    assert matched.counts(matched.scores, 0.75).tolist() == [1, 1]
    assert box_evaluation.scores_of(matched)["boxes.ap50"] > box_evaluation.scores_of(matched)["boxes.ap"]
