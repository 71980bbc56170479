"""Write records to files, by format: the table of formats that `detect` writes."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from plantml import storage
from plantml.detect.config import STDOUT, DetectConfig, TableRows
from plantml.detect.formats import tables
from plantml.detect.output_row import OutputRow
from plantml.errors import UsageError
from plantml.model.contract import Contract

Writer = Callable[[Path, Iterable[OutputRow], Contract], None]


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


def _coco(path: Path, rows: Iterable[OutputRow], contract: Contract) -> None:
    from plantml.detect.formats import coco  # each loads what it needs, and only if it is asked for

    coco.write(path, rows, contract)


def _megadetector(path: Path, rows: Iterable[OutputRow], contract: Contract) -> None:
    from plantml.detect.formats import megadetector

    megadetector.write(path, rows, contract)


def _yolo(path: Path, rows: Iterable[OutputRow], contract: Contract) -> None:
    from plantml.detect.formats import yolo

    yolo.write(path, rows, contract)


def _label_studio(path: Path, rows: Iterable[OutputRow], contract: Contract) -> None:
    from plantml.detect.formats import label_studio

    label_studio.write(path, rows, contract)


FORMATS: Mapping[str, Writer] = {
    "jsonl": _jsonl,
    "csv": tables.to_csv,
    "parquet": tables.to_parquet,
    "coco": _coco,
    "megadetector": _megadetector,
    "yolo": _yolo,
    "label-studio": _label_studio,
}
"""Writers by format; add a new one here."""

WRITERS: Mapping[str, Writer] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".csv": tables.to_csv,
    ".parquet": tables.to_parquet,
}
"""Writers by extension; formats that end in `.json` must be named."""

_BOX_WRITERS: Mapping[Writer, Writer] = {
    tables.to_csv: tables.boxes_to_csv,
    tables.to_parquet: tables.boxes_to_parquet,
}
"""Writers of tables with one row per box, by those with one row per photo."""
