"""From a trained detector to a bundle: calibrate, choose thresholds, export, verify the export, write the card."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from PIL import Image

from plantml import metrics
from plantml.data import boxes as box_rows
from plantml.data.manifest import SPLITS, Version
from plantml.imaging import Fit
from plantml.imaging.drawing import MISSED, RIGHT, WRONG, DrawnBox, draw_boxes, grid
from plantml.metrics import ClassReport
from plantml.metrics import detection as metrics_of_boxes
from plantml.model import box_calibration
from plantml.model.contract import Architecture, Contract, Detection, Origin
from plantml.model.detector import CentreNet, DeployedDetector
from plantml.parsing import dump_yaml
from plantml.reporting import charts, documents
from plantml.train import unlabelled_photos
from plantml.train.boxes import evaluation
from plantml.train.boxes.evaluation import Predicted
from plantml.train.boxes.photos import BoxPhotos
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
    predicted = evaluation.predict(net, val, plan)
    assert predicted is not None  # no signal is looked for
    matched = evaluation.match(predicted, val, plan.targets)
    calibrated = box_calibration.calibrate(net, matched, risk=plan.target_risk, tile=plan.tile or None)
    detection, scaling = calibrated.detection, calibrated.scaling
    contract = Contract(
        targets=plan.targets,
        input=plan.input,
        architecture=architecture,
        target_risk=plan.target_risk,
        unknown_threshold=_NEVER,
        withheld=plan.withheld or None,
        dataset=Origin(url=plan.dataset, version=plan.dataset_version, fingerprint=plan.fingerprint),
        unlabelled=unlabelled_photos.origin(plan),
        seed=plan.seed,
        versions=plan.versions,
        **calibrated.of_contract,
    )
    deployed = DeployedDetector(net, detection, scaling.temperatures, None, scaling.biases).eval()
    exported = export(deployed, contract, lambda: photo_batches(val.pixels, val.rows, _BATCH))
    reports = calibrated.reports
    card = box_card(contract, exported.digest, plan=plan, version=version, reports=reports)
    content = {
        "scores": calibrated.scores,
        "boxes": {
            "threshold": detection.threshold,
            "accept": detection.accept,
            "accepted": asdict(calibrated.accepted),
        },
        "targets": {report.target: metrics.as_json(report) for report in reports},
    }
    plots = {
        "precision_recall.png": charts.precision_recall(calibrated.detections, detection.threshold),
        "validation.png": _sheet(predicted, val, detection, plan.input),
        "sizes.png": charts.box_sizes(np.concatenate([each[:, 2:] for each in val.boxes])),
        **{f"confusion_{each.target}.png": charts.confusion(each) for each in reports if isinstance(each, ClassReport)},
    }
    return exported.packaged(card, content, plots)


_NEVER = 2.0
"""The largest possible unknown score: a detector marks no box as unknown."""


def _sheet(predicted: Predicted, val: BoxPhotos, detection: Detection, fit: Fit) -> bytes:
    """A PNG of validation photos: right boxes green, wrong ones red, missed ones dashed; without padding."""
    photos = []
    for number, row in enumerate(predicted.rows.tolist()[:_SHOWN]):
        scores = box_calibration.rescaled(predicted.raw.scores[number], detection.slope, detection.offset)
        boxes = predicted.raw.boxes[number][scores >= detection.threshold]
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
        photos.append(photo.crop(fit.content(*val.sizes[row])))
    return grid(photos)


def box_card(
    contract: Contract, digest: str, *, plan: Plan, version: Version, reports: Sequence[metrics.Report] = ()
) -> str:
    """The model card of a detector, or of a model of two stages.

    Args:
        contract: of the model.
        digest: of the model.
        plan: of the detector.
        version: of the dataset, with the targets of its boxes.
        reports: of the detector's own targets.
    """
    frames = {split: box_rows.frame(version.usable(split), contract.targets) for split in SPLITS}
    counts = {
        target.name: [(name, {split: int((rows[target.name] == name).sum()) for split, rows in frames.items()})
                      for name in target.classes]
        for target in contract.targets
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
        reports=reports,
        counts=counts,
        boxes={split: rows.height for split, rows in frames.items()},
        photos={split: version.usable(split).height for split in SPLITS},
    )
