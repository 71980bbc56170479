"""One version of a dataset: its rows, its targets, and where they came from.

A version is a Parquet file with one row per imported file. The commit record is in its key-value metadata
under `plantml`, and ends with the checksum of the file. `docs/dataset.md` describes the columns.
"""

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import polars as pl
from pydantic import TypeAdapter

from plantml import storage
from plantml.about import __version__
from plantml.data.scan import QUALITY
from plantml.errors import InputError
from plantml.parsing import parse_json_object
from plantml.storage import addresses, checksums
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

_OF_PIXELS = ("image_id", "path", "width", "height")
"""Columns that are set for every photo that is not excluded."""

_RECORD = "plantml"
"""Key of the commit record in the file's metadata."""

_UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
"""What polars raises on bytes that are not Parquet."""


@dataclass(frozen=True)
class Commit:
    """How a version came about.

    Attributes:
        operation: the verb: `import`, `split`, `tag`…
        parameters: of the operation, as text values.
        parent: number of the version it is based on; 0 for the first.
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


_COMMIT = TypeAdapter(Commit)


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
        """One target by name. Raises `InputError` that lists the known ones."""
        for target in self.targets:
            if target.name == name:
                return target
        known = ", ".join(target.name for target in self.targets) or "none"
        raise InputError(f"{self.ref} has no target {name!r}", f"its targets: {known}")

    def image_url(self, path: str) -> str:
        """The URL of a row's bytes from its `path` column."""
        return storage.join(self.url, path) if path.startswith("images/") else path


def import_name(rows: pl.DataFrame) -> pl.Expr:
    """The name under which a photo was imported; it differs from `name` if `clean` fixed the extension."""
    return pl.coalesce(IMPORTED_AS, "name") if IMPORTED_AS in rows.columns else pl.col("name")


def imported_names(version: Version, source: str) -> set[str]:
    """Names of a source's photos: as imported and as they are now."""
    rows = version.rows.filter(pl.col("source") == source)
    return set(rows["name"]) | set(rows.select(import_name(rows)).to_series())


def empty_rows(targets: Iterable[Target] = ()) -> pl.DataFrame:
    """No rows, all columns."""
    return pl.DataFrame(schema={**SYSTEM, **{target.name: _KINDS[target.kind] for target in targets}})


def conform(rows: pl.DataFrame, targets: Iterable[Target]) -> pl.DataFrame:
    """`rows` with every column in its place and type; `meta_*` columns last, by name.

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
        raise InputError("A column does not fit the type of its target", str(error).splitlines()[0]) from error


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


def fingerprint(rows: pl.DataFrame, targets: Iterable[Target]) -> str:
    """SHA-256 over the sorted multiset of what training sees, in canonical form.

    Ids, targets, boxes, groups, splits and status count; sources, names, places, order, and metadata
    do not. The same content has the same fingerprint wherever it is stored.
    """
    names = sorted(target.name for target in targets)
    content = rows.select("image_id", "boxes", "group", "split", "status", *names)
    lines = sorted(_canonical([_unordered(value) for value in row]) for row in content.iter_rows())
    digest = hashlib.sha256(json.dumps(names).encode())
    for line in lines:
        digest.update(b"\n" + line.encode())
    return digest.hexdigest()


def _canonical(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _unordered(value: object) -> object:
    """Labels and boxes of a photo are unordered."""
    return sorted(value, key=_canonical) if isinstance(value, list) else value


def to_parquet(version: Version, operation: str, parameters: Mapping[str, Any], parent: int) -> tuple[Commit, bytes]:
    """The version as the bytes of its Parquet file, and the commit record in it.

    Raises:
        InputError: a row is invalid, and could not be read back.
    """
    if fault := first_fault(version.rows, version.targets):
        raise InputError(
            f"No new version of {version.url} was written", fault, "Fix the source and repeat the command."
        )
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
    record = json.dumps({**asdict(commit), checksums.KEY: checksums.BLANK})
    version.rows.write_parquet(buffer, metadata={_RECORD: record})
    return commit, checksums.seal(buffer.getvalue())


def from_parquet(url: str, number: int, data: bytes) -> Version:
    """A version from the bytes of its file.

    Raises:
        InputError: they are not a version file, fail the checksum, or contain an invalid row.
    """
    ref = f"{url}@{number}"
    commit = read_commit(ref, data)
    try:
        rows = pl.read_parquet(io.BytesIO(data))
    except _UNREADABLE as error:
        raise _damaged(ref, str(error).splitlines()[0]) from error
    if fault := first_fault(rows, commit.targets):
        raise _damaged(ref, fault)
    check_paths(ref, rows)
    return Version(url, number, rows, commit.targets, commit)


def check_paths(ref: str, rows: pl.DataFrame) -> None:
    """Raise `InputError` if a row names a file outside both the dataset and the row's source.

    A reference lies in its source or around it (see `addresses.around`), or at the address in the row's name.
    """
    stored = pl.col("path").str.contains(_STORED) & ~pl.col("path").str.contains("::", literal=True)
    others = rows.filter(pl.col("path").is_not_null() & ~stored).with_columns(came=import_name(rows))
    for source in others["source"].unique():
        theirs = others.filter(pl.col("source").eq_missing(source)).select("name", "came", "path")
        root = addresses.around(source or "")
        for name, came, path in theirs.filter(~_lies_in(root)).iter_rows():
            if path not in _named_places(source or "", came) and addresses.refusal(
                path, addresses.own_roots(source or "", came), lookup=lambda _: ()
            ):
                raise InputError(
                    f"{ref} names a file outside the dataset",
                    f"row {name!r} of {source} has the path {path!r}, which is neither in images/ nor in its source",
                    f"The file was edited by hand. Find an older version to restore: plantml dataset log {ref}",
                )


def _lies_in(root: str) -> pl.Expr:
    """True for paths that certainly lie under a root; vectorised, as there may be a million of them."""
    head, chain, outer = root.partition("::")
    head = head if head.endswith("/") else f"{head}/"
    rest = pl.col("path").str.strip_prefix(head).str.strip_suffix(chain + outer)
    fits = pl.col("path").str.starts_with(head) & pl.col("path").str.ends_with(chain + outer)
    return fits & ~rest.str.contains(r"\.\.|::|%|\\|\x00")


def _named_places(source: str, name: str) -> set[str]:
    """The places that a photo's name in a list can mean."""
    return {name} if _ABSOLUTE.match(name) else {storage.join(storage.split(source)[0], name)}


def read_commit(ref: str, data: bytes) -> Commit:
    """The commit record of a version's file; verifies the checksum if there is one. Raises `InputError`."""
    try:
        text = pl.read_parquet_metadata(io.BytesIO(data))[_RECORD]
        record = parse_json_object(text, "its commit record")
        has_checksum = record.pop(checksums.KEY, None) is not None
        commit = _commit_of(record)
    except (KeyError, ValueError, InputError, *_UNREADABLE) as error:
        why = "it is empty" if not data else f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        raise InputError(f"The file of {ref} is not a dataset version", why, _next(ref)) from error
    if has_checksum and not checksums.is_intact(data):
        raise _damaged(ref, checksums.CHANGED)
    return commit


def _commit_of(record: Mapping[str, Any]) -> Commit:
    if unknown := set(record) - {item.name for item in fields(Commit)}:
        raise ValueError(f"unknown keys {', '.join(sorted(unknown))}")
    return _COMMIT.validate_python(record)


def _damaged(ref: str, why: str) -> InputError:
    return InputError(f"{ref} is damaged", why, _next(ref))


def _next(ref: str) -> str:
    url = ref.rpartition("@")[0]
    return (
        f"plantml dataset log {url} shows the versions; plantml dataset restore {url} N continues from version N. "
        "Or restore the file from a backup."
    )


# --- rules for every row ----------------------------------------------------------------------


def first_fault(rows: pl.DataFrame, targets: Iterable[Target]) -> str:
    """The first invalid row, its column and what is wrong; empty if all rows are valid."""
    targets = tuple(targets)
    schema: dict[str, Any] = {**SYSTEM, **{target.name: _KINDS[target.kind] for target in targets}}
    if missing := sorted(set(schema) - set(rows.columns)):
        return f"it lacks the columns {', '.join(missing)}"
    for name, dtype in schema.items():
        if rows.schema[name] != dtype:
            return f"column {name} holds {rows.schema[name]}, not {dtype}"
    rules = list(_rules(rows, targets))
    broken = rows.select(wrong.any().alias(str(place)) for place, (_, _, wrong) in enumerate(rules)).row(0)
    for is_broken, (column, why, wrong) in zip(broken, rules, strict=True):
        if is_broken:
            row = int(rows.select(wrong.fill_null(value=False).arg_max()).item())
            return f"row {row + 1} ({rows['name'][row]}), column {column}: {_abbreviated(rows[column][row])} {why}"
    return ""


def _rules(rows: pl.DataFrame, targets: Iterable[Target]) -> Iterator[tuple[str, str, pl.Expr]]:
    """Rules as (column, what is wrong, expression that is true for invalid rows).

    Rules that a quick check of the whole column rules out are left out: all checks take a tenth of the reading time.
    """
    for name in (*KEY, "status"):
        yield name, "is not allowed here", pl.col(name).is_null()
    for name in _OF_PIXELS:
        if rows[name].null_count():
            is_used = pl.col("status") == OK
            yield name, "is not allowed unless the photo is excluded", is_used & pl.col(name).is_null()
    yield "status", f"is neither {OK} nor {EXCLUDED}", _is_none_of("status", (OK, EXCLUDED))
    yield "split", f"is none of {', '.join(SPLITS)}", _is_none_of("split", SPLITS)
    if rows["name"].n_unique() < rows.height:  # names alone are compared much faster
        yield "name", "appears twice in one source", pl.struct(KEY).is_duplicated()
    for target in targets:
        if target.kind == "value":
            yield target.name, "is not a finite number", ~pl.col(target.name).is_finite()
        else:
            yield from _label_rules(rows, target)
    yield from _box_rules(rows)


def _is_none_of(column: str, values: Iterable[str]) -> pl.Expr:
    return pl.all_horizontal(pl.col(column) != value for value in values)


def _label_rules(rows: pl.DataFrame, target: Target) -> Iterator[tuple[str, str, pl.Expr]]:
    labels, column = rows[target.name], pl.col(target.name)
    is_list = target.kind == "multilabel"
    if strange := labels_in(rows, target) - set(target.classes):
        is_strange = column.list.eval(pl.element().is_in(strange)).list.any() if is_list else column.is_in(strange)
        yield target.name, f"is not a class of {target.name}, which has {', '.join(target.classes[:20])}", is_strange
    if is_list and labels.explode(empty_as_null=False, keep_nulls=False).null_count():
        yield target.name, "contains a null label", column.list.eval(pl.element().is_null()).list.any()


def _box_rules(rows: pl.DataFrame) -> Iterator[tuple[str, str, pl.Expr]]:
    boxes, column = rows["boxes"].explode(empty_as_null=False, keep_nulls=False), pl.col("boxes")
    if not all(boxes.struct.field(side).is_finite().all(ignore_nulls=False) for side in "xywh"):
        sides = [pl.element().struct.field(side) for side in "xywh"]
        has_all = pl.all_horizontal(side.is_finite().fill_null(value=False) for side in sides)
        yield "boxes", "contains a box without four finite numbers", column.list.eval(~has_all).list.any()
    if strange := [text for text in boxes.struct.field("labels").unique() if text and not _are_labels(text)]:
        has_strange = column.list.eval(pl.element().struct.field("labels").is_in(strange)).list.any()
        yield "boxes", "contains a box whose labels are not a JSON object of targets and classes", has_strange


def _are_labels(text: str) -> bool:
    try:
        return all(isinstance(name, str) for name in parse_json_object(text, "").values())
    except InputError:
        return False


def _abbreviated(value: object) -> str:
    text = "null" if value is None else str(value.to_list() if isinstance(value, pl.Series) else value)
    return text if len(text) <= 80 else f"{text[:77]}…"
