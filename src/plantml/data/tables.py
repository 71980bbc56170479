"""Tables of photos: CSV, TSV, JSON Lines and Parquet, for `dataset import` and for `detect`.

Only Parquet and whole tables need polars, so that a detection from a list does not load it.
"""

import codecs
import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from plantml import storage
from plantml.errors import InputError

if TYPE_CHECKING:
    import polars as pl

EXTENSIONS = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"})
"""Extensions of files that are read as tables."""

IMAGE_COLUMNS = ("image", "path", "file", "filename", "file_name", "image_path", "filepath", "url", "image_url", "name")
"""Usual names of the column of photos, in order of preference, whatever their case."""

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_ROWS = 10_000


def is_table(name: str) -> bool:
    """True if a file is read as a table, by its extension."""
    return storage.suffix(name) in EXTENSIONS


def find_image_column(columns: Sequence[str]) -> str | None:
    """The column of photos by its usual names; a single column needs none. `None` if there is no such column."""
    by_name = {name.lower(): name for name in reversed(columns)}
    usual = next((by_name[name] for name in IMAGE_COLUMNS if name in by_name), None)
    return columns[0] if usual is None and len(columns) == 1 else usual


def image_column(table: str, columns: Sequence[str], column: str | None, option: str) -> str:
    """The column of photos: `column`, or else `find_image_column`.

    Raises:
        InputError: there is no such column; the message names the command's `option`.
    """
    name = column if column is not None else find_image_column(columns)
    if name is not None and name in columns:
        return name
    raise InputError(
        f"{table} has no column {column!r}" if column else f"{table} does not say which column names the photos",
        f"its columns are {', '.join(columns) or 'none'}",
        f"Name the column of paths or URLs: {option} NAME",
    )


def read_table(url: str) -> "pl.DataFrame":
    """A whole table. CSV and TSV columns are text. Raises `InputError` if it cannot be read."""
    import polars as pl

    data, suffix = _read(url), storage.suffix(url)
    try:
        if suffix == ".parquet":
            return pl.read_parquet(io.BytesIO(data))
        if suffix not in _SEPARATORS:
            return pl.read_ndjson(io.BytesIO(data))
        # All as text: a photo, plant or class that is called 007 is not number 7.
        return pl.read_csv(io.BytesIO(data), separator=_separator(data, suffix), infer_schema=False, null_values=[""])
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        why = (suffix in _SEPARATORS and _open_quote(data, suffix)) or str(error).splitlines()[0]
        raise InputError(f"{url} cannot be read as a table", why, "Save it again, as UTF-8.") from error


def photo_rows(
    table: str, column: str | None = None, others: Sequence[str] = ()
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The values of a table's column of photos, in order, without empty ones, and of further columns by name.

    `column` is by default the first of `IMAGE_COLUMNS`. Those of `others` that the table lacks are left out.

    Raises:
        InputError: it is not a table, or has no such column.
    """
    data, suffix = _read(table), storage.suffix(table)
    rows = _parquet if suffix == ".parquet" else _csv if suffix in _SEPARATORS else _records
    for name, row in rows(table, data, column, others):
        if row[name]:
            yield str(row[name]), {other: row[other] for other in others if other in row}


def to_parquet(table: "pl.DataFrame") -> bytes:
    """A table as Parquet."""
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()


def as_utf8(data: bytes, url: str) -> bytes:
    """A text file as UTF-8 without a byte order mark; UTF-16 is recognized by its mark.

    Raises:
        InputError: it has the mark of UTF-16, but is not UTF-16.
    """
    if not data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode("utf-16").encode()
    except UnicodeDecodeError as error:
        why = f"its byte order mark says so, but byte {error.start} is not"
        raise InputError(f"{url} is not UTF-16", why, "Save it as UTF-8.") from error


def _read(url: str) -> bytes:
    data = storage.read(url)
    return data if storage.suffix(url) == ".parquet" else as_utf8(data, url)


def _separator(data: bytes, suffix: str) -> str:
    """Of the cells. Spreadsheets write a `.csv` with semicolons or tabs where a comma is the decimal mark."""
    header = data.split(b"\n", 1)[0]
    if suffix == ".csv" and b"," not in header:
        return next((mark for mark in ";\t" if mark.encode() in header), ",")
    return _SEPARATORS[suffix]


def _open_quote(data: bytes, suffix: str) -> str:
    """Where a cell starts whose quotation mark is never closed; empty if there is none."""
    text = io.StringIO(data.decode("utf-8", "replace"), newline="")
    reader = csv.reader(text, delimiter=_separator(data, suffix), strict=True)
    line = 1
    try:
        for _ in reader:
            line = reader.line_num + 1
    except csv.Error as error:
        return f"line {line}: {error}; a quotation mark that is not closed, or stands inside a cell"
    return ""


def _csv(table: str, data: bytes, column: str | None, _: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    text = io.TextIOWrapper(io.BytesIO(data), "utf-8", "surrogateescape", newline="")
    rows = csv.DictReader(text, delimiter=_separator(data, storage.suffix(table)))
    name = image_column(table, list(rows.fieldnames or ()), column, "--column")
    try:
        yield from ((name, row) for row in rows)
    except csv.Error as error:
        raise InputError(f"{table} is not valid CSV", str(error), "Save it again, as UTF-8.") from error


def _records(table: str, data: bytes, column: str | None, _: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, text in enumerate(data.split(b"\n"), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text.decode("utf-8", "surrogateescape"))
            name = image_column(table, list(row), column, "--column")
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(
                f"Line {number} of {table} is not a JSON object",
                str(error),
                "Correct the line: one object with a photo per line.",
            ) from error
        yield name, row


def _parquet(
    table: str, data: bytes, column: str | None, others: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    import polars as pl

    try:
        columns = list(pl.read_parquet_schema(io.BytesIO(data)))
        name = image_column(table, columns, column, "--column")
        wanted = dict.fromkeys([name, *(other for other in others if other in columns)])
        rows = pl.read_parquet(io.BytesIO(data), columns=list(wanted))
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{table} cannot be read", str(error).splitlines()[0], "Save it again as Parquet.") from error
    for part in rows.iter_slices(_ROWS):
        yield from ((name, row) for row in part.iter_rows(named=True))
