"""Calibration error, and the thresholds of acceptance and of "unknown", from predictions on held-out photos."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plantml.metrics import selective
from plantml.metrics.statistics import calibration_error
from plantml.targets import Target, Threshold

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

KNOWN_SHARE = 0.99
"""Share of validation photos below the threshold of `unknown`."""

ENOUGH = 200
"""Labelled photos below which a threshold is provisional."""

NOTHING = 1.01
"""The threshold that accepts nothing."""

DRAWS, SEED = 1000, 0
"""Simulated label sets of a perfectly calibrated model, and the seed they are drawn with."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """The calibration error, and the range that chance alone explains.

    Attributes:
        ece: expected calibration error over 15 bins of equal width.
        low: 2.5 % of simulated perfectly calibrated models have less.
        high: 2.5 % of them have more.
        photos: number of predictions.
    """

    ece: float
    low: float
    high: float
    photos: int

    @property
    def explained_by_chance(self) -> bool:
        """True if 97.5 % of perfectly calibrated models with as many photos are no better."""
        return self.ece <= self.high


def threshold(scores: Floats, right: Bools, risk: float) -> Threshold:
    """The lowest score from which at most `risk` of the predictions above it are wrong on these photos.

    Selective classification after Geifman and El-Yaniv 2017, "Selective classification for deep neural
    networks", by the point estimate; its `bound` tells what that promises for other photos.

    Args:
        scores: of the predictions, [N].
        right: whether they are correct, [N].
        risk: largest share of wrong predictions among the accepted ones.
    """
    curve = selective.risk_coverage(scores, right)
    good = np.flatnonzero(curve.risk <= risk)
    provisional = curve.photos < ENOUGH
    if not len(good):
        return Threshold(NOTHING, 0.0, 0.0, 1.0, curve.photos, provisional)
    at = int(good[-1])
    errors, accepted = int(curve.errors[at]), int(curve.accepted[at])
    bound = selective.risk_bound(errors, accepted, searched=selective.search_steps(curve.photos))
    # Records hold scores with six decimals; half of the last one is given way to rounding.
    score = round(float(curve.scores[at]) - 5e-7, 6)
    coverage, observed = round(accepted / curve.photos, 6), round(errors / accepted, 6)
    return Threshold(score, coverage, observed, round(bound, 6), curve.photos, provisional)


def accept_thresholds(
    targets: Sequence[Target], answers: Mapping[str, Floats], labels: Mapping[str, NDArray[Any]], risk: float
) -> dict[str, Threshold]:
    """Thresholds of all labelled class and multilabel targets; a value has no score.

    Args:
        targets: what was predicted.
        answers: by target, calibrated probabilities [N, classes].
        labels: by target, encoded.
        risk: see `threshold`.
    """
    thresholds = {}
    for target in targets:
        if target.kind != "value" and target.labelled(labels[target.name]).any():
            thresholds[target.name] = threshold(*judged(target, answers[target.name], labels[target.name]), risk)
    return thresholds


def unknown_threshold(unknown: Floats) -> float:
    """The unknown score up to which at least `KNOWN_SHARE` of the validation photos [N] lie."""
    return math.ceil(float(np.quantile(unknown, KNOWN_SHARE, method="higher")) * 1e6) / 1e6


def judged(target: Target, answers: Floats, labels: NDArray[Any]) -> tuple[Floats, Bools]:
    """Scores of the labelled photos, and whether the predictions are correct, as in records.

    The score of a class is its probability. The score of a set of labels is that of its least certain label, present
    or absent; the set is correct if every label is.

    Args:
        target: a class or multilabel target.
        answers: calibrated probabilities [N, classes].
        labels: encoded.
    """
    known = target.labelled(labels)
    answers, labels = answers[known], labels[known]
    if target.kind == "class":
        return answers.max(axis=1), answers.argmax(axis=1) == labels
    return np.maximum(answers, 1 - answers).min(axis=1), ((answers >= 0.5) == (labels >= 0.5)).all(axis=1)


def confidences(target: Target, answers: Floats, labels: NDArray[Any]) -> tuple[Floats, Bools]:
    """The inputs of calibration: a class's top probability, or each label's own prediction.

    Args:
        target: a class or multilabel target.
        answers: probabilities [N, classes].
        labels: encoded.

    Returns:
        Confidence in 0 to 1 and whether the answer was right: [M], M = N, or N times the classes for a set.
    """
    if target.kind == "class":
        return judged(target, answers, labels)
    known = target.labelled(labels)
    answers, labels = answers[known], labels[known]
    return np.maximum(answers, 1 - answers).ravel(), ((answers >= 0.5) == (labels >= 0.5)).ravel()


def reliability(confidence: Floats, right: Bools, *, draws: int = DRAWS, seed: int = SEED) -> Reliability:
    """Expected calibration error, beside what a perfectly calibrated model with these confidences would show.

    Such a model is right with the probability that it names (Vaicenavicius et al. 2019, "Evaluating model
    calibration in classification", consistency resampling): outcomes are drawn so, `draws` times. With few photos
    it, too, shows an error; `low` to `high` holds 95 % of them.

    Args:
        confidence: in 0 to 1, [N].
        right: whether the predictions are correct, [N].
        draws: simulated sets of outcomes.
        seed: they are drawn with.
    """
    if not len(confidence):
        return Reliability(0.0, 0.0, 0.0, 0)
    confidence = np.asarray(confidence, np.float64)
    random = np.random.default_rng(seed)
    chance = [calibration_error(confidence, random.random(len(confidence)) < confidence) for _ in range(draws)]
    low, high = np.quantile(chance, [0.025, 0.975])
    return Reliability(calibration_error(confidence, np.asarray(right, bool)), float(low), float(high), len(confidence))
