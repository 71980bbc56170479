"""Write records to files: JSON Lines, flat CSV and Parquet, and COCO and MegaDetector for other programs."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plantml import storage
from plantml.concurrency import batched
from plantml.detect import exchange_formats
from plantml.detect.journal import Row
from plantml.errors import UsageError
from plantml.model import records
from plantml.model.contract import Contract

if TYPE_CHECKING:
    import polars as pl

Record = Mapping[str, Any]
_ROWS = 2000
"""Rows of a table in memory at a time."""

_PLAIN = ("image", "image_id", "width", "height", "model", "decision", "unknown", "failure")


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


Writer = Callable[[Path, Iterable[OutputRow], Contract], None]


def to_line(record: Record) -> str:
    """A record as one line of JSON."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def flat(record: Record, contract: Contract) -> dict[str, Any]:
    """A record as one row: for a class target its label and `_score`, several labels joined by `|`."""
    row = {name: record[name] for name in _PLAIN}
    for target in contract.targets:
        prediction = (record["targets"] or {}).get(target.name, {})
        if target.kind == "class":
            row |= {target.name: prediction.get("label"), f"{target.name}_score": prediction.get("score")}
        elif target.kind == "multilabel":
            labels = prediction.get("labels")
            row[target.name] = None if labels is None else "|".join(name for name, _ in labels)
        else:
            row[target.name] = prediction.get("value")
    return row


def write(out: str, rows: Iterable[OutputRow], contract: Contract, form: str | None = None) -> None:
    """Write records to a URL atomically.

    Args:
        out: URL of the output.
        rows: the records.
        contract: of the model.
        form: one of `FORMATS`; by default the format of the URL's extension.

    Raises:
        UsageError: there is no such format.
    """
    writer = writer_of(out, form)
    with storage.staged(out) as path:
        writer(path, rows, contract)


def writer_of(out: str, form: str | None = None) -> Writer:
    """The writer for a format, or for an extension. Raises `UsageError` that lists them."""
    if form is not None:
        if form not in FORMATS:
            raise UsageError(f"There is no format {form!r}", "", f"Formats: {', '.join(FORMATS)}.")
        return FORMATS[form]
    try:
        return WRITERS[storage.suffix(out)]
    except KeyError:
        raise UsageError(
            f"The format of {out} is unknown",
            f"its extension is {storage.suffix(out) or 'empty'!r}",
            f"Extensions: {', '.join(WRITERS)}; or name the format: --format {'|'.join(FORMATS)}.",
        ) from None


def _jsonl(path: Path, rows: Iterable[OutputRow], _: Contract) -> None:
    # File names need not be Unicode, but JSON must: other bytes are escaped, as by `os.fsdecode`.
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        file.writelines(f"{row.as_line()}\n" for row in rows)


def _csv(path: Path, rows: Iterable[OutputRow], contract: Contract) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, _columns(contract))
        table.writeheader()
        table.writerows(flat(row.unicode_record(), contract) for row in rows)


def _parquet(path: Path, rows: Iterable[OutputRow], contract: Contract) -> None:
    write_parquet(path, (flat(row.unicode_record(), contract) for row in rows), flat_schema(contract))


def flat_schema(contract: Contract) -> dict[str, Any]:
    """Columns of flat records, with their polars types."""
    import polars as pl

    text = dict.fromkeys(("image", "image_id", "model", "decision", "failure"), pl.String)
    schema: dict[str, Any] = dict.fromkeys(_columns(contract), pl.Float64)
    schema |= text | {"width": pl.Int32, "height": pl.Int32}
    return schema | {target.name: pl.String for target in contract.targets if target.kind != "value"}


def write_parquet(path: Path, rows: Iterable[Mapping[str, Any]], schema: Mapping[str, Any]) -> None:
    """Write rows as Parquet in batches, so that memory does not grow with their number."""
    import polars as pl
    from polars.io.plugins import register_io_source

    def batches(*_: object) -> "Iterator[pl.DataFrame]":
        yield pl.DataFrame(schema=schema)  # so that the table exists even without rows
        for batch in batched(rows, _ROWS):
            yield pl.DataFrame(batch, schema=schema)

    table = register_io_source(batches, schema=dict(schema))
    table.sink_parquet(path, row_group_size=10 * _ROWS, engine="streaming", maintain_order=True)


def _columns(contract: Contract) -> list[str]:
    empty = {**dict.fromkeys(_PLAIN), "targets": None}
    return list(flat(empty, contract))


FORMATS: Mapping[str, Writer] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "parquet": _parquet,
    "coco": exchange_formats.coco,
    "megadetector": exchange_formats.megadetector,
}
"""Writers by format; add a new one here."""

WRITERS: Mapping[str, Writer] = {".jsonl": _jsonl, ".ndjson": _jsonl, ".csv": _csv, ".parquet": _parquet}
"""Writers by extension; formats that end in `.json` must be named."""
