"""Batches: photos and encoded labels, in an order that is a function of seed and epoch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from plantml.images import Pixels
from plantml.train.augment import Training, seed_for

Batch = dict[str, Tensor]
"""`image` uint8 [N, H, W, 3]; by target name the encoded labels (see `Target.encode`)."""


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
    """Photos for a loader; indices are (epoch, row), so that each epoch augments anew."""

    def __init__(self, photos: Photos, seed: int, augment: Training | None) -> None:
        self.photos, self.seed, self.augment = photos, seed, augment

    def __getitem__(self, index: tuple[int, int]) -> Batch:
        epoch, row = index
        pixels = self.photos.pixels[row]
        if self.augment is not None:
            pixels = self.augment(pixels, seed_for(self.seed, epoch, int(self.photos.keys[row])))
        item = {name: torch.as_tensor(labels[row]) for name, labels in self.photos.labels.items()}
        return {"image": torch.from_numpy(np.array(pixels)), **item}


class EpochSampler(Sampler[tuple[int, int]]):
    """Rows in an order that depends on seed and epoch alone; Lightning tells it the epoch."""

    def __init__(self, rows: NDArray[np.int64], seed: int, *, shuffle: bool) -> None:
        self.rows, self.seed, self.shuffle, self.epoch = rows, seed, shuffle, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.rows) if self.shuffle else self.rows
        return ((self.epoch, int(row)) for row in order)


def training_loader(photos: Photos, augment: Training, batch_size: int, seed: int, workers: int) -> DataLoader[Batch]:
    """Shuffled, augmented batches. The last, smaller batch is left out if it could upset batch statistics."""
    return DataLoader(
        PhotoDataset(photos, seed, augment),
        batch_size,
        sampler=EpochSampler(photos.rows, seed, shuffle=True),
        num_workers=workers,
        drop_last=len(photos.rows) % batch_size < 2 <= len(photos.rows),
        persistent_workers=workers > 0,
        # Forked workers deadlock on the locks of storage clients; spawned ones start clean.
        multiprocessing_context="spawn" if workers else None,
    )


def evaluation_loader(photos: Photos, batch_size: int) -> DataLoader[Batch]:
    """All photos in order, exactly as detection sees them."""
    dataset = PhotoDataset(photos, 0, None)
    return DataLoader(dataset, batch_size, sampler=EpochSampler(photos.rows, 0, shuffle=False))
