"""Embeddings that take long to compute, saved in segments: a kill loses at most the current segment."""

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
"""Names of the segment files."""


@dataclass(frozen=True)
class EmbeddingStore:
    """A local folder of embeddings.

    Attributes:
        folder: local folder of the checkpoints.
        every: longest time between two segments in seconds, as far as batches allow.
        on_save: called when a segment is complete.
        writes: false in a process that computes the same embeddings as the one that writes them.
    """

    folder: Path
    every: float
    on_save: Callable[[], None]
    writes: bool = True

    def open(self, name: str, content: bytes) -> "StoredEmbeddings":
        """The embeddings with this name and content, as far as they are saved already."""
        return StoredEmbeddings(self, f"embeddings-{name}-{hashlib.sha256(content).hexdigest()[:16]}")


class StoredEmbeddings:
    """Embeddings, float32, in the order in which they are added."""

    def __init__(self, store: EmbeddingStore, name: str) -> None:
        self._store, self._name = store, name
        self._all = _read_segments(store.folder, name)
        self._saved, self._count = len(self._all), sum(map(len, self._all))
        self._last_save = time.monotonic()

    def __len__(self) -> int:
        return self._count

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Append embeddings [N, D]."""
        self._all.append(vectors)
        self._count += len(vectors)
        if time.monotonic() - self._last_save >= self._store.every:
            self.save()

    def save(self) -> None:
        """Write what was added since the last save as a segment."""
        self._last_save = time.monotonic()
        if not self._store.writes or self._saved == len(self._all):
            return
        for partial in self._store.folder.glob(".embeddings-*.part"):
            partial.unlink(missing_ok=True)  # left by a killed write
        buffer = io.BytesIO()
        np.save(buffer, np.concatenate(self._all[self._saved :]))
        storage.write(str(self._store.folder / f"{self._name}-{len(self):09d}.npy"), buffer.getvalue(), durable=True)
        self._saved = len(self._all)
        self._store.on_save()

    def vectors(self) -> NDArray[np.float32]:
        """All embeddings, [N, D]."""
        return np.concatenate(self._all)


def _read_segments(folder: Path, name: str) -> list[NDArray[np.float32]]:
    """Consecutive segments from the first row; a segment's name holds the number of rows up to its end.

    Two machines may have saved different ones, and one may be damaged: what does not fit is skipped.
    """
    segments: list[NDArray[np.float32]] = []
    for file in sorted(folder.glob(f"{name}-*.npy")):
        try:
            segment = np.load(file)
        except (OSError, EOFError, ValueError):
            continue
        if int(file.stem.rpartition("-")[2]) == sum(map(len, segments)) + len(segment):
            segments.append(segment)
    return segments
