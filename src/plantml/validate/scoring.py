"""A model's answers held against the labels: scores, and how sure these photos make of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plantml import metrics
from plantml.metrics import Groups, Interval, Replicates, Report, bootstrap
from plantml.metrics.bootstrap import MeanStatistic
from plantml.targets import Target
from plantml.validate.predictions import Answers
from plantml.validate.selection import Photos

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
JOINT = "joint_accuracy"


@dataclass(frozen=True)
class Answered:
    """Labels and answers of photos that were read, as numbers.

    Attributes:
        targets: judged.
        truth: by target, as `Target.encode` gives it.
        outputs: by target, [N, classes].
        groups: of the photos.
        shared: by target, classes that means are over.
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
        """Which answers are right: bool [N]; not for values."""
        return metrics.right_answers(target, self.truth[target.name], self.outputs[target.name])

    def quality(self, target: Target) -> Floats:
        """Of each photo: 1 where right and 0 where wrong, or a value's absolute error: [N]."""
        if target.kind != "value":
            return self.right(target).astype(float)
        error: Floats = np.abs(self.outputs[target.name][:, 0] - self.truth[target.name])
        return np.nan_to_num(error)


@dataclass(frozen=True)
class Judgement:
    """The scores of one model.

    Attributes:
        reports: by target.
        scores: the headline.
        every: all numbers that a gate can name.
        intervals: of all scores that have one.
        replicates: of the scores, by resample.
    """

    reports: Sequence[Report]
    scores: Mapping[str, float]
    every: Mapping[str, float]
    intervals: Mapping[str, Interval]
    replicates: Replicates


def answered(targets: Sequence[Target], photos: Photos, answers: Answers, places: Sequence[int]) -> Answered:
    """The photos at `places`, which all have an answer; targets with the classes of the model that answered."""
    rows = photos.rows[list(places)]
    return Answered(
        targets=targets,
        truth={target.name: target.encode(rows[target.name].to_list()) for target in targets},
        outputs={target.name: answers.outputs(target.name, places) for target in targets},
        groups=photos.at(places).groups(),
        shared=photos.shared,
    )


def judge(found: Answered, *, resamples: int, seed: int) -> Judgement:
    """Scores with their intervals."""
    done = metrics.reports_of(found.targets, found.truth, found.outputs, found.shared)
    scores, every = metrics.headline(done), metrics.every_score(done)
    statistics = [
        bootstrap.of_target(
            target, found.truth[target.name], found.outputs[target.name], found.groups, found.shared.get(target.name)
        )
        for target in found.targets
    ]
    joint = _joint(found)
    if joint is not None:
        value, statistic = joint
        scores, every = {JOINT: value, **scores}, {JOINT: value, **every}
        statistics.append(statistic)
    replicates = metrics.replicate(statistics, found.groups, resamples=resamples, seed=seed)
    replicates = bootstrap.with_means(replicates, [target.name for target in found.targets])
    return Judgement(done, scores, every, _intervals(every, replicates, found), replicates)


def _joint(found: Answered) -> tuple[float, MeanStatistic] | None:
    targets = [target for target in found.targets if target.kind != "value"]
    right, known = [found.right(target) for target in targets], [found.known(target) for target in targets]
    value = metrics.joint_accuracy(right, known) if len(targets) > 1 else None
    if value is None:
        return None
    everywhere = np.logical_and.reduce(known)
    return value, MeanStatistic({JOINT: (np.logical_and.reduce(right), everywhere)}, found.groups)


def _intervals(every: Mapping[str, float], replicates: Replicates, found: Answered) -> dict[str, Interval]:
    sizes = groups_of(found)
    intervals = {}
    for name, value in every.items():
        interval = metrics.interval(name, value, replicates.get(name), sizes.get(name, found.groups.count))
        if interval is not None:
            intervals[name] = interval
    return intervals


def groups_of(found: Answered) -> dict[str, int]:
    """By score of one class, the groups that it is made of."""
    sizes: dict[str, int] = {}
    for target in found.targets:
        if target.kind != "class":
            continue
        truth, known = found.truth[target.name], found.known(target)
        said = found.outputs[target.name].argmax(axis=1)
        for number, name in enumerate(target.classes):
            there = found.groups.having(truth == number)
            sizes |= {f"{target.name}.{score}[{name}]": there for score in ("recall", "f1")}
            sizes[f"{target.name}.precision[{name}]"] = found.groups.having(known & (said == number))
    return sizes
