"""The journal of a detection: finished work survives a kill, and a repeated command resumes there.

    OUT.journal/
      000000.json     model and options; a repeated command must use the same
      000001.jsonl    a segment: records in the order of processing; see `storage.segments`
      000001.written  the output contains all rows up to here
      …

A row is keyed by the image's URL and stamp, so a changed file is processed again; an embedding may follow the record.
The output is compiled from the journal in the order of the sources.
"""

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from plantml import storage
from plantml.detect.photo_list import Positions, Source
from plantml.errors import AlreadyExistsError, InputError, NotFoundError
from plantml.storage import checksums, numbered_files
from plantml.storage.segments import Segments

SEGMENT_ROWS = 1000
SEGMENT_SECONDS = 10.0

ROWS_IN = ".jsonl"
"""Ending of segments."""

_HEAD, _MARK = "000000.json", ".written"
_OURS = re.compile(r"000000\.json|(\d{6}|[1-9]\d{6,})(\.jsonl|\.written)")
"""Names of a journal's files; others, such as those of a file browser, are ignored."""

_ROWS = 1 << 24
"""A position is the segment's number times this, plus the row. No segment has that many rows."""

_SEGMENTS_CACHED = 2

_START_OVER = "It cannot be known whose rows these are: start over with --fresh, or choose another --out."


@dataclass(frozen=True, slots=True)
class Row:
    """One finished image.

    Attributes:
        record: as one line of JSON.
        embedding: packed by `segments.pack`; empty if embeddings are off, or for a failure.
        segment: number of the journal segment that holds it.
    """

    record: str
    embedding: str = ""
    segment: int = 0


class Journal:
    """The journal of an output, new or from an earlier run, for one process: a second writer is an error.

    Args:
        out: URL of the output.
        options: model and options that determine the records.
        fresh: discard an existing journal.
        retry_failed: process images that failed again.
        location: URL of the journal, if it is not beside the output.

    Attributes:
        published: the output contains all rows of segments up to this number.
        damaged: one sentence per damaged segment.

    Raises:
        InputError: an earlier run used another model or other options.
    """

    def __init__(
        self,
        out: str,
        options: Mapping[str, Any],
        *,
        fresh: bool = False,
        retry_failed: bool = False,
        location: str | None = None,
    ) -> None:
        self.url = location or f"{out}.journal"
        names = _names(self.url)
        if fresh:
            for name in reversed(names):  # the head last: it keeps another model from the rest
                storage.remove(storage.join(self.url, name))
            names = []
        _check_head(self.url, options, is_new=not any(name.endswith(ROWS_IN) for name in names))
        self.published = max((int(name.split(".")[0]) for name in names if name.endswith(_MARK)), default=0)
        self.damaged: list[str] = []
        self._intact: list[int] = []
        self._positions = Positions()
        self._cache: dict[int, list[bytes]] = {}
        self._new_keys: list[bytes] = []
        self._read(retry_failed=retry_failed)

    def _read(self, *, after: int = 0, retry_failed: bool = False) -> None:
        self._segments = Segments(
            self.url,
            ROWS_IN,
            rows=SEGMENT_ROWS,
            seconds=SEGMENT_SECONDS,
            after=self.published,
            shared=False,
            report=self.damaged.append,
        )
        for number, rows in self._segments.read(after):
            self._intact.append(number)
            for row, line in enumerate(rows):
                key, record, *_ = line.split(b"\t")
                retries = retry_failed and json.loads(record.decode("utf-8", "surrogateescape"))["failure"] is not None
                self._positions[Source(*json.loads(key)).key] = -1 if retries else number * _ROWS + row

    @property
    def last(self) -> int:
        """Number of the last segment."""
        return self._segments.last

    def read_new(self) -> None:
        """Read the segments that other processes have written since."""
        self._read(after=self.last)

    def __contains__(self, source: Source) -> bool:
        return source.key in self._positions

    def __iter__(self) -> Iterator[Source]:
        """All processed images, as they were at that time, in the order of processing."""
        for number in self._intact:
            for row, line in enumerate(self._load(number)):
                source = Source(*json.loads(line.split(b"\t", 1)[0]))
                if self._positions[source.key] == number * _ROWS + row:  # else a later row replaced it
                    yield source

    def add(self, source: Source, line: str, embedding: str = "") -> None:
        """Add one finished image; `line` is its record as one line of JSON."""
        self._new_keys.append(source.key)
        with self._only_writer():
            self._index_new(self._segments.add(encode(source, line, embedding)))

    def flush(self) -> None:
        """Write the rows that were added since the last segment."""
        with self._only_writer():
            self._index_new(self._segments.flush())

    def mark(self) -> None:
        """Mark that the output contains all rows so far."""
        last = max(self._intact, default=0)
        if self.published < last:
            numbered_files.create(self.url, last, _MARK, b"")
            self.published = last

    def rows(self, sources: Iterable[Source], after: int = 0) -> Iterator[Row]:
        """The rows of sources, in the order of the sources; unfinished ones are left out.

        Args:
            sources: images to look up.
            after: only rows of segments with a higher number.
        """
        for source in sources:
            segment, row = divmod(self._positions[source.key], _ROWS)
            if segment > after:  # an unfinished image has segment -1
                _, record, *embedding = self._load(segment)[row].decode("utf-8", "surrogateescape").split("\t")
                yield Row(record, embedding[0] if embedding else "", segment)

    def lines(self, sources: Iterable[Source]) -> Iterator[str]:
        """The record lines of sources, in the order of the sources; unfinished ones are left out."""
        return (row.record for row in self.rows(sources))

    def _load(self, number: int) -> list[bytes]:
        # Images were processed in the order of the sources, so segments are needed one after another.
        if number not in self._cache:
            while len(self._cache) >= _SEGMENTS_CACHED:
                self._cache.pop(next(iter(self._cache)))
            self._cache[number] = self._segments.load(number)
        return self._cache[number]

    def _index_new(self, number: int) -> None:
        """Index the rows that a new segment has; 0 for none."""
        if number:
            self._intact.append(number)
            for row, key in enumerate(self._new_keys):
                self._positions[key] = number * _ROWS + row
            self._new_keys = []

    @contextlib.contextmanager
    def _only_writer(self) -> Iterator[None]:
        try:
            yield
        except AlreadyExistsError as error:
            raise InputError(
                f"{self.url} is being written by another run",
                "",
                "Wait for the other run to end, or choose another --out.",
            ) from error


def encode(source: Source, line: str, embedding: str = "") -> bytes:
    """One finished image as a row of a segment; see `Journal.add`."""
    row = [json.dumps(source.fields), line, *([embedding] if embedding else [])]
    return "\t".join(row).encode("utf-8", "surrogateescape")


def _names(url: str) -> list[str]:
    try:
        return [entry.name for entry in storage.list_files(url) if _OURS.fullmatch(entry.name)]
    except NotFoundError:
        return []


def _check_head(url: str, options: Mapping[str, Any], *, is_new: bool) -> None:
    """Write the options down, or compare them with those of an earlier run."""
    head = storage.join(url, _HEAD)
    if not is_new and not storage.exists(head):
        raise InputError(f"{head} is missing", "it names the model and options of the rows", _START_OVER)
    try:
        storage.create(head, checksums.to_json(dict(sorted(options.items()))))
    except AlreadyExistsError:
        before = checksums.from_json(storage.read(head), head, _START_OVER)
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
