"""Which photos a model that finds boxes is validated on, with which labels of their boxes."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from plantml.data import boxes
from plantml.errors import InputError
from plantml.targets import Target
from plantml.validate import selection
from plantml.validate.config import ValidateConfig
from plantml.validate.selection import Photos


def select(refs: Sequence[str], models: Sequence[Sequence[Target]], config: ValidateConfig) -> Photos:
    """The annotated photos; `targets` are those that a box has a label of.

    A photo without any box, where somebody has looked, counts: it has nothing to find.

    `models` are the targets of the model, and of others that must know the classes too.

    Raises:
        UsageError: a dataset is named twice, or none is.
        InputError: no photo is annotated, or a label is unknown to a model.
    """
    dataset_versions = selection.load_versions(refs)
    everything = selection.joined([selection.usable_rows(each, config) for each in dataset_versions], config)
    rows = boxes.annotated(everything)
    if rows.is_empty():
        raise InputError(
            f"No photo of {', '.join(version.ref for version in dataset_versions)} is annotated with boxes",
            "the model finds boxes",
            "Import the boxes, or name another split.",
        )
    known = [target for version in dataset_versions for target in version.targets]
    labelled = boxes.targets_of(rows["boxes"].explode().drop_nulls(), known)
    renames = selection.load_renames(config.map, labelled)
    if renames:
        rows = _relabelled(rows, lambda target, label: renames.get((target, label), renames.get(("", label), label)))
    theirs = {target.name: target for target in boxes.targets_of(rows["boxes"].explode().drop_nulls(), known)}
    targets, shared, left_out = [], {}, {}
    for target in models[0]:
        if target.name not in theirs:
            continue
        selection.check_kind(target, theirs[target.name], "the boxes of the dataset")
        classes = [each.classes for model in models for each in model if each.name == target.name]
        if config.shared_classes and target.kind == "class":
            both = frozenset(classes[0]).intersection(*classes[1:])
            left = sum(label not in both for label in labels_of(rows, target.name))
            if left:
                left_out[target.name] = left
                rows = _relabelled(rows, functools.partial(_only, target.name, both))
            shared[target.name] = both & frozenset(labels_of(rows, target.name))
        for each in classes:  # report an unknown class before predicting
            Target(target.name, target.kind, each).encode(labels_of(rows, target.name))
        if labels_of(rows, target.name):
            targets.append(target)
    return Photos(dataset_versions, rows, targets, shared, left_out, everything.height - rows.height)


def labels_of(rows: pl.DataFrame, target: str) -> list[Any]:
    """The labels of all boxes that have one of a target."""
    labels = (box.labels.get(target) for photo in rows["boxes"].to_list() for box in boxes.from_rows(photo) or ())
    return [label for label in labels if label is not None]


def _relabelled(rows: pl.DataFrame, change: Callable[[str, Any], Any]) -> pl.DataFrame:
    """Rows whose boxes have other labels: `change` gives that for a target and a label, or nothing."""
    drawn = []
    for photo in rows["boxes"].to_list():
        changed = []
        for box in boxes.from_rows(photo) or ():
            labels = {target: change(target, label) for target, label in box.labels.items()}
            kept = {target: label for target, label in labels.items() if label is not None}
            changed.append(replace(box, labels=kept).as_row())
        drawn.append(changed)
    return rows.with_columns(pl.Series("boxes", drawn, dtype=rows.schema["boxes"]))


def _only(target: str, classes: frozenset[str], name: str, label: Any) -> Any:
    return label if name != target or label in classes else None
