"""Records as files: JSON Lines as they are, CSV and Parquet flat, COCO and MegaDetector for other programs."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plantml import storage
from plantml.concurrency import batched
from plantml.detect import exchange_formats
from plantml.errors import UsageError
from plantml.model import records
from plantml.model.contract import Contract

if TYPE_CHECKING:
    import polars as pl

Record = Mapping[str, Any]
Writer = Callable[[Path, Iterable[str], Contract], None]
_ROWS = 2000
"""Rows of a table that are in memory at once."""

_PLAIN = ("image", "image_id", "width", "height", "model", "decision", "unknown", "failure")


def line(record: Record) -> str:
    """A record as one line of JSON."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def flat(record: Record, contract: Contract) -> dict[str, Any]:
    """A record as one row: for a class target its label and `_score`, several labels joined by `|`."""
    row = {name: record[name] for name in _PLAIN}
    for target in contract.targets:
        answer = (record["targets"] or {}).get(target.name, {})
        if target.kind == "class":
            row |= {target.name: answer.get("label"), f"{target.name}_score": answer.get("score")}
        elif target.kind == "multilabel":
            labels = answer.get("labels")
            row[target.name] = None if labels is None else "|".join(name for name, _ in labels)
        else:
            row[target.name] = answer.get("value")
    return row


def write(out: str, lines: Iterable[str], contract: Contract, form: str | None = None) -> None:
    """Write record lines to a URL, in one step.

    Args:
        out: where to.
        lines: records as JSON.
        contract: of the model that made them.
        form: one of `FORMATS`; without one, the format of the URL's extension.

    Raises:
        UsageError: no format has that extension or name.
    """
    writer = writer_of(out, form)
    with storage.staged(out) as path:
        writer(path, lines, contract)


def writer_of(out: str, form: str | None = None) -> Writer:
    """The writer of a format's name, or of an extension. Raises `UsageError` that lists them."""
    if form is not None:
        if form not in FORMATS:
            raise UsageError(f"No format is called {form!r}", "", f"Formats: {', '.join(FORMATS)}.")
        return FORMATS[form]
    try:
        return WRITERS[storage.suffix(out)]
    except KeyError:
        raise UsageError(
            f"No format is called {storage.suffix(out) or 'nothing'!r}",
            f"of {out}",
            f"Formats: {', '.join(WRITERS)}, or name one: --format {'|'.join(FORMATS)}.",
        ) from None


def _jsonl(path: Path, lines: Iterable[str], _: Contract) -> None:
    # A file name need not be Unicode, but JSON must: its other bytes become escapes, as in `os.fsdecode`.
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        file.writelines(f"{text}\n" for text in lines)


def _csv(path: Path, lines: Iterable[str], contract: Contract) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, _columns(contract))
        table.writeheader()
        table.writerows(_rows(lines, contract))


def _parquet(path: Path, lines: Iterable[str], contract: Contract) -> None:
    schema = flat_schema(contract)
    sink(path, _rows(lines, contract), schema)


def flat_schema(contract: Contract) -> dict[str, Any]:
    """The columns of flat records and their types of polars."""
    import polars as pl

    text = dict.fromkeys(("image", "image_id", "model", "decision", "failure"), pl.String)
    schema: dict[str, Any] = dict.fromkeys(_columns(contract), pl.Float64)
    schema |= text | {"width": pl.Int32, "height": pl.Int32}
    return schema | {target.name: pl.String for target in contract.targets if target.kind != "value"}


def sink(path: Path, rows: Iterable[Mapping[str, Any]], schema: Mapping[str, Any]) -> None:
    """Write rows as Parquet, some at a time, so that memory does not grow with their number."""
    import polars as pl
    from polars.io.plugins import register_io_source

    def parts(*_: object) -> "Iterator[pl.DataFrame]":
        yield pl.DataFrame(schema=schema)  # so that no rows are a table too
        for some in batched(rows, _ROWS):
            yield pl.DataFrame(some, schema=schema)

    table = register_io_source(parts, schema=dict(schema))
    table.sink_parquet(path, row_group_size=10 * _ROWS, engine="streaming", maintain_order=True)


def _rows(lines: Iterable[str], contract: Contract) -> Iterator[dict[str, Any]]:
    return (flat(records.parse(text), contract) for text in lines)


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
"""Output formats by name; a new one is one more line here."""

WRITERS: Mapping[str, Writer] = {".jsonl": _jsonl, ".ndjson": _jsonl, ".csv": _csv, ".parquet": _parquet}
"""What an extension means; `.json` has to be named."""
