"""What a detector finds in the validation photos, and how well that fits their boxes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from plantml import metrics
from plantml.concurrency import Stop
from plantml.model import box_calibration
from plantml.model.box_calibration import Matched, RawBoxes
from plantml.model.detector import CentreNet, DeployedDetector
from plantml.targets import Target
from plantml.train import distributed
from plantml.train.boxes.cells import loss_of
from plantml.train.boxes.photos import BoxDataset, BoxPhotos
from plantml.train.history import Evaluation
from plantml.train.plan import Plan

_BATCH = 8


@dataclass(frozen=True)
class Predicted:
    """What a detector gives of N photos.

    Attributes:
        rows: index of each photo in its split, [N].
        raw: the boxes.
        loss: mean over the photos.
    """

    rows: NDArray[np.int64]
    raw: RawBoxes
    loss: float


def predict(net: CentreNet, photos: BoxPhotos, plan: Plan, stop: Stop | None = None) -> Predicted | None:
    """What a network finds in photos, each process in its share; `None` if a signal stopped it.

    The network is left in evaluation mode.
    """
    share, size = photos.rows[distributed.rank() :: distributed.world_size()], plan.input.height
    dataset, device = BoxDataset(photos, plan.targets, size, 0, None), next(net.parameters()).device
    detection = box_calibration.uncalibrated(photos.boxes, size, size)
    deployed = DeployedDetector(net.eval(), detection, {})
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
    logits = {name.removeprefix("target."): each for name, each in joined.items()}
    return Predicted(rows, RawBoxes(boxes, scores, logits, detection), mean_loss)


def match(predicted: Predicted, photos: BoxPhotos, targets: Sequence[Target]) -> Matched:
    """Compare the boxes in photos with the annotated ones."""
    rows = predicted.rows.tolist()
    truth, labels = [photos.boxes[row] for row in rows], [photos.labels[row] for row in rows]
    return box_calibration.match(predicted.raw, truth, labels, targets)


def evaluate(net: CentreNet, photos: BoxPhotos, plan: Plan, stop: Stop) -> Evaluation | None:
    """Evaluate a network on its validation photos; it is left in training mode."""
    predicted = predict(net, photos, plan, stop)
    net.train()
    if predicted is None:
        return None
    matched = match(predicted, photos, plan.targets)
    scores, reports = box_calibration.scores_of(matched.statistic), matched.reports(plan.targets)
    score = box_calibration.selection_score(scores["boxes.ap"], reports)
    return Evaluation(predicted.loss, score, scores | metrics.headline(reports))
