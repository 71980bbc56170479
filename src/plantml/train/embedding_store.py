"""Embeddings that take long to compute, kept in parts while they are made: a kill loses the part under way."""

import hashlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plantml import storage

PATTERN = "embeddings-*.npy"
"""Names of the files."""


@dataclass(frozen=True)
class EmbeddingStore:
    """Where parts are kept.

    Attributes:
        folder: of the checkpoints, on this machine.
        every: seconds between two parts at most, as far as batches allow.
        saved: called when a part is complete.
        writes: false in a process that only helps another one, which writes the same.
    """

    folder: Path
    every: float
    saved: Callable[[], None]
    writes: bool = True

    def of(self, what: str, content: bytes) -> "StoredEmbeddings":
        """Embeddings of something, told from others by its name and content; what was kept of them is there."""
        return StoredEmbeddings(self, f"embeddings-{what}-{hashlib.sha256(content).hexdigest()[:16]}")


class StoredEmbeddings:
    """Embeddings of one kind, float32, in the order in which they are added."""

    def __init__(self, parts: EmbeddingStore, name: str) -> None:
        self._parts, self._name = parts, name
        self._all = _found(parts.folder, name)
        self._kept, self._count = len(self._all), sum(map(len, self._all))
        self._since = time.monotonic()

    def __len__(self) -> int:
        return self._count

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Put embeddings [N, D] behind those that are there."""
        self._all.append(vectors)
        self._count += len(vectors)
        if time.monotonic() - self._since >= self._parts.every:
            self.keep()

    def keep(self) -> None:
        """Write down what came since the last time."""
        self._since = time.monotonic()
        if not self._parts.writes or self._kept == len(self._all):
            return
        for scratch in self._parts.folder.glob(".embeddings-*.part"):
            scratch.unlink(missing_ok=True)  # of a write that was killed
        data = io.BytesIO()
        np.save(data, np.concatenate(self._all[self._kept :]))
        storage.write(str(self._parts.folder / f"{self._name}-{len(self):09d}.npy"), data.getvalue(), durable=True)
        self._kept = len(self._all)
        self._parts.saved()

    def vectors(self) -> NDArray[np.float32]:
        """All of them: [N, D]."""
        return np.concatenate(self._all)


def _found(folder: Path, name: str) -> list[NDArray[np.float32]]:
    """EmbeddingStore that follow each other from the first row on, each named by the number of rows with it.

    Two machines may have kept different ones, and one may be damaged: the longest row that fits is taken.
    """
    parts: list[NDArray[np.float32]] = []
    for file in sorted(folder.glob(f"{name}-*.npy")):
        try:
            part = np.load(file)
        except (OSError, EOFError, ValueError):
            continue
        if int(file.stem.rpartition("-")[2]) == sum(map(len, parts)) + len(part):
            parts.append(part)
    return parts
