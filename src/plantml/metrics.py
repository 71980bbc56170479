"""Metrics of predictions, in numpy, so that training and validation report the same numbers.

Definitions follow scikit-learn's; the tests compare them with scikit-learn and torchmetrics.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plantml.targets import Target

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]


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


def report_encoded(target: Target, truth: NDArray[Any], outputs: Floats) -> Report | None:
    """The same from labels as `Target.encode` gives them."""
    if target.kind == "class":
        known = truth >= 0
        return class_report(target, truth[known], outputs[known]) if known.any() else None
    known = ~np.isnan(truth).reshape(len(truth), -1).any(axis=1)
    if not known.any():
        return None
    if target.kind == "value":
        return value_report(target, truth[known], outputs[known, 0])
    return multilabel_report(target, truth[known] > 0.5, outputs[known] >= 0.5)


def class_report(target: Target, truth: Ints, probabilities: Floats) -> ClassReport:
    """The report of a class target from class numbers [N] and probabilities [N, classes]."""
    predicted = probabilities.argmax(axis=1)
    size = len(target.classes)
    confusion = np.bincount(truth * size + predicted, minlength=size * size).reshape(size, size)
    hits, support, named = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    per_class = _per_class(target.classes, hits, support, named)
    # A class that is neither there nor named says nothing; scikit-learn leaves it out of the mean too.
    seen = [name for name, n, m in zip(target.classes, support, named, strict=True) if n or m]
    there = [name for name, n in zip(target.classes, support, strict=True) if n]
    scores = {
        "accuracy": float(hits.sum() / len(truth)),
        "balanced_accuracy": _mean(per_class[name]["recall"] for name in there),
        "macro_f1": _mean(per_class[name]["f1"] for name in seen),
        "ece": calibration_error(probabilities, truth),
    }
    return ClassReport(target.name, target.classes, len(truth), confusion, scores, per_class)


def multilabel_report(target: Target, truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> MultilabelReport:
    """The report of a multilabel target from boolean matrices [N, classes]."""
    hits = (truth & predicted).sum(axis=0)
    per_class = _per_class(target.classes, hits, truth.sum(axis=0), predicted.sum(axis=0))
    scores = {
        "accuracy": float((truth == predicted).all(axis=1).mean()),
        "macro_f1": _mean(row["f1"] for row in per_class.values()),
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


def calibration_error(probabilities: Floats, truth: Ints, bins: int = 15) -> float:
    """Expected calibration error of the top class over equal-width bins (Naeini et al. 2015; Guo et al. 2017)."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == truth
    bin_ = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(bin_, minlength=bins)
    gaps = np.bincount(bin_, weights=right, minlength=bins) - np.bincount(bin_, weights=confidence, minlength=bins)
    return float(np.abs(gaps[counts > 0]).sum() / len(truth))


def headline(reports: Sequence[Report]) -> dict[str, float]:
    """The numbers over all targets: the mean of their macro-F1, and all scores as `target.score`."""
    scores = {f"{found.target}.{name}": value for found in reports for name, value in found.scores.items()}
    f1 = [found.scores["macro_f1"] for found in reports if "macro_f1" in found.scores]
    accuracy = [found.scores["accuracy"] for found in reports if "accuracy" in found.scores]
    overall = {"macro_f1": _mean(f1), "accuracy": _mean(accuracy)} if f1 else {}
    return overall | scores


def selection_score(reports: Sequence[Report]) -> float:
    """What the best checkpoint is chosen by: the mean over targets of macro-F1, or R2 for values."""
    return _mean(found.scores.get("macro_f1", found.scores.get("r2", 0.0)) for found in reports)


def every_score(reports: Sequence[Report]) -> dict[str, float]:
    """All numbers that a gate can name: the headline, and `target.recall[class]` and the like."""
    scores = headline(reports)
    for found in reports:
        if not isinstance(found, ValueReport):
            for name, row in found.per_class.items():
                scores |= {f"{found.target}.{score}[{name}]": value for score, value in row.items()}
    return scores


def as_json(found: Report) -> dict[str, Any]:
    """A report as JSON types."""
    content: dict[str, Any] = {"photos": found.photos, **found.scores}
    if isinstance(found, ValueReport):
        return content | {"unit": found.unit}
    content |= {"classes": list(found.classes), "per_class": {k: dict(v) for k, v in found.per_class.items()}}
    if isinstance(found, ClassReport):
        content["confusion"] = found.confusion.tolist()
    return content


def _per_class(classes: Sequence[str], hits: Ints, support: Ints, named: Ints) -> dict[str, dict[str, float]]:
    rows = {}
    for name, hit, true, said in zip(classes, hits.tolist(), support.tolist(), named.tolist(), strict=True):
        precision, recall = (hit / said if said else 0.0), (hit / true if true else 0.0)
        f1 = 2 * hit / (true + said) if true + said else 0.0
        rows[name] = {"precision": precision, "recall": recall, "f1": f1, "support": true}
    return rows


def _mean(numbers: Any) -> float:
    found = list(numbers)
    return float(sum(found) / len(found)) if found else 0.0
