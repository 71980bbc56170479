"""Decoded photos, once: a memory-mapped file of uint8 pixels, so that later epochs decode no JPEG.

Keyed by the photos' content and the geometry, in the local cache, safe to delete.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plantml import images, storage
from plantml.errors import PlantmlError
from plantml.images import Fit, Pixels
from plantml.work import Progress, in_threads, silent


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
    threads: int = 2,
    progress: Progress = silent,
) -> PixelStore:
    """Decode all photos to one size, or find them decoded already.

    Args:
        photos: in the order of the store's rows.
        fit: the geometry; `images.decode` makes the pixels.
        folder: where stores are kept.
        cache: for the bytes of remote photos.
        threads: photos decoded at the same time.
        progress: called with (done, total) photos.
    """
    key = hashlib.sha256(f"{fit}".encode())
    for photo in photos:
        key.update(photo.image_id.encode())
    name = key.hexdigest()
    shape = (len(photos), fit.height, fit.width, 3)
    file, notes = folder / f"{name}.pixels", folder / f"{name}.unreadable"
    if not notes.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unreadable = _fill(file, photos, fit, cache=cache, threads=threads, progress=progress)
        # Written last: where it is, the pixels are complete.
        storage.write(str(notes), "".join(f"{row}\t{why}\n" for row, why in sorted(unreadable.items())).encode())
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
) -> dict[int, str]:
    """Decode all photos into a new file; number and reason of those that gave no pixels."""
    unreadable: dict[int, str] = {}
    with storage.staged(str(file)) as scratch:
        pixels = np.memmap(scratch, np.uint8, "w+", shape=(len(photos), fit.height, fit.width, 3))

        def decode(row: int) -> str | None:
            try:
                pixels[row] = images.decode(fetch(photos[row], cache), fit)
            except PlantmlError as error:
                return str(error).replace("\n", " ")
            return None

        for row, why in enumerate(in_threads(decode, range(len(photos)), threads)):
            if why is not None:
                unreadable[row] = why
            progress(row + 1, len(photos))
        pixels.flush()
    return unreadable


def fetch(photo: Photo, cache: storage.Cache | None) -> bytes:
    """The bytes of a photo, as its hash says; of a remote one from the cache, if it is there."""
    if cache is not None and not storage.is_local(photo.url):
        return cache.read(photo.image_id, photo.url)
    data = storage.read(photo.url)
    storage.check_sha256(data, photo.image_id, photo.url)
    return data
