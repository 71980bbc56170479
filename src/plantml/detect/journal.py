"""The journal of a detection: what was done survives a kill, and a repeat goes on from there.

    OUT.journal/
      000000.json     what was asked: model and options; a repeat must ask the same
      000001.jsonl    records in the order they were made, a segment every so many rows or seconds
      …

Segments are created exclusively and never changed. A row is keyed by the image's URL and stamp, so that a
changed file is looked at again. The output is compiled from the journal in the order of the sources.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from plantml import storage
from plantml.detect.sources import Source
from plantml.errors import AlreadyExistsError, InputError, NotFoundError

SEGMENT_ROWS = 1000
SEGMENT_SECONDS = 10.0

_HEAD = "000000.json"


class Journal:
    """An open journal. Not shared between processes: two writers would meet at the next segment's number."""

    def __init__(self, url: str, numbers: Sequence[int]) -> None:
        self.url = url
        self._next = max(numbers, default=0) + 1
        self._place: dict[bytes, tuple[int, int]] = {}
        self._segments: dict[int, list[bytes]] = {}
        self._rows: list[bytes] = []
        self._keys: list[bytes] = []
        self._since = time.monotonic()

    @classmethod
    def open(cls, out: str, asked: Mapping[str, Any], *, fresh: bool = False, retry_failed: bool = False) -> "Journal":
        """The journal of an output, new or from an earlier run.

        Args:
            out: URL of the output.
            asked: model and options that decide what the records say.
            fresh: forget what was done.
            retry_failed: look again at images that failed.

        Raises:
            InputError: an earlier run asked for something else.
        """
        url = f"{out}.journal"
        names = _names(url)
        if fresh:
            for name in reversed(names):  # the head last: until then the rest is told to be another model's
                storage.remove(storage.join(url, name))
            names = []
        _agree(url, asked)
        numbers = sorted(int(name.split(".")[0]) for name in names if name.endswith(".jsonl"))
        journal = cls(url, numbers)
        for number in numbers:
            journal._index(number, retry_failed=retry_failed)
        return journal

    def __contains__(self, source: Source) -> bool:
        return _key(source) in self._place

    def add(self, source: Source, line: str) -> None:
        """Note one finished image; `line` is its record as one line of JSON."""
        self._rows.append(f"{json.dumps([source.url, source.stamp])}\t{line}".encode("utf-8", "surrogateescape"))
        self._keys.append(_key(source))
        if len(self._rows) >= SEGMENT_ROWS or time.monotonic() - self._since > SEGMENT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was added since the last segment."""
        self._since = time.monotonic()
        if not self._rows:
            return
        try:
            storage.create(self._segment(self._next), b"\n".join(self._rows) + b"\n")
        except AlreadyExistsError as error:
            raise InputError(
                f"{self.url} is being written by somebody else",
                "",
                "Let the other run end, or choose another --out.",
            ) from error
        for row, key in enumerate(self._keys):
            self._place[key] = (self._next, row)
        self._next += 1
        self._rows, self._keys = [], []

    def lines(self, sources: Sequence[Source]) -> Iterator[str]:
        """The record lines of these sources, in their order; those that are not done are left out."""
        for source in sources:
            place = self._place.get(_key(source))
            if place is not None:
                number, row = place
                yield self._load(number)[row].decode("utf-8", "surrogateescape").split("\t", 1)[1]

    def _load(self, number: int) -> list[bytes]:
        # Work went in the order of the sources, so the segments are needed one after the other.
        if number not in self._segments:
            while len(self._segments) > 8:
                self._segments.pop(next(iter(self._segments)))
            self._segments[number] = storage.read(self._segment(number)).rstrip(b"\n").split(b"\n")
        return self._segments[number]

    def _index(self, number: int, *, retry_failed: bool) -> None:
        for row, line in enumerate(self._load(number)):
            key, record = line.split(b"\t", 1)
            url, stamp = json.loads(key)
            if retry_failed and json.loads(record)["failure"] is not None:
                self._place.pop(_key(Source(url, stamp)), None)
            else:
                self._place[_key(Source(url, stamp))] = (number, row)

    def _segment(self, number: int) -> str:
        return storage.join(self.url, f"{number:06d}.jsonl")


def _names(url: str) -> list[str]:
    try:
        return [entry.name for entry in storage.list_files(url)]
    except NotFoundError:
        return []


def _agree(url: str, asked: Mapping[str, Any]) -> None:
    """Write down what is asked, or compare it with what an earlier run asked."""
    head = storage.join(url, _HEAD)
    try:
        storage.create(head, json.dumps(asked, sort_keys=True).encode())
    except AlreadyExistsError:
        before = json.loads(storage.read(head))
        changed = [
            f"{key} was {before.get(key)!r} and is {asked.get(key)!r}"
            for key in sorted({*before, *asked})
            if before.get(key) != asked.get(key)
        ]
        if changed:
            raise InputError(
                f"{url} belongs to another detection",
                "; ".join(changed),
                "Choose another --out, or start over with --fresh.",
            ) from None


def _key(source: Source) -> bytes:
    text = f"{source.url}\0{source.stamp}".encode("utf-8", "surrogateescape")
    return hashlib.blake2b(text, digest_size=16).digest()
