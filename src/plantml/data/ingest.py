"""Read each photo of a source once: scan it, store it under its hash, and keep notes to resume from."""

import hashlib
import os
import time
from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from plantml import imaging, storage
from plantml.concurrency import Progress, batched, in_threads
from plantml.data import manifest
from plantml.data.importers import Item
from plantml.data.scan import QUALITY, scan
from plantml.errors import InputError, NotFoundError, PlantmlError
from plantml.storage import sealed_tables
from plantml.storage.addresses import NOT_ALLOWED

_BATCH = 16
_REMOTE_THREADS = 16
_SEGMENT_ROWS = 4096
_SEGMENT_SECONDS = 20.0

_COLUMNS = ("path", "image_id", "width", "height", "format", "mode", "orientation", "frames", "bytes", "camera",
         "jpeg_quality", "phash", *QUALITY, "border", "status", "reason")  # fmt: skip
SCHEMA: dict[str, Any] = {"name": pl.String, **{column: manifest.SYSTEM[column] for column in _COLUMNS}}
"""What reading a photo yields, as manifest columns."""


class Bringer:
    """Reads photos of one source into one dataset.

    Args:
        source: URL, absolute.
        dataset: URL, absolute.
        reference: leave the photos where they are.
        threads: photos to read and decode at the same time, if all is local.
        stored: SHA-256 of the files that the dataset has.
    """

    def __init__(self, source: str, dataset: str, *, reference: bool, threads: int, stored: Iterable[str]) -> None:
        self.dataset, self.reference = dataset, reference
        self._local = storage.is_local(dataset)
        self._threads = threads if storage.is_local(source) and self._local else max(threads, _REMOTE_THREADS)
        self._stored = {bytes.fromhex(image_id) for image_id in stored}
        self._notes = _Notes(dataset, f"{source} {reference}")

    def bring(self, items: Sequence[Item], progress: Progress) -> pl.DataFrame:
        """Read all items that an interrupted call did not read already.

        Returns:
            One row per item, in any order, with the columns of `SCHEMA`.
        """
        known = self._notes.read()
        names = set(known["name"])
        todo = [item for item in items if item.name not in names]
        done = len(items) - len(todo)
        try:
            for rows in in_threads(self._rows_of, batched(todo, _BATCH), self._threads):
                self._notes.add(rows)
                done += len(rows)
                progress(done, len(items))
        except BaseException:
            self._notes.write()
            raise
        listed = {item.name for item in items}
        return pl.concat([known.filter(pl.col("name").is_in(listed)), *self._notes.frames()])

    def forget(self) -> None:
        """Remove the notes, once the photos are in a version."""
        self._notes.remove()

    def _rows_of(self, items: list[Item]) -> list[dict[str, Any]]:
        trusted = [item for item in items if not item.refusal]
        contents = storage.read_many((item.url for item in trusted), storage.MAX_PHOTO)
        rows = [self._row(item, data) for item, (_, data) in zip(trusted, contents, strict=True)]
        return rows + [_refused(item) for item in items if item.refusal]

    def _row(self, item: Item, data: bytes | PlantmlError) -> dict[str, Any]:
        row: dict[str, Any] = {"name": item.name, "status": manifest.OK}
        if isinstance(data, PlantmlError):
            if not isinstance(data, InputError):
                raise data  # a failure of the storage, not of the photo
            code = "not-found" if isinstance(data, NotFoundError) else "unreadable"
            return row | {"status": manifest.EXCLUDED, "reason": f"{code}: {data}"}
        photo = scan(data)
        row |= photo.columns() | {"bytes": len(data)}
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
        # The name is the content's hash: an existing file has the same bytes.
        if not (storage.exists(url) if self._local else key in self._stored):
            storage.write(url, data)
        self._stored.add(key)
        return path


def _refused(item: Item) -> dict[str, Any]:
    return {"name": item.name, "status": manifest.EXCLUDED, "reason": f"{NOT_ALLOWED}: {item.refusal}"}


class _Notes:
    """Rows of the photos read so far, in segments under `derived/` until they are in a version."""

    def __init__(self, dataset: str, purpose: str) -> None:
        key = hashlib.sha256(purpose.encode()).hexdigest()[:16]
        self._folder = storage.join(dataset, "derived", f"import-{key}")
        self._urls: list[str] = []
        self._frames: list[pl.DataFrame] = []
        self._rows: list[dict[str, Any]] = []
        self._last = time.monotonic()

    def read(self) -> pl.DataFrame:
        """Notes of earlier calls, without photos that could not be decoded: those are read again."""
        try:
            urls = [entry.url for entry in storage.list_files(self._folder) if entry.name.endswith(".parquet")]
        except NotFoundError:
            urls = []
        frames = []
        for url, data in storage.read_many(urls):
            if isinstance(data, bytes):
                self._urls.append(url)
                rows = sealed_tables.unpack(data, pl.Schema(SCHEMA))
                frames += [] if rows is None else [rows]  # photos of a damaged file are read again
        notes = pl.concat([pl.DataFrame(schema=SCHEMA), *frames])
        return notes.filter(pl.col("status") == manifest.OK).unique("name")

    def add(self, rows: list[dict[str, Any]]) -> None:
        self._rows += rows
        if len(self._rows) >= _SEGMENT_ROWS or time.monotonic() - self._last > _SEGMENT_SECONDS:
            self.write()

    def write(self) -> None:
        self._last = time.monotonic()
        if self._rows:
            frame = self._pack()
            url = storage.join(self._folder, f"{os.urandom(8).hex()}.parquet")
            storage.write(url, sealed_tables.pack(frame))
            self._urls.append(url)

    def frames(self) -> list[pl.DataFrame]:
        self._pack()
        return self._frames

    def remove(self) -> None:
        for url in self._urls:
            storage.remove(url)

    def _pack(self) -> pl.DataFrame:
        frame = pl.DataFrame(self._rows, schema=SCHEMA)
        self._frames.append(frame)
        self._rows = []
        return frame
