"""What an object store lists, page by page, kept small: its client would hold 1 to 2 KB for each object.

Keys come in the order of their names from most stores, and from some by folders. So they are kept as runs that are in
order, packed, and merged: one run as a rule, of about 50 bytes for each object, in a temporary file.
"""

import heapq
import io
import json
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any

from plantml.storage.object_store import Item

_BLOCK, _IN_MEMORY = 512, 1 << 20

Page = Mapping[str, Any]
"""An answer of S3's ListObjectsV2."""


def of_s3(ask: Callable[..., Page], bucket: str, prefix: str) -> Iterator[Item]:
    """All objects under a prefix, as they come; the empty objects that stand for folders are left out.

    Args:
        ask: makes one ListObjectsV2 request.
        bucket: its name.
        prefix: ends with a slash, or is empty.
    """
    token: dict[str, str] = {}
    while True:
        page = ask(Bucket=bucket, Prefix=prefix, **token)
        for found in page.get("Contents", ()):
            if not found["Key"].endswith("/"):
                changed = found["LastModified"].timestamp() if "LastModified" in found else 0.0
                yield found["Key"][len(prefix) :], found["Size"], found.get("ETag", ""), changed
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}


def in_order(items: Iterable[Item]) -> Iterator[Item]:
    """The items by name. All are taken before the first is given, and kept in a temporary file where they are many."""
    file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - it lives as long as the iterator
    runs: list[_Run] = []
    for item in items:
        if not runs or item[0] < runs[-1].last:
            runs.append(_Run(file))
        runs[-1].add(item)
    return heapq.merge(*runs)


class _Run:
    """Items in their order, packed by blocks."""

    def __init__(self, file: IO[bytes]) -> None:
        self.last = ""
        self._file = file
        self._blocks: list[tuple[int, int]] = []
        self._items: list[Item] = []

    def add(self, item: Item) -> None:
        self.last = item[0]
        self._items.append(item)
        if len(self._items) == _BLOCK:
            packed = zlib.compress(json.dumps(self._items).encode(), 1)
            self._blocks.append((self._file.seek(0, io.SEEK_END), len(packed)))
            self._file.write(packed)
            self._items = []

    def __iter__(self) -> Iterator[Item]:
        for start, length in self._blocks:
            self._file.seek(start)
            yield from map(tuple, json.loads(zlib.decompress(self._file.read(length))))
        yield from self._items
