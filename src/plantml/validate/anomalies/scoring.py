"""Which photos are normal, and how well a model of anomalies tells them from others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from plantml import metrics
from plantml.data import normality
from plantml.errors import InputError
from plantml.metrics.anomaly import NAME, AnomalyStatistic
from plantml.model.contract import ANOMALY, Anomaly
from plantml.validate import scoring, selection
from plantml.validate.config import ValidateConfig
from plantml.validate.predictions import Predictions
from plantml.validate.scoring import Evaluation, Outcomes
from plantml.validate.selection import Photos, groups_of

KIND = "anomaly_kind"
"""Column that is added to a manifest's: what a photo shows, such as its disease."""


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
