"""What a detector finds in the validation photos, and how well that fits their boxes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from plantml import metrics
from plantml.concurrency import Stop
from plantml.metrics import detection
from plantml.metrics.detection import Detections, DetectionStatistic
from plantml.model.contract import Detection
from plantml.model.detector import CentreNet, DeployedDetector
from plantml.targets import Target
from plantml.train import distributed
from plantml.train.box_cells import loss_of
from plantml.train.box_photos import BoxDataset, BoxPhotos
from plantml.train.evaluation import probabilities
from plantml.train.history import Evaluation
from plantml.train.plan import Plan

Floats = NDArray[np.float32]

MOST = 300
"""Boxes that a detector gives of a photo."""

SCORES = ("ap", "ap50", "ap75", "precision", "recall", "f1", "count_bias", "count_mae", "count_exact")
"""Numbers of the boxes in the history and in a model's contract."""

_LEAST = 0.01
"""Uncalibrated score of the weakest boxes that are judged."""

UNCALIBRATED = Detection(boxes=MOST, slope=1.0, offset=0.0, threshold=0.0, accept=0.0)

_BATCH = 8


@dataclass(frozen=True)
class Predicted:
    """The boxes that a detector gives of N photos, best first.

    Attributes:
        rows: index of each photo in its split, [N].
        boxes: x, y, w, h in pixels of the input, float32 [N, K, 4].
        scores: uncalibrated, float32 [N, K].
        logits: as `target.<name>`, [N, K, classes].
        loss: mean over the photos.
    """

    rows: NDArray[np.int64]
    boxes: Floats
    scores: Floats
    logits: Mapping[str, Tensor]
    loss: float


@dataclass(frozen=True)
class Matched:
    """The predicted boxes of all photos, beside the annotated ones, whatever their targets.

    Attributes:
        detections: for metrics, all boxes as one class.
        right: whether a predicted box matches an annotated one at an IoU of 0.5, bool [n].
        logits: of those that do, by target, [m, classes].
        labels: of these, encoded.
    """

    detections: Detections
    right: NDArray[np.bool_]
    logits: Mapping[str, Tensor]
    labels: Mapping[str, NDArray[Any]]


def predict(net: CentreNet, photos: BoxPhotos, plan: Plan, stop: Stop | None = None) -> Predicted | None:
    """What a network finds in photos, each process in its share; `None` if a signal stopped it.

    The network is left in evaluation mode.
    """
    share, size = photos.rows[distributed.rank() :: distributed.world_size()], plan.input.height
    dataset, device = BoxDataset(photos, plan.targets, size, 0, None), next(net.parameters()).device
    deployed = DeployedDetector(net.eval(), UNCALIBRATED, {})
    parts: list[dict[str, Tensor]] = []
    samples: Any = [(0, int(row), 0) for row in share]
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=plan.precision == "bf16"):
        for batch in DataLoader(dataset, _BATCH, sampler=samples):
            # Several processes must stop together, which they do between steps.
            if stop and distributed.world_size() == 1:
                return None
            maps = {name: each.float() for name, each in net(batch["image"].to(device)).items()}
            loss = loss_of(maps, batch, plan.targets, scales=net.scales())
            drawn, score, logits = deployed.decode(maps, size, size)
            part = {f"target.{name}": each for name, each in logits.items()}
            part |= {"rows": batch["row"], "boxes": drawn, "scores": score, "loss": loss.total.expand(len(drawn))}
            parts.append({name: each.cpu() for name, each in part.items()})
    parts = [part for gathered in distributed.gather(parts) for part in gathered]
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    rows, boxes, scores = (joined.pop(name).numpy() for name in ("rows", "boxes", "scores"))
    mean_loss = float(joined.pop("loss").mean())
    return Predicted(rows, boxes, scores, joined, mean_loss)


def match(predicted: Predicted, photos: BoxPhotos, targets: Sequence[Target]) -> Matched:
    """Compare boxes with the annotated ones, whatever their targets.

    Args:
        predicted: of the photos.
        photos: whose boxes are in pixels of the input.
        targets: of the boxes.
    """
    boxes, scores, right = [], [], []
    places: list[tuple[int, int]] = []
    pairs: list[tuple[int, int]] = []
    truth = [photos.boxes[row] for row in predicted.rows.tolist()]
    for number, row in enumerate(predicted.rows.tolist()):
        count = int((predicted.scores[number] >= _LEAST).sum())
        boxes.append(predicted.boxes[number, :count])
        scores.append(predicted.scores[number, :count])
        partner = detection.match(detection.iou(boxes[-1], truth[number]), scores[-1])
        hits = np.flatnonzero(partner >= 0)
        right.append(partner >= 0)
        places += [(number, int(hit)) for hit in hits]
        pairs += [(row, int(box)) for box in partner[hits]]
    photo, cell = np.array(places, np.int64).reshape(-1, 2).T
    labels = {
        target.name: np.array(
            [photos.labels[row][target.name][box] for row, box in pairs], target.encode([]).dtype
        ).reshape(len(pairs), *target.encode([]).shape[1:])
        for target in targets
    }
    logits = {name.removeprefix("target."): each[photo, cell] for name, each in predicted.logits.items()}
    return Matched(detection.of_one_class(boxes, scores, truth), np.concatenate(right), logits, labels)


def scores_of(detections: Detections, threshold: float) -> dict[str, float]:
    """`boxes.ap`, `boxes.ap50` and so on: the numbers of all boxes; see `metrics.detection.DetectionStatistic`."""
    scores, _ = DetectionStatistic(detections, threshold=threshold).of_all()
    return {f"boxes.{name}": scores.get(name, 0.0) for name in SCORES}


def evaluate(net: CentreNet, photos: BoxPhotos, plan: Plan, stop: Stop) -> Evaluation | None:
    """Evaluate a network on its validation photos; it is left in training mode."""
    predicted = predict(net, photos, plan, stop)
    net.train()
    if predicted is None:
        return None
    matched = match(predicted, photos, plan.targets)
    scores = scores_of(matched.detections, detection.best_threshold(matched.detections))
    reports = reports_of(matched, plan.targets)
    parts = [scores["boxes.ap"], *([metrics.selection_score(reports)] if reports else [])]
    return Evaluation(predicted.loss, float(np.mean(parts)), scores | metrics.headline(reports))


def reports_of(matched: Matched, targets: Sequence[Target]) -> list[metrics.Report]:
    """How well the targets of the boxes that were found are predicted; without those of one class only."""
    judged = [target for target in targets if target.size > 1 or target.kind != "class"]
    answers = {target.name: probabilities(target, matched.logits[target.name]).numpy() for target in judged}
    return metrics.reports_of(judged, matched.labels, answers)
