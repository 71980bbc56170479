"""Validation of a model of anomalies: which photos are normal, how well it tells them from others, and its report."""

import contextlib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from plantml import imaging, metrics
from plantml.concurrency import Progress, silent
from plantml.data import normality, photos
from plantml.errors import InputError
from plantml.imaging.heat import draw_heat
from plantml.metrics.anomaly import NAME, AnomalyStatistic
from plantml.model.contract import ANOMALY, Anomaly
from plantml.model.records import heat_of
from plantml.reporting import anomaly_charts, documents
from plantml.validate import report, scoring, selection
from plantml.validate.config import ValidateConfig
from plantml.validate.predictions import Predictions
from plantml.validate.report import Photo
from plantml.validate.results import Validation
from plantml.validate.scoring import Evaluation, Outcomes
from plantml.validate.selection import Photos, groups_of

KIND = "anomaly_kind"
"""Column that is added to a manifest's: what a photo shows, such as its disease."""

_WORST, _FOUND = 8, 8
"""Photos of each sort that are shown."""

_SIDE = 320


@dataclass(frozen=True)
class AnomalyOutcomes(Outcomes):
    """See `Outcomes`; `kinds` are what the photos show."""

    kinds: Sequence[str | None]

    @property
    def statistic(self) -> AnomalyStatistic:
        """The scores of the photos, and of resamples of them."""
        # As records have them, by which they are judged.
        values = self.outputs[ANOMALY.name][:, 1].astype(np.float64).round(6)
        return AnomalyStatistic(values, self.truth[ANOMALY.name], self.kinds, 0.5)


@dataclass(frozen=True)
class AnomalyEvaluation(Evaluation):
    """See `Evaluation`; `kinds` are `auroc`, `sensitivity` and `support`, the number of photos, by kind of anomaly."""

    kinds: Mapping[str, Mapping[str, float]]


def select(refs: Sequence[str], anomaly: Anomaly, config: ValidateConfig) -> Photos:
    """The photos to validate on, with the columns `anomaly`, their label, and `KIND`.

    Raises:
        UsageError: a dataset is named twice, or none is.
        InputError: there are no photos, or none of them is known to be normal, or a dataset has no such class.
    """
    versions = selection.load_versions(refs)
    renames = selection.load_renames(config.map, [target for version in versions for target in version.targets])
    tables = []
    for version in versions:
        rows = selection.renamed(selection.usable_rows(version, config), version.targets, renames)
        label = normality.labels_of(rows, version, anomaly.normal).alias(ANOMALY.name)
        tables.append(rows.with_columns(label, normality.kinds(rows, anomaly.normal).alias(KIND)))
    rows = selection.joined(tables, config)
    if not (rows[ANOMALY.name] == normality.NORMAL).any():
        raise InputError(
            f"No photo of {', '.join(version.ref for version in versions)} is normal",
            f"the model calls photos with {anomaly.normal} normal, and the {config.split} split has none",
            "Name another dataset, or another split: --split val",
        )
    return Photos(versions, rows, [ANOMALY], {}, {})


def outcomes(photos: Photos, predictions: Predictions, places: Sequence[int]) -> AnomalyOutcomes:
    """Outcomes of the photos at `places`, all readable."""
    rows = photos.rows[list(places)]
    return AnomalyOutcomes(
        targets=[ANOMALY],
        truth={ANOMALY.name: ANOMALY.encode(rows[ANOMALY.name].to_list())},
        outputs={ANOMALY.name: predictions.outputs(ANOMALY.name, places)},
        groups=groups_of(rows),
        shared={},
        kinds=rows[KIND].to_list(),
    )


def evaluate(outcomes: AnomalyOutcomes, config: ValidateConfig) -> AnomalyEvaluation:
    """Scores with their intervals."""
    statistic = outcomes.statistic
    every = statistic.of_all()
    replicates = metrics.replicate([statistic], outcomes.groups, resamples=config.resamples, seed=config.seed)
    truth, kinds = outcomes.truth[ANOMALY.name], np.array([kind or "" for kind in outcomes.kinds], dtype=object)
    sizes = {
        f"{NAME}.sensitivity[{kind}]": outcomes.groups.having((truth == 1) & (kinds == kind))
        for kind in statistic.kinds
    }
    sizes |= {f"{NAME}.sensitivity": outcomes.groups.having(truth == 1)}
    sizes |= {f"{NAME}.false_alarms": outcomes.groups.having(truth == 0)}
    intervals = scoring.intervals(every, replicates, outcomes.groups.count, sizes)
    by_kind = {
        kind: {score: every[f"{NAME}.{score}[{kind}]"] for score in ("auroc", "sensitivity")} | {"support": support}
        for kind, support in zip(statistic.kinds, statistic.support, strict=True)
    }
    scores = {name: value for name, value in every.items() if "[" not in name}
    return AnomalyEvaluation([], scores, every, intervals, replicates, by_kind)


def normal_rows(rows: pl.DataFrame, normal: str) -> pl.DataFrame:
    """The rows of training photos that a model has learnt from."""
    name, _, label = normal.partition("=")
    kept = name in rows.columns and rows.schema[name] == pl.String
    return rows.filter(pl.col(name) == label) if kept else rows


# --- the report -------------------------------------------------------------------------------


def pictures(validation: Validation[AnomalyOutcomes]) -> dict[str, bytes]:
    """All charts as PNG, by file name."""
    outcomes, scores = validation.outcomes, validation.result.scores
    values, truth = outcomes.outputs[ANOMALY.name][:, 1], outcomes.truth[ANOMALY.name]
    files = {"scores_anomaly.png": anomaly_charts.histogram(values, truth, outcomes.kinds)}
    if f"{NAME}.auroc" in scores:
        files["roc_anomaly.png"] = anomaly_charts.roc(values, truth, scores[f"{NAME}.auroc"])
    return files


def render(validation: Validation[AnomalyOutcomes], drawn: Mapping[str, bytes], progress: Progress = silent) -> bytes:
    """The page as UTF-8 bytes, with charts as `pictures` gives them."""
    result = validation.result
    rows = [
        (kind, [(f"{NAME}.{score}[{kind}]", row[score]) for score in ("auroc", "sensitivity")], int(row["support"]))
        for kind, row in result.anomalies.items()
    ]
    return report.fill(
        result,
        drawn,
        headline=report.headline(result, result.scores),
        targets=[{"name": ANOMALY.name, "unit": "", "head": ["AUROC", "sensitivity"], "rows": rows}],
        worst=_worst(validation, progress),
        furthest=[],
        changed=report.changed(validation),
        next=[],
    )


def _worst(validation: Validation[AnomalyOutcomes], progress: Progress) -> list[Photo]:
    """Normal photos with the highest scores, anomalous ones with the lowest, then the clearest finds."""
    values, truth = validation.outcomes.outputs[ANOMALY.name][:, 1], validation.outcomes.truth[ANOMALY.name]
    order = np.argsort(-values, kind="stable")
    wrong = [(at, "false alarm") for at in order if truth[at] == 0 and values[at] > 0.5][:_WORST]
    wrong += [(at, "missed") for at in order[::-1] if truth[at] == 1 and values[at] <= 0.5][:_WORST]
    todo = wrong + [(at, "found") for at in order if truth[at] == 1 and values[at] > 0.5][:_FOUND]
    return report.draw_photos(functools.partial(_photo, validation), todo, validation.pipeline.threads, progress)


def _photo(validation: Validation[AnomalyOutcomes], one: tuple[int, str]) -> Photo:
    """A photo with its heat map beside it."""
    at, badge = one
    place = validation.readable[at]
    row = validation.photos.rows.row(place, named=True)
    record = validation.predictions.items[place].record
    picture = looked_at = ""
    with contextlib.suppress(*photos.UNREADABLE):
        small = imaging.thumbnail(photos.read(row["image_id"], row["url"], validation.photo_cache), _SIDE)
        picture = documents.jpeg_url(small)
        if record.heat_map is not None:
            sides = [record.heat_map[side] * small.width / row["width"] for side in "xywh"]
            looked_at = documents.jpeg_url(draw_heat(small, heat_of(record.heat_map), sides))
    score = float(validation.outcomes.outputs[ANOMALY.name][at, 1])
    lines = [("label", str(row[KIND] or row[ANOMALY.name])), ("score", f"{score:.3f}")]
    return Photo(row["name"], picture, looked_at, lines, badge)
