"""The journal of a detection: what was done survives a kill, and a repeat goes on from there.

    OUT.journal/
      000000.json     what was asked: model and options; a repeat must ask the same
      000001.jsonl    records in the order they were made, a segment every so many rows or seconds; the last line
                      is its checksum
      000002.written  the output held all rows up to here
      …

Segments are created exclusively and never changed. A row is keyed by the image's URL and stamp, so that a
changed file is looked at again; after the record may follow an embedding. The output is compiled from the
journal in the order of the sources. A segment that is damaged counts as not there: its images are looked at again.
"""

import base64
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plantml import storage
from plantml.detect.photo_list import Places, Source
from plantml.errors import AlreadyExistsError, InputError, NotFoundError
from plantml.storage import checksums

SEGMENT_ROWS = 1000
SEGMENT_SECONDS = 10.0

_HEAD = "000000.json"
_ROWS_IN, _MARK = ".jsonl", ".written"
_OURS = re.compile(r"000000\.json|(\d{6}|[1-9]\d{6,})(\.jsonl|\.written)")
"""Names of a journal's files: what a file browser leaves beside them is passed over."""

_ROWS = 1 << 24
"""A place is a segment's number times this, plus the row: no segment has as many."""

_SEGMENTS_HELD = 2

_REPEAT = "Repeat the command: its images are looked at again."
_START_OVER = "Whose rows these are is not known any more: start over with --fresh, or choose another --out."


@dataclass(frozen=True, slots=True)
class Row:
    """One finished image.

    Attributes:
        record: as one line of JSON.
        embedding: as `pack` made it; empty where none was asked for, or after a failure.
        segment: number of the journal's segment that it is from.
    """

    record: str
    embedding: bytes = b""
    segment: int = 0


def pack(vector: NDArray[np.float32] | None) -> bytes:
    """An embedding as the journal keeps it: 16-bit floats, base64."""
    return b"" if vector is None else base64.b64encode(np.asarray(vector, "<f2").tobytes())


def unpack(packed: bytes) -> NDArray[np.float32] | None:
    """The embedding, float32 [D], from what `pack` gave."""
    return np.frombuffer(base64.b64decode(packed), "<f2").astype(np.float32) if packed else None


class Journal:
    """An open journal. Not shared between processes: two writers would meet at the next segment's number.

    Attributes:
        url: of its folder.
        published: the output holds all rows of segments up to this number.
        damaged: what is wrong with segments that count as not there, a sentence each.
    """

    def __init__(self, url: str, names: Sequence[str], *, has_checksums: bool) -> None:
        numbers = [int(name.split(".")[0]) for name in names]
        self.url, self._has_checksums = url, has_checksums
        self.damaged: list[str] = []
        self._sound: list[int] = []
        self._next = max(numbers, default=0) + 1
        self._places = Places()
        self._segments: dict[int, list[bytes]] = {}
        self._marks = {int(name.split(".")[0]) for name in names if name.endswith(_MARK)}
        self.published = max(self._marks, default=0)
        self._rows: list[bytes] = []
        self._keys: list[bytes] = []
        self._since = time.monotonic()

    @classmethod
    def open(
        cls,
        out: str,
        asked: Mapping[str, Any],
        *,
        fresh: bool = False,
        retry_failed: bool = False,
        place: str | None = None,
    ) -> "Journal":
        """The journal of an output, new or from an earlier run.

        Args:
            out: URL of the output.
            asked: model and options that decide what the records say.
            fresh: forget what was done.
            retry_failed: look again at images that failed.
            place: URL of the journal, where it does not stand beside the output.

        Raises:
            InputError: an earlier run asked for something else.
        """
        url = place or f"{out}.journal"
        names = _names(url)
        if fresh:
            for name in reversed(names):  # the head last: until then the rest is told to be another model's
                storage.remove(storage.join(url, name))
            names = []
        has_checksums = _agree(url, asked, is_new=not any(name.endswith(_ROWS_IN) for name in names))
        journal = cls(url, [name for name in names if name != _HEAD], has_checksums=has_checksums)
        for number in sorted(int(name.split(".")[0]) for name in names if name.endswith(_ROWS_IN)):
            try:
                journal._index(number, retry_failed=retry_failed)
            except InputError as error:
                journal.damaged.append(f"{error}; its images are looked at again")
        return journal

    def __contains__(self, source: Source) -> bool:
        return source.key in self._places

    def __iter__(self) -> Iterator[Source]:
        """All images that were looked at, as they were then, in the order in which that was done."""
        for number in self._sound:
            for row, line in enumerate(self._load(number)):
                source = Source(*json.loads(line.split(b"\t", 1)[0]))
                if self._places[source.key] == number * _ROWS + row:  # else it was looked at again later
                    yield source

    def add(self, source: Source, line: str, embedding: bytes = b"") -> None:
        """Note one finished image; `line` is its record as one line of JSON."""
        row = f"{json.dumps([source.url, source.stamp])}\t{line}".encode("utf-8", "surrogateescape")
        self._rows.append(row + b"\t" + embedding if embedding else row)
        self._keys.append(source.key)
        if len(self._rows) >= SEGMENT_ROWS or time.monotonic() - self._since > SEGMENT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was added since the last segment."""
        self._since = time.monotonic()
        if not self._rows:
            return
        self._create(self._segment(self._next), checksums.seal_text(b"\n".join(self._rows) + b"\n", "{%s}"))
        self._sound.append(self._next)
        for row, key in enumerate(self._keys):
            self._places[key] = self._next * _ROWS + row
        self._next += 1
        self._rows, self._keys = [], []

    def mark(self) -> None:
        """Note that the output holds all that is in the journal by now."""
        if self.published < self._next - 1:
            self._create(storage.join(self.url, f"{self._next:06d}{_MARK}"), b"")
            self.published = self._next
            self._marks.add(self._next)
            self._next += 1

    def rows(self, sources: Iterable[Source], after: int = 0) -> Iterator[Row]:
        """What is known of these sources, in their order; those that are not done are left out.

        Args:
            sources: whose rows.
            after: only rows of segments with a higher number.
        """
        for source in sources:
            place = self._places[source.key]
            if place >= 0 and place // _ROWS > after:
                _, record, *embedding = self._load(place // _ROWS)[place % _ROWS].split(b"\t")
                text, vector = record.decode("utf-8", "surrogateescape"), embedding[0] if embedding else b""
                yield Row(text, vector, place // _ROWS)

    def lines(self, sources: Iterable[Source]) -> Iterator[str]:
        """The record lines of these sources, in their order; those that are not done are left out."""
        return (row.record for row in self.rows(sources))

    def _load(self, number: int) -> list[bytes]:
        # Work went in the order of the sources, so the segments are needed one after the other.
        if number not in self._segments:
            while len(self._segments) >= _SEGMENTS_HELD:
                self._segments.pop(next(iter(self._segments)))
            url = self._segment(number)
            self._segments[number] = _lines_of(url, storage.read(url), has_checksum=self._has_checksums)
        return self._segments[number]

    def _index(self, number: int, *, retry_failed: bool) -> None:
        for row, line in enumerate(self._load(number)):
            key, record, *_ = line.split(b"\t")
            again = retry_failed and json.loads(record.decode("utf-8", "surrogateescape"))["failure"] is not None
            self._places[Source(*json.loads(key)).key] = -1 if again else number * _ROWS + row
        self._sound.append(number)

    def _create(self, url: str, data: bytes) -> None:
        try:
            storage.create(url, data)
        except AlreadyExistsError as error:
            raise InputError(
                f"{self.url} is being written by somebody else",
                "",
                "Let the other run end, or choose another --out.",
            ) from error

    def _segment(self, number: int) -> str:
        return storage.join(self.url, f"{number:06d}{_ROWS_IN}")


def _names(url: str) -> list[str]:
    try:
        return [entry.name for entry in storage.list_files(url) if _OURS.fullmatch(entry.name)]
    except NotFoundError:
        return []


def _lines_of(url: str, data: bytes, *, has_checksum: bool) -> list[bytes]:
    """The rows of a segment. Raises `InputError` if they are not those that were written."""
    intact = checksums.check_text(data)
    lines = data.rstrip(b"\n").split(b"\n")
    if intact:
        return lines[:-1]
    if intact is False or has_checksum:
        raise InputError(f"{url} is damaged", checksums.CHANGED if data else "it is empty", _REPEAT)
    try:
        for line in lines:
            _check_row(line)
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{url} is damaged", f"a row of it cannot be read: {error}", _REPEAT) from error
    return lines


def _check_row(line: bytes) -> None:
    # Plain `json.loads`: names of files may hold bytes that are no UTF-8, which `parse_json` refuses.
    key, text, *_ = line.split(b"\t")
    url, stamp = json.loads(key)
    record = json.loads(text.decode("utf-8", "surrogateescape"))
    if not (isinstance(url, str) and isinstance(stamp, str) and isinstance(record, dict) and "failure" in record):
        raise ValueError("it is no record")


def _agree(url: str, asked: Mapping[str, Any], *, is_new: bool) -> bool:
    """Write down what is asked, or compare it with what an earlier run asked.

    Returns:
        Whether the journal's segments have checksums: those of older versions have none.
    """
    head = storage.join(url, _HEAD)
    if not is_new and not storage.exists(head):
        raise InputError(f"{head} is gone", "it said which model and options the rows are of", _START_OVER)
    try:
        storage.create(head, checksums.to_json(dict(sorted(asked.items()))))
    except AlreadyExistsError:
        data = storage.read(head)
        before = checksums.from_json(data, head, _START_OVER)
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
        return checksums.check_text(data) is True
    return True
