"""The inputs of a comparison: photos of a dataset, or records of a detection."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from plantml import storage
from plantml.concurrency import Progress, silent
from plantml.curate import embeddings
from plantml.curate.embeddings import Embedder
from plantml.data import versions
from plantml.data.manifest import Version
from plantml.data.scan import QUALITY
from plantml.errors import InputError
from plantml.parsing import parse_json_object
from plantml.settings import Machine

RECORDS = frozenset({".jsonl", ".ndjson", ".parquet", ".csv"})
"""Extensions of files that are read as records of a detection."""

_PLAIN = frozenset({"image", "image_id", "model", "failure"})
_HINT = "Give a file that plantml detect wrote."
FAILED = "failed"
"""The decision given to failures."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        ref: name of the dataset or file.
        ids: SHA-256 of each photo; `None` if it could not be read.
        groups: the group of each photo, or a unique key if it has none.
        labels: by column, the label of each photo or `None`.
        numbers: by column, the number of each photo or NaN.
        vectors: float32 [P, D] and the photo index of each row, or `None`.
        model: digest of the model that wrote the records; empty for a dataset.
        version: the dataset version, if it is one.
    """

    ref: str
    ids: Sequence[str | None]
    groups: Sequence[str]
    labels: Mapping[str, Sequence[str | None]]
    numbers: Mapping[str, NDArray[np.float64]]
    vectors: tuple[NDArray[np.float32], Sequence[int]] | None = None
    model: str = ""
    version: Version | None = field(default=None, repr=False)


def is_records(ref: str) -> bool:
    """Return true for a file of records, by its extension; anything else is a dataset."""
    return storage.suffix(ref) in RECORDS


def read(ref: str, *, split: str | None = None) -> Side:
    """Read a dataset, or only a split of it, or a file of records, without vectors.

    Raises:
        InputError: it cannot be read, or has no photos.
    """
    side = records(ref) if is_records(ref) else dataset(versions.load(ref), split)
    if not side.ids:
        raise InputError(
            f"{side.ref} has no photo to compare",
            f"split {split} is empty" if split else "it is empty",
            "Name another split or dataset.",
        )
    return side


def dataset(version: Version, split: str | None = None) -> Side:
    """Read the usable photos of a version: labels, values, quality, sizes and cameras."""
    rows = version.usable(split).filter(pl.col("phash").is_not_null())
    labels: dict[str, Sequence[str | None]] = {}
    numbers = {name: _floats(rows[name]) for name in (*QUALITY, "width", "height")}
    for target in version.targets:
        if target.kind == "value":
            numbers[target.name] = _floats(rows[target.name])
        elif target.kind == "class":
            labels[target.name] = rows[target.name].to_list()
        else:
            labels[target.name] = [None if names is None else _joined(names) for names in rows[target.name].to_list()]
    labels["camera"] = rows["camera"].to_list()
    groups = rows.select(
        pl.when(pl.col("group").is_null()).then(pl.format("id {}", "image_id")).otherwise(pl.format("g {}", "group"))
    )
    ref = version.ref + (f", {split}" if split else "")
    return Side(ref, rows["image_id"].to_list(), groups.to_series().to_list(), labels, numbers, version=version)


def records(url: str) -> Side:
    """Read records of a detection from JSON Lines, Parquet or CSV.

    Raises:
        InputError: it contains no records.
    """
    table = _lines(url) if storage.suffix(url) in {".jsonl", ".ndjson"} else _table(url)
    if not {"image", "image_id", "decision"} <= set(table.columns):
        raise InputError(
            f"{url} contains no records", f"its columns are {', '.join(table.columns) or 'none'}",
            "Give a file that plantml detect wrote, as .jsonl, .parquet or .csv.",
        )  # fmt: skip
    ids = table["image_id"].cast(pl.String).to_list()
    labels: dict[str, Sequence[str | None]] = {"decision": table["decision"].fill_null(FAILED).to_list()}
    numbers: dict[str, NDArray[np.float64]] = {}
    for name in table.columns:
        if name in _PLAIN or name in labels:
            continue
        if table.schema[name] == pl.String:
            labels[name] = [None if text is None else _joined(text.split("|")) for text in table[name].to_list()]
        elif table.schema[name].is_numeric():
            numbers[name] = _floats(table[name])
    groups = [f"id {image_id}" if image_id else f"url {url}" for image_id, url in zip(ids, table["image"], strict=True)]
    models = table["model"].drop_nulls().unique().to_list() if "model" in table.columns else []
    return Side(url, ids, groups, labels, numbers, model=models[0] if len(models) == 1 else "")


def with_file(side: Side, url: str) -> Side:
    """Add the vectors of a file that `detect --embeddings` or `dataset embed --out` wrote.

    Raises:
        InputError: it is not such a file, or has no photo of the side.
    """
    table = _table(url)
    if not {"image_id", "embedding"} <= set(table.columns):
        raise InputError(
            f"{url} contains no embeddings", f"its columns are {', '.join(table.columns) or 'none'}",
            "Write one: plantml detect … --embeddings FILE.parquet, or plantml dataset embed … --out FILE.parquet",
        )  # fmt: skip
    known = dict(table.select("image_id", "embedding").drop_nulls().iter_rows())
    return _with(side, known, f"{url} has no embeddings of photos of {side.ref}")


def with_embedder(side: Side, embedder: Embedder, machine: Machine, progress: Progress = silent) -> Side:
    """Add the vectors that a network computes for a dataset; they are stored in the dataset."""
    assert side.version is not None
    image_ids = pl.Series([image_id for image_id in side.ids if image_id])
    rows = side.version.rows.filter(pl.col("image_id").is_in(image_ids.implode()))
    ids, vectors = embeddings.embed(replace(side.version, rows=rows), embedder, machine, progress)
    return _with(side, dict(zip(ids, vectors, strict=True)), f"No photo of {side.ref} can be read")


def _with(side: Side, known: Mapping[str, Any], nothing: str) -> Side:
    places = [at for at, image_id in enumerate(side.ids) if image_id in known]
    if not places:
        raise InputError(nothing, "photos are matched by the SHA-256 of their bytes", "Use the files of one dataset.")
    vectors = np.array([known[side.ids[at] or ""] for at in places], np.float32)
    return replace(side, vectors=(embeddings.unit(vectors), places))


def _lines(url: str) -> pl.DataFrame:
    rows = []
    for number, text in enumerate(storage.read(url).decode("utf-8", "replace").split("\n"), start=1):
        if text.strip():
            try:
                rows.append(_flat(parse_json_object(text, f"Line {number} of {url}", hint=_HINT)))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                why = f"{type(error).__name__}: {error}"
                raise InputError(f"Line {number} of {url} is not a record", why, _HINT) from error
    try:
        return pl.DataFrame(rows, infer_schema_length=None)
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{url} contains no records", str(error).splitlines()[0], _HINT) from error


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten a record to a row without the contract of its model: the keys tell the kind of a prediction."""
    row = {name: record[name] for name in ("image", "image_id", "model", "decision")}
    row |= {name: record.get(name) for name in ("unknown", "width", "height")}
    for name, prediction in (record["targets"] or {}).items():
        if "label" in prediction:
            row |= {name: prediction["label"], f"{name}_score": prediction["score"]}
        elif "labels" in prediction:
            row[name] = "|".join(label for label, _ in prediction["labels"])
        else:
            row[name] = prediction["value"]
    return row


def _table(url: str) -> pl.DataFrame:
    data = io.BytesIO(storage.read(url))
    try:
        return pl.read_csv(data, infer_schema_length=None) if storage.suffix(url) == ".csv" else pl.read_parquet(data)
    except pl.exceptions.PolarsError as error:
        raise InputError(
            f"{url} cannot be read as a table", str(error).splitlines()[0], "Write it again with plantml detect --out."
        ) from error


def _joined(labels: Sequence[str]) -> str:
    return "|".join(sorted(labels)) or "(none)"


def _floats(column: pl.Series) -> NDArray[np.float64]:
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
