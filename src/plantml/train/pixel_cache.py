"""Decoded photos, once: files of uint8 pixels, mapped into memory, so that later epochs and runs decode no JPEG.

A photo is known by its content and the geometry. Photos that were decoded together share a file, a segment, and
whoever needs one of them finds it there: another run, a fold, the next version of the dataset. A segment is complete
or not there, so that a kill loses one at most. All lie in the local cache, bounded like it, safe to delete between
trainings.
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
from plantml.errors import DamagedError, NotFoundError, PlantmlError, StorageError
from plantml.imaging import Fit, Pixels

_PIXELS, _PHOTOS = ".pixels", ".photos"
_SEGMENT = 256 * 2**20
"""Bytes of a segment at most: half a minute of decoding is the most that a kill can lose."""

_FAR_THREADS = 16
"""Photos under way where their bytes come over a network: most of them wait for it."""

_OPEN = 64
"""Segments mapped at the same time: each holds a file open."""

_UNUSED = 86_400.0
"""Seconds after which a segment is taken for unused."""


@dataclass(frozen=True)
class Photo:
    """One photo of a dataset: the hash of its bytes, and where they are."""

    image_id: str
    url: str


class MappedPixels:
    """uint8 pixels [N, H, W, 3] in files; sent to another process as names and numbers alone.

    Args:
        files: the segments.
        places: number of the file and row in it, int32 [N, 2]; a photo without pixels has -1 and is all black.
        size: height and width, pixels.
    """

    def __init__(self, files: Sequence[Path], places: NDArray[np.int32], size: tuple[int, int]) -> None:
        self.files, self.places, self.size = files, places, size
        self.shape = (len(places), *size, 3)
        self._mapped = functools.lru_cache(maxsize=_OPEN)(self._map)

    def __getitem__(self, rows: Any, /) -> Pixels:
        places = self.places[rows]
        if places.ndim == 1:
            return self._one(*places.tolist())
        found = np.empty((len(places), *self.size, 3), np.uint8)
        for number, (file, row) in enumerate(places.tolist()):
            found[number] = self._one(file, row)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return MappedPixels, (self.files, self.places, self.size)

    def _one(self, file: int, row: int) -> Pixels:
        return self._mapped(file)[row] if file >= 0 else np.zeros((*self.size, 3), np.uint8)

    def _map(self, number: int) -> Pixels:
        file = self.files[number]
        _touch(file)
        try:
            return np.memmap(file, np.uint8, "r").reshape(-1, *self.size, 3)
        except FileNotFoundError as error:
            raise StorageError(
                f"{file} is gone", "somebody removed it while it was used", "Repeat the same command to go on."
            ) from error


@dataclass(frozen=True)
class PixelStore:
    """Pixels of photos, by their number.

    Attributes:
        pixels: uint8 [N, H, W, 3], in files.
        unreadable: number and reason of photos that gave no pixels; their rows are not to be used.
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
    """Decode photos to one size, as far as they are not decoded already.

    Args:
        photos: in the order of the store's rows.
        fit: the geometry; `imaging.decode` makes the pixels.
        folder: where segments are kept.
        cache: for the bytes of remote photos.
        limit: bytes of all segments together; those that nobody used for a day make room for new ones.
        threads: photos decoded at the same time.
        progress: called with (done, total) photos.
        stop: asked now and then.

    Raises:
        StorageError: photos cannot be reached, or the disk is full. A photo that is gone, damaged or no picture is
            named in the result.
        StoppedError: a signal asked for the end.
    """
    place = folder / f"{fit.height}x{fit.width}-{fit.mode}"
    copies: dict[str, list[Photo]] = {}
    for photo in photos:
        copies.setdefault(photo.image_id, []).append(photo)
    segments = _known(place, fit, copies)
    known = {image_id for segment in segments for image_id in segment.rows}
    todo = [same for image_id, same in copies.items() if image_id not in known]
    if todo:
        storage.make_folder(place)
        _make_room(folder, len(todo) * _size(fit), limit)
        work = _Decoding(fit, place, cache, threads, progress, stop or Stop())
        segments += work.decode(todo, len(copies))
    return _joined(photos, fit, segments)


@dataclass(frozen=True)
class _Segment:
    """Photos that share a file.

    Attributes:
        file: the pixels.
        rows: where in the file each photo is, by `image_id`.
        unreadable: reasons of photos that gave no pixels, by `image_id`. Not kept: next time a photo may be there, or
            a library that reads it.
    """

    file: Path
    rows: Mapping[str, int]
    unreadable: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def found(cls, notes: Path, fit: Fit, wanted: Container[str]) -> "_Segment | None":
        """What is wanted of the segment that a table is about; none if that is nothing, or it is not whole."""
        file = notes.with_suffix(_PIXELS)
        try:
            lines = notes.read_text(encoding="ascii").split("\n")
            if file.stat().st_size != len(lines) * _size(fit):
                return None
        except (FileNotFoundError, ValueError):
            return None
        rows = {image_id: row for row, image_id in enumerate(lines) if image_id in wanted}
        return cls(file, rows) if rows else None

    def keep(self, length: int) -> None:
        """Say what is in the file. Written last: where the table is, the pixels are complete."""
        lines = [""] * length
        for image_id, row in self.rows.items():
            lines[row] = image_id
        storage.write(str(self.file.with_suffix(_PHOTOS)), "\n".join(lines).encode())


@dataclass(frozen=True)
class _Decoding:
    """How photos become segments; see `build`."""

    fit: Fit
    place: Path
    cache: storage.Cache | None
    threads: int
    progress: Progress
    stop: Stop

    def decode(self, todo: Sequence[Sequence[Photo]], total: int) -> list[_Segment]:
        """New segments. `todo`: photos of all `total` that are wanted, each with all places where its bytes are."""
        made, done = [], total - len(todo)
        for some in batched(todo, max(1, _SEGMENT // _size(self.fit))):
            made.append(self._segment(some, done, total))
            done += len(some)
        return made

    def _segment(self, todo: Sequence[Sequence[Photo]], done: int, total: int) -> _Segment:
        # A name of its own, so that no two processes write one file.
        file = self.place / f"{uuid.uuid4().hex}{_PIXELS}"
        unreadable: dict[str, str] = {}
        with storage.staged(str(file)) as scratch:
            _reserve(scratch, len(todo) * _size(self.fit))
            pixels = np.memmap(scratch, np.uint8, "r+", shape=(len(todo), self.fit.height, self.fit.width, 3))

            def decode(row: int) -> PlantmlError | None:
                found: PlantmlError | None = None
                for photo in todo[row]:
                    try:
                        pixels[row] = imaging.decode(fetch(photo, self.cache), self.fit)
                    except (imaging.ImageError, DamagedError, NotFoundError) as error:
                        found = found or error
                    else:
                        return None
                return found  # that a storage does not answer says nothing of a photo

            far = any(not storage.is_local(photo.url) for same in todo for photo in same)
            threads = max(self.threads, _FAR_THREADS) if far else self.threads
            for row, error in enumerate(in_threads(decode, range(len(todo)), threads)):
                if error is not None:
                    unreadable[todo[row][0].image_id] = " ".join(str(error).split())
                self.progress(done + row + 1, total)
                if self.stop:
                    raise self.stop.error(
                        f"Training stopped while photos were decoded: {done + row + 1} of {total}",
                        "Repeat the same command to go on.",
                    )
            pixels.flush()
        ids = [same[0].image_id for same in todo]
        segment = _Segment(file, {i: row for row, i in enumerate(ids) if i not in unreadable}, unreadable)
        if segment.rows:
            segment.keep(len(ids))
        else:
            file.unlink()
        return segment


def _known(place: Path, fit: Fit, wanted: Container[str]) -> list[_Segment]:
    """The segments that have some of the photos that are wanted; they are marked as used."""
    found = []
    for notes in sorted(place.glob(f"*{_PHOTOS}")):
        segment = _Segment.found(notes, fit, wanted)
        if segment:
            _touch(segment.file)
            found.append(segment)
    return found


def _joined(photos: Sequence[Photo], fit: Fit, segments: Sequence[_Segment]) -> PixelStore:
    """The photos in their order, wherever they are."""
    places: dict[str, tuple[int, int]] = {}
    unreadable: dict[str, str] = {}
    for number, segment in enumerate(segments):
        unreadable |= segment.unreadable
        places |= {image_id: (number, row) for image_id, row in segment.rows.items()}
    nowhere = (-1, -1)
    found = np.array([places.get(photo.image_id, nowhere) for photo in photos], np.int32).reshape(-1, 2)
    why = {row: unreadable[photo.image_id] for row, photo in enumerate(photos) if photo.image_id in unreadable}
    return PixelStore(MappedPixels([segment.file for segment in segments], found, (fit.height, fit.width)), why)


def _touch(file: Path) -> None:
    """Mark a segment as used."""
    with contextlib.suppress(OSError):  # it may be somebody else's
        os.utime(file.with_suffix(_PHOTOS))


def _size(fit: Fit) -> int:
    """Bytes of a photo's pixels."""
    return fit.height * fit.width * 3


def _reserve(file: Path, size: int) -> None:
    """Take the room on the disk now: a mapped file that finds none later ends the process without a word."""
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
    """Remove segments that nobody used for a day, the longest unused first, until so many bytes fit.

    Raises:
        StorageError: the disk has no room for them, which is better known before hours of decoding.
    """
    now, kept = time.time(), []
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if file.name.startswith("."):  # of a killed process
                if now - file.stat().st_mtime > _UNUSED:
                    file.unlink()
            elif file.suffix == _PIXELS:
                notes = file.with_suffix(_PHOTOS)
                used = (notes if notes.exists() else file).stat().st_mtime
                kept.append((used, file.stat().st_size, file))
    size = sum(length for _, length, _ in kept)
    for used, length, file in sorted(kept):
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
        "Make room, or set PLANTML_CACHE_DIR to a larger disk.",
    )


def fetch(photo: Photo, cache: storage.Cache | None) -> bytes:
    """The bytes of a photo, as its hash says; of a remote one from the cache, if it is there."""
    if cache is not None and not storage.is_local(photo.url):
        return cache.read(photo.image_id, photo.url, storage.MAX_PHOTO)
    data = storage.read(photo.url, storage.MAX_PHOTO)
    storage.check_sha256(data, photo.image_id, photo.url)
    return data
