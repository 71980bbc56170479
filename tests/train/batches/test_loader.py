"""Order and augmentation depend on seed, step and photo, not on workers, processes or interruptions."""

import os
import signal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plantml.train.batches.augment import Augmentation
from plantml.train.batches.loader import PhotoDataset, Photos, StepSampler, evaluation_loader, training_loader

COUNT = 10
ROWS = np.array([0, 1, 2, 4, 5, 6, 7, 8, 9])
PHOTOS = Photos(
    np.random.default_rng(0).integers(0, 256, (COUNT, 40, 40, 3)).astype(np.uint8),
    np.arange(COUNT, dtype=np.uint64),
    {"disease": np.array([0, 0, 0, 0, 0, 0, 0, 0, 1, 1])},
    ROWS,
)


@pytest.fixture
def photos() -> Photos:
    return PHOTOS


def test_an_epoch_is_a_permutation_that_seed_and_epoch_decide(make_plan) -> None:
    def epochs(seed: int) -> list[list[int]]:
        steps = list(StepSampler(PHOTOS, make_plan(seed=seed, batch_size=3)))
        return [[row for step in steps[at : at + 3] for _, row, _ in step] for at in (0, 3, 6)]

    first = epochs(3)
    assert all(sorted(epoch) == ROWS.tolist() for epoch in first)
    assert first == epochs(3)
    assert first[0] != first[1]
    assert first != epochs(4)


@given(start=st.integers(0, 9), batch=st.integers(2, 9), epochs=st.integers(1, 3))
def test_from_any_step_on_the_stream_is_the_same(make_plan, start: int, batch: int, epochs: int) -> None:
    plan = make_plan(batch_size=batch, epochs=epochs)
    whole, rest = list(StepSampler(PHOTOS, plan)), StepSampler(PHOTOS, plan, start)
    assert list(rest) == whole[start:]
    assert len(rest) == len(whole[start:])


def test_few_trusted_photos_are_half_of_an_epoch_and_augmented_anew_each_time(make_plan) -> None:
    steps = list(StepSampler(PHOTOS, make_plan(batch_size=3, epochs=2), trusted=np.array([2, 7])))
    for epoch in (steps[:3], steps[3:]):
        places = [place for step in epoch for place in step]
        rows = [row for _, row, _ in places]
        assert len(rows) == len(ROWS)
        assert sum(row in {2, 7} for row in rows) == 5
        assert len(set(places)) == len(places)  # the number of the draw differs, and with it the augmentation
        assert all(rows.count(row) == 1 for row in set(rows) - {2, 7})


def test_many_trusted_photos_are_drawn_like_all_others(make_plan) -> None:
    plan = make_plan(batch_size=3)
    assert list(StepSampler(PHOTOS, plan, trusted=ROWS[:5])) == list(StepSampler(PHOTOS, plan))


@given(batch=st.integers(2, 9), size=st.integers(1, 3))
def test_processes_share_each_batch(make_plan, batch: int, size: int) -> None:
    plan = make_plan(batch_size=max(batch, size), devices=size)
    whole = list(StepSampler(PHOTOS, plan))
    shares = [list(StepSampler(PHOTOS, plan, rank=rank, size=size)) for rank in range(size)]
    assert [[place for share in step for place in share] for step in zip(*shares, strict=True)] == whole


def test_a_last_batch_of_one_photo_is_left_out(make_plan) -> None:
    def sizes(**values: object) -> list[int]:
        return [len(step) for step in StepSampler(PHOTOS, make_plan(epochs=1, **values))]

    assert sizes(batch_size=4) == [4, 4]
    assert sizes(batch_size=5) == [5, 4]
    assert sizes(batch_size=5, epoch_photos=1) == [1]  # a set of one photo is still trained on


def test_an_epoch_can_be_a_part_of_the_photos(make_plan) -> None:
    steps = list(StepSampler(PHOTOS, make_plan(epoch_photos=4, batch_size=2)))
    assert [len(step) for step in steps] == [2] * 6
    assert len({row for step in steps for _, row, _ in step}) > 4  # another part each time


def test_sampling_draws_rare_classes_as_often(make_plan) -> None:
    plan = make_plan(balance="sampling", class_weights={"disease": (9 / 14, 9 / 4)}, epochs=200, batch_size=9)
    places = [place for step in StepSampler(PHOTOS, plan) for place in step]
    rare = sum(row >= 8 for _, row, _ in places) / len(places)
    assert rare == pytest.approx(0.5, abs=0.05)
    assert len(set(places)) == len(places)  # so that a photo drawn twice is augmented in two ways


def test_evaluation_keeps_order_and_pixels(photos) -> None:
    batches = list(evaluation_loader(photos))
    assert torch.cat([batch["disease"] for batch in batches]).tolist() == photos.labels["disease"][ROWS].tolist()
    assert np.array_equal(torch.cat([batch["image"] for batch in batches]).numpy(), photos.pixels[photos.rows])
    shares = [list(evaluation_loader(photos, rank, 2)) for rank in (0, 1)]
    assert sorted(len(share[0]["image"]) for share in shares) == [4, 5]


def test_workers_change_nothing(make_plan, photos) -> None:
    alone, two = (list(training_loader(photos, make_plan(workers=workers), 1)) for workers in (0, 2))
    assert len(alone) == len(two) == 5
    for a, b in zip(alone, two, strict=True):
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["disease"], b["disease"])


def test_epochs_augment_anew(photos) -> None:
    dataset = PhotoDataset(photos, 0, Augmentation(32, 32, 1))
    assert not torch.equal(dataset[0, 1, 0]["image"], dataset[1, 1, 0]["image"])
    assert not torch.equal(dataset[0, 1, 0]["image"], dataset[0, 1, 1]["image"])
    assert torch.equal(dataset[1, 1, 0]["image"], dataset[1, 1, 0]["image"])


def test_a_signal_to_the_workers_is_not_theirs_to_answer(make_plan, photos) -> None:
    loader = training_loader(photos, make_plan(workers=1, epochs=9))
    batches = iter(loader)
    next(batches)
    for worker in batches._workers:
        os.kill(worker.pid, signal.SIGTERM)
        os.kill(worker.pid, signal.SIGINT)
    assert len(list(batches)) == len(loader) - 1
