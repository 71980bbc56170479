"""One version of a dataset: its rows, its targets, and where they came from.

There is one row per imported file, and per row of a table that has no photo. `docs/dataset.md` describes the columns,
`version_files` the file.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from plantml import storage
from plantml.data.scan import QUALITY
from plantml.errors import InputError
from plantml.targets import Kind, Target

BOX = pl.Struct({"x": pl.Float64, "y": pl.Float64, "w": pl.Float64, "h": pl.Float64, "labels": pl.String})

SYSTEM: dict[str, pl.DataType | type[pl.DataType]] = {
    "source": pl.String,
    "name": pl.String,
    "image_id": pl.String,
    "path": pl.String,
    "width": pl.Int32,
    "height": pl.Int32,
    "format": pl.String,
    "mode": pl.String,
    "orientation": pl.Int8,
    "frames": pl.Int32,
    "bytes": pl.Int64,
    "camera": pl.String,
    "jpeg_quality": pl.Int8,
    "phash": pl.UInt64,
    **dict.fromkeys(QUALITY, pl.Float32),
    "border": pl.Binary,
    "boxes": pl.List(BOX),
    "group": pl.String,
    "split": pl.String,
    "status": pl.String,
    "reason": pl.String,
}
"""Columns that every version has, in this order; targets and `meta_*` columns follow."""

KEY = ("source", "name")
IMPORTED_AS, ANNOTATED_SIZE = "meta_imported_as", "meta_annotated_size"
SPLITS = ("train", "val", "test")
OK, NO_PHOTO, EXCLUDED = "ok", "no-photo", "excluded"
"""What a row can be: a photo to use, columns and labels alone, or a photo that is left out."""

_KINDS: dict[Kind, pl.DataType | type[pl.DataType]] = {
    "class": pl.String,
    "multilabel": pl.List(pl.String),
    "value": pl.Float64,
}


@dataclass(frozen=True)
class Commit:
    """How a version came about.

    `parent` is the version it is based on, 0 for the first; `time` is ISO 8601 in UTC; `counts` are rows by status.
    """

    operation: str
    parameters: Mapping[str, Any]
    parent: int
    time: str
    plantml: str
    targets: tuple[Target, ...]
    counts: Mapping[str, int]
    fingerprint: str


@dataclass(frozen=True)
class Version:
    """A dataset at one version: `rows` has the columns of `SYSTEM`, the targets and `meta_*`."""

    url: str
    number: int
    rows: pl.DataFrame
    targets: tuple[Target, ...]
    commit: Commit | None = field(default=None, repr=False)

    @property
    def ref(self) -> str:
        """The reference that names exactly this version."""
        return f"{self.url}@{self.number}"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what training sees; see `fingerprint`."""
        return self.commit.fingerprint if self.commit else fingerprint(self.rows, self.targets)

    def usable(self, split: str | None = None) -> pl.DataFrame:
        """Photos that are not excluded, of one split or of all."""
        rows = self.rows.filter(pl.col("status") == OK)
        return rows if split is None else rows.filter(pl.col("split") == split)

    def without_photo(self, split: str | None = None) -> pl.DataFrame:
        """Rows that have columns and labels alone, of one split or of all."""
        rows = self.rows.filter(pl.col("status") == NO_PHOTO)
        return rows if split is None else rows.filter(pl.col("split") == split)

    def target(self, name: str) -> Target:
        """One target by name. Raises `InputError` that lists the known ones."""
        for target in self.targets:
            if target.name == name:
                return target
        known = ", ".join(target.name for target in self.targets) or "none"
        raise InputError(f"{self.ref} has no target {name!r}", f"its targets: {known}", "Name one of its targets.")

    def image_url(self, path: str) -> str:
        """The URL of a row's bytes from its `path` column."""
        return storage.join(self.url, path) if path.startswith("images/") else path


def meta_column(name: str) -> str:
    """The column for a column of a user's table; those of plantml itself are not taken."""
    column = f"meta_{name}"
    return f"{column}_" if column in {IMPORTED_AS, ANNOTATED_SIZE} else column


def import_name(rows: pl.DataFrame) -> pl.Expr:
    """The name under which a photo was imported; it differs from `name` if `clean` fixed the extension."""
    return pl.coalesce(IMPORTED_AS, "name") if IMPORTED_AS in rows.columns else pl.col("name")


def imported_names(version: Version, source: str) -> set[str]:
    """Names of a source's photos: as imported and as they are now."""
    rows = version.rows.filter(pl.col("source") == source)
    return set(rows["name"]) | set(rows.select(import_name(rows)).to_series())


def empty_rows(targets: Iterable[Target] = ()) -> pl.DataFrame:
    """No rows, all columns."""
    return pl.DataFrame(schema=schema_of(targets))


def schema_of(targets: Iterable[Target]) -> dict[str, Any]:
    """Columns and types of every version with these targets, without `meta_*`."""
    return {**SYSTEM, **{target.name: _KINDS[target.kind] for target in targets}}


def conform(rows: pl.DataFrame, targets: Iterable[Target]) -> pl.DataFrame:
    """`rows` with every column in its place and type; `meta_*` columns last, by name.

    Raises:
        InputError: a column's values do not fit its type.
    """
    schema = schema_of(targets)
    metas = sorted(name for name in rows.columns if name.startswith("meta_"))
    columns = [
        pl.col(name).cast(dtype) if name in rows.columns else pl.lit(None, dtype).alias(name)
        for name, dtype in schema.items()
    ]
    try:
        return rows.select(*columns, *(pl.col(name).cast(pl.String) for name in metas))
    except pl.exceptions.InvalidOperationError as error:
        raise InputError(
            "A column does not fit the type of its target",
            str(error).splitlines()[0],
            "Import it as another kind: --target NAME:KIND",
        ) from error


def derive_targets(rows: pl.DataFrame, targets: Iterable[Target]) -> tuple[Target, ...]:
    """The targets with the classes that the rows contain: known classes first, then new ones, sorted."""
    return tuple(
        replace(target, classes=(*target.classes, *sorted(labels_in(rows, target) - set(target.classes))))
        for target in targets
    )


def narrow_targets(rows: pl.DataFrame, targets: Iterable[Target]) -> tuple[Target, ...]:
    """The targets without classes that no row has, in their order."""
    return tuple(
        replace(target, classes=tuple(name for name in target.classes if name in labels_in(rows, target)))
        for target in targets
    )


def labels_in(rows: pl.DataFrame, target: Target) -> set[str]:
    """The classes of a target that the rows have; none for a value."""
    if target.kind == "value" or target.name not in rows.columns:
        return set()
    column = rows[target.name].drop_nulls()
    return set((column.explode() if target.kind == "multilabel" else column).drop_nulls().unique())


def union(targets: Iterable[Target], others: Iterable[Target]) -> tuple[Target, ...]:
    """The targets of both, joined by name. Raises `InputError` if a target has two kinds."""
    by_name = {target.name: target for target in targets}
    for target in others:
        known = by_name.setdefault(target.name, target)
        if known.kind != target.kind:
            raise InputError(
                f"{target.name} is a {known.kind} target in the dataset, but a {target.kind} target in the source",
                "a target has one kind",
                f"Set the kind: --target {target.name}:{known.kind}",
            )
    return tuple(by_name.values())


def fingerprint(rows: pl.DataFrame, targets: Iterable[Target], measured: Iterable[str] = ()) -> str:
    """SHA-256 over the sorted multiset of what training sees, in canonical form.

    Ids, targets, boxes, groups, splits and status count; sources, names, places, order, and metadata
    do not, but for columns that a training takes as covariates, which are `measured`. The same content has the same
    fingerprint wherever it is stored.
    """
    names = sorted({*(target.name for target in targets), *measured})
    content = rows.select("image_id", "boxes", "group", "split", "status", *names)
    lines = sorted(_canonical([_unordered(value) for value in row]) for row in content.iter_rows())
    digest = hashlib.sha256(json.dumps(names).encode())
    for line in lines:
        digest.update(b"\n" + line.encode())
    return digest.hexdigest()


_canonical = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def _unordered(value: object) -> object:
    """Labels and boxes of a photo are unordered."""
    return sorted(value, key=_canonical) if isinstance(value, list) else value
