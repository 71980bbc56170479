"""After training, on the validation split: how sure to be, when to say so, and when to say "unknown"."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from plantml.targets import Target

KNOWN_SHARE = 0.99
"""Share of validation photos that are known by the threshold of `unknown`."""


@dataclass(frozen=True)
class Calibration:
    """What turns logits into honest answers.

    Attributes:
        temperatures: by target.
        thresholds: by class target: scores from which an answer is accepted.
        unknown_threshold: `unknown` above this is unlike the training photos.
    """

    temperatures: dict[str, float]
    thresholds: dict[str, float]
    unknown_threshold: float


def temperature(target: Target, logits: Tensor, labels: Tensor) -> float:
    """The temperature that minimises the validation loss (Guo et al. 2017), within 0.05 to 20.

    The labels of n photos are taken as (n + 1) / (n + 2) sure (Platt 1999, "Probabilistic outputs for support
    vector machines"): without it, a split without a single mistake would ask for boundless confidence.

    Args:
        target: a class or multilabel target.
        logits: [N, classes].
        labels: encoded.
    """
    known = labels >= 0 if target.kind == "class" else ~torch.isnan(labels).any(dim=1)
    if target.kind == "value" or not known.any():
        return 1.0
    logits, labels = logits[known].double(), labels[known]
    doubt, size = 1 / (len(labels) + 2), logits.shape[1]

    def loss(log_temperature: float) -> float:
        scaled = logits / float(np.exp(log_temperature))
        if target.kind == "class":
            smoothing = doubt * size / max(1, size - 1)
            return float(functional.cross_entropy(scaled, labels, label_smoothing=smoothing))
        soft = labels.double() * (1 - 2 * doubt) + doubt
        return float(functional.binary_cross_entropy_with_logits(scaled, soft))

    from scipy.optimize import minimize_scalar

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    return round(float(np.exp(found.x)), 4)


def threshold(scores: NDArray[np.floating], right: NDArray[np.bool_], risk: float) -> float:
    """The lowest score from which at most `risk` of the answers above it are wrong on these photos.

    Selective classification after Geifman and El-Yaniv 2017, "Selective classification for deep neural
    networks", by the point estimate. 1.01, which accepts nothing, if no score is good enough.
    """
    order = np.argsort(-scores, kind="stable")
    wrong = np.cumsum(~right[order]) / np.arange(1, len(order) + 1)
    # Photos of equal score are accepted together, so only the last of each may set the threshold.
    last = np.append(np.diff(scores[order]) != 0, True)
    good = np.flatnonzero((wrong <= risk) & last)
    return round(float(scores[order][good[-1]]) - 5e-7, 6) if len(good) else 1.01


def accept_thresholds(
    targets: Sequence[Target], answers: Mapping[str, Tensor], labels: Mapping[str, Tensor], risk: float
) -> dict[str, float]:
    """Thresholds of all class targets from calibrated probabilities [N, classes] and class numbers [N]."""
    found = {}
    for target in targets:
        truth = labels[target.name]
        if target.kind != "class" or not (truth >= 0).any():
            continue
        known = truth >= 0
        probabilities = answers[target.name][known]
        right = (probabilities.argmax(dim=1) == truth[known]).numpy()
        found[target.name] = threshold(probabilities.max(dim=1).values.numpy(), right, risk)
    return found


def unknown_threshold(unknown: Tensor) -> float:
    """The unknown score below which `KNOWN_SHARE` of the validation photos [N] lie."""
    return round(float(np.quantile(unknown.numpy(), KNOWN_SHARE)), 6)
