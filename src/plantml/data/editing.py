"""Edits, each a new version: corrected labels, renamed classes, subsets, merges, restored versions."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import polars as pl

from plantml import storage
from plantml.concurrency import Progress, in_threads, silent
from plantml.data import boxes, manifest, photos, versions
from plantml.data.filters import where
from plantml.data.formats import list_source
from plantml.data.importers import ImportListing, Item
from plantml.data.manifest import EXCLUDED, OK, Version
from plantml.data.tables import is_table, read_table
from plantml.data.versions import Committed
from plantml.errors import InputError, UsageError
from plantml.targets import NO_DISEASE, Target

REVIEWER, REVIEWED = "meta_reviewer", "meta_reviewed"
"""Columns: who looked at a photo last and found it right, and when (ISO 8601 in UTC)."""


@dataclass(frozen=True)
class Relabelled:
    """Photos in the list, photos with new labels or boxes, and photos that are back in use after a review."""

    listed: int
    relabelled: int
    back_in_use: int


def corrections(url: str, version: Version, rule: str = "auto", image_column: str | None = None) -> ImportListing:
    """A list of corrections for a version: a table with columns of its targets, or any format of annotations."""
    columns = read_table(url).columns if is_table(url) else []
    targets = [f"{target.name}:{target.kind}:{target.unit}" for target in version.targets if target.name in columns]
    listing = list_source(url, rule=rule, targets=targets, image_column=image_column)
    if not columns:
        return listing
    # Health that was only derived from the disease corrects nothing in a dataset without that target.
    known = {*columns, *(target.name for target in version.targets)}
    items = tuple(
        replace(item, labels={name: label for name, label in item.labels.items() if name in known})
        for item in listing.items
    )
    return replace(listing, items=items)


def relabel(ref: str, listing: ImportListing, *, new_classes: bool = False) -> Committed[Relabelled]:
    """Take labels and boxes from a list of corrections; everything else stays.

    Photos that were excluded for review are back in use once the list (see `corrections`) names them. Classes that the
    dataset does not have need `new_classes`.

    Raises:
        InputError: a photo, target or class is not in the dataset, or a name matches several photos.
    """
    if not any(item.labels or item.boxes is not None for item in listing.items):
        raise InputError(
            "The list corrects nothing",
            "none of its columns is a target of the dataset, and it has no boxes",
            f"Name a column after a target: {', '.join(target.name for target in versions.load(ref).targets)}.",
        )

    def correct(version: Version) -> tuple[pl.DataFrame, tuple[Target, ...], Relabelled]:
        check_known(version, listing, new_classes=new_classes)
        places = _places(version, listing.items)
        return corrected(version, dict(zip(places, listing.items, strict=True)))

    return versions.change(ref, "relabel", {"photos": len(listing.items)}, correct)


def corrected(version: Version, items: Mapping[int, Item]) -> tuple[pl.DataFrame, tuple[Target, ...], Relabelled]:
    """Rows and targets of a version with the labels and boxes of `items`, by number of the row.

    Rows that were excluded for review are back in use.
    """
    annotated = sorted({name for item in items.values() for name in item.labels})
    if any(item.boxes is not None for item in items.values()):
        annotated.append("boxes")
    columns = {name: version.rows[name].to_list() for name in (*annotated, "status", "reason")}
    changed, back = 0, 0
    for row, item in items.items():
        before = [columns[name][row] for name in annotated]
        for name, label in item.labels.items():
            columns[name][row] = label
        if item.boxes is not None:
            columns["boxes"][row] = [box.as_row() for box in item.boxes]
        changed += before != [columns[name][row] for name in annotated]
        if columns["status"][row] == EXCLUDED and str(columns["reason"][row]).startswith("review "):
            columns["status"][row], columns["reason"][row] = OK, None
            back += 1
    schema = version.rows.schema
    rows = version.rows.with_columns(pl.Series(name, values, schema[name]) for name, values in columns.items())
    return rows, manifest.derive_targets(rows, version.targets), Relabelled(len(items), changed, back)


def mark_reviewed(rows: pl.DataFrame, places: Sequence[int], reviewer: str, time: str) -> pl.DataFrame:
    """Rows of which some, by number, were reviewed by somebody at a time."""
    is_reviewed = pl.int_range(pl.len()).is_in(list(places))
    for name, value in ((REVIEWER, reviewer), (REVIEWED, time)):
        before = pl.col(name) if name in rows.columns else pl.lit(None, pl.String)
        rows = rows.with_columns(pl.when(is_reviewed).then(pl.lit(value)).otherwise(before).alias(name))
    return rows


def check_known(version: Version, listing: ImportListing, *, new_classes: bool) -> None:
    """Check the targets and classes of a list of corrections, also those of its boxes.

    Raises:
        InputError: the dataset lacks a target or class of the list, and new ones are not allowed.
    """
    if new_classes:
        return
    for name in sorted({name for item in listing.items for name in item.labels}):
        target = version.target(name)
        for item in listing.items if target.kind != "value" else ():
            labels = item.labels.get(name, [])
            for label in labels if isinstance(labels, list) else [labels]:
                if label not in target.classes:
                    raise _unknown_class(version, item, target, label)
    known = {target.name: target for target in boxes.targets_of(version.rows["boxes"].explode().drop_nulls())}
    for item in listing.items if known else ():  # the first boxes name the classes
        for name, label in ((name, label) for box in item.boxes or () for name, label in box.classes.items()):
            if name in known and label not in known[name].classes:
                raise _unknown_class(version, item, known[name], label)


def _unknown_class(version: Version, item: Item, target: Target, label: object) -> InputError:
    near = get_close_matches(str(label), target.classes, n=1)
    return InputError(
        f"{target.name} {label!r} of {item.name} is not a class of {version.ref}",
        f"it has {', '.join(target.classes)}",
        f"Did you mean {near[0]!r}? To add a class: --new-classes." if near else "To add a class: --new-classes.",
    )


def row_finder(version: Version) -> Callable[[str], Sequence[int]]:
    """Finds rows by what a list calls a photo: its name, with its source or without, or its file name alone."""
    by_name: dict[str, list[int]] = defaultdict(list)
    by_file: dict[str, list[int]] = defaultdict(list)
    for row, (source, name) in enumerate(version.rows.select(manifest.KEY).iter_rows()):
        by_name[name].append(row)
        by_name[storage.join(source, name)].append(row)
        by_file[storage.basename(name)].append(row)
    return lambda name: by_name.get(name) or ([] if "/" in name else by_file.get(name, []))


def _places(version: Version, items: Sequence[Item]) -> list[int]:
    """Row of each item: by its name, or by its file name if that is unambiguous."""
    find = row_finder(version)
    places: list[int] = []
    taken: set[int] = set()
    for item in items:
        matches = find(item.name)
        if len(matches) != 1:
            raise InputError(
                f"{item.name} matches {'no photo' if not matches else f'{len(matches)} photos'} of {version.ref}",
                f"the dataset's names look like {version.rows['name'][0]!r}" if version.rows.height else "it is empty",
                "Name photos by their path relative to their source.",
            )
        if matches[0] in taken:
            raise InputError(f"{item.name} is listed twice", "a photo has one label", "Keep one of its rows.")
        taken.add(matches[0])
        places.append(matches[0])
    return places


def rename_class(ref: str, target: str, old: str, new: str) -> Committed[int]:
    """Rename a class in labels and boxes; if the new name is a class already, the two are merged.

    Returns:
        The version; its report is how many photos had the old name.

    Raises:
        InputError: there is no such target or class.
    """
    if not new.strip() or new != new.strip():
        raise UsageError(
            f"{new!r} cannot be a class",
            "a name is not empty and does not start or end with a space",
            "Choose another name.",
        )
    targets_now = {item.name for item in versions.load(ref).targets}  # `change` would start a missing dataset empty
    if target == "disease" and NO_DISEASE in {old, new} and "health" in targets_now:
        raise InputError(
            f"{old} cannot be renamed to {new}",
            f"{NO_DISEASE} stands for a healthy plant, and the health of these photos would stay as it is",
            "Correct both labels of the photos: plantml dataset relabel",
        )

    def rename(version: Version) -> tuple[pl.DataFrame, tuple[Target, ...], int]:
        in_boxes = _box_classes(version.rows, target)
        if in_boxes and target not in {item.name for item in version.targets}:
            if old not in in_boxes:
                raise InputError(
                    f"{target} has no class {old!r}",
                    f"boxes have {', '.join(sorted(in_boxes))}",
                    "Name one of its classes; plantml dataset info lists them.",
                )
            drawn = version.rows["boxes"].to_list()
            photos = sum(any(_class_of(box, target) == old for box in boxes or []) for boxes in drawn)
            return version.rows.with_columns(_renamed_boxes(version.rows, target, old, new)), version.targets, photos
        known = version.target(target)
        if known.kind == "value":
            raise InputError(f"{target} is a number", "it has no classes", "Name a target with classes.")
        if old not in known.classes and old not in in_boxes:
            raise InputError(
                f"{target} has no class {old!r}", f"it has {', '.join(known.classes)}", "Name one of them."
            )
        column = pl.col(target)
        if known.kind == "class":
            had = version.rows.select((column == old).fill_null(value=False)).to_series()
            renamed = pl.when(column == old).then(pl.lit(new)).otherwise(column).alias(target)
        else:
            had = version.rows.select(column.list.contains(old).fill_null(value=False)).to_series()
            renamed = column.list.eval(pl.element().replace(old, new)).list.unique(maintain_order=True)
        rows = version.rows.with_columns(renamed)
        if old in in_boxes:
            rows = rows.with_columns(_renamed_boxes(rows, target, old, new))
        classes = tuple(dict.fromkeys(new if name == old else name for name in known.classes))
        targets = tuple(
            Target(item.name, item.kind, classes, item.unit) if item.name == target else item
            for item in version.targets
        )
        return rows, targets, int(had.sum())

    return versions.change(ref, "rename-class", {"target": target, "old": old, "new": new}, rename)


def _box_classes(rows: pl.DataFrame, target: str) -> set[str]:
    labels = rows["boxes"].drop_nulls().explode().drop_nulls()
    texts = labels.struct.field("labels").unique().to_list() if len(labels) else []
    names = {json.loads(text).get(target) for text in texts if text}
    return {name for name in names if name and isinstance(name, str)}


def _class_of(box: Mapping[str, Any], target: str) -> str | None:
    name: str | None = json.loads(box["labels"] or "{}").get(target)
    return name


def _renamed_boxes(rows: pl.DataFrame, target: str, old: str, new: str) -> pl.Series:
    renamed: list[Any] = []
    for of_photo in rows["boxes"].to_list():
        for box in of_photo or []:
            if _class_of(box, target) == old:
                labels = json.loads(box["labels"]) | {target: new}
                box["labels"] = json.dumps(labels, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        renamed.append(of_photo)
    return pl.Series("boxes", renamed, rows.schema["boxes"])


def restore(ref: str, number: int) -> Committed[None]:
    """Commit an older version again as the newest."""
    old = versions.load(f"{versions.dataset_of(ref)}@{number}")
    parameters = {"version": number}
    return versions.change(ref, "restore", parameters, lambda _: (old.rows, old.targets, None), over_damage=True)


@dataclass(frozen=True)
class MergeResult:
    """The result of a merge.

    `conflicts` are rows that the dataset had with other bytes or labels; they were not changed.
    """

    added: int
    known: int
    copied: int
    conflicts: Sequence[str]


def merge(
    ref: str, other: str, *, splits: bool = False, threads: int = 8, progress: Progress = silent
) -> Committed[MergeResult]:
    """Add all rows of the dataset `other` to the dataset `ref`, which is created if it is missing.

    Without `splits`, they arrive unsplit, for `split --keep` to place.

    Raises:
        InputError: one target has two kinds.
    """
    source, url = versions.load(other), versions.dataset_of(ref)
    versions.check_place(url)
    rows = source.rows if splits else source.rows.with_columns(split=pl.lit(None, pl.String))
    return _bring(url, source, rows, "merge", {"from": source.ref}, threads=threads, progress=progress)


def subset(
    ref: str, out: str, condition: str, *, threads: int = 8, progress: Progress = silent
) -> Committed[MergeResult]:
    """Create a dataset at `out` from the rows that match a condition (see `filters.where`), with their photos.

    Raises:
        InputError: no row matches, or there is a dataset at `out`.
    """
    source, url = versions.load(ref), versions.dataset_of(out)
    versions.check_place(url)
    if versions.numbers(url):
        raise InputError(f"There is a dataset at {url} already", "a subset is a new dataset", "Choose another path.")
    rows = where(source.rows, condition)
    if rows.is_empty():
        raise InputError(
            f"No row of {source.ref} matches {condition!r}", "", f"See its classes: plantml dataset info {source.ref}"
        )
    parameters = {"from": source.ref, "where": condition}
    return _bring(url, source, rows, "subset", parameters, threads=threads, progress=progress)


def _bring(
    url: str,
    source: Version,
    rows: pl.DataFrame,
    operation: str,
    parameters: Mapping[str, Any],
    *,
    threads: int,
    progress: Progress,
) -> Committed[MergeResult]:
    copied = _copy(url, source, rows, threads, progress)

    def add(version: Version) -> tuple[pl.DataFrame, tuple[Target, ...], MergeResult]:
        targets = manifest.union(version.targets, source.targets)
        mine, theirs = manifest.conform(version.rows, targets), manifest.conform(rows, targets)
        fresh = theirs.join(mine, on=manifest.KEY, how="anti", maintain_order="left")
        both = theirs.join(mine, on=manifest.KEY, how="inner", suffix="_mine")
        names = ["image_id", *(target.name for target in targets)]
        differ = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_mine")) for name in names)
        result = MergeResult(fresh.height, both.height, copied, both.filter(differ)["name"].to_list())
        if fresh.is_empty():
            return version.rows, version.targets, result
        all_rows = pl.concat([mine, fresh], how="diagonal").sort(manifest.KEY)
        return all_rows, manifest.derive_targets(all_rows, targets), result

    return versions.change(url, operation, parameters, add)


def _copy(url: str, source: Version, rows: pl.DataFrame, threads: int, progress: Progress) -> int:
    """Copy the files of `rows` that the dataset at `url` lacks. Returns how many."""
    stored = rows.filter(pl.col("path").str.starts_with("images/"))
    files = dict(stored.select("path", "image_id").unique().sort("path").iter_rows())
    images = storage.join(url, "images")
    have = {entry.name for entry in storage.list_files(images)} if storage.exists(images) else set()
    todo = [path for path in files if path.removeprefix("images/") not in have]

    def copy(path: str) -> None:
        data = photos.read(files[path], source.image_url(path), cache=None)  # each is needed once
        storage.write(storage.join(url, path), data)

    for done, _ in enumerate(in_threads(copy, todo, threads), start=1):
        progress(done, len(todo))
    return len(todo)
