"""Write records to files: JSON Lines, flat CSV and Parquet, and COCO and MegaDetector for other programs."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plantml import storage
from plantml.concurrency import batched
from plantml.detect.config import STDOUT, DetectConfig, TableRows
from plantml.detect.journal import Row
from plantml.errors import UsageError
from plantml.model import records
from plantml.model.contract import Contract

if TYPE_CHECKING:
    import polars as pl

Record = Mapping[str, Any]
_ROWS = 2000
"""Rows of a table in memory at a time."""

_PLAIN: Mapping[str, type] = {
    "image": str, "image_id": str, "width": int, "height": int, "model": str, "decision": str, "unknown": float,
    "failure": str,
}  # fmt: skip
"""Columns of every table of photos, with their types."""

_BOX: Mapping[str, type] = {
    "image": str, "image_id": str, "box": int, "x": float, "y": float, "w": float, "h": float, "score": float,
    "decision": str,
}  # fmt: skip
"""Columns of every table of boxes."""


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


BOXES = "boxes"
"""Column with the number of boxes."""


def count_column(target: str, name: str) -> str:
    """The column with the number of boxes of a class."""
    return f"{target}: {name}"


def columns(contract: Contract) -> dict[str, type]:
    """Columns of a table with one row per photo, with their types."""
    if contract.detection is None:
        return {**_PLAIN, **_target_columns(contract)}
    counts = [count_column(target.name, name) for target in contract.targets for name in target.classes]
    return {**_PLAIN, **dict.fromkeys([BOXES, *counts], int)}


def box_columns(contract: Contract) -> dict[str, type]:
    """Columns of a table with one row per box, with their types."""
    return {**_BOX, **_target_columns(contract)}


def _target_columns(contract: Contract) -> dict[str, type]:
    names: dict[str, type] = {}
    for target in contract.targets:
        names[target.name] = float if target.kind == "value" else str
        if target.kind == "class":
            names[f"{target.name}_score"] = float
    return names


def flat(record: Record, contract: Contract) -> dict[str, Any]:
    """A record as one row; of a detector with the number of its boxes, in all and by class, null after a failure."""
    row = {name: record[name] for name in _PLAIN}
    if contract.detection is None:
        return row | _flat_targets(record["targets"] or {}, contract)
    counts = record.get("counts") or {}
    row[BOXES] = counts.get("boxes")
    for target in contract.targets:
        for name in target.classes:
            row[count_column(target.name, name)] = counts.get(target.name, {}).get(name, 0) if counts else None
    return row


def flat_boxes(record: Record, contract: Contract) -> Iterator[dict[str, Any]]:
    """A record as one row per box, numbered from 1; none for a photo without boxes or a failure."""
    for number, box in enumerate(record["boxes"], start=1):
        row = {"image": record["image"], "image_id": record["image_id"], "box": number}
        row |= {name: box[name] for name in _BOX if name in box}
        yield row | _flat_targets(box["targets"], contract)


def _flat_targets(predictions: Mapping[str, Mapping[str, Any]], contract: Contract) -> dict[str, Any]:
    """Predictions as columns: for a class target its label and `_score`, several labels joined by `|`."""
    row: dict[str, Any] = {}
    for target in contract.targets:
        prediction = predictions.get(target.name, {})
        if target.kind == "class":
            row |= {target.name: prediction.get("label"), f"{target.name}_score": prediction.get("score")}
        elif target.kind == "multilabel":
            labels = prediction.get("labels")
            row[target.name] = None if labels is None else "|".join(name for name, _ in labels)
        else:
            row[target.name] = prediction.get("value")
    return row


def write(
    out: str, rows: Iterable[OutputRow], contract: Contract, form: str | None = None, table: TableRows = "photos"
) -> None:
    """Write records to a URL atomically.

    Args:
        out: URL of the output.
        rows: the records.
        contract: of the model.
        form: one of `FORMATS`; by default the format of the URL's extension.
        table: what a row of a table is.

    Raises:
        UsageError: there is no such format.
    """
    writer = writer_of(out, form, table)
    with storage.staged(out) as path:
        writer(path, rows, contract)


def writer_of(out: str, form: str | None = None, table: TableRows = "photos") -> Writer:
    """The writer for a format, or for an extension. Raises `UsageError` that lists them."""
    writer = _writer_of(out, form)
    if table == "photos":
        return writer
    if writer not in _BOX_WRITERS:
        raise UsageError(
            "--rows boxes needs a table", f"{out} is written in another format", "Name one: --out boxes.csv or .parquet"
        )
    return _BOX_WRITERS[writer]


def _writer_of(out: str, form: str | None) -> Writer:
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


def is_jsonl(config: DetectConfig) -> bool:
    """True if records are written as JSON Lines."""
    return config.out == STDOUT or writer_of(config.out, config.format) is _jsonl


def _jsonl(path: Path, rows: Iterable[OutputRow], _: Contract) -> None:
    # File names need not be Unicode, but JSON must: other bytes are escaped, as by `os.fsdecode`.
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        file.writelines(f"{row.as_line()}\n" for row in rows)


def _csv(path: Path, rows: Iterable[OutputRow], contract: Contract) -> None:
    _write_csv(path, (flat(row.unicode_record(), contract) for row in rows), columns(contract))


def _csv_of_boxes(path: Path, rows: Iterable[OutputRow], contract: Contract) -> None:
    boxes = chain.from_iterable(flat_boxes(row.unicode_record(), contract) for row in rows)
    _write_csv(path, boxes, box_columns(contract))


def _write_csv(path: Path, rows: Iterable[Mapping[str, Any]], names: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(names))
        table.writeheader()
        table.writerows(rows)


def _parquet(path: Path, rows: Iterable[OutputRow], contract: Contract) -> None:
    write_parquet(path, (flat(row.unicode_record(), contract) for row in rows), schema_of(columns(contract)))


def _parquet_of_boxes(path: Path, rows: Iterable[OutputRow], contract: Contract) -> None:
    boxes = chain.from_iterable(flat_boxes(row.unicode_record(), contract) for row in rows)
    write_parquet(path, boxes, schema_of(box_columns(contract)))


def schema_of(types: Mapping[str, type]) -> dict[str, Any]:
    """Columns with their polars types."""
    import polars as pl

    of_polars = {str: pl.String, int: pl.Int32, float: pl.Float64}
    return {name: of_polars[kind] for name, kind in types.items()}


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


def _coco(path: Path, rows: Iterable[OutputRow], contract: Contract) -> None:
    from plantml.detect import exchange_formats

    exchange_formats.coco(path, rows, contract)


def _megadetector(path: Path, rows: Iterable[OutputRow], contract: Contract) -> None:
    from plantml.detect import exchange_formats

    exchange_formats.megadetector(path, rows, contract)


def _yolo(path: Path, rows: Iterable[OutputRow], contract: Contract) -> None:
    from plantml.detect import labelling_formats

    labelling_formats.yolo(path, rows, contract)


def _label_studio(path: Path, rows: Iterable[OutputRow], contract: Contract) -> None:
    from plantml.detect import labelling_formats

    labelling_formats.label_studio(path, rows, contract)


FORMATS: Mapping[str, Writer] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "parquet": _parquet,
    "coco": _coco,
    "megadetector": _megadetector,
    "yolo": _yolo,
    "label-studio": _label_studio,
}
"""Writers by format; add a new one here."""

WRITERS: Mapping[str, Writer] = {".jsonl": _jsonl, ".ndjson": _jsonl, ".csv": _csv, ".parquet": _parquet}
"""Writers by extension; formats that end in `.json` must be named."""

_BOX_WRITERS: Mapping[Writer, Writer] = {_csv: _csv_of_boxes, _parquet: _parquet_of_boxes}
"""Writers of tables with one row per box, by those with one row per photo."""
