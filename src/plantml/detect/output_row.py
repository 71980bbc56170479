"""A record on its way to the outputs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plantml.detect.journal import Row
from plantml.model import records

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OutputRow:
    """One record on its way to the outputs.

    Attributes:
        record: parsed.
        embedding: packed, see `journal.Row`.
        segment: number of the journal segment that holds it.
        line: the record as JSON, if that is known.
    """

    record: Record
    embedding: str = ""
    segment: int = 0
    line: str = ""

    @classmethod
    def parse(cls, row: Row) -> "OutputRow":
        """A row of the journal."""
        return cls(json.loads(row.record), row.embedding, row.segment, row.record)

    def with_record(self, record: Record) -> "OutputRow":
        """The row with another record."""
        return OutputRow(record, self.embedding, self.segment)

    def as_line(self) -> str:
        """The record as one line of JSON."""
        return self.line or to_line(self.record)

    def unicode_record(self) -> Record:
        """The record with file names as Unicode; see `records.parse`."""
        line = self.as_line()
        try:
            line.encode()
        except UnicodeEncodeError:
            return records.parse(line)
        return self.record


def to_line(content: Mapping[str, Any] | list[Any]) -> str:
    """A record, or a part of one, as one line of JSON."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))
