"""One version of a dataset: its rows, its targets, and where they came from.

A version is a Parquet file. The rows are one an imported file; the commit record is in the file's
key-value metadata under `plantml`. `docs/dataset.md` describes the columns.
"""

import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import polars as pl

from plantml import addresses, storage
from plantml.about import __version__
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
IMPORTED_AS = "meta_imported_as"
SPLITS = ("train", "val", "test")
OK, EXCLUDED = "ok", "excluded"

_STORED = r"^images/[0-9a-f]{2}/[0-9a-f]{64}(\.[^/\\\x00-\x1f]*)?$"
_ABSOLUTE = re.compile(r"/|~|[A-Za-z][A-Za-z0-9+.\-]*://")
_KINDS: dict[Kind, pl.DataType | type[pl.DataType]] = {
    "class": pl.String,
    "multilabel": pl.List(pl.String),
    "value": pl.Float64,
}


@dataclass(frozen=True)
class Commit:
    """How a version came about.

    Attributes:
        operation: the verb: `import`, `split`, `tag`…
        parameters: of the operation, as text values.
        parent: number of the version it was made from; 0 for the first.
        time: ISO 8601, UTC.
        plantml: version of plantml that wrote it.
        targets: with their kind and classes in order.
        counts: rows by status.
        fingerprint: SHA-256 of what training sees.
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
        """Rows that are not excluded, of one split or of all."""
        rows = self.rows.filter(pl.col("status") == OK)
        return rows if split is None else rows.filter(pl.col("split") == split)

    def target(self, name: str) -> Target:
        """One target by name. Raises `InputError` that lists what there is."""
        for target in self.targets:
            if target.name == name:
                return target
        known = ", ".join(target.name for target in self.targets) or "none"
        raise InputError(f"{self.ref} has no target {name!r}", f"its targets: {known}")

    def image_url(self, path: str) -> str:
        """The URL of a row's bytes from its `path` column."""
        return storage.join(self.url, path) if path.startswith("images/") else path


def came_as(rows: pl.DataFrame) -> pl.Expr:
    """The name that a photo came in under, which is another one where `clean` mended its ending."""
    return pl.coalesce(IMPORTED_AS, "name") if IMPORTED_AS in rows.columns else pl.col("name")


def imported_names(version: Version, source: str) -> set[str]:
    """Names that a source's photos came in under, and that they have now."""
    rows = version.rows.filter(pl.col("source") == source)
    return set(rows["name"]) | set(rows.select(came_as(rows)).to_series())


def empty_rows(targets: Iterable[Target] = ()) -> pl.DataFrame:
    """No rows, all columns."""
    return pl.DataFrame(schema={**SYSTEM, **{target.name: _KINDS[target.kind] for target in targets}})


def conform(rows: pl.DataFrame, targets: Iterable[Target]) -> pl.DataFrame:
    """`rows` with every column there, in its place and of its type; `meta_*` columns last, by name.

    Raises:
        InputError: a column's values do not fit its type.
    """
    schema: dict[str, Any] = {**SYSTEM, **{target.name: _KINDS[target.kind] for target in targets}}
    metas = sorted(name for name in rows.columns if name.startswith("meta_"))
    columns = [
        pl.col(name).cast(dtype) if name in rows.columns else pl.lit(None, dtype).alias(name)
        for name, dtype in schema.items()
    ]
    try:
        return rows.select(*columns, *(pl.col(name).cast(pl.String) for name in metas))
    except pl.exceptions.InvalidOperationError as error:
        raise InputError("A column does not hold what its target needs", str(error).splitlines()[0]) from error


def derive_targets(rows: pl.DataFrame, targets: Iterable[Target]) -> tuple[Target, ...]:
    """The targets with their classes as the rows hold them: known ones first, new ones after, sorted."""
    return tuple(_with_classes(rows, target) for target in targets)


def narrow_targets(rows: pl.DataFrame, targets: Iterable[Target]) -> tuple[Target, ...]:
    """The targets without classes that no row has, in their order."""
    return tuple(
        replace(target, classes=tuple(name for name in target.classes if name in _labels_in(rows, target)))
        for target in targets
    )


def _labels_in(rows: pl.DataFrame, target: Target) -> set[str]:
    if target.kind == "value" or target.name not in rows.columns:
        return set()
    column = rows[target.name].drop_nulls()
    return set((column.explode() if target.kind == "multilabel" else column).drop_nulls().unique())


def _with_classes(rows: pl.DataFrame, target: Target) -> Target:
    new = sorted(_labels_in(rows, target) - set(target.classes))
    return replace(target, classes=(*target.classes, *new))


def union(have: Iterable[Target], come: Iterable[Target]) -> tuple[Target, ...]:
    """Targets of both, by name. Raises `InputError` where one has two kinds."""
    by_name = {target.name: target for target in have}
    for target in come:
        known = by_name.setdefault(target.name, target)
        if known.kind != target.kind:
            raise InputError(
                f"The dataset predicts {target.name} as {known.kind}, the source gives it as {target.kind}",
                "one target has one kind",
                f"Name the kind: --target {target.name}:{known.kind}",
            )
    return tuple(by_name.values())


def fingerprint(rows: pl.DataFrame, targets: Iterable[Target]) -> str:
    """SHA-256 over the sorted multiset of what training sees, in canonical form.

    Ids, targets, boxes, groups, splits and status count; sources, names, places, order, and metadata
    do not. The same content has the same fingerprint wherever it is stored.
    """
    names = sorted(target.name for target in targets)
    seen = rows.select("image_id", "boxes", "group", "split", "status", *names)
    lines = sorted(_canonical([_unordered(value) for value in row]) for row in seen.iter_rows())
    digest = hashlib.sha256(json.dumps(names).encode())
    for line in lines:
        digest.update(b"\n" + line.encode())
    return digest.hexdigest()


def _canonical(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _unordered(value: object) -> object:
    """Labels and boxes of one photo have no order."""
    return sorted(value, key=_canonical) if isinstance(value, list) else value


def to_parquet(version: Version, operation: str, parameters: Mapping[str, Any], parent: int) -> tuple[Commit, bytes]:
    """The version as the bytes of its Parquet file, and the commit record in it."""
    counts = dict(sorted(version.rows["status"].value_counts().iter_rows()))
    commit = Commit(
        operation=operation,
        parameters=parameters,
        parent=parent,
        time=storage.now_utc(),
        plantml=__version__,
        targets=version.targets,
        counts=counts,
        fingerprint=fingerprint(version.rows, version.targets),
    )
    buffer = io.BytesIO()
    version.rows.write_parquet(buffer, metadata={"plantml": json.dumps(asdict(commit))})
    return commit, buffer.getvalue()


def from_parquet(url: str, number: int, data: bytes) -> Version:
    """A version from the bytes of its file. Raises `InputError` if they are not one."""
    commit = read_commit(url, data)
    try:
        rows = pl.read_parquet(io.BytesIO(data))
    except pl.exceptions.PolarsError as error:
        raise InputError(f"Version {number} of {url} cannot be read", str(error).splitlines()[0]) from error
    missing = set(SYSTEM) - set(rows.columns)
    if missing:
        raise InputError(f"Version {number} of {url} is incomplete", f"it lacks {', '.join(sorted(missing))}")
    check_paths(f"{url}@{number}", rows)
    return Version(url, number, rows, commit.targets, commit)


def check_paths(ref: str, rows: pl.DataFrame) -> None:
    """Raise `InputError` if a row names a file that is neither one of the dataset's own nor of the row's source.

    A photo that was left where it is lies in its source or around it (see `addresses.around`), or at the address that
    the row's name is.
    """
    stored = pl.col("path").str.contains(_STORED) & ~pl.col("path").str.contains("::", literal=True)
    others = rows.filter(pl.col("path").is_not_null() & ~stored).with_columns(came=came_as(rows))
    for source in others["source"].unique():
        theirs = others.filter(pl.col("source").eq_missing(source)).select("name", "came", "path")
        root = addresses.around(source or "")
        for name, came, path in theirs.filter(~_lies_in(root)).iter_rows():
            if path not in _named_places(source or "", came) and addresses.refusal(path, (root,), lookup=_nowhere):
                raise InputError(
                    f"{ref} names a file that is none of its own",
                    f"row {name!r} of {source} has the path {path!r}, which lies neither in images/ nor in its source",
                    f"The file was changed by hand. Go back to a version before: plantml dataset log {ref}",
                )


def _lies_in(root: str) -> pl.Expr:
    """True for paths that lie under a root for sure: all at once, as there may be a million of them."""
    head, chain, outer = root.partition("::")
    head = head if head.endswith("/") else f"{head}/"
    rest = pl.col("path").str.strip_prefix(head).str.strip_suffix(chain + outer)
    fits = pl.col("path").str.starts_with(head) & pl.col("path").str.ends_with(chain + outer)
    return fits & ~rest.str.contains(r"\.\.|::|%|\\|\x00")


def _named_places(source: str, name: str) -> set[str]:
    """Where a list's name of a photo leads."""
    return {name} if _ABSOLUTE.match(name) else {storage.join(storage.split(source)[0], name)}


def _nowhere(_: str) -> tuple[str, ...]:
    return ()


def read_commit(url: str, data: bytes) -> Commit:
    """The commit record of a version's file."""
    try:
        record = json.loads(pl.read_parquet_metadata(io.BytesIO(data))["plantml"])
        targets = tuple(Target(**{**item, "classes": tuple(item["classes"])}) for item in record.pop("targets"))
        return Commit(targets=targets, **record)
    except (KeyError, TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise InputError(
            f"{url} holds a file that is not a dataset version", f"{type(error).__name__}: {error}"
        ) from error
