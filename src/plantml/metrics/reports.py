"""Scores of one set of predictions."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plantml.metrics import ranking, selective
from plantml.targets import Target

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
Bools = NDArray[np.bool_]

BINS = 15
"""Bins of the calibration error."""

TOP = (3, 5)
"""Values of k for top-k accuracy, used where there are more than k classes."""

RISKS = {"coverage_at_1pct": 0.01, "coverage_at_5pct": 0.05}
"""Coverage scores, and the risk at which each is taken."""

_LOWER_IS_BETTER = frozenset({"ece", "brier", "aurc", "mae", "mse"})


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
    """How well a number was predicted: R2, MAE and MSE in the target's unit."""

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


def report(target: Target, labels: Sequence[Any], outputs: Floats) -> Report | None:
    """The report of one target; `None` if no photo is labelled.

    Args:
        target: what was predicted.
        labels: true labels by photo; `None` where not labelled.
        outputs: probabilities [N, classes], or values [N, 1].
    """
    return report_encoded(target, target.encode(labels), outputs)


def report_encoded(
    target: Target, truth: NDArray[Any], outputs: Floats, *, shared: Collection[str] | None = None
) -> Report | None:
    """The same from labels as `Target.encode` gives them.

    Args:
        target: what was predicted.
        truth: encoded labels.
        outputs: probabilities [N, classes], or values [N, 1].
        shared: classes over which means are taken; those that are there or named, if not given.
    """
    known = target.labelled(truth)
    if not known.any():
        return None
    if target.kind == "class":
        return class_report(target, truth[known], outputs[known], shared=shared)
    if target.kind == "value":
        return value_report(target, truth[known], outputs[known, 0])
    return multilabel_report(target, truth[known] > 0.5, outputs[known])


def reports_of(
    targets: Sequence[Target],
    truth: Mapping[str, NDArray[Any]],
    outputs: Mapping[str, Floats],
    shared: Mapping[str, Collection[str]] | None = None,
) -> list[Report]:
    """The reports of all targets that have a label, in their order; `truth`, `outputs` and `shared` by target."""
    reports = [
        report_encoded(target, truth[target.name], outputs[target.name], shared=(shared or {}).get(target.name))
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


def class_report(
    target: Target, truth: Ints, probabilities: Floats, *, shared: Collection[str] | None = None
) -> ClassReport:
    """The report of a class target from class numbers [N] and probabilities [N, classes]."""
    predicted = probabilities.argmax(axis=1)
    size = len(target.classes)
    confusion = np.bincount(truth * size + predicted, minlength=size * size).reshape(size, size)
    hits, support, named = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    per_class = _per_class(target.classes, hits, support, named)
    # A class that is neither there nor named says nothing; scikit-learn leaves it out of the mean too.
    present = [name for name, n, m in zip(target.classes, support, named, strict=True) if n or m]
    there = [name for name, n in zip(target.classes, support, strict=True) if n]
    mean_over = [name for name in present if shared is None or name in shared]
    right, confidence = predicted == truth, probabilities.max(axis=1)
    scores = {
        "accuracy": float(hits.sum() / len(truth)),
        "balanced_accuracy": _mean(per_class[name]["recall"] for name in there),
        "macro_f1": _mean(per_class[name]["f1"] for name in mean_over),
        "weighted_f1": sum(per_class[name]["f1"] * per_class[name]["support"] for name in there) / len(truth),
        **{f"top{k}_accuracy": float(in_top(truth, probabilities, k).mean()) for k in TOP if size > k},
        "ece": calibration_error(probabilities, truth),
        "brier": float(squared_distance(truth, probabilities).mean()),
        "aurc": selective.aurc(confidence, right),
        **{name: selective.coverage_at(confidence, right, risk) for name, risk in RISKS.items()},
    }
    return ClassReport(target.name, target.classes, len(truth), confusion, scores, per_class)


def multilabel_report(target: Target, truth: Bools, probabilities: Floats) -> MultilabelReport:
    """The report of a multilabel target from labels, bool [N, classes], and probabilities [N, classes].

    `average_precision` is the mean over classes that some photo has; it is 0 for a class that none has.
    """
    predicted = probabilities >= 0.5
    hits, support = (truth & predicted).sum(axis=0), truth.sum(axis=0)
    per_class = _per_class(target.classes, hits, support, predicted.sum(axis=0))
    ones = np.ones((1, len(truth)), np.int64)
    for number, row in enumerate(per_class.values()):
        order = ranking.ranked(probabilities[:, number], truth[:, number])
        precision = float(ranking.average_precision(*order.counted(ones))[0])
        row["average_precision"] = 0.0 if np.isnan(precision) else precision
    there = [row for row in per_class.values() if row["support"]]
    total = sum(row["support"] for row in there)
    scores = {
        "accuracy": float((truth == predicted).all(axis=1).mean()),
        "macro_f1": _mean(row["f1"] for row in per_class.values()),
        "weighted_f1": sum(row["f1"] * row["support"] for row in there) / total if total else 0.0,
        "average_precision": _mean(row["average_precision"] for row in there),
        "brier": float(((probabilities.astype(np.float64) - truth) ** 2).mean()),
    }
    return MultilabelReport(target.name, target.classes, len(truth), scores, per_class)


def value_report(target: Target, truth: Floats, predicted: Floats) -> ValueReport:
    """The report of a value target from numbers [N]; R2 is 0 where the truth does not vary."""
    truth = truth.astype(np.float64)  # a float32 mean of equal numbers need not be that number
    error = predicted - truth
    spread = float(((truth - truth.mean()) ** 2).sum())
    scores = {
        "r2": 1 - float((error**2).sum()) / spread if spread > 0 else 0.0,
        "mae": float(np.abs(error).mean()),
        "mse": float((error**2).mean()),
    }
    return ValueReport(target.name, target.unit, len(truth), scores)


def calibration_error(probabilities: Floats, truth: Ints, bins: int = BINS) -> float:
    """Expected calibration error of the top class over equal-width bins (Naeini et al. 2015; Guo et al. 2017)."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == truth
    bin_ = calibration_bins(confidence, bins)
    gaps = np.bincount(bin_, weights=right, minlength=bins) - np.bincount(bin_, weights=confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(truth))


def calibration_bins(confidence: Floats, bins: int = BINS) -> Ints:
    """The bin, 0 to bins - 1, of each confidence [N]; bins are open below and closed above."""
    numbers: Ints = np.clip(np.ceil(confidence.astype(np.float64) * bins).astype(int) - 1, 0, bins - 1)
    return numbers


def squared_distance(truth: Ints, probabilities: Floats) -> Floats:
    """Of each photo's probabilities from the truth, 0 to 2: float64 [N]; its mean is the score of Brier 1950."""
    wide = probabilities.astype(np.float64)
    distances: Floats = (wide**2).sum(axis=1) - 2 * wide[np.arange(len(truth)), truth] + 1
    return np.maximum(distances, 0)


def in_top(truth: Ints, probabilities: Floats, k: int) -> Bools:
    """Which true classes are among the k most probable: bool [N]."""
    first = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    among: Bools = (first == truth[:, None]).any(axis=1)
    return among


def headline(reports: Sequence[Report]) -> dict[str, float]:
    """The numbers over all targets: the mean of their macro-F1, and all scores as `target.score`."""
    scores = {f"{each.target}.{name}": value for each in reports for name, value in each.scores.items()}
    f1 = [each.scores["macro_f1"] for each in reports if "macro_f1" in each.scores]
    accuracy = [each.scores["accuracy"] for each in reports if "accuracy" in each.scores]
    overall = {"macro_f1": _mean(f1), "accuracy": _mean(accuracy)} if f1 else {}
    return overall | scores


def selection_score(reports: Sequence[Report]) -> float:
    """What the best checkpoint is chosen by: the mean over targets of macro-F1, or R2 for values."""
    return _mean(each.scores.get("macro_f1", each.scores.get("r2", 0.0)) for each in reports)


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


def _per_class(classes: Sequence[str], hits: Ints, support: Ints, named: Ints) -> dict[str, dict[str, float]]:
    rows = {}
    for name, hit, true, predicted in zip(classes, hits.tolist(), support.tolist(), named.tolist(), strict=True):
        precision, recall = (hit / predicted if predicted else 0.0), (hit / true if true else 0.0)
        f1 = 2 * hit / (true + predicted) if true + predicted else 0.0
        rows[name] = {"precision": precision, "recall": recall, "f1": f1, "support": true}
    return rows


def _mean(numbers: Any) -> float:
    values = list(numbers)
    return float(sum(values) / len(values)) if values else 0.0
