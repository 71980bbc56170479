"""Finished work in numbered segment files: a kill costs at most the rows since the last one.

    FOLDER/000001.jsonl    some rows, one per line; the last line is their checksum
           000002.jsonl    …

A segment is created exclusively and never changed. A damaged one is reported, and its rows are missing: whoever needs
them works them again. What the rows belong to is said by the name of the folder, or by the ending of the files.
"""

import base64
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from plantml import storage
from plantml.errors import AlreadyExistsError, InputError, NotFoundError, PlantmlError
from plantml.storage import checksums, numbered_files

_log = logging.getLogger(__name__)


class Segments:
    """The segments of one folder, to read and to add to. Several processes may share it.

    Args:
        url: of the folder.
        ending: of the files' names.
        rows: in one segment.
        seconds: after which a segment is written with the rows that there are.
        after: new segments have higher numbers than this.
        shared: take the next free number; else another writer is an error.
        new_only: do not look at the segments that are there; only new ones are written.
        report: called with one sentence for each damaged segment.
        encode: from a row as it was added to its bytes, called when the segment is written: work that ends before that
            spends nothing on it.
    """

    def __init__(
        self,
        url: str,
        ending: str = ".jsonl",
        *,
        rows: int = 4096,
        seconds: float = 20.0,
        after: int = 0,
        shared: bool = True,
        new_only: bool = False,
        report: Callable[[str], None] = _log.warning,
        encode: Callable[[Any], bytes] = bytes,
    ) -> None:
        self.url, self.ending = url, ending
        self._size, self._seconds, self._shared, self._report = rows, seconds, shared, report
        self._numbers = [] if new_only else list(numbered_files.list_numbers(url, ending))
        self._last = max([after, *self._numbers])
        self._encode = encode
        self._new: list[Any] = []
        self._since = time.monotonic()
        self._writer = os.urandom(8).hex()

    def __iter__(self) -> Iterator[bytes]:
        """The rows of all intact segments, in the order in which they were added."""
        for _, rows in self.read():
            yield from rows

    @property
    def last(self) -> int:
        """The highest number of a segment, or the one that new segments have to be above."""
        return self._last

    def read(self, after: int = 0) -> Iterator[tuple[int, list[bytes]]]:
        """Number and rows of each intact segment, ascending, above a number. Raises `StorageError`."""
        numbers = {self._file(number): number for number in self._numbers if number > after}
        for url, data in storage.read_ahead(numbers):
            if isinstance(data, NotFoundError):
                continue  # removed by another process
            if isinstance(data, PlantmlError):
                raise data
            try:
                yield numbers[url], _unseal(url, data)
            except InputError as error:
                self._report(f"{error}; its part of the work is done again")

    def load(self, number: int) -> list[bytes]:
        """The rows of one segment. Raises `InputError` if it is damaged or gone."""
        url = self._file(number)
        return _unseal(url, storage.read(url))

    def add(self, *rows: Any) -> int:
        """Add rows, whose bytes have no line breaks and stay together. Returns the segment that they filled, or 0."""
        self._new += rows
        is_due = len(self._new) >= self._size or time.monotonic() - self._since >= self._seconds
        return self.flush() if is_due else 0

    def flush(self) -> int:
        """Write the rows that were added since the last segment. Returns its number, or 0 if there are none.

        Raises:
            AlreadyExistsError: another process writes to a folder that is not shared.
        """
        self._since = time.monotonic()
        if not self._new:
            return 0
        data = checksums.seal_text(
            b"\n".join(map(self._encode, self._new)) + b"\n", f'{{"writer": "{self._writer}", %s}}'
        )

        def create() -> int:
            number = self._last + 1
            try:
                numbered_files.create(self.url, number, self.ending, data)
            except AlreadyExistsError:
                self._last += self._shared
                raise
            self._last = number
            return number

        number = numbered_files.create_next(self.url, create) if self._shared else create()
        self._numbers.append(number)
        self._new = []
        return number

    def remove(self) -> None:
        """Remove all segments that were read or written here."""
        for number in self._numbers:
            storage.remove(self._file(number))
        self._numbers = []

    def _file(self, number: int) -> str:
        return numbered_files.file_url(self.url, number, self.ending)


def pack(array: NDArray[Any], dtype: DTypeLike) -> str:
    """Numbers as text for a row: base64 of the little-endian `dtype`."""
    return base64.b64encode(np.asarray(array, dtype).tobytes()).decode()


def unpack(text: str, dtype: DTypeLike) -> NDArray[Any]:
    """The numbers of `pack`, in one dimension."""
    return np.frombuffer(base64.b64decode(text), dtype)


def _unseal(url: str, data: bytes) -> list[bytes]:
    if not checksums.is_intact(data):
        raise InputError(f"{url} is damaged", checksums.CHANGED if data else "it is empty", "Repeat the command.")
    return data.rstrip(b"\n").split(b"\n")[:-1]
