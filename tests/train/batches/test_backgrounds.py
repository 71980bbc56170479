"""Backgrounds change, and plants do not."""

import cv2
import numpy as np

from plantml.train.batches.augment import Augmentation
from plantml.train.batches.backgrounds import plant_mask, replace_background

TABLE = np.full((96, 96, 3), (150, 145, 150), np.uint8)


def leaf() -> np.ndarray:
    """A green leaf with a grey spot inside, on a grey table."""
    photo = TABLE.copy()
    cv2.ellipse(photo, (48, 48), (32, 20), 0, 0, 360, (60, 140, 50), -1)
    cv2.circle(photo, (48, 48), 3, (150, 150, 150), -1)
    return photo


def test_the_mask_is_the_leaf_with_its_spots() -> None:
    mask = plant_mask(leaf())
    assert mask[48, 48]
    assert mask[48, 20]
    assert not mask[5, 5]
    assert 0.18 < mask.mean() < 0.26


def test_the_plant_stays_and_the_table_goes() -> None:
    photo = leaf()
    replaced = replace_background(photo, np.random.default_rng(0))
    assert np.array_equal(replaced[40:56, 30:66], photo[40:56, 30:66])
    assert np.abs(replaced[:20].astype(int) - photo[:20]).mean() > 20
    assert np.array_equal(photo, leaf())


def test_a_photo_without_a_plant_stays_as_it_is() -> None:
    for photo in (TABLE, np.full_like(TABLE, (60, 140, 50))):
        assert replace_background(photo, np.random.default_rng(0)) is photo


def test_backgrounds_depend_on_the_seed_only_and_are_left_alone_without_augmentation() -> None:
    change = Augmentation(64, 64, 1, background=1)
    assert np.array_equal(change(leaf(), 3), change(leaf(), 3))
    assert not np.array_equal(change(leaf(), 3), Augmentation(64, 64, 1)(leaf(), 3))
    assert np.array_equal(Augmentation(64, 64, 0, background=1)(leaf(), 3), Augmentation(64, 64, 0)(leaf(), 3))
