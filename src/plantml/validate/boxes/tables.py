"""Predicted and missed boxes as tables for other tools."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from plantml.metrics import detection
from plantml.metrics.statistics import Ints
from plantml.targets import Target
from plantml.validate import prediction_tables
from plantml.validate.box_arrays import DECISIONS
from plantml.validate.boxes.scoring import BOXES, BoxOutcomes
from plantml.validate.predictions import Predictions
from plantml.validate.results import Validation
from plantml.validate.selection import DATASET, Photos

PHOTO = (DATASET, "source", "name", "image_id", "group", "split")
"""Columns that identify a photo."""


def write(validation: Validation[BoxOutcomes]) -> dict[str, bytes]:
    """Boxes, and the photos in which two models find different boxes, as Parquet and CSV."""
    table = predictions(validation.photos, validation.predictions, validation.outcomes, validation.readable)
    tables = {"predictions": table}
    if validation.result.comparison:
        tables["changed"] = changed(validation)
    return {file: data for name, each in tables.items() for file, data in prediction_tables.files(name, each).items()}


def predictions(photos: Photos, ours: Predictions, outcomes: BoxOutcomes, places: Sequence[int]) -> pl.DataFrame:
    """One row per predicted box that counts, and per missed one; and one per photo that could not be read.

    By photo, the best box first. `outcome` is `matched` (whatever the class), `false` or `missed`; `true_x` and the
    like are the annotated box.

    The outcomes are those of the photos at `places`.
    """
    readable = np.array(places, np.int64)
    failed = np.setdiff1d(np.arange(photos.rows.height), readable)
    counted = np.flatnonzero(outcomes.scores >= outcomes.threshold)
    missed = np.setdiff1d(np.arange(len(outcomes.true_boxes)), outcomes.match)
    none = -1
    place = np.concatenate([readable[outcomes.photo[counted]], readable[outcomes.true_photo[missed]], failed])
    box = np.concatenate([counted, np.full(len(missed) + len(failed), none)])
    true = np.concatenate([outcomes.match[counted], missed, np.full(len(failed), none)])
    order = np.lexsort((true, box, box == none, place))  # missed boxes of a photo come last
    place, box, true = place[order], box[order], true[order]
    outcome = np.select([(box >= 0) & (true >= 0), box >= 0, true >= 0], ["matched", "false", "missed"], "")
    decisions = np.array(DECISIONS)[outcomes.decisions]
    failures = [ours.items[at].record.failure for at in place.tolist()]
    columns = [
        pl.Series("outcome", [name or None for name in outcome.tolist()], dtype=pl.String),
        *(_column(side, outcomes.boxes[:, at], box, pl.Float64) for at, side in enumerate("xywh")),
        _column("score", outcomes.scores, box, pl.Float64),
        _column("decision", decisions, box, pl.String),
        *(_column(f"true_{side}", outcomes.true_boxes[:, at], true, pl.Float64) for at, side in enumerate("xywh")),
        pl.Series("iou", _overlaps(outcomes, box, true), dtype=pl.Float64),
    ]
    for target in outcomes.targets:
        columns += _target_columns(target, outcomes, box, true)
    table: pl.DataFrame = photos.rows.select(PHOTO)[place.tolist()]
    return table.with_columns(*columns, pl.Series("failure", failures, dtype=pl.String))


def changed(validation: Validation[BoxOutcomes]) -> pl.DataFrame:
    """Photos in which two models find another number of boxes, of some class: by how many, and what differs."""
    comparison, other = validation.result.comparison, validation.other
    assert comparison is not None
    assert other is not None
    places = [validation.readable[at] for at in comparison.changed]
    columns = {
        "true": true_counts(validation.outcomes),
        "predicted": counts(validation.outcomes),
        "other": counts(other.outcomes),
    }
    return validation.photos.rows.select(PHOTO)[places].with_columns(
        pl.Series("changed", ["|".join(names) for names in comparison.changed.values()], dtype=pl.String),
        *(pl.Series(name, numbers[list(comparison.changed)], dtype=pl.Int64) for name, numbers in columns.items()),
    )


def counts(outcomes: BoxOutcomes) -> Ints:
    """Predicted boxes of each photo that count: [photos]."""
    return np.array([each[BOXES] for each in outcomes.counts()[BOXES]], np.int64)


def true_counts(outcomes: BoxOutcomes) -> Ints:
    """Annotated boxes of each photo: [photos]."""
    return np.bincount(outcomes.true_photo, minlength=outcomes.photos)


def _target_columns(target: Target, outcomes: BoxOutcomes, box: Ints, true: Ints) -> list[pl.Series]:
    """The label, the prediction, and the probability of every class."""
    truth, outputs, known = outcomes.truth[target.name], outcomes.outputs[target.name], outcomes.known(target)
    true = np.where((true >= 0) & known[true], true, -1) if len(known) else true
    given = outcomes.given(target)
    box = np.where((box >= 0) & given[box], box, -1) if len(given) else box
    if target.kind == "value":
        return [
            _column(f"{target.name}_true", truth, true, pl.Float64),
            _column(f"{target.name}_predicted", outputs[:, 0], box, pl.Float64),
        ]
    names = np.array(target.classes, dtype=object)
    probabilities = (
        _column(f"{target.name}[{name}]", outputs[:, number], box, pl.Float32)
        for number, name in enumerate(target.classes)
    )
    return [
        _column(f"{target.name}_true", names[truth], true, pl.String),
        _column(f"{target.name}_predicted", names[outcomes.labels(target)], box, pl.String),
        *probabilities,
    ]


def _column(name: str, values: NDArray[Any], places: Ints, dtype: type[pl.DataType]) -> pl.Series:
    """Values at places; null at -1."""
    every = values.tolist()
    return pl.Series(name, [every[place] if place >= 0 else None for place in places.tolist()], dtype=dtype)


def _overlaps(outcomes: BoxOutcomes, box: Ints, true: Ints) -> Sequence[float | None]:
    overlaps: list[float | None] = []
    for ours, theirs in zip(box.tolist(), true.tolist(), strict=True):
        if ours < 0 or theirs < 0:
            overlaps.append(None)
        else:
            pair = detection.iou(outcomes.boxes[ours][None], outcomes.true_boxes[theirs][None])
            overlaps.append(round(float(pair[0, 0]), 4))
    return overlaps
