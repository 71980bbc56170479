"""Batches of photos and encoded labels, in an order that depends on seed and step only."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from plantml.imaging import Pixels
from plantml.train.batches.augment import Augmentation, seed_for
from plantml.train.plan import Plan

Batch = dict[str, Tensor]
"""`image` uint8 [N, H, W, 3]; by target name the encoded labels (see `Target.encode`); covariates, if there are any,
under `covariates.COVARIATES`."""

Sample = tuple[int, int, int]
"""Epoch, row, and how many times this epoch has drawn the row before."""

_EVALUATION_BATCH = 32
"""Batch size without gradients."""


class PixelSource(Protocol):
    """Pixels by row: an array, in memory or memory-mapped."""

    def __getitem__(self, rows: Any, /) -> Pixels: ...


class Drawable(Protocol):
    """Photos that a batch is drawn from; see `Photos`."""

    @property
    def keys(self) -> NDArray[np.uint64]:
        """See `Photos.keys`."""
        ...

    @property
    def rows(self) -> NDArray[np.int64]:
        """See `Photos.rows`."""
        ...


@dataclass(frozen=True)
class Photos:
    """The photos of one split, decoded, with their labels.

    Attributes:
        pixels: uint8 [N, H, W, 3].
        keys: a number per photo, derived from its content.
        labels: by target name, encoded, one row per photo; covariates under `covariates.COVARIATES`.
        rows: indices of the readable photos.
    """

    pixels: PixelSource
    keys: NDArray[np.uint64]
    labels: dict[str, NDArray[Any]]
    rows: NDArray[np.int64]


class PhotoDataset(Dataset[Batch]):
    """Photos for a loader, augmented differently in every epoch."""

    def __init__(self, photos: Photos, seed: int, augment: Augmentation | None) -> None:
        self.photos, self.seed, self.augment = photos, seed, augment

    def __getitem__(self, sample: Sample) -> Batch:
        epoch, row, repetition = sample
        pixels = self.photos.pixels[row]
        if self.augment is not None:
            pixels = self.augment(pixels, seed_for(self.seed, epoch, int(self.photos.keys[row]) + repetition))
        item = {name: torch.as_tensor(labels[row]) for name, labels in self.photos.labels.items()}
        return {"image": torch.from_numpy(np.array(pixels)), **item}


class StepSampler(Sampler[list[Sample]]):
    """The batches of all remaining epochs, from a given step.

    One stream instead of one loader per epoch: a resumed training draws nothing twice, and there is
    no state between two epochs that a resume could lose or repeat.

    Args:
        photos: to draw from.
        plan: gives order, batch size and epochs.
        start: steps already done.
        epochs: in total; those of the plan if None.
        rank: of this process, which draws its share of each batch.
        size: number of processes that train together.
        trusted: rows that are drawn as often as all others together, where there are fewer of them.
    """

    def __init__(
        self,
        photos: Drawable,
        plan: Plan,
        start: int = 0,
        epochs: int | None = None,
        *,
        rank: int = 0,
        size: int = 1,
        trusted: NDArray[np.int64] | None = None,
    ) -> None:
        self.plan, self.start, self.rank, self.size = plan, start, rank, size
        self.steps = plan.epoch_steps * (plan.epochs if epochs is None else epochs)
        self._rows = photos.rows
        self._trusted = photos.rows if trusted is None else trusted
        self._others = np.setdiff1d(photos.rows, self._trusted)
        # The boxes of a photo have many classes, which no choice of photos balances: their losses are weighted.
        self._probabilities = None
        if isinstance(photos, Photos) and plan.balance == "sampling":
            self._probabilities = _probabilities(photos, plan)

    def __len__(self) -> int:
        return max(0, self.steps - self.start)

    def __iter__(self) -> Iterator[list[Sample]]:
        order, current, batch = np.empty(0, np.int64), -1, self.plan.batch_size
        for step in range(self.start, self.steps):
            epoch, position = divmod(step, self.plan.epoch_steps)
            if epoch != current:
                order, current = self._order(epoch), epoch
            share = np.array_split(order[position * batch : (position + 1) * batch], self.size)[self.rank]
            yield [(epoch, int(row), int(repetition)) for row, repetition in share]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """Rows of an epoch, and how many times each was drawn before: [photos, 2]."""
        random, photos = np.random.default_rng([self.plan.seed, epoch]), min(self.plan.epoch_photos, len(self._rows))
        if self._probabilities is not None:
            rows = random.choice(self._rows, photos, p=self._probabilities)
        elif len(self._trusted) < len(self._others):
            half = photos // 2
            often = np.resize(random.permutation(self._trusted), photos - half)
            rows = random.permutation(np.concatenate([often, random.permutation(self._others)[:half]]))
        else:
            rows = random.permutation(self._rows)[:photos]
        draws: dict[int, int] = {}
        repetitions = np.zeros_like(rows)
        for position, row in enumerate(rows.tolist()):
            repetitions[position] = draws.get(row, 0)
            draws[row] = repetitions[position] + 1
        return np.stack([rows, repetitions], axis=1)


def augmentation(plan: Plan) -> Augmentation:
    """The augmentation of a plan."""
    return Augmentation(plan.input.height, plan.input.width, plan.augment, plan.background)


def training_loader(
    photos: Photos, plan: Plan, start: int = 0, epochs: int | None = None, *, rank: int = 0, size: int = 1
) -> DataLoader[Batch]:
    """Augmented batches of a plan, from step `start`; see `StepSampler`."""
    sampler = StepSampler(photos, plan, start, epochs, rank=rank, size=size)
    return step_loader(PhotoDataset(photos, plan.seed, augmentation(plan)), sampler, plan)


def step_loader(dataset: Dataset[Batch], sampler: StepSampler, plan: Plan) -> DataLoader[Batch]:
    """The batches of a sampler, made by the workers of a plan."""
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=plan.workers,
        # Forked workers deadlock on the locks of storage clients; spawned ones start clean.
        multiprocessing_context="spawn" if plan.workers else None,
        worker_init_fn=_ignore_signals,
    )


def _ignore_signals(_: int) -> None:
    """Leave signals sent to the whole process group to the training process, which ends its workers itself."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def evaluation_loader(photos: Photos, rank: int = 0, size: int = 1) -> DataLoader[Batch]:
    """This process's share of the photos, preprocessed exactly as in detection."""
    samples = [(0, int(row), 0) for row in photos.rows[rank::size]]
    return DataLoader(PhotoDataset(photos, 0, None), _EVALUATION_BATCH, sampler=samples)


def _probabilities(photos: Photos, plan: Plan) -> NDArray[np.float64]:
    """The probability of drawing each readable row: proportional to the mean weight of its classes."""
    factors = []
    for name, weights in plan.class_weights.items():
        labels = photos.labels[name][photos.rows]
        factors.append(np.where(labels >= 0, np.asarray(weights)[np.maximum(labels, 0)], 1.0))
    mean = np.mean(factors, axis=0) if factors else np.ones(len(photos.rows))
    return np.asarray(mean / mean.sum(), np.float64)
