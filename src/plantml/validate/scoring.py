"""A model's predictions compared with the labels: scores and their intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plantml import metrics
from plantml.metrics import Groups, Interval, Replicates, Report
from plantml.metrics.statistics import MeanStatistic, Statistic, of_target
from plantml.model.contract import Contract
from plantml.targets import Target
from plantml.validate.config import ValidateConfig
from plantml.validate.predictions import Predictions
from plantml.validate.selection import Photos, groups_of

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
JOINT = "joint_accuracy"


@dataclass(frozen=True)
class Outcomes:
    """Labels and outputs of the readable photos, as numbers.

    `truth` is as `Target.encode` gives it, `outputs` are [N, classes], by target; `shared` are the classes that means
    are over.
    """

    targets: Sequence[Target]
    truth: Mapping[str, NDArray[Any]]
    outputs: Mapping[str, Floats]
    groups: Groups
    shared: Mapping[str, frozenset[str]]

    def known(self, target: Target) -> Bools:
        """Which photos are labelled: bool [N]."""
        return target.labelled(self.truth[target.name])

    def right(self, target: Target) -> Bools:
        """Which predictions are correct: bool [N]; not for values."""
        return metrics.correct_predictions(target, self.truth[target.name], self.outputs[target.name])

    def quality(self, target: Target) -> Floats:
        """Per photo: 1 where correct and 0 where wrong, or a value's absolute error: [N]."""
        if target.kind != "value":
            return self.right(target).astype(float)
        error: Floats = np.abs(self.outputs[target.name][:, 0] - self.truth[target.name])
        return np.nan_to_num(error)


@dataclass(frozen=True)
class Evaluation:
    """The scores of one model: the headline, every score that a gate can name, intervals, and those of resamples."""

    reports: Sequence[Report]
    scores: Mapping[str, float]
    every: Mapping[str, float]
    intervals: Mapping[str, Interval]
    replicates: Replicates


def outcomes(
    model: Contract, targets: Sequence[Target], photos: Photos, predictions: Predictions, places: Sequence[int]
) -> Outcomes:
    """Outcomes of the photos at `places`, all readable; targets have the predicting model's classes.

    Where a prediction lacks a target because it does not apply, the label does not count: it is neither right nor
    wrong.
    """
    rows = photos.rows[list(places)]
    withheld = _withheld(model, predictions, places)
    labels = {target.name: rows[target.name].to_list() for target in targets}
    for name in labels.keys() & withheld.keys():
        labels[name] = [
            None if left_out else label for label, left_out in zip(labels[name], withheld[name], strict=True)
        ]
    return Outcomes(
        targets=targets,
        truth={target.name: target.encode(labels[target.name]) for target in targets},
        outputs={target.name: predictions.outputs(target.name, places) for target in targets},
        groups=groups_of(rows),
        shared=photos.shared,
    )


def _withheld(model: Contract, predictions: Predictions, places: Sequence[int]) -> dict[str, Bools]:
    """Which photos' predictions lack a target, by its name: bool [N], as in their records; of models of crops."""
    numbers = {target.name: {label: at for at, label in enumerate(target.classes)} for target in model.targets}
    left_out: dict[str, Bools] = {}
    for rule in model.withheld or ():
        applies = predictions.outputs(rule.where, places).argmax(axis=1) == numbers[rule.where][rule.label]
        for name in rule.targets:
            left_out[name] = left_out.get(name, False) | applies
    return left_out


def evaluate(outcomes: Outcomes, config: ValidateConfig) -> Evaluation:
    """Scores with their intervals."""
    done = metrics.reports_of(outcomes.targets, outcomes.truth, outcomes.outputs, outcomes.shared)
    scores, every = metrics.headline(done), metrics.every_score(done)
    measured: list[Statistic] = [
        of_target(target, outcomes.truth[target.name], outcomes.outputs[target.name], outcomes.shared.get(target.name))
        for target in outcomes.targets
    ]
    joint = _joint(outcomes)
    if joint is not None:
        value, statistic = joint
        scores, every = {JOINT: value, **scores}, {JOINT: value, **every}
        measured.append(statistic)
    replicates = metrics.replicate(measured, outcomes.groups, resamples=config.resamples, seed=config.seed)
    replicates = {**replicates, **metrics.mean_scores(replicates, (target.name for target in outcomes.targets))}
    sizes = class_groups(outcomes)
    return Evaluation(done, scores, every, intervals(every, replicates, outcomes.groups.count, sizes), replicates)


def _joint(outcomes: Outcomes) -> tuple[float, MeanStatistic] | None:
    targets = [target for target in outcomes.targets if target.kind != "value"]
    right, known = [outcomes.right(target) for target in targets], [outcomes.known(target) for target in targets]
    value = metrics.joint_accuracy(right, known) if len(targets) > 1 else None
    if value is None:
        return None
    everywhere = np.logical_and.reduce(known)
    return value, MeanStatistic({JOINT: (np.logical_and.reduce(right), everywhere)})


def intervals(
    scores: Mapping[str, float], replicates: Replicates, groups: int, sizes: Mapping[str, int]
) -> dict[str, Interval]:
    """The intervals of the scores that have one, over so many groups, or those in `sizes`."""
    every = {
        name: metrics.interval(name, value, replicates.get(name), sizes.get(name, groups))
        for name, value in scores.items()
    }
    return {name: interval for name, interval in every.items() if interval is not None}


def class_groups(outcomes: Outcomes) -> dict[str, int]:
    """The number of groups behind each score of a class."""
    sizes: dict[str, int] = {}
    for target in outcomes.targets:
        if target.kind != "class":
            continue
        truth, known = outcomes.truth[target.name], outcomes.known(target)
        predicted = outcomes.outputs[target.name].argmax(axis=1)
        for number, name in enumerate(target.classes):
            there = outcomes.groups.having(truth == number)
            sizes |= {f"{target.name}.{score}[{name}]": there for score in ("recall", "f1")}
            sizes[f"{target.name}.precision[{name}]"] = outcomes.groups.having(known & (predicted == number))
    return sizes
