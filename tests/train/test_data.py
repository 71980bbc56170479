"""Order and augmentation depend on seed, epoch and photo, not on workers."""

import numpy as np
import pytest
import torch

from plantml.train.augment import Training
from plantml.train.data import EpochSampler, PhotoDataset, Photos, evaluation_loader, training_loader

COUNT = 10


@pytest.fixture
def photos() -> Photos:
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 40, 40, 3)).astype(np.uint8)
    return Photos(
        pixels, np.arange(COUNT, dtype=np.uint64), {"disease": np.arange(COUNT)}, np.array([0, 1, 2, 4, 5, 6, 7, 8, 9])
    )


def test_order_is_a_permutation_that_seed_and_epoch_decide(photos) -> None:
    sampler = EpochSampler(photos.rows, 3, shuffle=True)
    first = list(sampler)
    assert sorted(row for _, row in first) == photos.rows.tolist()
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert [row for _, row in sampler] != [row for _, row in first]
    assert {epoch for epoch, _ in sampler} == {1}
    assert [row for _, row in EpochSampler(photos.rows, 4, shuffle=True)] != [row for _, row in first]


def test_evaluation_keeps_order_and_pixels(photos) -> None:
    batches = list(evaluation_loader(photos, 4))
    assert torch.cat([batch["disease"] for batch in batches]).tolist() == photos.rows.tolist()
    assert np.array_equal(torch.cat([batch["image"] for batch in batches]).numpy(), photos.pixels[photos.rows])


def test_workers_change_nothing(photos) -> None:
    change = Training(32, 32, 1)
    alone, two = (list(training_loader(photos, change, 4, 1, workers)) for workers in (0, 2))
    assert len(alone) == len(two)
    for a, b in zip(alone, two, strict=True):
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["disease"], b["disease"])


def test_a_last_batch_of_one_photo_is_left_out(photos) -> None:
    change = Training(32, 32, 0)
    assert [len(batch["image"]) for batch in training_loader(photos, change, 4, 0, 0)] == [4, 4]
    assert [len(batch["image"]) for batch in training_loader(photos, change, 5, 0, 0)] == [5, 4]


def test_epochs_augment_anew(photos) -> None:
    dataset = PhotoDataset(photos, 0, Training(32, 32, 1))
    assert not torch.equal(dataset[0, 1]["image"], dataset[1, 1]["image"])
    assert torch.equal(dataset[1, 1]["image"], dataset[1, 1]["image"])
