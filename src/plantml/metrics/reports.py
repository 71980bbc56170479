"""Scores of one set of predictions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plantml.metrics.statistics import Bools, Floats, Ints, of_target
from plantml.targets import Target

_LOWER_IS_BETTER = frozenset({"ece", "brier", "aurc", "mae", "rmse", "mse", "count_mae", "false_alarms"})


@dataclass(frozen=True)
class ClassReport:
    """How well a class target was predicted.

    Attributes:
        target: name.
        classes: names, in the order of the matrix.
        photos: labelled photos.
        confusion: int64 [truth, prediction].
        scores: headline numbers by name.
        per_class: precision, recall, f1 and support by class.
    """

    target: str
    classes: tuple[str, ...]
    photos: int
    confusion: Ints
    scores: Mapping[str, float]
    per_class: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class ValueReport:
    """How well a number was predicted: R2, MAE, RMSE and MSE in the target's unit."""

    target: str
    unit: str
    photos: int
    scores: Mapping[str, float]


@dataclass(frozen=True)
class MultilabelReport:
    """How well sets of labels were predicted, each label on its own at probability 0.5."""

    target: str
    classes: tuple[str, ...]
    photos: int
    scores: Mapping[str, float]
    per_class: Mapping[str, Mapping[str, float]]


Report = ClassReport | ValueReport | MultilabelReport


def report(
    target: Target, truth: NDArray[Any], outputs: Floats, *, shared: frozenset[str] | None = None
) -> Report | None:
    """The report of one target; `None` if no photo is labelled. Arguments as for `statistics.of_target`."""
    known = target.labelled(truth)
    photos = int(known.sum())
    if not photos:
        return None
    scores, per_class = of_target(target, truth, outputs, shared).of_all()
    if target.kind == "value":
        return ValueReport(target.name, target.unit, photos, scores)
    if target.kind == "multilabel":
        return MultilabelReport(target.name, target.classes, photos, scores, per_class)
    size = len(target.classes)
    pairs = truth[known] * size + outputs[known].argmax(axis=1)
    confusion = np.bincount(pairs, minlength=size * size).reshape(size, size)
    return ClassReport(target.name, target.classes, photos, confusion, scores, per_class)


def reports_of(
    targets: Sequence[Target],
    truth: Mapping[str, NDArray[Any]],
    outputs: Mapping[str, Floats],
    shared: Mapping[str, frozenset[str]] | None = None,
) -> list[Report]:
    """The reports of all targets that have a label, in their order; `truth`, `outputs` and `shared` by target."""
    reports = [
        report(target, truth[target.name], outputs[target.name], shared=(shared or {}).get(target.name))
        for target in targets
        if target.name in truth
    ]
    return [each for each in reports if each is not None]


def correct_predictions(target: Target, truth: NDArray[Any], outputs: Floats) -> Bools:
    """Which predictions are correct: bool [N], false where not labelled.

    A class by its top class, a multilabel by all labels together.

    Raises:
        ValueError: a value is not correct or wrong.
    """
    if target.kind == "value":
        raise ValueError("a value is not right or wrong")
    if target.kind == "class":
        right: Bools = outputs.argmax(axis=1) == truth
        return right
    every_label: Bools = target.labelled(truth) & ((outputs >= 0.5) == (truth > 0.5)).all(axis=1)
    return every_label


def joint_accuracy(right: Sequence[Bools], known: Sequence[Bools]) -> float | None:
    """Share of the fully labelled photos that are correct for every target; `None` if there are none.

    Args:
        right: by target, bool [N].
        known: by target, bool [N]: labelled.
    """
    everywhere = np.logical_and.reduce(known)
    return float(np.logical_and.reduce(right)[everywhere].mean()) if everywhere.any() else None


def mean_scores(scores: Mapping[str, Any], targets: Iterable[str]) -> dict[str, Any]:
    """`macro_f1` and `accuracy` as means over targets, of numbers or of resamples [R] called `target.score`."""
    names = list(targets)
    means = {}
    for score in ("macro_f1", "accuracy"):
        parts = [scores[f"{name}.{score}"] for name in names if f"{name}.{score}" in scores]
        if parts:
            means[score] = sum(parts) / len(parts)
    return means


def headline(reports: Sequence[Report]) -> dict[str, float]:
    """The numbers over all targets: the mean of their macro-F1, and all scores as `target.score`."""
    scores = {f"{each.target}.{name}": value for each in reports for name, value in each.scores.items()}
    return mean_scores(scores, (each.target for each in reports)) | scores


def selection_score(reports: Sequence[Report]) -> float:
    """What the best checkpoint is chosen by: the mean over targets of macro-F1, or R2 for values."""
    scores = [each.scores.get("macro_f1", each.scores.get("r2", 0.0)) for each in reports]
    return sum(scores) / len(scores) if scores else 0.0


def every_score(reports: Sequence[Report]) -> dict[str, float]:
    """All numbers that a gate can name: the headline, and `target.recall[class]` and the like."""
    scores = headline(reports)
    for each in reports:
        if not isinstance(each, ValueReport):
            for name, row in each.per_class.items():
                scores |= {f"{each.target}.{score}[{name}]": value for score, value in row.items()}
    return scores


def higher_is_better(name: str) -> bool:
    """False for errors, such as `disease.ece` and `severity.mae`."""
    return name.partition("[")[0].rpartition(".")[2] not in _LOWER_IS_BETTER


def as_json(report: Report) -> dict[str, Any]:
    """A report as JSON types."""
    content: dict[str, Any] = {"photos": report.photos, **report.scores}
    if isinstance(report, ValueReport):
        return content | {"unit": report.unit}
    content |= {"classes": list(report.classes), "per_class": {k: dict(v) for k, v in report.per_class.items()}}
    if isinstance(report, ClassReport):
        content["confusion"] = report.confusion.tolist()
    return content
