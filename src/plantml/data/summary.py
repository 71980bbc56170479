"""Counts of a version, its next step, and the differences of two versions."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from plantml.data import versions
from plantml.data.manifest import EXCLUDED, KEY, SPLITS, Version, labels_in

UNSPLIT = "none"


@dataclass(frozen=True)
class Info:
    """Counts of a version.

    `excluded` rows are counted by reason code, those `without_photo` by split; all else counts usable photos. A row
    without a split is in `none`. `sizes` are the smallest and largest width and height in pixels.
    """

    version: Version
    rows: int
    usable: int
    distinct: int
    excluded: Mapping[str, int]
    without_photo: Mapping[str, int]
    splits: Mapping[str, int]
    classes: Mapping[str, Mapping[str, Mapping[str, int]]]
    boxes: Mapping[str, int]
    values: Mapping[str, Mapping[str, float]]
    unlabelled: Mapping[str, int]
    sizes: Mapping[str, int]
    formats: Mapping[str, int]
    bytes: int
    tags: Sequence[str]


def info(ref: str) -> Info:
    """Count the contents of the version that a reference names."""
    return count(versions.load(ref))


def count(version: Version) -> Info:
    """Count the contents of a version."""
    usable = version.usable().with_columns(pl.col("split").fill_null(UNSPLIT))
    excluded = version.rows.filter(pl.col("status") == EXCLUDED)["reason"].fill_null("").str.split(":").list.first()
    return Info(
        version=version,
        rows=version.rows.height,
        usable=usable.height,
        distinct=usable["image_id"].n_unique(),
        excluded=_counts(excluded),
        without_photo=_by_split(version.without_photo()),
        splits=_by_split(usable),
        classes={
            target.name: _by_class(usable, target.name, target.classes)
            for target in version.targets
            if target.kind != "value"
        },
        boxes=count_boxes(usable),
        values={target.name: _range(usable[target.name]) for target in version.targets if target.kind == "value"},
        unlabelled={target.name: usable[target.name].null_count() for target in version.targets},
        sizes=_sizes(usable),
        formats=_counts(usable["format"]),
        bytes=int(usable["bytes"].sum() or 0),
        tags=sorted(name for name, number in versions.tags(version.url).items() if number == version.number),
    )


@dataclass(frozen=True)
class NextStep:
    """The next command for a dataset, and why it cannot be trained on yet, if so."""

    why: str
    command: str


def next_step(version: Version, url: str) -> NextStep:
    """The next step towards a trained model; `url` is the dataset as the user names it."""
    rows = version.usable()
    if rows.is_empty():
        return NextStep("No photo can be used.", f"plantml dataset check {url}")
    classes = {target.name: sorted(labels_in(rows, target)) for target in version.targets if target.kind != "value"}
    values = [target.name for target in version.targets if target.kind == "value" and rows[target.name].count()]
    kinds = {target.name: target.kind for target in version.targets}
    if values or any(len(names) > 1 or (names and kinds[name] == "multilabel") for name, names in classes.items()):
        return NextStep("", _split_or_train(url, version))
    if count_boxes(rows):
        return NextStep("", _split_or_train(url, version))
    if single := [f"{name} is {names[0]}" for name, names in classes.items() if names]:
        why = f"There is only one class: {', '.join(single)} in every labelled photo."
        return NextStep(why, f"plantml dataset import PHOTOS-OF-ANOTHER-CLASS {url}")
    why = "No photo has a label."
    return NextStep(why, f"plantml dataset export {url} OUT --format label-studio")


def _split_or_train(url: str, version: Version) -> str:
    rows = version.usable()
    lacking = rows["split"].null_count()
    if lacking == rows.height:
        return f"plantml dataset split {url}"
    if lacking or version.without_photo()["split"].has_nulls():
        return f"plantml dataset split {url} --keep"
    if {"train", "val"} - set(rows["split"]):
        return f"plantml dataset split {url} --resplit"
    return f"plantml train {url} --out RUN"


@dataclass(frozen=True)
class VersionDiff:
    """The differences of two versions; rows are named by `source/name`.

    `changed` has (row, before, after) as text, by column; `classes` the added (`+name`) and removed (`-name`) ones, by
    target.
    """

    before: str
    after: str
    added: Sequence[str]
    removed: Sequence[str]
    changed: Mapping[str, Sequence[tuple[str, str, str]]]
    classes: Mapping[str, Sequence[str]]

    @property
    def same(self) -> bool:
        """True if nothing differs."""
        return not (self.added or self.removed or self.changed or self.classes)


def diff(before: str, after: str) -> VersionDiff:
    """Compare two versions row by row and column by column."""
    first, second = versions.load(before), versions.load(after)
    added = second.rows.join(first.rows, on=KEY, how="anti").sort(KEY)
    removed = first.rows.join(second.rows, on=KEY, how="anti").sort(KEY)
    both = first.rows.join(second.rows, on=KEY, how="inner", suffix="_after").sort(KEY)
    shared = [name for name in first.rows.columns if name in second.rows.columns and name not in KEY]
    changed = {}
    for name in shared:
        differs = both.filter(pl.col(name).ne_missing(pl.col(f"{name}_after")))
        if not differs.is_empty():
            pairs = differs.select(*KEY, name, f"{name}_after").iter_rows()
            changed[name] = [(f"{source}/{key}", _text(old), _text(new)) for source, key, old, new in pairs]
    return VersionDiff(first.ref, second.ref, _names(added), _names(removed), changed, _class_changes(first, second))


def _class_changes(first: Version, second: Version) -> dict[str, list[str]]:
    old = {target.name: set(target.classes) for target in first.targets}
    new = {target.name: set(target.classes) for target in second.targets}
    changes = {}
    for name in {**old, **new}:
        added, removed = new.get(name, set()) - old.get(name, set()), old.get(name, set()) - new.get(name, set())
        if added or removed or (name in old) != (name in new):
            changes[name] = [*(f"+{item}" for item in sorted(added)), *(f"-{item}" for item in sorted(removed))]
    return changes


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _names(rows: pl.DataFrame) -> list[str]:
    return [f"{source}/{name}" for source, name in rows.select(KEY).iter_rows()]


def _counts(values: pl.Series) -> dict[str, int]:
    return dict(sorted(values.drop_nulls().value_counts().iter_rows()))


def _by_split(rows: pl.DataFrame) -> dict[str, int]:
    counts = _counts(rows["split"].fill_null(UNSPLIT))
    return {name: counts[name] for name in (*SPLITS, UNSPLIT) if name in counts}


def _by_class(rows: pl.DataFrame, target: str, classes: Sequence[str]) -> dict[str, dict[str, int]]:
    labels = rows.select("split", target)
    if labels.schema[target] == pl.List(pl.String):
        labels = labels.explode(target)
    counts = labels.drop_nulls().group_by(target, "split").len()
    table: dict[str, dict[str, int]] = {name: {} for name in classes}
    for name, split, number in counts.iter_rows():
        table[name][split] = number
    return table


def count_boxes(rows: pl.DataFrame) -> dict[str, int]:
    """Boxes of rows by class name; an empty name for those without a class."""
    drawn = rows["boxes"].drop_nulls().explode().drop_nulls()
    if drawn.is_empty():
        return {}
    by_name: Counter[str] = Counter()
    for text, number in _counts(drawn.struct.field("labels")).items():
        by_name[" / ".join(label for label in json.loads(text or "{}").values() if isinstance(label, str))] += number
    return dict(sorted(by_name.items(), key=lambda each: (not each[0], each[0])))  # those without a class last


def _range(values: pl.Series) -> dict[str, float]:
    labelled = values.drop_nulls()
    if labelled.is_empty():
        return {"count": 0}
    facts = {"min": labelled.min(), "mean": labelled.mean(), "max": labelled.max()}
    return {"count": len(labelled), **{key: float(value) for key, value in facts.items()}}  # type: ignore[arg-type]


def _sizes(rows: pl.DataFrame) -> dict[str, int]:
    if rows.is_empty():
        return {}
    names = {"min_width": pl.min("width"), "max_width": pl.max("width"),
             "min_height": pl.min("height"), "max_height": pl.max("height")}  # fmt: skip
    return dict(rows.select(**names).row(0, named=True))
