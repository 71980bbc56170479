"""What covariates add to a model's score: how far it drops without them, and when one of them is shuffled.

Permutation importance after Breiman 2001, "Random forests", section 10: the values of one covariate are exchanged
among the photos, so that they say nothing, and all else stays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plantml import metrics
from plantml.data import covariates as dataset_columns
from plantml.metrics import Interval
from plantml.metrics.statistics import of_target
from plantml.model.covariates import Columns, Covariate, CovariateCounter, encode
from plantml.model.pipeline import Pipeline
from plantml.validate.config import ValidateConfig
from plantml.validate.prediction_cache import PredictionCache
from plantml.validate.predictions import Floats, Machine, predict_changed
from plantml.validate.robustness import sample
from plantml.validate.selection import Photos, groups_of

ALL = "all covariates"
"""Name of the drop of the photo alone."""

_AS_MEASURED = "as measured"
_MOST = 500
"""Photos that are looked at, at most: each goes through the network once per covariate, and twice more."""


@dataclass(frozen=True)
class Drop:
    """How far a score drops.

    Attributes:
        covariate: that is shuffled, or `ALL`, without which the photo is alone.
        target: that is predicted.
        score: `macro_f1`, or `r2` of a value.
        before: the score with all covariates as they were measured.
        after: the score without this one.
        interval: of `before - after`, by a paired bootstrap over groups; `None` with fewer than two groups.
    """

    covariate: str
    target: str
    score: str
    before: float
    after: float
    interval: Interval | None

    @property
    def drop(self) -> float:
        """Positive if the covariate helps."""
        return self.before - self.after


@dataclass(frozen=True)
class Contributions:
    """What each covariate adds, with warnings about what is missing, unknown or outside of the range in training."""

    photos: int
    drops: Sequence[Drop]
    warnings: Sequence[str]


def contributions(pipeline: Pipeline, photos: Photos, config: ValidateConfig, machine: Machine) -> Contributions | None:
    """What the covariates of a model add to its scores, on a sample of the photos; `None` for a model without any."""
    covariates = pipeline.bundle.contract.covariates
    if not covariates:
        return None
    rows = dataset_columns.rows_of(photos.rows, [each.name for each in covariates])
    counter = CovariateCounter(covariates)
    counter.add_all(rows)
    places = sample(photos.rows.height, _MOST, config.seed)
    sampled = photos.at(places)
    columns = _changed(covariates, encode(covariates, [rows[at] for at in places]), config.seed)
    cache = PredictionCache.of(pipeline, "covariates", machine.settings, device=config.device, fresh=config.fresh)
    outputs: dict[str, dict[int, Mapping[str, Floats]]] = {name: {} for name in columns}
    same = dict.fromkeys(columns, lambda pixels: pixels)
    for at, by_change in predict_changed(pipeline, sampled.rows, same, cache, machine, columns):
        for name, each in by_change.items():
            outputs[name][at] = each
    readable = sorted(outputs[_AS_MEASURED])
    by_name = {name: [by_place[at] for at in readable] for name, by_place in outputs.items()}
    return Contributions(len(readable), _drops(by_name, sampled.at(readable), config), counter.warnings())


def _changed(covariates: Sequence[Covariate], measured: Columns, seed: int) -> dict[str, Columns]:
    """Columns as measured, without any, and with each of them shuffled."""
    changed = {_AS_MEASURED: measured, ALL: np.full_like(measured, np.nan)}
    for at, covariate in enumerate(covariates):
        shuffled = measured.copy()
        shuffled[:, at] = np.random.default_rng([seed, at]).permutation(measured[:, at])
        changed[covariate.name] = shuffled
    return changed


def _drops(outputs: Mapping[str, Sequence[Mapping[str, Floats]]], photos: Photos, config: ValidateConfig) -> list[Drop]:
    drops, groups = [], groups_of(photos.rows)
    for target in photos.targets:
        truth = target.encode(photos.rows[target.name].to_list())
        score = "r2" if target.kind == "value" else "macro_f1"
        key = f"{target.name}.{score}"
        points, replicates = {}, {}
        for name, predicted in outputs.items():
            answers = np.stack([each[target.name] for each in predicted])
            reports = metrics.reports_of([target], {target.name: truth}, {target.name: answers}, photos.shared)
            statistic = of_target(target, truth, answers, photos.shared.get(target.name))
            points[name] = metrics.every_score(reports)[key]
            drawn = metrics.replicate([statistic], groups, resamples=config.resamples, seed=config.seed)
            replicates[name] = drawn.get(key)
        before = replicates[_AS_MEASURED]
        for name, after in points.items():
            if name == _AS_MEASURED:
                continue
            without = replicates[name]
            lost = None if before is None or without is None else before - without
            interval = metrics.interval("drop", points[_AS_MEASURED] - after, lost)
            drops.append(Drop(name, target.name, score, points[_AS_MEASURED], after, interval))
    return drops


def as_json(result: Contributions) -> dict[str, Any]:
    """What each covariate adds, as JSON types."""
    drops = [vars(each) | {"drop": each.drop} for each in result.drops]
    return {"photos": result.photos, "warnings": list(result.warnings), "drops": drops}
