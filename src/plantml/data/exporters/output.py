"""The directory of an export: files are written as they come; a marker shows that it is unfinished."""

import contextlib
import json
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

from plantml import storage
from plantml.concurrency import Progress
from plantml.data.exporters import ExportPhoto, Written
from plantml.data.importers import sidecar
from plantml.data.photos import read_ahead
from plantml.errors import InputError, NotFoundError, PlantmlError

_THREADS = 8


class Output:
    """A new or empty directory that an export fills; use it as a context.

    A marker file stays until the export is complete. It stops a second export to the same place, and shows that
    an interrupted one is incomplete.
    """

    def __init__(self, url: str, progress: Progress, total: int) -> None:
        self.url = url
        self.files = self.size = 0
        self._progress, self._total, self._done = progress, total, 0
        self._local = storage.is_local(url)
        self._pool = ThreadPoolExecutor(1 if self._local else _THREADS)
        self._under_way: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        if not self._is_new():
            raise InputError(f"{self.url} is not empty", "an export never overwrites files", "Export to a new path.")
        storage.create(self._marker, b"")
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        if not self.files:  # refused before anything was written
            storage.remove(self._marker)

    def _is_new(self) -> bool:
        try:
            return next(storage.list_files(self.url), None) is None
        except NotFoundError:
            return not storage.exists(self.url)

    @property
    def _marker(self) -> str:
        return storage.join(self.url, sidecar.INCOMPLETE)

    def write(self, name: str, data: bytes) -> None:
        """Write a file. Remote writes run in the background, so an error may be raised by a later call."""
        self.files += 1
        self.size += len(data)
        url = storage.join(self.url, name)
        if self._local:
            storage.write(url, data)
            return
        self._under_way.append(self._pool.submit(storage.write, url, data))
        while len(self._under_way) > 2 * _THREADS:
            self._under_way.popleft().result()

    @contextlib.contextmanager
    def staged(self, name: str) -> Iterator[Path]:
        """A local file to fill that becomes `name` in one step."""
        with storage.staged(storage.join(self.url, name)) as file:
            yield file
            self.files += 1
            self.size += file.stat().st_size

    def read(self, photos: Sequence[ExportPhoto]) -> Iterator[tuple[ExportPhoto, bytes]]:
        """The photos with their bytes, a batch at a time; see `read`."""
        for photo, data in read(photos):
            yield photo, data
            self._done += 1
            self._progress(self._done, self._total)

    def finish(self, written: Written) -> None:
        """Write the last files and remove the marker."""
        while self._under_way:
            self._under_way.popleft().result()
        last = [written.main] if written.main else []
        if written.sidecar is not None:
            content = json.dumps(written.sidecar.as_json(), ensure_ascii=False, separators=(",", ":"))
            last.insert(0, (sidecar.FILE, content.encode()))
        for name, data in last:
            storage.write(storage.join(self.url, name), data)
            self.files += 1
            self.size += len(data)
        storage.remove(self._marker)


def read(photos: Sequence[ExportPhoto]) -> Iterator[tuple[ExportPhoto, bytes]]:
    """Photos with their bytes, which are checked against the hash that the dataset has.

    Raises:
        InputError: a photo is missing.
        StorageError: it cannot be read, or its bytes have changed.
    """
    wanted = ((photo.row["image_id"], photo.url) for photo in photos)
    for photo, (url, data) in zip(photos, read_ahead(wanted, cache=None), strict=True):
        if isinstance(data, NotFoundError):
            raise InputError(
                f"The photo {photo.row['name']} is no longer at {url}",
                f"it was imported from {photo.row['source']}",
                "Put it back, or exclude its row.",
            ) from data
        if isinstance(data, PlantmlError):
            raise data
        yield photo, data
