"""Records as flat tables, CSV or Parquet: a row per photo, or a row per box."""

import csv
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plantml.concurrency import batched
from plantml.detect.output_row import OutputRow, Record
from plantml.model.contract import Contract

if TYPE_CHECKING:
    import polars as pl

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


def to_csv(path: Path, rows: Iterable[OutputRow], contract: Contract) -> None:
    """A row per photo as CSV."""
    _write_csv(path, (flat(row.unicode_record(), contract) for row in rows), columns(contract))


def boxes_to_csv(path: Path, rows: Iterable[OutputRow], contract: Contract) -> None:
    """A row per box as CSV."""
    boxes = chain.from_iterable(flat_boxes(row.unicode_record(), contract) for row in rows)
    _write_csv(path, boxes, box_columns(contract))


def _write_csv(path: Path, rows: Iterable[Mapping[str, Any]], names: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(names))
        table.writeheader()
        table.writerows(rows)


def to_parquet(path: Path, rows: Iterable[OutputRow], contract: Contract) -> None:
    """A row per photo as Parquet."""
    write_parquet(path, (flat(row.unicode_record(), contract) for row in rows), schema_of(columns(contract)))


def boxes_to_parquet(path: Path, rows: Iterable[OutputRow], contract: Contract) -> None:
    """A row per box as Parquet."""
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
