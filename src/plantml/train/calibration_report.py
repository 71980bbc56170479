"""What the validation photos say of a model's confidence: calibration before and after, and when it may be acted on."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plantml.metrics import calibration, selective
from plantml.metrics.calibration import Floats, Reliability, Threshold
from plantml.metrics.selective import Curve
from plantml.targets import Target

_RISKS = (0.01, 0.05)
"""Risks whose coverage is told, whatever was asked for."""


@dataclass(frozen=True)
class ConfidenceReport:
    """Of one class or multilabel target.

    Attributes:
        target: name.
        answers: calibrated confidence [N] and whether it was right [N]; see `calibration.confidences`.
        before: calibration: temperature 1 and otherwise the same network.
        after: calibration.
        curve: risk by coverage.
        aurc: area under it.
        coverage: by risk.
        threshold: that was chosen.
    """

    target: str
    answers: tuple[Floats, NDArray[np.bool_]]
    before: Reliability
    after: Reliability
    curve: Curve
    aurc: float
    coverage: Mapping[float, float]
    threshold: Threshold


def accounts(
    targets: Sequence[Target],
    before: Mapping[str, Floats],
    after: Mapping[str, Floats],
    labels: Mapping[str, NDArray[Any]],
    thresholds: Mapping[str, Threshold],
) -> list[ConfidenceReport]:
    """The accounts of all targets that have a threshold.

    Args:
        targets: what was predicted.
        before: probabilities by target [N, classes] without calibration.
        after: with it.
        labels: by target, encoded.
        thresholds: by target.
    """
    found = []
    for target in targets:
        name = target.name
        if name not in thresholds:
            continue
        answers = calibration.confidences(target, after[name], labels[name])
        scores, right = calibration.judged(target, after[name], labels[name])
        found.append(
            ConfidenceReport(
                target=name,
                answers=answers,
                before=calibration.reliability(*calibration.confidences(target, before[name], labels[name])),
                after=calibration.reliability(*answers),
                curve=selective.risk_coverage(scores, right),
                aurc=selective.aurc(scores, right),
                coverage={risk: selective.coverage_at(scores, right, risk) for risk in _RISKS},
                threshold=thresholds[name],
            )
        )
    return found


def calibration_json(found: Sequence[ConfidenceReport]) -> dict[str, Any]:
    """`calibration` of `metrics.json`, by target."""
    return {
        one.target: {
            "ece_before": one.before.ece,
            "ece": one.after.ece,
            "answers": one.after.photos,
            "perfect_model_95": [one.after.low, one.after.high],
            "within": one.after.explained_by_chance,
            "draws": calibration.DRAWS,
            "seed": calibration.SEED,
        }
        for one in found
    }


def selective_json(found: Sequence[ConfidenceReport], risk: float) -> dict[str, Any]:
    """`selective` of `metrics.json`, by target."""
    return {
        one.target: {
            "target_risk": risk,
            **asdict(one.threshold),
            "accepts_nothing": one.threshold.coverage == 0,
            "confidence_of_bound": 1 - selective.DELTA,
            "aurc": one.aurc,
            "coverage_at": {f"{risk:g}": share for risk, share in one.coverage.items()},
        }
        for one in found
    }
