"""Image URLs from a column of a table: CSV, TSV, Parquet or records."""

import csv
import io
import json
from collections.abc import Iterator, Sequence

from plantml import storage
from plantml.errors import InputError

EXTENSIONS = frozenset({".csv", ".tsv", ".parquet", ".jsonl", ".ndjson"})
"""Extensions of files that are read as tables."""

COLUMNS = ("image", "url", "image_url", "path", "file", "file_name", "filename", "image_path")
"""Default names of the image column, in order of preference, in any case."""

_ROWS = 10_000


def urls(table: str, column: str | None = None) -> Iterator[str]:
    """The values of a table's column, in order; empty ones are left out.

    Args:
        table: URL of the table.
        column: name of the column; by default the first of `COLUMNS` in the table.

    Raises:
        InputError: the table cannot be read, or has no such column.
    """
    data = storage.read(table)
    suffix = storage.suffix(table)
    if suffix == ".parquet":
        values = _parquet(table, data, column)
    elif suffix in {".csv", ".tsv"}:
        values = _csv(table, data, column)
    else:
        values = _records(table, data, column)
    yield from filter(None, values)


def _image_column(table: str, columns: Sequence[str], column: str | None) -> str:
    if column in columns and column is not None:
        return column
    known = {name.lower(): name for name in reversed(columns)}
    if column is None:
        for name in COLUMNS:
            if name in known:
                return known[name]
        if len(columns) == 1:
            return columns[0]
    raise InputError(
        f"{table} has no column {column!r}" if column else f"{table} names no images",
        f"its columns are {', '.join(columns) or 'none'}",
        "Name the column with the paths or URLs: --column NAME",
    )


def _csv(table: str, data: bytes, column: str | None) -> Iterator[str]:
    text = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", "surrogateescape", newline="")
    rows = csv.DictReader(text, delimiter="\t" if storage.suffix(table) == ".tsv" else ",")
    name = _image_column(table, list(rows.fieldnames or ()), column)
    try:
        for row in rows:
            yield row[name] or ""
    except csv.Error as error:
        raise InputError(f"{table} is not CSV", str(error)) from error


def _records(table: str, data: bytes, column: str | None) -> Iterator[str]:
    for number, text in enumerate(data.split(b"\n"), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text.decode("utf-8", "surrogateescape"))
            yield str(row[_image_column(table, list(row), column)] or "")
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(f"Line {number} of {table} is not a JSON object", str(error)) from error


def _parquet(table: str, data: bytes, column: str | None) -> Iterator[str]:
    import polars as pl

    try:
        name = _image_column(table, list(pl.read_parquet_schema(io.BytesIO(data))), column)
        rows = pl.read_parquet(io.BytesIO(data), columns=[name])
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{table} cannot be read", str(error).splitlines()[0]) from error
    for batch in rows.iter_slices(_ROWS):
        yield from (str(value or "") for value in batch[name].to_list())
