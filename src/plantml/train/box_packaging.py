"""From a trained detector to a bundle: calibrate, choose thresholds, export, verify the export, write the card."""

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from plantml import metrics
from plantml.data import boxes as box_rows
from plantml.data.manifest import SPLITS, Version
from plantml.imaging.drawing import MISSED, RIGHT, WRONG, DrawnBox, draw_boxes, grid
from plantml.metrics import ClassReport, calibration
from plantml.metrics import detection as metrics_of_boxes
from plantml.metrics.calibration import Threshold
from plantml.model import temperature
from plantml.model.contract import Architecture, Contract, Detection, Origin
from plantml.model.detector import CentreNet, DeployedDetector
from plantml.parsing import dump_yaml
from plantml.reporting import charts, documents
from plantml.train import box_evaluation
from plantml.train.box_evaluation import MOST, UNCALIBRATED, Predicted
from plantml.train.box_photos import BoxPhotos
from plantml.train.learner import PackagedModel
from plantml.train.model_card import header
from plantml.train.packaging import export, photo_batches
from plantml.train.plan import Plan

_BATCH = 8
_SHOWN = 16
"""Validation photos that are drawn with their boxes."""


def package(net: CentreNet, plan: Plan, architecture: Architecture, val: BoxPhotos, version: Version) -> PackagedModel:
    """Make the bundle of a trained detector.

    Args:
        net: in evaluation mode, on the CPU.
        plan: how it was trained.
        architecture: of the network.
        val: photos that calibrate the scores and set the thresholds.
        version: of the dataset.

    Raises:
        GateError: the ONNX file does not reproduce the network's boxes.
    """
    predicted = box_evaluation.predict(net, val, plan)
    assert predicted is not None  # no signal is looked for
    matched = box_evaluation.match(predicted, val, plan.targets)
    slope, offset = platt(matched.detections.scores, matched.right)
    detections = replace(matched.detections, scores=rescaled(matched.detections.scores, slope, offset))
    threshold = metrics_of_boxes.best_threshold(detections)
    accepted = calibration.threshold(detections.scores, matched.right, plan.target_risk)
    detection = Detection(
        boxes=MOST,
        slope=slope,
        offset=offset,
        threshold=threshold,
        accept=max(threshold, accepted.score),
        tile=plan.tile or None,
    )
    fitted = temperature.fit(DeployedDetector(net, UNCALIBRATED, {}), matched.logits, matched.labels)
    deployed = DeployedDetector(net, detection, fitted.temperatures, None, fitted.biases).eval()
    with torch.inference_mode():
        answers = {name: each.numpy() for name, each in deployed.answers(matched.logits).items()}
    judged = [target for target in plan.targets if target.size > 1 or target.kind != "class"]
    reports = metrics.reports_of(judged, matched.labels, answers)
    thresholds = calibration.accept_thresholds(judged, answers, matched.labels, plan.target_risk)
    of_boxes = box_evaluation.scores_of(detections, threshold)
    scored = of_boxes | metrics.headline(reports)
    contract = Contract(
        targets=plan.targets,
        input=plan.input,
        architecture=architecture,
        temperatures=fitted.temperatures,
        biases=fitted.biases,
        thresholds={name: threshold.score for name, threshold in thresholds.items()},
        target_risk=plan.target_risk,
        acceptance=thresholds,
        unknown_threshold=_NEVER,
        detection=detection,
        dataset=Origin(url=plan.dataset, version=plan.dataset_version, fingerprint=plan.fingerprint),
        metrics={name: round(value, 6) for name, value in scored.items()},
        seed=plan.seed,
        versions=plan.versions,
    )
    exported = export(deployed, contract, lambda: photo_batches(val.pixels, val.rows, _BATCH))
    card = _card(contract, exported.digest, plan=plan, version=version, reports=reports, accepted=accepted)
    content = {
        "scores": scored,
        "boxes": {"threshold": threshold, "accept": detection.accept, "accepted": asdict(accepted)},
        "targets": {report.target: metrics.as_json(report) for report in reports},
    }
    plots = {
        "precision_recall.png": charts.precision_recall(detections, threshold),
        "validation.png": _sheet(predicted, val, detection),
        "sizes.png": charts.box_sizes(np.concatenate([each[:, 2:] for each in val.boxes])),
        **{f"confusion_{each.target}.png": charts.confusion(each) for each in reports if isinstance(each, ClassReport)},
    }
    return exported.packaged(card, content, plots)


_NEVER = 2.0
"""The largest possible unknown score: a detector marks no box as unknown."""


def platt(scores: NDArray[np.float32], right: NDArray[np.bool_]) -> tuple[float, float]:
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


def rescaled(scores: NDArray[np.float32], slope: float, offset: float) -> NDArray[np.float32]:
    """Scores [n] after the calibration of `platt`."""
    return np.asarray(1 / (1 + np.exp(-(slope * _logits(scores) + offset))), np.float32)


def _logits(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    clipped = scores.astype(np.float64).clip(1e-7, 1 - 1e-7)
    return np.asarray(np.log(clipped / (1 - clipped)))


def _sheet(predicted: Predicted, val: BoxPhotos, detection: Detection) -> bytes:
    """A PNG of validation photos: right boxes green, wrong ones red, missed ones dashed."""
    photos = []
    for number, row in enumerate(predicted.rows.tolist()[:_SHOWN]):
        scores = rescaled(predicted.scores[number], detection.slope, detection.offset)
        boxes = predicted.boxes[number][scores >= detection.threshold]
        overlaps = metrics_of_boxes.iou(boxes, val.boxes[row])
        at = metrics_of_boxes.match(overlaps, scores[scores >= detection.threshold])
        missed = [box for place, box in enumerate(val.boxes[row].tolist()) if place not in set(at.tolist())]
        photo = Image.fromarray(np.array(val.pixels[row]))
        drawn = [DrawnBox(x, y, w, h, MISSED, dashed=True) for x, y, w, h in missed]
        drawn += [
            DrawnBox(x, y, w, h, RIGHT if hit >= 0 else WRONG, f"{score:.2f}")
            for (x, y, w, h), hit, score in zip(boxes.tolist(), at.tolist(), scores.tolist(), strict=False)
        ]
        draw_boxes(photo, drawn, text=11)
        photos.append(photo)
    return grid(photos)


def _card(
    contract: Contract,
    digest: str,
    *,
    plan: Plan,
    version: Version,
    reports: Sequence[metrics.Report],
    accepted: Threshold,
) -> str:
    frames = {split: box_rows.frame(version.usable(split), plan.targets) for split in SPLITS}
    counts = {
        target.name: [(name, {split: int((rows[target.name] == name).sum()) for split, rows in frames.items()})
                      for name in target.classes]
        for target in plan.targets
    }  # fmt: skip
    return documents.fill(
        "plantml.train",
        "box_card.md.jinja",
        filters={"cell": documents.cell},
        header=dump_yaml(header(contract, digest, plan, reports) | {"pipeline_tag": "object-detection"}),
        contract=contract,
        detection=contract.detection,
        digest=digest,
        plan=plan,
        scores={name: value for name, value in contract.metrics.items() if name.startswith("boxes.")},
        reports=reports,
        accepted=accepted,
        counts=counts,
        boxes={split: rows.height for split, rows in frames.items()},
        photos={split: version.usable(split).height for split in SPLITS},
    )
