"""The boxes that a training gives to unlabelled photos: what the model that it starts from finds there.

One teacher, whose confident boxes are trained on under strong augmentation: "A Simple Semi-Supervised Learning
Framework for Object Detection" (STAC, Sohn et al. 2020). Its scores are calibrated, so that the threshold is a
probability. What it is less sure of counts neither as an object nor as background. Annotated photos are drawn as often
as all of these together, as in "Unbiased Teacher for Semi-Supervised Object Detection" (Liu et al. 2021). The boxes are
a file of the run, so that a resumed run has the same.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from plantml.data import boxes
from plantml.data.boxes import Box
from plantml.data.manifest import BOX
from plantml.imaging import Fit
from plantml.model.detector import DeployedDetector
from plantml.targets import Target
from plantml.train import pseudo_labels
from plantml.train.batches.loader import PixelSource
from plantml.train.boxes.photos import BoxPhotos
from plantml.train.plan import Plan
from plantml.train.probe import EmbeddingJob
from plantml.train.run_folder import RunFolder

LEAST = 0.05
"""Probability below which a box counts as background."""

_BATCH = 8

_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "image_id": pl.String,
    "boxes": pl.List(BOX),
    "scores": pl.List(pl.Float64),
}


@dataclass(frozen=True)
class OtherPhotos:
    """Unlabelled photos, as a detector sees them.

    Attributes:
        pixels: uint8 [U, H, W, 3], in the size of the input.
        rows: of each in the photos that are trained on, int64 [U].
        image_ids: SHA-256 of each.
        sizes: of the upright photos, width and height in pixels.
        fit: of the photos that are trained on.
    """

    pixels: PixelSource
    rows: NDArray[np.int64]
    image_ids: Sequence[str]
    sizes: Sequence[tuple[int, int]]
    fit: Fit


def complete(
    photos: BoxPhotos, others: OtherPhotos, plan: Plan, run: RunFolder, find: Callable[[], pl.DataFrame]
) -> tuple[BoxPhotos, dict[str, int]]:
    """Photos with pseudo-boxes beside the annotated ones, and the numbers of both.

    Photos without a box that is certain are left out: there the teacher may have missed all. The boxes are read from
    the run if an earlier call has written them.

    Args:
        photos: all; their rows are those with boxes.
        others: which are not annotated.
        plan: of the training.
        run: keeps the boxes.
        find: gives them as `find_boxes`.
    """
    table = pseudo_labels.kept(run, find)
    saved = {image_id: number for number, image_id in enumerate(table["image_id"])}
    drawn, labels, doubtful, chosen = list(photos.boxes), list(photos.labels), dict(photos.doubtful), []
    count = 0
    for row, image_id in zip(others.rows.tolist(), others.image_ids, strict=True):
        _, found, scores = table.row(saved[image_id]) if image_id in saved else ("", (), ())
        is_certain = np.array(scores, np.float64) >= plan.pseudo_threshold
        if is_certain.any():
            of_photo = boxes.from_rows(found) or ()
            sides = np.array([[box.x, box.y, box.w, box.h] for box in of_photo], np.float64)
            drawn[row] = others.fit.placement(*photos.sizes[row]).to_input(sides)
            labels[row] = encoded(plan.targets, of_photo)
            doubtful[row] = ~is_certain
            chosen.append(row)
            count += int(is_certain.sum())
    rows = np.concatenate([photos.rows, np.array(chosen, np.int64)])
    return replace(photos, rows=rows, boxes=drawn, labels=labels, doubtful=doubtful), {
        "photos": len(chosen), "boxes": count
    }  # fmt: skip


def encoded(targets: Sequence[Target], of_photo: Sequence[Box]) -> dict[str, NDArray[Any]]:
    """The labels of the boxes of a photo, by target."""
    return {target.name: target.encode([box.labels.get(target.name) for box in of_photo]) for target in targets}


def find_boxes(teacher: DeployedDetector, others: OtherPhotos, plan: Plan, job: EmbeddingJob) -> pl.DataFrame:
    """What a detector finds in photos.

    A box gets a class as its label if that is one of the plan, applies to such a box, and has at least the score
    `pseudo_threshold`.

    Args:
        teacher: calibrated, in evaluation mode; left on the processor.
        others: the photos.
        plan: of the training.
        job: its device, its stop and its progress.

    Returns:
        A row per photo: `image_id`, `boxes` in pixels of the photo, and their `scores`, of at least `LEAST`.
    """
    teacher.to(job.device)
    learnt = {target.name for target in plan.targets if target.kind == "class"}
    known = [target for target in teacher.net.targets if target.kind == "class" and target.name in learnt]
    found = []
    with torch.inference_mode():
        for start in range(0, len(others.rows), _BATCH):
            if job.stop:
                raise job.stop.error("Stopped while boxes were predicted", "Repeat the same command to resume.")
            places = range(start, min(start + _BATCH, len(others.rows)))
            pixels = torch.from_numpy(np.stack([others.pixels[place] for place in places]))
            answers = [each.cpu().numpy() for each in teacher(pixels.to(job.device))]
            named = dict(zip(teacher.output_names, answers, strict=True))
            for number, place in enumerate(places):
                of_photo = {name: values[number] for name, values in named.items()}
                found.append((others.image_ids[place], *_boxes(of_photo, known, plan, others.sizes[place])))
            job.progress(places.stop, len(others.rows))
    teacher.cpu()
    return pl.DataFrame(found, schema=_COLUMNS, orient="row")


def _boxes(
    found: Mapping[str, NDArray[np.float32]], known: Sequence[Target], plan: Plan, size: tuple[int, int]
) -> tuple[list[dict[str, Any]], list[float]]:
    """Boxes of a photo as in a manifest, with labels of the targets that the teacher knows; and their scores."""
    classes = {target.name: target.classes for target in plan.targets}
    count = int((found["score"] >= LEAST).sum())  # the best come first
    sides = plan.input.placement(*size).to_photo(found["boxes"][:count].astype(np.float64))
    rows = []
    for number, box in enumerate(sides.tolist()):
        labels: dict[str, str | float] = {}
        for target in known:
            scores = found[f"target.{target.name}"][number]
            label = target.classes[int(scores.argmax())]
            if scores.max() >= plan.pseudo_threshold and label in classes[target.name]:
                labels[target.name] = label
        for rule in plan.withheld:
            if labels.get(rule.where) == rule.label:
                labels = {name: label for name, label in labels.items() if name not in rule.targets}
        x, y, w, h = box
        rows.append(Box(x, y, w, h, labels).as_row())
    return rows, found["score"][:count].astype(float).tolist()
