"""Tables of photos with labels; a row may have columns alone."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import polars as pl

from plantml import storage
from plantml.data import labels as label_rules
from plantml.data import tables
from plantml.data.importers import SPLIT_NAMES, ImportListing, Item
from plantml.data.importers.annotations import Reading
from plantml.data.importers.sidecar import Sidecar
from plantml.data.manifest import SYSTEM, meta_column
from plantml.errors import InputError
from plantml.targets import Kind, Target, check_name

CLASS_COLUMNS = ("label", "class", "class_name")
KNOWN_TARGETS = ("category", "health", "disease")
NO_PHOTO_FOLDER = "no-photo"
"""What the names of rows without a photo begin with, as if they were files of a folder."""

_ID = "id"
"""The column that names rows without a photo, whatever its case."""

_META = "meta_"
_LIST_SEPARATOR = "|"
_PADDED = r"^\s*[+-]?0\d"


def list_rows(source: str, table: pl.DataFrame, base: str, reading: Reading) -> ImportListing:
    """List the photos of a table's rows, relative to `base`, and the rows without one, see `RowNames`.

    `category`, `health` and `disease` are targets without being named, and a column `group` holds groups.
    """
    targets, image_column, group_column = reading.targets, reading.image_column, reading.group_column
    exported = reading.sidecar is not None  # then the table is complete
    image_column = tables.image_column(source, table.columns, image_column, "--image-column")
    to_predict = _targets(source, table, targets)
    group_column = _column(source, table, group_column) if group_column else "group"
    class_column = next((name for name in CLASS_COLUMNS if name in table.columns), None)
    if class_column and class_column not in {target.name for target in to_predict}:
        names = {str(name) for name in table[class_column].drop_nulls()}
        taxonomy = reading.names(names)
    else:
        class_column, taxonomy, names = None, None, set()

    one_disease = any(target.name == "disease" and target.kind == "class" for target in to_predict)
    derives_health = one_disease and "health" not in table.columns and not exported
    others = [
        name
        for name in table.columns
        if name not in {image_column, group_column, "split", *(target.name for target in to_predict)}
    ]
    metas = {meta_column(_metadata_name(name, reading.sidecar))[5:]: name for name in others}
    items = []
    row_names, empty = RowNames(table.columns, image_column), 0
    restored = reading.sidecar.images if reading.sidecar else {}
    for row in table.iter_rows(named=True):
        labels = {target.name: _label(target, row[target.name]) for target in to_predict}
        if one_disease and not exported:
            labels = label_rules.with_known_disease(labels)
        if derives_health:
            labels = label_rules.with_health(labels)
        if taxonomy is not None and class_column and row[class_column] is not None:
            known = {key: value for key, value in labels.items() if value is not None}
            labels = {**taxonomy(str(row[class_column])), **known}
        name = "" if _is_empty(row[image_column]) else str(row[image_column])
        item = Item(
            name or row_names.of(row),
            _url(base, name) if name else "",
            labels={key: value for key, value in labels.items() if value is not None},
            split=_split(source, row.get("split")),
            group=None if row.get(group_column) in (None, "") else str(row[group_column]),
            meta={key: str(row[column]) for key, column in metas.items() if row[column] is not None},
            status="ok" if name else "no-photo",
        )
        if name or item.labels or item.meta or item.name in restored:
            items.append(item)
        else:
            empty += 1
    if not items:
        raise InputError(f"No photos in {source}", "the list has no rows", "Write one row per photo.")
    _check_names(source, items)
    named = [*to_predict]
    named += [Target("health", "class")] if derives_health else []
    named += [Target(name, "class") for name in (taxonomy.targets if taxonomy else ())]
    unique = {target.name: target for target in named}
    notes = [f"Columns kept as metadata, not predicted: {', '.join(others)}."] if others else []
    notes += [f"Rows that are empty but for their split or group: {empty}; they are left out."] if empty else []
    return ImportListing(
        tuple(sorted(items, key=lambda item: item.name)),
        tuple(unique.values()),
        taxonomy.rule if taxonomy else "columns: " + (", ".join(unique) or "no labels"),
        {},
        tuple(notes),
        tuple(sorted(names)),
    )


class RowNames:
    """Names rows without a photo, so that an import of the same table names them the same.

    It is what the column `id` says, or else a digest of the row's cells, of whatever order and without empty ones.
    Rows that would have one name are numbered: two equal rows are two measurements.
    """

    def __init__(self, columns: Sequence[str], image_column: str) -> None:
        self._id = next((name for name in columns if name.lower() == _ID and name != image_column), None)
        self._seen: Counter[str] = Counter()
        self._taken: set[str] = set()

    def of(self, row: Mapping[str, Any]) -> str:
        """The name of the next row without a photo."""
        name = "" if self._id is None or _is_empty(row[self._id]) else str(row[self._id]).strip()
        if not name:
            cells = sorted((key, str(value)) for key, value in row.items() if not _is_empty(value))
            name = hashlib.sha256(json.dumps(cells).encode()).hexdigest()[:16]
        self._seen[name] += 1
        numbered = f"{name}#{self._seen[name]}" if self._seen[name] > 1 else name
        while numbered in self._taken:  # another row is called so
            self._seen[name] += 1
            numbered = f"{name}#{self._seen[name]}"
        self._taken.add(numbered)
        return f"{NO_PHOTO_FOLDER}/{numbered}"


def metadata_column(name: str, targets: Sequence[Target]) -> str:
    """The column of an exported table for the metadata `meta_NAME`: NAME, unless it means something else in a table."""
    plain = name.removeprefix(_META)
    return name if _has_meaning(plain, targets) else plain


def _metadata_name(column: str, sidecar: Sidecar | None) -> str:
    """The name of metadata in a table's column; undoes `metadata_column` in an export by plantml."""
    is_prefixed = sidecar is not None and column.startswith(_META) and _has_meaning(column, sidecar.targets)
    return column.removeprefix(_META) if is_prefixed else column


def _has_meaning(column: str, targets: Sequence[Target]) -> bool:
    while column.startswith(_META):
        column = column.removeprefix(_META)
    return column in {"image", "split", "group", *CLASS_COLUMNS, *KNOWN_TARGETS, *(target.name for target in targets)}


def _is_empty(value: Any) -> bool:
    """True for an empty cell."""
    return value is None or (isinstance(value, str) and not value.strip())


def _column(source: str, table: pl.DataFrame, name: str) -> str:
    if name not in table.columns:
        raise InputError(
            f"{source} has no column {name!r}", f"its columns: {', '.join(table.columns)}", "Name one of its columns."
        )
    return name


def _targets(source: str, table: pl.DataFrame, options: Sequence[str]) -> list[Target]:
    by_column = [Target(name, "class") for name in KNOWN_TARGETS if name in table.columns]
    for text in options:
        name, kind, unit = ([*text.split(":"), "", ""])[:3]
        check_name(name, SYSTEM)
        column = table[_column(source, table, name)]
        numeric, fractional = _numbers(column)
        kind = kind or ("value" if fractional else "multilabel" if column.dtype == pl.List else "class")
        if kind not in get_args(Kind):
            raise InputError(
                f"Unknown kind {kind!r} in {text!r}",
                f"kinds: {', '.join(get_args(Kind))}",
                "Write it like severity:value:fraction.",
            )
        if kind == "value" and not numeric:
            raise InputError(
                f"Column {name!r} of {source} is not numeric",
                f"its type is {column.dtype}",
                "Write numbers such as 0.5, or leave cells empty.",
            )
        by_column = [target for target in by_column if target.name != name]
        by_column.append(Target(name, kind, unit=unit))  # type: ignore[arg-type]
    return by_column


def _numbers(column: pl.Series) -> tuple[bool, bool]:
    """Whether all values are numbers, and whether some have a fraction. `01` is a code, so its column has none."""
    if column.dtype != pl.String:
        return column.dtype.is_numeric() or column.dtype == pl.Null, column.dtype.is_float()
    numeric = column.cast(pl.Float64, strict=False).null_count() == column.null_count()
    whole = column.cast(pl.Int64, strict=False).null_count() == column.null_count()
    coded = bool(column.str.contains(_PADDED).any())
    return numeric, numeric and not whole and not coded


def _label(target: Target, value: Any) -> Any:
    if value is None or value == "":
        return None
    if target.kind == "value":
        number = float(value)
        if not math.isfinite(number):
            raise InputError(f"{target.name} has the value {value!r}", "a value is a finite number", "Leave it empty.")
        return number
    if target.kind == "class":
        return str(value).strip() or None
    if isinstance(value, list):
        return [str(each) for each in value if each is not None]
    return [part.strip() for part in str(value).split(_LIST_SEPARATOR)]


def _split(source: str, value: Any) -> str | None:
    if value in (None, ""):
        return None
    try:
        return SPLIT_NAMES[str(value).lower()]
    except KeyError:
        raise InputError(
            f"{source} names an unknown split {value!r}", "splits are train, val and test", "Rename it in the list."
        ) from None


def _url(base: str, name: str) -> str:
    return name if name.startswith("/") or "://" in name else storage.join(base, name)


def _check_names(source: str, items: list[Item]) -> None:
    names: set[str] = set()
    for item in items:
        if item.name in names:
            raise InputError(
                f"{source} names {item.name} twice",
                "a photo has one row",
                "Merge its rows, or import them from separate tables.",
            )
        names.add(item.name)
