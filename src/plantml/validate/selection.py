"""Which photos a model is validated on, with which labels."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from plantml import storage
from plantml.data import versions
from plantml.data.filters import where
from plantml.data.manifest import Version
from plantml.errors import InputError, UsageError
from plantml.metrics import Groups
from plantml.targets import Target
from plantml.validate.config import ValidateConfig

DATASET, URL = "dataset", "url"
"""Columns that are added to a manifest's: reference of the version, and URL of the photo."""


@dataclass(frozen=True)
class Photos:
    """Photos of one or more datasets.

    Attributes:
        versions: of the datasets.
        rows: as the manifests have them, their labels renamed as asked, with `dataset` and `url`.
        targets: that the model predicts and some photo has a label of; classes are the model's.
        shared: by target, the classes that means are over; all, where a target is not in it.
        left_out: by target, photos whose class a model does not know, and whose label therefore does not count; or
            boxes, for models that find them.
        unannotated: photos that are left out because nobody drew boxes on them.
    """

    versions: Sequence[Version]
    rows: pl.DataFrame
    targets: Sequence[Target]
    shared: Mapping[str, frozenset[str]]
    left_out: Mapping[str, int]
    unannotated: int = 0

    def at(self, rows: Sequence[int]) -> "Photos":
        """Some of the photos."""
        return replace(self, rows=self.rows[list(rows)])


def groups_of(rows: pl.DataFrame) -> Groups:
    """What belongs together among rows that name their dataset: a group of it, or the copies of one photo."""
    keys = rows.select(
        pl.when(pl.col("group").is_null())
        .then(pl.format("id {}", "image_id"))
        .otherwise(pl.format("group {} {}", pl.col(DATASET).str.replace(r"@\d+$", ""), "group"))
    )
    return Groups(keys.to_series().to_list())


def select(refs: Sequence[str], models: Sequence[Sequence[Target]], config: ValidateConfig) -> Photos:
    """The photos to validate on.

    `models` are the targets of the model, and of others that must know the classes too.

    Raises:
        UsageError: a dataset is named twice, or none is.
        InputError: there are no photos, model and datasets share no target, or a label is unknown to a model.
    """
    dataset_versions = load_versions(refs)
    renames = load_renames(config.map, [target for version in dataset_versions for target in version.targets])
    tables = [renamed(usable_rows(each, config), each.targets, renames) for each in dataset_versions]
    rows = joined(tables, config)
    targets = _shared_targets(models[0], dataset_versions, rows)
    if not targets:
        have = dict.fromkeys(target.name for version in dataset_versions for target in version.targets)
        raise InputError(
            f"The model and {', '.join(version.ref for version in dataset_versions)} share no target with labels",
            f"the model predicts {', '.join(target.name for target in models[0])};"
            f" the dataset has {', '.join(have) or 'none'}",
            "Name a dataset with labels for one of them.",
        )
    left_out: dict[str, int] = {}
    shared: dict[str, frozenset[str]] = {}
    for target in targets:
        known = [each.classes for model in models for each in model if each.name == target.name]
        if config.shared_classes and target.kind != "value":
            classes = frozenset(set(known[0]).intersection(*known[1:]))
            rows, left = _only(rows, target, classes)
            if left:
                left_out[target.name] = left
            shared[target.name] = classes & frozenset(_labels(rows, target))
        labels = rows[target.name].to_list()
        for classes_ in known:  # report an unknown class before predicting
            Target(target.name, target.kind, classes_).encode(labels)
    judged = [target for target in targets if rows[target.name].null_count() < rows.height]
    if not judged:
        raise InputError("No photo has a class that the model knows", "", "Map the class names: --map classes.csv")
    return Photos(dataset_versions, rows, judged, shared, left_out)


def load_versions(refs: Sequence[str]) -> list[Version]:
    """The versions of all datasets. Raises `UsageError` if one is named twice, or none is."""
    dataset_versions = [versions.load(ref) for ref in refs]
    urls = [version.url for version in dataset_versions]
    if not urls or len(set(urls)) < len(urls):
        raise UsageError(
            "A dataset is named twice" if urls else "No dataset is named",
            "every photo counts once" if urls else "",
            "Name one version of each dataset.",
        )
    return dataset_versions


def usable_rows(version: Version, config: ValidateConfig) -> pl.DataFrame:
    """Rows of the split that match the condition, with `dataset` and `url`. Raises `InputError` for an empty split."""
    rows = version.usable(None if config.split == "all" else config.split).sort("source", "name")
    if rows.is_empty():
        there = sorted(set(version.usable()["split"].drop_nulls()))
        raise InputError(
            f"{version.ref} has no photos in its {config.split} split",
            f"it has {', '.join(there) or 'no splits'}",
            # `all` would hold training photos; a val split at least has none.
            f"Name another one: --split {'val' if 'val' in there else 'all'}"
            if there
            else f"Split it: plantml dataset split {version.url}",
        )
    if config.where:
        rows = where(rows, config.where)
    urls = [version.image_url(path) for path in rows["path"]]
    return rows.with_columns(pl.lit(version.ref).alias(DATASET), pl.Series(URL, urls, dtype=pl.String))


def joined(tables: Sequence[pl.DataFrame], config: ValidateConfig) -> pl.DataFrame:
    """The rows of all datasets. Raises `InputError` if there are none."""
    rows = pl.concat(tables, how="diagonal_relaxed")
    if rows.is_empty():
        raise InputError(
            "No photos are left to validate on", f"no photo matches --where {config.where!r}", "Change the condition."
        )
    return rows


def renamed(
    rows: pl.DataFrame, targets: Iterable[Target], renames: Mapping[tuple[str, str], str | None]
) -> pl.DataFrame:
    """Rows with other class names, by (target or nothing, name); `None` takes the label away."""
    for target in targets:
        named = {old: new for (name, old), new in renames.items() if name in {"", target.name}}
        if not named or target.kind == "value":
            continue
        labels = [renamed_label(label, named) for label in rows[target.name].to_list()]
        rows = rows.with_columns(pl.Series(target.name, labels, dtype=rows.schema[target.name]))
    return rows


def renamed_label(label: Any, named: Mapping[str, str | None]) -> Any:
    """A class or classes with other names; `None` if one of them is taken away."""
    if isinstance(label, list):
        new = [named.get(name, name) for name in label]
        return None if None in new else new
    return named.get(label, label)


def load_renames(url: str | None, targets: Sequence[Target]) -> dict[tuple[str, str], str | None]:
    """New names by (target or nothing, name); none without a URL.

    Args:
        url: of a table with the columns `from` and `to`, and `target` where one name means two things.
        targets: of the datasets. A name that is no class of theirs is an error: a typo would otherwise go unnoticed.
    """
    if url is None:
        return {}
    table = csv.DictReader(io.StringIO(storage.read(url).decode("utf-8-sig", "replace")))
    if not {"from", "to"} <= set(table.fieldnames or ()):
        raise InputError(
            f"{url} is not a table of class names",
            f"its columns are {', '.join(table.fieldnames or ()) or 'missing'}",
            "It needs the columns from and to, and may have target; an empty `to` leaves the class out.",
        )
    renames = {
        ((row.get("target") or "").strip(), (row["from"] or "").strip()): (row["to"] or "").strip() or None
        for row in table
    }
    there = {(target.name, name) for target in targets for name in target.classes}
    for target, name in renames:
        if not any(name == other and target in {"", of} for of, other in there):
            raise InputError(
                f"{url} renames {name!r}, which is not a class of {target or 'the datasets'}",
                f"classes are {', '.join(sorted({other for of, other in there if target in {'', of}}))}",
                "Write one of the classes.",
            )
    return renames


def _shared_targets(model: Sequence[Target], dataset_versions: Sequence[Version], rows: pl.DataFrame) -> list[Target]:
    shared = []
    for target in model:
        theirs = [
            (each, version) for version in dataset_versions for each in version.targets if each.name == target.name
        ]
        for each, version in theirs:
            check_kind(target, each, version.ref)
        if theirs and rows[target.name].null_count() < rows.height:
            shared.append(target)
    return shared


def check_kind(target: Target, theirs: Target, where: str) -> None:
    """Raise `InputError` if a model's target is of another kind in a dataset."""
    if theirs.kind != target.kind:
        raise InputError(
            f"{target.name} is a {theirs.kind} in {where} but a {target.kind} in the model",
            "they cannot be compared",
            "Import the dataset with the model's kind: --target NAME:KIND",
        )


def _labels(rows: pl.DataFrame, target: Target) -> set[str]:
    column = rows[target.name].drop_nulls()
    return set((column.explode() if target.kind == "multilabel" else column).drop_nulls())


def _only(rows: pl.DataFrame, target: Target, classes: frozenset[str]) -> tuple[pl.DataFrame, int]:
    """Rows whose label is gone where it is not one of the classes, and how many lost theirs."""
    before = rows[target.name].null_count()
    labels = [
        label if label is not None and (set(label) if isinstance(label, list) else {label}) <= classes else None
        for label in rows[target.name].to_list()
    ]
    rows = rows.with_columns(pl.Series(target.name, labels, dtype=rows.schema[target.name]))
    return rows, rows[target.name].null_count() - before
