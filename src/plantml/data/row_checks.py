"""Rules for every row of a dataset version, checked whenever a version is read or written."""

import math
import re
from collections.abc import Iterable, Iterator

import polars as pl

from plantml import storage
from plantml.data import manifest
from plantml.data.manifest import EXCLUDED, KEY, NO_PHOTO, OK, SPLITS, import_name
from plantml.errors import InputError
from plantml.parsing import parse_json_object
from plantml.storage import addresses
from plantml.targets import Target

_STORED = r"^images/[0-9a-f]{2}/[0-9a-f]{64}(\.[^/\\:\x00-\x1f]*)?$"
"""What an import calls a photo that it copies."""

_DETOURS = ["..", "::", "\\"]
"""What a path needs in order to leave the folder that it starts with; in a web address, `%` too."""

_ABSOLUTE = re.compile(r"/|~|[A-Za-z][A-Za-z0-9+.\-]*://")

_OF_PIXELS = ("image_id", "path", "width", "height")
"""Columns that are set for every photo that is not excluded, and for no row without a photo."""


def first_fault(rows: pl.DataFrame, targets: Iterable[Target]) -> str:
    """The first invalid row, its column and what is wrong; empty if all rows are valid."""
    targets = tuple(targets)
    schema = manifest.schema_of(targets)
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
    for name in (*KEY, "status", *_OF_PIXELS):
        if rows[name].null_count() and name in _OF_PIXELS:
            is_used = pl.col("status") == OK
            yield name, "is not allowed unless the photo is excluded", is_used & pl.col(name).is_null()
        elif rows[name].null_count():
            yield name, "is not allowed here", pl.col(name).is_null()
    statuses = (OK, NO_PHOTO, EXCLUDED)
    yield "status", f"is none of {', '.join(statuses)}", _is_none_of("status", statuses)
    if (rows["status"] == NO_PHOTO).any():
        for name in (*_OF_PIXELS, "boxes"):
            has_one = (pl.col("status") == NO_PHOTO) & pl.col(name).is_not_null()
            yield name, "is not allowed in a row without a photo", has_one
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
    if strange := manifest.labels_in(rows, target) - set(target.classes):
        is_strange = column.list.eval(pl.element().is_in(strange)).list.any() if is_list else column.is_in(strange)
        yield target.name, f"is not a class of {target.name}, which has {', '.join(target.classes[:20])}", is_strange
    if is_list and labels.explode(empty_as_null=False, keep_nulls=False).null_count():
        yield target.name, "contains a null label", column.list.eval(pl.element().is_null()).list.any()


def _box_rules(rows: pl.DataFrame) -> Iterator[tuple[str, str, pl.Expr]]:
    boxes, column = rows["boxes"].explode(empty_as_null=False, keep_nulls=False), pl.col("boxes")
    fields = boxes.struct.unnest()
    if not fields.select(pl.sum_horizontal(*"xywh", ignore_nulls=False).is_finite().all(ignore_nulls=False)).item():
        sides = [pl.element().struct.field(side) for side in "xywh"]
        has_all = pl.all_horizontal(side.is_finite().fill_null(value=False) for side in sides)
        yield "boxes", "contains a box without four finite numbers", column.list.eval(~has_all).list.any()
    if strange := [text for text in fields["labels"].unique() if text and not _are_labels(text)]:
        has_strange = column.list.eval(pl.element().struct.field("labels").is_in(strange)).list.any()
        yield (
            "boxes",
            "contains a box whose labels are not a JSON object of targets and their classes or numbers",
            has_strange,
        )


def _are_labels(text: str) -> bool:
    try:
        return all(
            isinstance(label, str) or (type(label) in {int, float} and math.isfinite(label))
            for label in parse_json_object(text, "").values()
        )
    except InputError:
        return False


def _abbreviated(value: object) -> str:
    text = "null" if value is None else str(value.to_list() if isinstance(value, pl.Series) else value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def check_paths(ref: str, rows: pl.DataFrame) -> None:
    """Raise `InputError` if a row names a file outside both the dataset and the row's source.

    A reference lies in its source or around it (see `addresses.around`), or at the address in the row's name.
    """
    copied = _lies_in("images/") & (pl.col("path").str.slice(len("images/00/"), 64) == pl.col("image_id"))
    others = rows.filter(~copied)
    others = others.filter(~pl.col("path").str.contains(_STORED)).with_columns(came=import_name(rows))
    for source in others["source"].unique():
        theirs = others.filter(pl.col("source").eq_missing(source)).select("name", "came", "path")
        root = addresses.around(source or "")
        for name, came, path in theirs.filter(~_lies_in(root)).iter_rows():
            if path not in _named_places(source or "", came) and addresses.refusal(
                path, addresses.own_roots(source or "", came), lookup=_nowhere
            ):
                raise InputError(
                    f"{ref} names a file outside the dataset",
                    f"row {name!r} of {source} has the path {path!r}, which is neither in images/ nor in its source",
                    f"The file was edited by hand. Find an older version to restore: plantml dataset log {ref}",
                )


def _lies_in(root: str) -> pl.Expr:
    """True for paths that certainly lie under a root; without regular expressions, as there may be a million paths."""
    head, chain, outer = root.partition("::")
    head = head if head.endswith("/") else f"{head}/"
    path = pl.col("path")
    inside = path.str.strip_prefix(head).str.strip_suffix(chain + outer) if chain else path
    leaves = inside.str.contains_any(_DETOURS) | inside.str.contains("%", literal=True)
    return path.str.starts_with(head) & path.str.ends_with(chain + outer) & ~leaves


def _named_places(source: str, name: str) -> set[str]:
    """The places that a photo's name in a list can mean."""
    return {name} if _ABSOLUTE.match(name) else {storage.join(storage.split(source)[0], name)}


def _nowhere(_: str) -> tuple[str, ...]:
    return ()
