"""Records as files: JSON Lines as they are, CSV and Parquet flat."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from plantml import storage
from plantml.bundle import Contract
from plantml.errors import UsageError

Record = Mapping[str, Any]
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


def write(out: str, lines: Iterable[str], contract: Contract) -> None:
    """Write record lines to a URL, in the format of its extension, in one step.

    Raises:
        UsageError: no format has that extension.
    """
    writer = writer_of(out)
    with storage.staged(out) as path:
        writer(path, lines, contract)


def writer_of(out: str) -> Callable[[Path, Iterable[str], Contract], None]:
    """The writer of an extension. Raises `UsageError` that lists them."""
    try:
        return WRITERS[storage.suffix(out)]
    except KeyError:
        raise UsageError(
            f"No format is called {storage.suffix(out) or 'nothing'!r}",
            f"of {out}",
            f"Formats: {', '.join(WRITERS)}.",
        ) from None


def _jsonl(path: Path, lines: Iterable[str], _: Contract) -> None:
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        file.writelines(f"{text}\n" for text in lines)


def _csv(path: Path, lines: Iterable[str], contract: Contract) -> None:
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        table = csv.DictWriter(file, _columns(contract))
        table.writeheader()
        table.writerows(_rows(lines, contract))


def _parquet(path: Path, lines: Iterable[str], contract: Contract) -> None:
    import polars as pl

    text = dict.fromkeys(("image", "image_id", "model", "decision", "failure"), pl.String)
    schema: dict[str, Any] = dict.fromkeys(_columns(contract), pl.Float64)
    schema |= text | {"width": pl.Int32, "height": pl.Int32}
    schema |= {target.name: pl.String for target in contract.targets if target.kind != "value"}
    # A file name need not be Unicode, but a Parquet string must.
    unicode = (text.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for text in lines)
    pl.DataFrame(list(_rows(unicode, contract)), schema=schema).write_parquet(path)


def _rows(lines: Iterable[str], contract: Contract) -> Iterator[dict[str, Any]]:
    return (flat(json.loads(text), contract) for text in lines)


def _columns(contract: Contract) -> list[str]:
    empty = {**dict.fromkeys(_PLAIN), "targets": None}
    return list(flat(empty, contract))


WRITERS: Mapping[str, Callable[[Path, Iterable[str], Contract], None]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
}
"""Output formats by extension; a new one is one more line here."""
