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
from plantml.model.contract import Detection
from plantml.model.detector import CentreNet, DeployedDetector
from plantml.targets import Target
from plantml.train import distributed
from plantml.train.batches import Batch
from plantml.train.box_cells import loss_of
from plantml.train.box_photos import BoxDataset, BoxPhotos
from plantml.train.evaluation import probabilities
from plantml.train.history import Evaluation
from plantml.train.plan import Plan

Floats = NDArray[np.float32]

MOST = 300
"""Boxes that a detector gives of a photo."""

IOUS = np.linspace(0.5, 0.95, 10)
"""Intersections over union from which a box counts as found."""

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
    """The predicted boxes of all photos, beside the annotated ones.

    Attributes:
        scores: of the predicted boxes, [n].
        photo: of each, [n].
        right: whether it matches an annotated box of its photo, at each of `IOUS`, bool [n, 10].
        annotated: boxes of each photo, [N].
        logits: of the boxes that match at 0.5, by target, [m, classes].
        labels: of these, encoded.
    """

    scores: Floats
    photo: NDArray[np.int64]
    right: NDArray[np.bool_]
    annotated: NDArray[np.int64]
    logits: Mapping[str, Tensor]
    labels: Mapping[str, NDArray[Any]]

    def counts(self, scores: Floats, threshold: float) -> NDArray[np.int64]:
        """Predicted boxes of each photo from a score on: [N]. `scores`: of the boxes, maybe calibrated."""
        return np.bincount(self.photo[scores >= threshold], minlength=len(self.annotated))


@dataclass(frozen=True)
class OperatingPoint:
    """Precision, recall and F1 of the boxes with at least a score."""

    score: float
    precision: float
    recall: float
    f1: float


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
            loss = loss_of(maps, batch, plan.targets, scales=net.scales(), weights={}, smoothing=0.0)
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
    """Compare boxes with the annotated ones, each with at most one, the best scores first (as COCO does).

    Args:
        predicted: of the photos.
        photos: whose boxes are in pixels of the input.
        targets: of the boxes.
    """
    scores, places, right = [], [], []
    rows, cells, boxes = [], [], []
    for number, row in enumerate(predicted.rows.tolist()):
        count = int((predicted.scores[number] >= _LEAST).sum())
        at = assign(predicted.boxes[number, :count], photos.boxes[row])
        scores.append(predicted.scores[number, :count])
        places.append(np.full(count, number))
        right.append(at >= 0)
        hits = np.flatnonzero(at[:, 0] >= 0)
        rows.append(np.full(len(hits), number))
        cells.append(hits)
        boxes.append([(row, int(box)) for box in at[hits, 0]])
    photo, cell = np.concatenate(rows), np.concatenate(cells)
    pairs = [pair for each in boxes for pair in each]
    labels = {
        target.name: np.array([photos.labels[row][target.name][box] for row, box in pairs], target.encode([]).dtype)
        for target in targets
    }
    return Matched(
        np.concatenate(scores),
        np.concatenate(places),
        np.concatenate(right),
        np.array([len(photos.boxes[row]) for row in predicted.rows.tolist()]),
        {name.removeprefix("target."): each[photo, cell] for name, each in predicted.logits.items()},
        labels,
    )


def assign(boxes: Floats, truth: Floats) -> NDArray[np.int64]:
    """The annotated box [G, 4] that each box [n, 4], best first, is taken for at each of `IOUS`: [n, 10], -1 for none."""
    overlaps = iou(boxes, truth)
    taken = np.zeros((len(IOUS), len(truth)), bool)
    assigned = np.full((len(boxes), len(IOUS)), -1)
    for number in np.flatnonzero(overlaps.max(axis=1, initial=0) >= IOUS[0]).tolist():
        free = np.where(taken, 0.0, overlaps[number])
        best = free.argmax(axis=1)
        is_hit = free[np.arange(len(IOUS)), best] >= IOUS
        assigned[number, is_hit] = best[is_hit]
        taken[np.flatnonzero(is_hit), best[is_hit]] = True
    return assigned


def iou(first: Floats, second: Floats) -> NDArray[np.float64]:
    """Intersection over union of boxes [n, 4] and [m, 4] (x, y, w, h): [n, m]."""
    a, b = first[:, None, :].astype(np.float64), second[None, :, :].astype(np.float64)
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    common = np.maximum(high - low, 0).prod(axis=2)
    overlaps: NDArray[np.float64] = common / np.maximum(
        a[..., 2:].prod(axis=2) + b[..., 2:].prod(axis=2) - common, 1e-9
    )
    return overlaps


def average_precision(scores: Floats, right: NDArray[np.bool_], annotated: int) -> float:
    """The mean precision at 101 recalls (COCO), of all boxes [n]."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order])
    precision = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
    places = np.searchsorted(hits / max(1, annotated), np.linspace(0, 1, 101))
    return float(np.append(precision, 0.0)[np.minimum(places, len(precision))].mean())


def precision_recall(
    scores: Floats, right: NDArray[np.bool_], annotated: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall and precision, [n, 10] each, at each of `IOUS`, of the n best boxes."""
    hits = np.cumsum(right[np.argsort(-scores, kind="stable")], axis=0)
    return hits / max(1, annotated), hits / np.arange(1, len(hits) + 1)[:, None]


def at_best_f1(scores: Floats, right: NDArray[np.bool_], annotated: int) -> OperatingPoint:
    """The score with the best F1; 0.5 without boxes."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + annotated)
    if not len(f1) or not hits[-1]:
        return OperatingPoint(0.5, 0.0, 0.0, 0.0)
    best = int(f1.argmax())
    # Records hold scores with six decimals; half of the last one is given way to rounding.
    score = round(float(scores[order][best]) - 5e-7, 6)
    return OperatingPoint(score, float(hits[best] / (best + 1)), float(hits[best] / annotated), float(f1[best]))


def scores_of(matched: Matched) -> dict[str, float]:
    """`boxes.ap` (mean over `IOUS`) and `boxes.ap50`, without regard to targets."""
    annotated = int(matched.annotated.sum())
    each = [average_precision(matched.scores, matched.right[:, place], annotated) for place in range(len(IOUS))]
    return {"boxes.ap50": each[0], "boxes.ap": float(np.mean(each))}


def evaluate(net: CentreNet, photos: BoxPhotos, plan: Plan, stop: Stop) -> Evaluation | None:
    """Evaluate a network on its validation photos; it is left in training mode."""
    predicted = predict(net, photos, plan, stop)
    net.train()
    if predicted is None:
        return None
    matched = match(predicted, photos, plan.targets)
    scores, reports = scores_of(matched), reports_of(matched, plan.targets)
    parts = [scores["boxes.ap"], *([metrics.selection_score(reports)] if reports else [])]
    return Evaluation(predicted.loss, float(np.mean(parts)), scores | metrics.headline(reports))


def reports_of(matched: Matched, targets: Sequence[Target]) -> list[metrics.Report]:
    """How well the targets of the boxes that were found are predicted; without those of one class only."""
    judged = [target for target in targets if target.size > 1 or target.kind != "class"]
    answers = {target.name: probabilities(target, matched.logits[target.name]).numpy() for target in judged}
    return metrics.reports_of(judged, matched.labels, answers)
