"""Batches: photos and encoded labels, in an order that is a function of seed and step."""

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
from plantml.train.augment import Training, seed_for
from plantml.train.plan import Plan

Batch = dict[str, Tensor]
"""`image` uint8 [N, H, W, 3]; by target name the encoded labels (see `Target.encode`)."""

Place = tuple[int, int, int]
"""Epoch, row, and how often the row came before in this epoch."""

_JUDGED = 32
"""Photos a batch when nothing is learned from them."""


class PixelSource(Protocol):
    """Pixels by row: an array, or one that is mapped from a file."""

    def __getitem__(self, rows: Any, /) -> Pixels: ...


@dataclass(frozen=True)
class Photos:
    """The photos of one split, decoded, with their labels.

    Attributes:
        pixels: uint8 [N, H, W, 3].
        keys: a number for each photo that follows from its content.
        labels: by target name, encoded, one row a photo.
        rows: numbers of the photos that can be used.
    """

    pixels: PixelSource
    keys: NDArray[np.uint64]
    labels: dict[str, NDArray[Any]]
    rows: NDArray[np.int64]


class PhotoDataset(Dataset[Batch]):
    """Photos for a loader, which augments each anew in every epoch."""

    def __init__(self, photos: Photos, seed: int, augment: Training | None) -> None:
        self.photos, self.seed, self.augment = photos, seed, augment

    def __getitem__(self, place: Place) -> Batch:
        epoch, row, again = place
        pixels = self.photos.pixels[row]
        if self.augment is not None:
            pixels = self.augment(pixels, seed_for(self.seed, epoch, int(self.photos.keys[row]) + again))
        item = {name: torch.as_tensor(labels[row]) for name, labels in self.photos.labels.items()}
        return {"image": torch.from_numpy(np.array(pixels)), **item}


class Steps(Sampler[list[Place]]):
    """The batches of all epochs one after the other, from any step on.

    One stream instead of a loader an epoch: what was done before an interruption is never drawn, and there is
    nothing between two epochs that a resume could lose or repeat.

    Args:
        photos: to draw from.
        plan: order, batches and epochs follow from it.
        start: steps that are done already.
        epochs: in all.
        rank: of this process, which takes its share of each batch.
        size: processes that train together.
    """

    def __init__(
        self, photos: Photos, plan: Plan, start: int = 0, epochs: int | None = None, *, rank: int = 0, size: int = 1
    ) -> None:
        self.plan, self.start, self.rank, self.size = plan, start, rank, size
        self.steps = plan.epoch_steps * (plan.epochs if epochs is None else epochs)
        self._rows = photos.rows
        self._chances = _chances(photos, plan) if plan.balance == "sampling" else None

    def __len__(self) -> int:
        return max(0, self.steps - self.start)

    def __iter__(self) -> Iterator[list[Place]]:
        order, known, batch = np.empty(0, np.int64), -1, self.plan.batch_size
        for step in range(self.start, self.steps):
            epoch, place = divmod(step, self.plan.epoch_steps)
            if epoch != known:
                order, known = self._order(epoch), epoch
            mine = np.array_split(order[place * batch : (place + 1) * batch], self.size)[self.rank]
            yield [(epoch, int(row), int(again)) for row, again in mine]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """Rows of an epoch and how often each came before: [photos, 2]."""
        random, photos = np.random.default_rng([self.plan.seed, epoch]), self.plan.epoch_photos
        if self._chances is None:
            rows = random.permutation(self._rows)[:photos]
            return np.stack([rows, np.zeros_like(rows)], axis=1)
        rows = random.choice(self._rows, min(photos, len(self._rows)), p=self._chances)
        seen: dict[int, int] = {}
        again = np.zeros_like(rows)
        for place, row in enumerate(rows.tolist()):
            again[place] = seen.get(row, 0)
            seen[row] = again[place] + 1
        return np.stack([rows, again], axis=1)


def augmentation(plan: Plan) -> Training:
    """How a plan changes photos before each step."""
    return Training(plan.input.height, plan.input.width, plan.augment)


def training_loader(
    photos: Photos, plan: Plan, start: int = 0, epochs: int | None = None, *, rank: int = 0, size: int = 1
) -> DataLoader[Batch]:
    """Augmented batches of a plan, from a step on; see `Steps`."""
    return DataLoader(
        PhotoDataset(photos, plan.seed, augmentation(plan)),
        batch_sampler=Steps(photos, plan, start, epochs, rank=rank, size=size),
        num_workers=plan.workers,
        # Forked workers deadlock on the locks of storage clients; spawned ones start clean.
        multiprocessing_context="spawn" if plan.workers else None,
        worker_init_fn=_left_alone,
    )


def _left_alone(_: int) -> None:
    """Signals to the whole process group are the training's to answer, which ends its workers when it is ready."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def evaluation_loader(photos: Photos, rank: int = 0, size: int = 1) -> DataLoader[Batch]:
    """This process's share of the photos, exactly as detection sees them."""
    places = [(0, int(row), 0) for row in photos.rows[rank::size]]
    return DataLoader(PhotoDataset(photos, 0, None), _JUDGED, sampler=places)


def _chances(photos: Photos, plan: Plan) -> NDArray[np.float64]:
    """How likely each usable row is drawn: by the mean weight of its classes over the targets."""
    found = []
    for name, weights in plan.class_weights.items():
        labels = photos.labels[name][photos.rows]
        found.append(np.where(labels >= 0, np.asarray(weights)[np.maximum(labels, 0)], 1.0))
    mean = np.mean(found, axis=0) if found else np.ones(len(photos.rows))
    return np.asarray(mean / mean.sum(), np.float64)
