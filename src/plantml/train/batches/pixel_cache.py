"""The pixel cache: decoded photos in memory-mapped files, so that later epochs and runs decode no JPEG.

The key of a photo is its content and the geometry, so other runs, folds and dataset versions share it. Photos decoded
together share a file, a segment. Segments are written atomically: a kill loses at most one. They are in the local
cache, bounded like it, and can be deleted when nothing trains.
"""

import contextlib
import functools
import os
import shutil
import time
import uuid
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plantml import imaging, storage
from plantml.concurrency import Progress, Stop, batched, in_threads, silent
from plantml.data.photos import UNREADABLE
from plantml.data.photos import read as read_photo
from plantml.errors import PlantmlError, StorageError
from plantml.imaging import Fit, Pixels

_PIXELS, _PHOTOS = ".pixels", ".photos"
_SEGMENT = 256 * 2**20
"""Largest size of a segment in bytes: about half a minute of decoding, which is what a kill can lose."""

_REMOTE_THREADS = 16
"""Threads for remote photos: most of them wait for the network."""

_OPEN = 64
"""Segments mapped at the same time; each keeps a file open."""

_UNUSED = 86_400.0
"""Seconds without use after which a segment may be removed."""


@dataclass(frozen=True)
class Photo:
    """A photo of a dataset: the hash of its bytes, and their URL."""

    image_id: str
    url: str


class MappedPixels:
    """uint8 pixels [N, H, W, 3] in segments; pickled as file names and indices.

    Args:
        files: the segments.
        positions: index of the file and row in it, int32 [N, 2]; -1 for an unreadable photo, which is black.
        size: height and width, pixels.
    """

    def __init__(self, files: Sequence[Path], positions: NDArray[np.int32], size: tuple[int, int]) -> None:
        self.files, self.positions, self.size = files, positions, size
        self.shape = (len(positions), *size, 3)
        self._mapped = functools.lru_cache(maxsize=_OPEN)(self._map)

    def __getitem__(self, rows: Any, /) -> Pixels:
        positions = self.positions[rows]
        if positions.ndim == 1:
            return self._one(*positions.tolist())
        pixels = np.empty((len(positions), *self.size, 3), np.uint8)
        for number, (file, row) in enumerate(positions.tolist()):
            pixels[number] = self._one(file, row)
        return pixels

    def __reduce__(self) -> tuple[Any, ...]:
        return MappedPixels, (self.files, self.positions, self.size)

    def _one(self, file: int, row: int) -> Pixels:
        return self._mapped(file)[row] if file >= 0 else np.zeros((*self.size, 3), np.uint8)

    def _map(self, number: int) -> Pixels:
        file = self.files[number]
        _touch(file)
        try:
            return np.memmap(file, np.uint8, "r").reshape(-1, *self.size, 3)
        except FileNotFoundError as error:
            raise StorageError(
                f"{file} is gone", "something removed it during training", "Repeat the same command to resume."
            ) from error


@dataclass(frozen=True)
class PixelStore:
    """Pixels of photos by index.

    Attributes:
        pixels: uint8 [N, H, W, 3], memory-mapped.
        unreadable: reason by index for photos without pixels; do not use their rows.
    """

    pixels: MappedPixels
    unreadable: dict[int, str]


def build(
    photos: Sequence[Photo],
    fit: Fit,
    folder: Path,
    *,
    cache: storage.Cache | None = None,
    limit: int | None = None,
    threads: int = 2,
    progress: Progress = silent,
    stop: Stop | None = None,
) -> PixelStore:
    """Decode photos to one size, except those that are in the cache.

    Args:
        photos: give the order of the result's rows.
        fit: the geometry; `imaging.decode` makes the pixels.
        folder: of the segments.
        cache: of the bytes of remote photos.
        limit: bytes of all segments; beyond it, segments not used for a day are removed.
        threads: photos decoded in parallel.
        progress: called with (done, total) photos.
        stop: checked after each photo.

    Raises:
        StorageError: photos cannot be reached, or the disk is full. Missing, damaged and undecodable photos are
            listed in the result instead.
        StoppedError: a signal stopped it.
    """
    segment_folder = folder / f"{fit.height}x{fit.width}-{fit.mode}"
    copies: dict[str, list[Photo]] = {}
    for photo in photos:
        copies.setdefault(photo.image_id, []).append(photo)
    segments = _existing_segments(segment_folder, fit, copies)
    decoded = {image_id for segment in segments for image_id in segment.rows}
    todo = [same for image_id, same in copies.items() if image_id not in decoded]
    if todo:
        storage.make_folder(segment_folder)
        _make_room(folder, len(todo) * _size(fit), limit)
        decoder = _Decoder(fit, segment_folder, cache, threads, progress, stop or Stop())
        segments += decoder.decode(todo, len(copies))
    return _joined(photos, fit, segments)


@dataclass(frozen=True)
class _Segment:
    """Photos that share a file.

    Attributes:
        file: the pixels.
        rows: row of each photo in the file, by `image_id`.
        unreadable: reason by `image_id` for photos without pixels. Not saved: next time the photo may be there, or
            a library that reads it.
    """

    file: Path
    rows: Mapping[str, int]
    unreadable: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, index: Path, fit: Fit, image_ids: Container[str]) -> "_Segment | None":
        """The rows of a segment that are in `image_ids`; None if there are none, or the segment is incomplete."""
        file = index.with_suffix(_PIXELS)
        try:
            lines = index.read_text(encoding="ascii").split("\n")
            if file.stat().st_size != len(lines) * _size(fit):
                return None
        except (FileNotFoundError, ValueError):
            return None
        rows = {image_id: row for row, image_id in enumerate(lines) if image_id in image_ids}
        return cls(file, rows) if rows else None

    def write_index(self, length: int) -> None:
        """List the photos of the file. Written last: where the index is, the pixels are complete."""
        lines = [""] * length
        for image_id, row in self.rows.items():
            lines[row] = image_id
        storage.write(str(self.file.with_suffix(_PHOTOS)), "\n".join(lines).encode())


@dataclass(frozen=True)
class _Decoder:
    """Decodes photos into segments; see `build`."""

    fit: Fit
    folder: Path
    cache: storage.Cache | None
    threads: int
    progress: Progress
    stop: Stop

    def decode(self, todo: Sequence[Sequence[Photo]], total: int) -> list[_Segment]:
        """Write new segments. `todo`: photos to decode of `total`, each with all its copies."""
        segments, done = [], total - len(todo)
        for batch in batched(todo, max(1, _SEGMENT // _size(self.fit))):
            segments.append(self._segment(batch, done, total))
            done += len(batch)
        return segments

    def _segment(self, todo: Sequence[Sequence[Photo]], done: int, total: int) -> _Segment:
        # A unique name, so that no two processes write the same file.
        file = self.folder / f"{uuid.uuid4().hex}{_PIXELS}"
        unreadable: dict[str, str] = {}
        with storage.staged(str(file)) as scratch:
            _reserve(scratch, len(todo) * _size(self.fit))
            pixels = np.memmap(scratch, np.uint8, "r+", shape=(len(todo), self.fit.height, self.fit.width, 3))

            def decode(row: int) -> PlantmlError | None:
                first: PlantmlError | None = None
                for photo in todo[row]:
                    try:
                        pixels[row] = imaging.decode(fetch(photo, self.cache), self.fit)
                    except UNREADABLE as error:
                        first = first or error
                    else:
                        return None
                return first  # errors of the storage are raised: they say nothing about the photo

            remote = any(not storage.is_local(photo.url) for same in todo for photo in same)
            threads = max(self.threads, _REMOTE_THREADS) if remote else self.threads
            for row, error in enumerate(in_threads(decode, range(len(todo)), threads)):
                if error is not None:
                    unreadable[todo[row][0].image_id] = " ".join(str(error).split())
                self.progress(done + row + 1, total)
                if self.stop:
                    raise self.stop.error(
                        f"Training stopped while decoding photos: {done + row + 1} of {total}",
                        "Repeat the same command to resume.",
                    )
            pixels.flush()
        ids = [same[0].image_id for same in todo]
        segment = _Segment(file, {i: row for row, i in enumerate(ids) if i not in unreadable}, unreadable)
        if segment.rows:
            segment.write_index(len(ids))
        else:
            file.unlink()
        return segment


def _existing_segments(folder: Path, fit: Fit, image_ids: Container[str]) -> list[_Segment]:
    """The segments that hold any of the photos. They are marked as used."""
    segments = []
    for index in sorted(folder.glob(f"*{_PHOTOS}")):
        segment = _Segment.open(index, fit, image_ids)
        if segment:
            _touch(segment.file)
            segments.append(segment)
    return segments


def _joined(photos: Sequence[Photo], fit: Fit, segments: Sequence[_Segment]) -> PixelStore:
    """The photos in their order, from all segments."""
    locations: dict[str, tuple[int, int]] = {}
    unreadable: dict[str, str] = {}
    for number, segment in enumerate(segments):
        unreadable |= segment.unreadable
        locations |= {image_id: (number, row) for image_id, row in segment.rows.items()}
    missing = (-1, -1)
    positions = np.array([locations.get(photo.image_id, missing) for photo in photos], np.int32).reshape(-1, 2)
    reasons = {row: unreadable[photo.image_id] for row, photo in enumerate(photos) if photo.image_id in unreadable}
    return PixelStore(MappedPixels([segment.file for segment in segments], positions, (fit.height, fit.width)), reasons)


def _touch(file: Path) -> None:
    """Mark a segment as used."""
    with contextlib.suppress(OSError):  # it may belong to another user
        os.utime(file.with_suffix(_PHOTOS))


def _size(fit: Fit) -> int:
    """Size of a photo's pixels in bytes."""
    return fit.height * fit.width * 3


def _reserve(file: Path, size: int) -> None:
    """Allocate the file on disk now: a memory-mapped file on a full disk kills the process without a message."""
    if not hasattr(os, "posix_fallocate"):
        with file.open("r+b") as handle:
            handle.truncate(size)
        return
    try:
        with file.open("r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, size)
    except OSError as error:
        raise _full(file.parent, size, str(error)) from error


def _make_room(folder: Path, needed: int, limit: int | None) -> None:
    """Remove segments not used for a day, least recently used first, until `needed` bytes fit.

    Raises:
        StorageError: the disk is too full, which is better known before hours of decoding.
    """
    now, segments = time.time(), []
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if file.name.startswith("."):  # left by a killed process
                if now - file.stat().st_mtime > _UNUSED:
                    file.unlink()
            elif file.suffix == _PIXELS:
                index = file.with_suffix(_PHOTOS)
                used = (index if index.exists() else file).stat().st_mtime
                segments.append((used, file.stat().st_size, file))
    size = sum(length for _, length, _ in segments)
    for used, length, file in sorted(segments):
        if now - used < _UNUSED or limit is None or size + needed <= limit:
            break
        file.with_suffix(_PHOTOS).unlink(missing_ok=True)
        file.unlink(missing_ok=True)
        size -= length
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise _full(folder, needed, f"{free / 1e9:.1f} GB are free")


def _full(folder: Path, needed: int, why: str) -> StorageError:
    return StorageError(
        f"Decoded photos need {needed / 1e9:.1f} GB in {folder}",
        why,
        "Free some space, or set PLANTML_CACHE_DIR to a folder on a larger disk.",
    )


def fetch(photo: Photo, cache: storage.Cache | None) -> bytes:
    """Read a photo; see `photos.read`."""
    return read_photo(photo.image_id, photo.url, cache)
