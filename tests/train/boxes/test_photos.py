"""Augmentation moves boxes as it moves pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plantml.targets import Target
from plantml.train.boxes.photos import MOST_BOXES, BoxAugmentation, BoxDataset, BoxPhotos, cut, turned

CATEGORY = Target("category", "class", ("bean", "maize"))
many = settings(max_examples=100, deadline=None)


def drawn(size, box, level=255):
    photo = np.zeros((size, size, 3), np.uint8)
    x, y, w, h = box
    photo[y : y + h, x : x + w] = level
    return photo


def seen(pixels):
    rows, columns = np.nonzero(pixels[..., 0] > 180)
    return [columns.min(), rows.min(), columns.max() + 1 - columns.min(), rows.max() + 1 - rows.min()]


@given(st.integers(0, 7), st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(3, 12), st.integers(3, 12)))
@many
def test_all_orientations_keep_the_box_on_its_pixels(way, box):
    pixels, boxes = turned(drawn(32, box), np.array([box], np.float32), way)
    assert boxes[0].tolist() == seen(pixels)


@given(st.integers(-20, 20), st.integers(-20, 20), st.integers(40, 90))
@many
def test_a_cut_keeps_the_box_on_its_pixels(left, top, side):
    box = (30, 24, 20, 16)
    pixels, boxes, kept = cut(drawn(64, box), np.array([box], np.float32), (left, top, side), 48)
    if len(kept):
        np.testing.assert_allclose(boxes[0], seen(pixels), atol=1.5)
    assert pixels.shape == (48, 48, 3)


def test_a_box_of_which_little_is_left_goes():
    box = np.array([[0, 0, 20, 20], [40, 40, 10, 10]], np.float32)
    _, boxes, kept = cut(np.zeros((64, 64, 3), np.uint8), box, (14, 14, 50), 50)
    assert kept.tolist() == [1]
    assert boxes.tolist() == [[26, 26, 10, 10]]


def photos(number=4, size=40):
    random = np.random.default_rng(0)
    boxes = [
        np.array([[5, 5, 10, 10], [20, 20, 12, 8]][: each % 3], np.float32).reshape(-1, 4) for each in range(number)
    ]
    labels = [{"category": np.arange(len(each)) % 2} for each in boxes]
    pixels = random.integers(0, 256, (number, size, size, 3)).astype(np.uint8)
    return BoxPhotos(
        pixels, np.arange(number, dtype=np.uint64), np.arange(number), boxes, labels, [pixels.shape[2:0:-1]] * number
    )


@pytest.mark.parametrize("mosaic", [0.0, 1.0])
def test_an_item_depends_on_seed_epoch_and_photo_only(mosaic):
    dataset = BoxDataset(photos(), (CATEGORY,), 32, 7, BoxAugmentation(32, 1.0, mosaic))
    first, again, later = dataset[(0, 2, 0)], dataset[(0, 2, 0)], dataset[(1, 2, 0)]
    assert all((first[name] == again[name]).all() for name in first)
    assert (first["image"] != later["image"]).any()
    assert first["image"].shape == (32, 32, 3)
    assert first["boxes"].shape == (MOST_BOXES, 4)
    assert first["centre"].shape == (8, 8)


def test_labels_stay_with_their_boxes():
    dataset = BoxDataset(photos(), (CATEGORY,), 40, 0, None)
    item = dataset[(0, 2, 0)]
    assert item["boxes"][:2].tolist() == [[5, 5, 10, 10], [20, 20, 12, 8]]
    assert item["target.category"][:3].tolist() == [0, 1, -1]


@pytest.mark.parametrize("mosaic", [0.0, 1.0])
def test_doubts_stay_with_their_boxes(mosaic):
    each = [np.array([[4, 4, 20, 8], [20, 14, 8, 20]], np.float32)] * 4
    labels = [{"category": np.array([0, 1])}] * 4
    doubtful = {row: np.array([True, False]) for row in range(4)}
    several = BoxPhotos(
        np.zeros((4, 40, 40, 3), np.uint8),
        np.arange(4, dtype=np.uint64),
        np.arange(4),
        each,
        labels,
        [(40, 40)] * 4,
        doubtful,
    )
    dataset = BoxDataset(several, (CATEGORY,), 64, 7, BoxAugmentation(64, 0.0, mosaic))
    seen = 0
    for epoch in range(12):
        item = dataset[(epoch, 2, 0)]
        learnt = {int(number) for number in item["box"].unique() if number >= 0}
        classes = item["target.category"]
        assert all(classes[number] == 1 for number in learnt)
        seen += len(learnt)
    assert seen


def test_every_orientation_and_strength_keeps_boxes_inside():
    for strength in (0.0, 0.5, 2.0):
        dataset = BoxDataset(photos(), (CATEGORY,), 32, 1, BoxAugmentation(32, strength, 0.5))
        for epoch in range(20):
            item = dataset[(epoch, 2, 0)]
            x, y, w, h = item["boxes"].T
            assert (x >= -1e-4).all()
            assert (y >= -1e-4).all()
            assert (x + w <= 32.001).all()
            assert (y + h <= 32.001).all()
