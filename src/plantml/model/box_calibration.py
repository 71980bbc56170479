"""From the boxes that a detector gives of annotated photos to its calibration, thresholds and scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plantml import metrics
from plantml.metrics import calibration, detection
from plantml.metrics.detection import Detections, DetectionStatistic
from plantml.model import temperature
from plantml.model.contract import Detection
from plantml.model.detector import STRIDE, CentreNet, DeployedDetector
from plantml.model.network import probabilities
from plantml.model.temperature import Scaling
from plantml.targets import Target, Threshold

Floats = NDArray[np.float32]

MOST = 300
"""Boxes that a detector gives of a photo, at most: a small input has fewer cells."""

SCORES = ("ap", "ap50", "ap75", "precision", "recall", "f1", "count_bias", "count_mae", "count_exact")
"""Numbers of the boxes in the history and in a model's contract."""

_LEAST = 0.01
"""Uncalibrated score of the weakest boxes that are judged."""

_LEAST_OVERLAP = 0.4
"""Overlap that boxes of two objects may always have."""

_OVERLAP_MARGIN = 0.1
"""Overlap beyond that of annotated boxes that boxes of two objects may have."""


def uncalibrated(truth: Sequence[Floats], height: int, width: int) -> Detection:
    """How boxes are found before the calibration, in an input of a size.

    Args:
        truth: annotated boxes [M, 4] of photos: two found boxes may overlap a little more than these do.
        height: of the input.
        width: likewise.
    """
    overlaps = [np.triu(detection.iou(boxes, boxes), 1).max(axis=0) for boxes in truth if len(boxes)]
    usual = float(np.quantile(np.concatenate(overlaps), 0.999)) if overlaps else 0.0
    overlap = round(min(1.0, max(_LEAST_OVERLAP, usual + _OVERLAP_MARGIN)), 2)
    most = min(MOST, height // STRIDE * (width // STRIDE))
    return Detection(boxes=most, slope=1.0, offset=0.0, threshold=0.0, accept=0.0, overlap=overlap)


@dataclass(frozen=True)
class RawBoxes:
    """The uncalibrated boxes that a detector predicts in N photos, best first.

    Attributes:
        boxes: x, y, w, h in pixels of the input, float32 [N, K, 4].
        scores: uncalibrated, float32 [N, K].
        logits: by target, [N, K, classes].
        detection: how they were found.
    """

    boxes: Floats
    scores: Floats
    logits: Mapping[str, Tensor]
    detection: Detection


@dataclass(frozen=True)
class Matched:
    """The predicted boxes of all photos, beside the annotated ones, whatever their targets.

    Attributes:
        detection: how the boxes were found.
        detections: for metrics, all boxes as one class.
        statistic: of them.
        logits: of the boxes that match an annotated one at an IoU of 0.5, by target, [m, classes].
        labels: of these, encoded.
    """

    detection: Detection
    detections: Detections
    statistic: DetectionStatistic
    logits: Mapping[str, Tensor]
    labels: Mapping[str, NDArray[Any]]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether a predicted box matches an annotated one: bool [n]."""
        return np.asarray(self.statistic.partner >= 0)

    def reports(self, targets: Sequence[Target]) -> list[metrics.Report]:
        """How well the targets of the matched boxes are predicted, without calibration."""
        judged = _judged(targets)
        answers = {target.name: probabilities(target, self.logits[target.name]).numpy() for target in judged}
        return metrics.reports_of(judged, self.labels, answers)


def match(
    predicted: RawBoxes,
    truth: Sequence[Floats],
    labels: Sequence[Mapping[str, NDArray[Any]]],
    targets: Sequence[Target],
) -> Matched:
    """Compare boxes with the annotated ones.

    Args:
        predicted: in N photos.
        truth: annotated boxes of each photo, [M, 4], in pixels of the input.
        labels: of these, by target, encoded.
        targets: of the boxes.
    """
    counts = (predicted.scores >= _LEAST).sum(axis=1)
    detections = detection.of_one_class(
        [boxes[:count] for boxes, count in zip(predicted.boxes, counts, strict=True)],
        [scores[:count] for scores, count in zip(predicted.scores, counts, strict=True)],
        truth,
    )
    statistic = DetectionStatistic(detections)
    right = np.flatnonzero(statistic.partner >= 0)
    photo = detections.photo[right]
    place = right - np.searchsorted(detections.photo, photo)
    flat = {
        target.name: np.concatenate([target.encode([]), *(each[target.name] for each in labels)]) for target in targets
    }
    return Matched(
        predicted.detection,
        detections,
        statistic,
        {name: logits[photo, place] for name, logits in predicted.logits.items()},
        {name: each[statistic.partner[right]] for name, each in flat.items()},
    )


def scores_of(statistic: DetectionStatistic) -> dict[str, float]:
    """`boxes.ap`, `boxes.ap50` and so on: the numbers of all boxes."""
    scores, _ = statistic.of_all()
    return {f"boxes.{name}": scores.get(name, 0.0) for name in SCORES}


def selection_score(ap: float, reports: Sequence[metrics.Report]) -> float:
    """The number that models are chosen by: the mean of the average precision and of the score of the targets."""
    return float(np.mean([ap, *([metrics.selection_score(reports)] if reports else [])]))


@dataclass(frozen=True)
class BoxCalibration:
    """What calibrates a detector, and how good it is then.

    Attributes:
        detection: slope, offset and thresholds of the boxes.
        scaling: of the logits of targets.
        accepted: what the threshold of acceptance of boxes promises.
        acceptance: by target, likewise of labels.
        detections: the boxes with calibrated scores.
        reports: of the targets of the boxes that were predicted.
        scores: all numbers by name.
    """

    detection: Detection
    scaling: Scaling
    accepted: Threshold
    acceptance: Mapping[str, Threshold]
    detections: Detections
    reports: Sequence[metrics.Report]
    scores: Mapping[str, float]

    @property
    def of_contract(self) -> dict[str, Any]:
        """The fields of a contract that it sets."""
        return {
            "detection": self.detection,
            "temperatures": self.scaling.temperatures,
            "biases": self.scaling.biases,
            "thresholds": {name: threshold.score for name, threshold in self.acceptance.items()},
            "acceptance": self.acceptance,
            "metrics": {name: round(value, 6) for name, value in self.scores.items()},
        }


def calibrate(net: CentreNet, matched: Matched, *, risk: float, tile: int | None = None) -> BoxCalibration:
    """Calibrate scores and targets, and choose the thresholds.

    Args:
        net: that gave the boxes.
        matched: boxes of validation photos.
        risk: share of wrong ones among the accepted boxes, and among the accepted labels.
        tile: see `Detection`.
    """
    right = matched.right
    slope, offset = platt(matched.detections.scores, right)
    detections = replace(matched.detections, scores=rescaled(matched.detections.scores, slope, offset))
    statistic = DetectionStatistic(detections)
    accepted = calibration.threshold(detections.scores, right, risk)
    limits = {"threshold": statistic.threshold, "accept": max(statistic.threshold, accepted.score)}
    chosen = matched.detection.model_copy(update={"slope": slope, "offset": offset, **limits, "tile": tile})
    scaling = temperature.fit(DeployedDetector(net, matched.detection, {}), matched.logits, matched.labels)
    deployed = DeployedDetector(net, chosen, scaling.temperatures, None, scaling.biases).eval()
    with torch.inference_mode():
        answers = {name: each.numpy() for name, each in deployed.answers(matched.logits).items()}
    judged = _judged(net.targets)
    reports = metrics.reports_of(judged, matched.labels, answers)
    acceptance = calibration.accept_thresholds(judged, answers, matched.labels, risk)
    scores = scores_of(statistic) | metrics.headline(reports)
    return BoxCalibration(chosen, scaling, accepted, acceptance, detections, reports, scores)


def platt(scores: Floats, right: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and offset that make logits of scores [n] in 0 to 1 those of being right.

    Logistic regression with Platt's smoothed answers (1999, "Probabilistic outputs for support vector machines"). The
    order of the scores stays: without boxes of both kinds, or against them, nothing changes.
    """
    from scipy.optimize import minimize

    positive, negative = int(right.sum()), int((~right).sum())
    if not positive or not negative:
        return 1.0, 0.0
    logits = _logits(scores)
    soft = np.where(right, (positive + 1) / (positive + 2), 1 / (negative + 2))

    def loss(numbers: NDArray[np.float64]) -> float:
        values = numbers[0] * logits + numbers[1]
        return float(np.mean(np.logaddexp(0, values) - soft * values))

    slope, offset = minimize(loss, [1.0, 0.0], method="L-BFGS-B", bounds=[(0.05, 20), (-20, 20)]).x
    return round(float(slope), 4), round(float(offset), 4)


def rescaled(scores: Floats, slope: float, offset: float) -> Floats:
    """Scores [n] after the calibration of `platt`."""
    return np.asarray(1 / (1 + np.exp(-(slope * _logits(scores) + offset))), np.float32)


def _logits(scores: Floats) -> NDArray[np.float64]:
    clipped = scores.astype(np.float64).clip(1e-7, 1 - 1e-7)
    return np.asarray(np.log(clipped / (1 - clipped)))


def _judged(targets: Sequence[Target]) -> list[Target]:
    """The targets that have something to tell apart."""
    return [target for target in targets if target.size > 1 or target.kind != "class"]
