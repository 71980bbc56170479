"""The journal of a detection: finished work survives a kill, and a repeated command resumes there.

    OUT.journal/
      000000.json     model and options; a repeated command must use the same
      000001.jsonl    a segment: records in the order of processing; the last line is its checksum
      000002.written  the output contains all rows up to here
      …

Segments are created exclusively and never changed. A row is keyed by the image's URL and stamp, so a changed file
is processed again; an embedding may follow the record. The output is compiled from the journal in the order of the
sources. A damaged segment counts as missing: its images are processed again.
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
from plantml.detect.photo_list import Positions, Source
from plantml.errors import AlreadyExistsError, InputError, NotFoundError
from plantml.storage import checksums

SEGMENT_ROWS = 1000
SEGMENT_SECONDS = 10.0

_HEAD = "000000.json"
_ROWS_IN, _MARK = ".jsonl", ".written"
_OURS = re.compile(r"000000\.json|(\d{6}|[1-9]\d{6,})(\.jsonl|\.written)")
"""Names of a journal's files; others, such as those of a file browser, are ignored."""

_ROWS = 1 << 24
"""A position is the segment's number times this, plus the row. No segment has that many rows."""

_SEGMENTS_CACHED = 2

_REPEAT = "Repeat the command: its images are processed again."
_START_OVER = "It cannot be known whose rows these are: start over with --fresh, or choose another --out."


@dataclass(frozen=True, slots=True)
class Row:
    """One finished image.

    Attributes:
        record: as one line of JSON.
        embedding: packed by `pack`; empty if embeddings are off, or for a failure.
        segment: number of the journal segment that holds it.
    """

    record: str
    embedding: bytes = b""
    segment: int = 0


def pack(vector: NDArray[np.float32] | None) -> bytes:
    """Pack an embedding for the journal: 16-bit floats, base64."""
    return b"" if vector is None else base64.b64encode(np.asarray(vector, "<f2").tobytes())


def unpack(packed: bytes) -> NDArray[np.float32] | None:
    """Unpack an embedding, float32 [D], from `pack`."""
    return np.frombuffer(base64.b64decode(packed), "<f2").astype(np.float32) if packed else None


class Journal:
    """An open journal, for one process: a second writer fails at the next segment's number.

    Attributes:
        url: of its folder.
        published: the output contains all rows of segments up to this number.
        damaged: one sentence per damaged segment.
    """

    def __init__(self, url: str, names: Sequence[str], *, has_checksums: bool) -> None:
        numbers = [int(name.split(".")[0]) for name in names]
        self.url, self._has_checksums = url, has_checksums
        self.damaged: list[str] = []
        self._intact: list[int] = []
        self._next = max(numbers, default=0) + 1
        self._positions = Positions()
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
        options: Mapping[str, Any],
        *,
        fresh: bool = False,
        retry_failed: bool = False,
        location: str | None = None,
    ) -> "Journal":
        """The journal of an output, new or from an earlier run.

        Args:
            out: URL of the output.
            options: model and options that determine the records.
            fresh: discard an existing journal.
            retry_failed: process images that failed again.
            location: URL of the journal, if it is not beside the output.

        Raises:
            InputError: an earlier run used another model or other options.
        """
        url = location or f"{out}.journal"
        names = _names(url)
        if fresh:
            for name in reversed(names):  # the head last: it keeps another model from the rest
                storage.remove(storage.join(url, name))
            names = []
        has_checksums = _check_head(url, options, is_new=not any(name.endswith(_ROWS_IN) for name in names))
        journal = cls(url, [name for name in names if name != _HEAD], has_checksums=has_checksums)
        for number in sorted(int(name.split(".")[0]) for name in names if name.endswith(_ROWS_IN)):
            try:
                journal._index(number, retry_failed=retry_failed)
            except InputError as error:
                journal.damaged.append(f"{error}; its images are processed again")
        return journal

    def __contains__(self, source: Source) -> bool:
        return source.key in self._positions

    def __iter__(self) -> Iterator[Source]:
        """All processed images, as they were at that time, in the order of processing."""
        for number in self._intact:
            for row, line in enumerate(self._load(number)):
                source = Source(*json.loads(line.split(b"\t", 1)[0]))
                if self._positions[source.key] == number * _ROWS + row:  # else a later row replaced it
                    yield source

    def add(self, source: Source, line: str, embedding: bytes = b"") -> None:
        """Add one finished image; `line` is its record as one line of JSON."""
        row = f"{json.dumps([source.url, source.stamp])}\t{line}".encode("utf-8", "surrogateescape")
        self._rows.append(row + b"\t" + embedding if embedding else row)
        self._keys.append(source.key)
        if len(self._rows) >= SEGMENT_ROWS or time.monotonic() - self._since > SEGMENT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the rows that were added since the last segment."""
        self._since = time.monotonic()
        if not self._rows:
            return
        self._create(self._segment(self._next), checksums.seal_text(b"\n".join(self._rows) + b"\n", "{%s}"))
        self._intact.append(self._next)
        for row, key in enumerate(self._keys):
            self._positions[key] = self._next * _ROWS + row
        self._next += 1
        self._rows, self._keys = [], []

    def mark(self) -> None:
        """Mark that the output contains all rows so far."""
        if self.published < self._next - 1:
            self._create(storage.join(self.url, f"{self._next:06d}{_MARK}"), b"")
            self.published = self._next
            self._marks.add(self._next)
            self._next += 1

    def rows(self, sources: Iterable[Source], after: int = 0) -> Iterator[Row]:
        """The rows of sources, in the order of the sources; unfinished ones are left out.

        Args:
            sources: images to look up.
            after: only rows of segments with a higher number.
        """
        for source in sources:
            segment, row = divmod(self._positions[source.key], _ROWS)
            if segment > after:  # an unfinished image has segment -1
                _, record, *embedding = self._load(segment)[row].split(b"\t")
                text, vector = record.decode("utf-8", "surrogateescape"), embedding[0] if embedding else b""
                yield Row(text, vector, segment)

    def lines(self, sources: Iterable[Source]) -> Iterator[str]:
        """The record lines of sources, in the order of the sources; unfinished ones are left out."""
        return (row.record for row in self.rows(sources))

    def _load(self, number: int) -> list[bytes]:
        # Images were processed in the order of the sources, so segments are needed one after another.
        if number not in self._segments:
            while len(self._segments) >= _SEGMENTS_CACHED:
                self._segments.pop(next(iter(self._segments)))
            url = self._segment(number)
            self._segments[number] = _lines_of(url, storage.read(url), has_checksum=self._has_checksums)
        return self._segments[number]

    def _index(self, number: int, *, retry_failed: bool) -> None:
        for row, line in enumerate(self._load(number)):
            key, record, *_ = line.split(b"\t")
            retries = retry_failed and json.loads(record.decode("utf-8", "surrogateescape"))["failure"] is not None
            self._positions[Source(*json.loads(key)).key] = -1 if retries else number * _ROWS + row
        self._intact.append(number)

    def _create(self, url: str, data: bytes) -> None:
        try:
            storage.create(url, data)
        except AlreadyExistsError as error:
            raise InputError(
                f"{self.url} is being written by another run",
                "",
                "Wait for the other run to end, or choose another --out.",
            ) from error

    def _segment(self, number: int) -> str:
        return storage.join(self.url, f"{number:06d}{_ROWS_IN}")


def _names(url: str) -> list[str]:
    try:
        return [entry.name for entry in storage.list_files(url) if _OURS.fullmatch(entry.name)]
    except NotFoundError:
        return []


def _lines_of(url: str, data: bytes, *, has_checksum: bool) -> list[bytes]:
    """The rows of a segment. Raises `InputError` if it was changed."""
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
        raise InputError(f"{url} is damaged", f"one of its rows cannot be read: {error}", _REPEAT) from error
    return lines


def _check_row(line: bytes) -> None:
    # Plain `json.loads`: file names may hold bytes that are not UTF-8, which `parse_json` rejects.
    key, text, *_ = line.split(b"\t")
    url, stamp = json.loads(key)
    record = json.loads(text.decode("utf-8", "surrogateescape"))
    if not (isinstance(url, str) and isinstance(stamp, str) and isinstance(record, dict) and "failure" in record):
        raise ValueError("it is not a record")


def _check_head(url: str, options: Mapping[str, Any], *, is_new: bool) -> bool:
    """Write the options down, or compare them with those of an earlier run.

    Returns:
        Whether the journal's segments have checksums; older versions wrote none.
    """
    head = storage.join(url, _HEAD)
    if not is_new and not storage.exists(head):
        raise InputError(f"{head} is missing", "it names the model and options of the rows", _START_OVER)
    try:
        storage.create(head, checksums.to_json(dict(sorted(options.items()))))
    except AlreadyExistsError:
        data = storage.read(head)
        before = checksums.from_json(data, head, _START_OVER)
        changed = [
            f"{key} was {before.get(key)!r} and is {options.get(key)!r}"
            for key in sorted({*before, *options})
            if before.get(key) != options.get(key)
        ]
        if changed:
            raise InputError(
                f"{url} belongs to another detection",
                "; ".join(changed),
                "Choose another --out, or start over with --fresh.",
            ) from None
        return checksums.check_text(data) is True
    return True
