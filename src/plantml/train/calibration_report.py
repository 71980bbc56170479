"""Confidence of a model on the validation photos: calibration before and after, and selective prediction."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plantml.metrics import calibration, selective
from plantml.metrics.calibration import Floats, Reliability
from plantml.metrics.selective import Curve
from plantml.targets import Target, Threshold

_RISKS = (0.01, 0.05)
"""Risks whose coverage is always reported, besides the target risk."""


@dataclass(frozen=True)
class ConfidenceReport:
    """Confidence in one class or multilabel target.

    Attributes:
        target: name.
        confidences: calibrated confidence [N] and whether the prediction was right [N]; see `calibration.confidences`.
        before: reliability of the same network at temperature 1.
        after: reliability after calibration.
        curve: risk against coverage.
        aurc: area under it.
        coverage: reached at each risk.
        threshold: chosen for the target risk.
    """

    target: str
    confidences: tuple[Floats, NDArray[np.bool_]]
    before: Reliability
    after: Reliability
    curve: Curve
    aurc: float
    coverage: Mapping[float, float]
    threshold: Threshold


def confidence_reports(
    targets: Sequence[Target],
    before: Mapping[str, Floats],
    after: Mapping[str, Floats],
    labels: Mapping[str, NDArray[Any]],
    thresholds: Mapping[str, Threshold],
) -> list[ConfidenceReport]:
    """The reports of all targets that have a threshold.

    Args:
        targets: what was predicted.
        before: uncalibrated probabilities by target, [N, classes].
        after: calibrated probabilities by target, [N, classes].
        labels: by target, encoded.
        thresholds: by target.
    """
    reports = []
    for target in targets:
        name = target.name
        if name not in thresholds:
            continue
        confidences = calibration.confidences(target, after[name], labels[name])
        scores, right = calibration.judged(target, after[name], labels[name])
        reports.append(
            ConfidenceReport(
                target=name,
                confidences=confidences,
                before=calibration.reliability(*calibration.confidences(target, before[name], labels[name])),
                after=calibration.reliability(*confidences),
                curve=selective.risk_coverage(scores, right),
                aurc=selective.aurc(scores, right),
                coverage={risk: selective.coverage_at(scores, right, risk) for risk in _RISKS},
                threshold=thresholds[name],
            )
        )
    return reports


def calibration_json(reports: Sequence[ConfidenceReport]) -> dict[str, Any]:
    """The `calibration` section of `metrics.json`, by target."""
    return {
        report.target: {
            "ece_before": report.before.ece,
            "ece": report.after.ece,
            "answers": report.after.photos,
            "perfect_model_95": [report.after.low, report.after.high],
            "within": report.after.explained_by_chance,
            "draws": calibration.DRAWS,
            "seed": calibration.SEED,
        }
        for report in reports
    }


def selective_json(reports: Sequence[ConfidenceReport], risk: float) -> dict[str, Any]:
    """The `selective` section of `metrics.json`, by target."""
    return {
        report.target: {
            "target_risk": risk,
            **asdict(report.threshold),
            "accepts_nothing": report.threshold.coverage == 0,
            "confidence_of_bound": 1 - selective.DELTA,
            "aurc": report.aurc,
            "coverage_at": {f"{risk:g}": share for risk, share in report.coverage.items()},
        }
        for report in reports
    }
