"""Predicted and annotated boxes, matched and scored."""

import numpy as np
import pytest
import torch

from plantml.metrics.detection import DetectionStatistic
from plantml.model.box_calibration import RawBoxes, scores_of, uncalibrated
from plantml.targets import Target
from plantml.train.boxes.evaluation import Predicted, match
from plantml.train.boxes.photos import BoxPhotos

CATEGORY = Target("category", "class", ("bean", "maize"))


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def photos(*truth, labels):
    count = len(truth)
    return BoxPhotos(
        np.zeros((count, 8, 8, 3), np.uint8), np.zeros(count, np.uint64), np.arange(count), truth,
        [{"category": np.array(each)} for each in labels], [(8, 8)] * count,
    )  # fmt: skip


def test_boxes_of_all_photos_are_matched_with_their_labels():
    truth = photos(boxes((0, 0, 10, 10), (50, 50, 10, 10)), boxes(), labels=[[1, 0], []])
    predicted = Predicted(
        np.array([1, 0]),
        RawBoxes(
            np.stack([boxes((0, 0, 10, 10), (1, 1, 1, 1)), boxes((50, 50, 10, 10), (0, 0, 10, 9))]),
            np.array([[0.9, 0.0], [0.8, 0.7]], np.float32),
            {"category": torch.arange(8.0).view(2, 2, 2)},
            uncalibrated((), 8, 8),
        ),
        0.0,
    )
    matched = match(predicted, truth, [CATEGORY])
    found = matched.detections
    assert found.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert found.photo.tolist() == [0, 1, 1]
    assert found.true_photo.tolist() == [1, 1]
    assert matched.right.tolist() == [False, True, True]
    assert matched.labels["category"].tolist() == [0, 1]
    assert matched.logits["category"].tolist() == [[4, 5], [6, 7]]
    scores = scores_of(DetectionStatistic(found, threshold=0.75))
    assert scores["boxes.ap50"] > scores["boxes.ap"]
    assert scores["boxes.count_mae"] == 1


def test_photos_without_any_box_have_no_labels():
    truth = photos(boxes(), labels=[[]])
    predicted = Predicted(
        np.array([0]),
        RawBoxes(
            np.zeros((1, 2, 4), np.float32),
            np.zeros((1, 2), np.float32),
            {"category": torch.zeros(1, 2, 2)},
            uncalibrated((), 8, 8),
        ),
        0.0,
    )
    matched = match(predicted, truth, [CATEGORY])
    assert matched.labels["category"].shape == (0,)
    assert matched.logits["category"].shape == (0, 2)
    assert set(scores_of(matched.statistic).values()) <= {0.0, 1.0}


def test_found_boxes_may_overlap_a_little_more_than_annotated_ones():
    apart, half = boxes((0, 0, 10, 10), (20, 20, 10, 10)), boxes((0, 0, 10, 10), (0, 0, 10, 6))
    same = boxes((0, 0, 10, 10), (0, 0, 10, 10))
    assert [uncalibrated([boxes(), truth], 96, 96).overlap for truth in (apart, half, same)] == [0.4, 0.7, 1.0]
    assert [uncalibrated((), side, side).boxes for side in (64, 96)] == [256, 300]
