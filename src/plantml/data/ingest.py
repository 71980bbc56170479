"""Read each photo of a source once: scan it, store it under its hash, and keep notes to resume from."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import polars as pl

from plantml import imaging, storage
from plantml.concurrency import Progress, batched, in_threads
from plantml.data import manifest
from plantml.data.importers import Item
from plantml.data.scan import QUALITY, Scan, scan_all
from plantml.errors import InputError, NotFoundError, PlantmlError
from plantml.storage.addresses import NOT_ALLOWED
from plantml.storage.segments import Segments

_BATCH = 16
_CHUNK = 4096
_REMOTE_THREADS = 16

_COLUMNS = ("path", "image_id", "width", "height", "format", "mode", "orientation", "frames", "bytes", "camera",
         "jpeg_quality", "phash", *QUALITY, "border", "status", "reason")  # fmt: skip
SCHEMA: dict[str, Any] = {"name": pl.String, **{column: manifest.SYSTEM[column] for column in _COLUMNS}}
"""What reading a photo yields, as manifest columns."""


Row = dict[str, Any]
"""What reading one photo yields, by the columns of `SCHEMA`; those without a value may be left out."""

_ENCODER = json.JSONEncoder(default=bytes.hex)


def encode(row: Row) -> bytes:
    """A row as a line of notes: JSON, in which bytes are written in hexadecimal."""
    return _ENCODER.encode(row).encode()


def decode(line: bytes) -> Row:
    """The row of a line of notes."""
    row: Row = json.loads(line)
    if row.get("border") is not None:
        row["border"] = bytes.fromhex(row["border"])
    return row


class Bringer:
    """Reads photos of one source into one dataset, which has the files whose SHA-256 is in `stored`."""

    def __init__(self, source: str, dataset: str, *, reference: bool, threads: int, stored: Iterable[str]) -> None:
        self.dataset, self.reference = dataset, reference
        self._local = storage.is_local(dataset)
        self._threads = threads if storage.is_local(source) and self._local else max(threads, _REMOTE_THREADS)
        self._stored = {bytes.fromhex(image_id) for image_id in stored}
        purpose = hashlib.sha256(f"{source} {reference} {SCHEMA}".encode()).hexdigest()[:16]
        self.source = source
        self.notes = Segments(storage.join(dataset, "derived", f"import-{purpose}"), encode=encode)

    def bring(self, items: Sequence[Item], progress: Progress, fill: "Fill | None" = None) -> pl.DataFrame:
        """Read all items that an interrupted call did not read already.

        `fill` reads those that were not refused elsewhere; by default this process does.

        Returns:
            One row per item, in any order, with the columns of `SCHEMA`.
        """
        known, todo = self._known(items)
        if fill is not None and (unread := [item for item in todo if not item.refusal]):
            done = len(known)
            fill(self, unread, lambda photos: progress(done + photos, len(items)))
            self.notes = Segments(self.notes.url, encode=encode)
            known, todo = self._known(items)
        try:
            return pl.concat([known, _frame(self._noted(todo, progress, len(known), len(items)))])
        except BaseException:
            self.notes.flush()
            raise

    def _noted(self, todo: Sequence[Item], progress: Progress, done: int, total: int) -> Iterator[Row]:
        for rows in self.read(todo):
            self.notes.add(*rows)
            done += len(rows)
            progress(done, total)
            yield from rows

    def read(self, items: Iterable[Item]) -> Iterator[list[Row]]:
        """Read items and store their photos: their rows, some at a time."""
        return in_threads(self._rows_of, batched(items, _BATCH), self._threads)

    def _known(self, items: Sequence[Item]) -> tuple[pl.DataFrame, list[Item]]:
        """Rows of the items that were read, and the other items."""
        names = {item.name for item in items}
        # Photos that could not be decoded are read again.
        known = (
            _frame(map(decode, self.notes))
            .filter(pl.col("name").is_in(names), pl.col("status") == manifest.OK)
            .unique("name")
        )
        done = set(known["name"])
        return known, [item for item in items if item.name not in done]

    def forget(self) -> None:
        """Remove the notes, once the photos are in a version."""
        self.notes.remove()

    def _rows_of(self, items: list[Item]) -> list[Row]:
        trusted = [item for item in items if not item.refusal]
        contents = storage.read_many((item.url for item in trusted), storage.MAX_PHOTO)
        files = [data for _, data in contents]
        scans = iter(scan_all(data for data in files if isinstance(data, bytes)))
        rows = [
            self._row(item, data, next(scans)) if isinstance(data, bytes) else _unread(item, data)
            for item, data in zip(trusted, files, strict=True)
        ]
        return rows + [_refused(item) for item in items if item.refusal]

    def _row(self, item: Item, data: bytes, photo: Scan) -> Row:
        row: Row = {"name": item.name, "status": manifest.OK, **photo.columns(), "bytes": len(data)}
        if photo.reason:
            row |= {"status": manifest.EXCLUDED, "reason": photo.reason}
        row["path"] = item.url if self.reference else self._store(item, photo.image_id, row["format"], data)
        return row

    def _store(self, item: Item, image_id: str, format_: str | None, data: bytes) -> str | None:
        if not data:
            return None
        extension = imaging.SUFFIXES.get(format_ or "", storage.suffix(item.name))
        path = f"images/{image_id[:2]}/{image_id}{extension}"
        url, key = storage.join(self.dataset, path), bytes.fromhex(image_id)
        # The name is the content's hash: an existing file has the same bytes. It is looked for where that is quick.
        if key not in self._stored or (self._local and not storage.exists(url)):
            storage.write(url, data)
        self._stored.add(key)
        return path


Fill = Callable[[Bringer, Sequence[Item], Callable[[int], None]], None]
"""Reads photos elsewhere, into further notes of the same import; tells how many are done."""


def _unread(item: Item, error: PlantmlError) -> Row:
    if not isinstance(error, InputError):
        raise error  # a failure of the storage, not of the photo
    code = "not-found" if isinstance(error, NotFoundError) else "unreadable"
    return {"name": item.name, "status": manifest.EXCLUDED, "reason": f"{code}: {error}"}


def _refused(item: Item) -> Row:
    return {"name": item.name, "status": manifest.EXCLUDED, "reason": f"{NOT_ALLOWED}: {item.refusal}"}


def _frame(rows: Iterable[Row]) -> pl.DataFrame:
    """Rows as a table with the columns of `SCHEMA`."""
    frames = [
        pl.DataFrame({name: [row.get(name) for row in some] for name in SCHEMA}, schema=SCHEMA)
        for some in batched(rows, _CHUNK)
    ]
    return pl.concat([pl.DataFrame(schema=SCHEMA), *frames])
