"""Decoded photos, once: a memory-mapped file of uint8 pixels, so that later epochs decode no JPEG.

Keyed by the photos' content and the geometry, in the local cache, bounded like it, safe to delete between trainings.
"""

import contextlib
import hashlib
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plantml import images, storage
from plantml.errors import DamagedError, NotFoundError, PlantmlError, StorageError
from plantml.images import Fit, Pixels
from plantml.work import Progress, Stop, in_threads, silent

_PIXELS, _NOTES = ".pixels", ".unreadable"
_UNUSED = 86_400.0
"""Seconds after which a store is taken for unused."""


@dataclass(frozen=True)
class Photo:
    """One photo of a dataset: the hash of its bytes, and where they are."""

    image_id: str
    url: str


class MappedPixels:
    """uint8 pixels [N, H, W, 3] in a file; sent to another process as the file's name alone."""

    def __init__(self, file: Path, shape: tuple[int, int, int, int]) -> None:
        self.file, self.shape = file, shape
        self._array: Pixels | None = None

    def __getitem__(self, rows: Any, /) -> Pixels:
        if self._array is None:
            self._array = np.memmap(self.file, np.uint8, "r", shape=self.shape)
        found: Pixels = self._array[rows]
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return MappedPixels, (self.file, self.shape)


@dataclass(frozen=True)
class PixelStore:
    """Pixels of photos, by their number.

    Attributes:
        pixels: uint8 [N, H, W, 3], in the file.
        unreadable: number and reason of photos that gave no pixels; their rows are not to be used.
    """

    pixels: "MappedPixels"
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
    """Decode all photos to one size, or find them decoded already.

    Args:
        photos: in the order of the store's rows.
        fit: the geometry; `images.decode` makes the pixels.
        folder: where stores are kept.
        cache: for the bytes of remote photos.
        limit: bytes of all stores together; those that nobody used for a day make room for this one.
        threads: photos decoded at the same time.
        progress: called with (done, total) photos.
        stop: asked now and then.

    Raises:
        StorageError: photos cannot be reached, or the disk is full. A photo that is gone, damaged or no picture is
            named in the result.
        StoppedError: a signal asked for the end.
    """
    key = hashlib.sha256(f"{fit}".encode())
    for photo in photos:
        key.update(photo.image_id.encode())
    name = key.hexdigest()
    shape = (len(photos), fit.height, fit.width, 3)
    file, notes = folder / f"{name}{_PIXELS}", folder / f"{name}{_NOTES}"
    if not (notes.exists() and file.exists() and file.stat().st_size == math.prod(shape)):
        folder.mkdir(parents=True, exist_ok=True)
        if limit is not None:
            _make_room(folder, limit - math.prod(shape))
        unreadable, missing = _fill(
            file, photos, fit, cache=cache, threads=threads, progress=progress, stop=stop or Stop()
        )
        if missing:
            notes.unlink(missing_ok=True)  # photos that are not there may be there next time
            return PixelStore(MappedPixels(file, shape), unreadable | missing)
        # Written last: where it is, the pixels are complete.
        storage.write(str(notes), "".join(f"{row}\t{why}\n" for row, why in sorted(unreadable.items())).encode())
    os.utime(notes)
    lines = notes.read_text(encoding="utf-8").splitlines()
    return PixelStore(
        MappedPixels(file, shape), {int(row): why for row, why in (line.split("\t", 1) for line in lines)}
    )


def _fill(
    file: Path,
    photos: Sequence[Photo],
    fit: Fit,
    *,
    cache: storage.Cache | None,
    threads: int,
    progress: Progress,
    stop: Stop,
) -> tuple[dict[int, str], dict[int, str]]:
    """Decode all photos into a new file; number and reason of those that are no pictures, and of those not there."""
    unreadable: dict[int, str] = {}
    missing: dict[int, str] = {}
    shape = (len(photos), fit.height, fit.width, 3)
    with storage.staged(str(file)) as scratch:
        _reserve(scratch, math.prod(shape))
        pixels = np.memmap(scratch, np.uint8, "r+", shape=shape)

        def decode(row: int) -> PlantmlError | None:
            try:
                pixels[row] = images.decode(fetch(photos[row], cache), fit)
            except (images.ImageError, DamagedError, NotFoundError) as error:
                return error
            return None  # that a storage does not answer says nothing of a photo

        for row, error in enumerate(in_threads(decode, range(len(photos)), threads)):
            if error is not None:
                found = missing if isinstance(error, NotFoundError) else unreadable
                found[row] = str(error).replace("\n", " ")
            progress(row + 1, len(photos))
            if stop:
                raise stop.error(
                    f"Training stopped while photos were decoded: {row + 1} of {len(photos)}",
                    "Repeat the same command to start again.",
                )
        pixels.flush()
    return unreadable, missing


def _reserve(file: Path, size: int) -> None:
    """Take the room on the disk now: a mapped file that finds none later ends the process without a word."""
    if not size or not hasattr(os, "posix_fallocate"):
        with file.open("r+b") as handle:
            handle.truncate(size)
        return
    try:
        with file.open("r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, size)
    except OSError as error:
        raise StorageError(
            f"Decoded photos need {size / 1e9:.1f} GB in {file.parent}",
            str(error),
            "Make room, or set PLANTML_CACHE_DIR to a larger disk.",
        ) from error


def _make_room(folder: Path, limit: int) -> None:
    """Remove stores that nobody used for a day, the longest unused first, until so many bytes are left or none."""
    now, kept = time.time(), []
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if file.name.startswith("."):  # of a killed process
                if now - file.stat().st_mtime > _UNUSED:
                    file.unlink()
            elif file.suffix == _PIXELS:
                notes = file.with_suffix(_NOTES)
                used = (notes if notes.exists() else file).stat().st_mtime
                kept.append((used, file.stat().st_size, file))
    size = sum(length for _, length, _ in kept)
    for used, length, file in sorted(kept):
        if size <= limit or now - used < _UNUSED:
            return
        file.with_suffix(_NOTES).unlink(missing_ok=True)
        file.unlink(missing_ok=True)
        size -= length


def fetch(photo: Photo, cache: storage.Cache | None) -> bytes:
    """The bytes of a photo, as its hash says; of a remote one from the cache, if it is there."""
    if cache is not None and not storage.is_local(photo.url):
        return cache.read(photo.image_id, photo.url)
    data = storage.read(photo.url)
    storage.check_sha256(data, photo.image_id, photo.url)
    return data
