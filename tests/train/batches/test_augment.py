"""Augmentation is a function of the seed and keeps shape, type and diagnosis."""

import numpy as np
import pytest

from plantml.train.batches.augment import Augmentation, seed_for

LEAF = np.random.default_rng(0).integers(60, 200, (74, 74, 3)).astype(np.uint8)


@pytest.mark.parametrize("strength", [0, 0.5, 1, 2])
def test_shape_and_type(strength: float) -> None:
    changed = Augmentation(64, 48, strength)(LEAF, 1)
    assert changed.shape == (64, 48, 3)
    assert changed.dtype == np.uint8


def test_the_seed_decides_and_nothing_else() -> None:
    one, other = Augmentation(64, 64, 1), Augmentation(64, 64, 1)
    for seed in (5, 6, 5):
        one(LEAF, seed)
    assert np.array_equal(one(LEAF, 9), other(LEAF, 9))
    assert not np.array_equal(one(LEAF, 9), one(LEAF, 10))


def test_strength_zero_only_resizes() -> None:
    change = Augmentation(64, 64, 0)
    assert np.array_equal(change(LEAF, 1), change(LEAF, 2))


def test_the_photo_itself_is_left_as_it_is() -> None:
    before = LEAF.copy()
    Augmentation(64, 64, 2)(LEAF, 3)
    assert np.array_equal(LEAF, before)


def test_green_stays_green() -> None:
    green = np.full((74, 74, 3), (70, 140, 60), np.uint8)
    change = Augmentation(64, 64, 1)
    for seed in range(50):
        red, middle, blue = change(green, seed)[24:40, 24:40].reshape(-1, 3).mean(axis=0)
        assert middle > red
        assert middle > blue


def test_seeds_differ_by_seed_epoch_and_photo() -> None:
    seeds = {seed_for(s, e, i) for s in (0, 1) for e in (0, 1) for i in (7, 8)}
    assert len(seeds) == 8
    assert seed_for(0, 1, 7) == seed_for(0, 1, 7)
