"""Boxes that the models of a cross-validation find, each in the photos that it was not trained on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from plantml import storage
from plantml.concurrency import Stop
from plantml.curate.context import Subject
from plantml.data import boxes, folds, versions
from plantml.data.boxes import Box
from plantml.data.filters import matching
from plantml.data.manifest import Version
from plantml.errors import InputError, NotFoundError
from plantml.metrics.detection import Detections
from plantml.model.pipeline import Pipeline
from plantml.parsing import parse_yaml
from plantml.registry.references import open_pipeline
from plantml.settings import Machine
from plantml.storage import checksums
from plantml.targets import Target
from plantml.validate import box_arrays, predictions
from plantml.validate.prediction_cache import PredictionCache
from plantml.validate.selection import DATASET, URL

PLANS = ("plan.yaml", "detector/plan.yaml")
"""Where the plan of a run lies: that of a tray is in its first stage."""

_AGAIN = "Train one: plantml train DATASET --task boxes --folds 3 --out RUN"


@dataclass(frozen=True)
class Fold:
    """A model of a cross-validation, and the SHA-256 of the photos that it was not trained on."""

    pipeline: Pipeline
    held_out: frozenset[str]


@dataclass(frozen=True)
class PhotoBoxes:
    """Annotated boxes of one photo, predicted ones as in `box_arrays`, and the targets of the model by name."""

    row: int
    drawn: Sequence[Box]
    outputs: Mapping[str, NDArray[np.float32]]
    targets: Mapping[str, Target]


def open_folds(url: str, version: Version, machine: Machine) -> list[Fold]:
    """Open the models that `train --folds` wrote for a dataset, of which any version is given.

    Raises:
        InputError: there is no complete cross-validation, its models find no boxes, or it is of another dataset.
    """
    plan = _plan(url, 1)
    opened = []
    for number in range(1, int(plan["folds"]) + 1):
        plan, run = _plan(url, number), _run(url, number)
        try:
            pipeline = open_pipeline(run, cache=machine.cache(), threads=machine.threads)
        except NotFoundError as error:
            raise InputError(
                f"The cross-validation {url} is not finished", f"fold {number} has no model",
                "Repeat the command that trains it: it resumes.",
            ) from error  # fmt: skip
        if pipeline.bundle.contract.detection is None:
            raise InputError(f"The models of {url} find no boxes", "they were trained on labels of photos", _AGAIN)
        opened.append(Fold(pipeline, _held_out(url, version, plan)))
    return opened


def predict(subject: Subject, models: Sequence[Fold]) -> list[PhotoBoxes]:
    """Predict the annotated photos of all folds, in the order of their rows; unreadable ones are left out."""
    annotated = subject.pictures.filter(pl.col("boxes").is_not_null())
    urls = [subject.version.image_url(path) for path in annotated["path"]]
    annotated = annotated.with_columns(pl.lit(subject.version.ref).alias(DATASET), pl.Series(URL, urls, pl.String))
    machine = predictions.Machine(subject.machine, Stop(), subject.progress)
    photos: list[PhotoBoxes] = []
    for number, fold in enumerate(models, start=1):
        rows = annotated.filter(pl.col("image_id").is_in(sorted(fold.held_out)))
        if rows.is_empty():
            continue
        cache = PredictionCache.of(fold.pipeline, "boxes", subject.machine)
        name = f"finding boxes, fold {number} of {len(models)}"
        items = predictions.predict(fold.pipeline, rows, cache, machine, name).items
        targets = {target.name: target for target in fold.pipeline.bundle.contract.targets}
        for row, photo, item in zip(rows["row"].to_list(), rows["boxes"].to_list(), items, strict=True):
            if item.probabilities is not None:
                photos.append(PhotoBoxes(row, boxes.from_rows(photo) or (), item.probabilities, targets))
    return sorted(photos, key=lambda photo: photo.row)


def detections(photos: Sequence[PhotoBoxes]) -> Detections:
    """All boxes whatever their class; the only class has no name."""
    drawn = [(number, box) for number, photo in enumerate(photos) for box in photo.drawn]
    predicted = [
        (number, xywh, score, 0)
        for number, photo in enumerate(photos)
        for xywh, score in zip(photo.outputs["boxes"], box_arrays.scores(photo.outputs), strict=True)
    ]
    return _joined(("",), len(photos), predicted, [(number, box, 0) for number, box in drawn])


def detections_of(photos: Sequence[PhotoBoxes], target: Target) -> Detections:
    """The boxes that are labelled, and each predicted box once per likely class, with the probability of both."""
    number_of = {name: number for number, name in enumerate(target.classes)}
    drawn = [
        (number, box, number_of[str(box.labels[target.name])])
        for number, photo in enumerate(photos)
        for box in photo.drawn
        if target.name in box.labels
    ]
    predicted = [
        (number, *each) for number, photo in enumerate(photos) for each in _by_class(photo, target.name, number_of)
    ]
    return _joined(target.classes, len(photos), predicted, drawn)


def _by_class(
    photo: PhotoBoxes, target: str, number_of: Mapping[str, int]
) -> Iterator[tuple[NDArray[np.float32], float, int]]:
    if target not in photo.targets:
        return
    scores = box_arrays.scores(photo.outputs)[:, None] * photo.outputs[f"target.{target}"]
    for at, label in zip(*np.nonzero(scores >= box_arrays.WEAKEST), strict=True):
        name = photo.targets[target].classes[label]
        if name in number_of:
            yield photo.outputs["boxes"][at], float(scores[at, label]), number_of[name]


def _joined(
    classes: tuple[str, ...], photos: int, predicted: Sequence[tuple[Any, ...]], drawn: Sequence[tuple[int, Box, int]]
) -> Detections:
    return Detections(
        classes,
        photos,
        np.array([xywh for _, xywh, _, _ in predicted], np.float64).reshape(-1, 4),
        np.array([score for _, _, score, _ in predicted], np.float64),
        np.array([label for *_, label in predicted], np.int64),
        np.array([number for number, *_ in predicted], np.int64),
        np.array([[box.x, box.y, box.w, box.h] for _, box, _ in drawn], np.float64).reshape(-1, 4),
        np.array([label for *_, label in drawn], np.int64),
        np.array([number for number, *_ in drawn], np.int64),
    )


def _run(url: str, number: int) -> str:
    return storage.join(storage.absolute(url), f"fold-{number}")


def _plan(url: str, number: int) -> dict[str, Any]:
    """The plan of a fold's run, as JSON types."""
    for name in PLANS:
        file = storage.join(_run(url, number), name)
        if not storage.exists(file):
            continue
        data = storage.read(file)
        if not checksums.is_intact(data):
            raise InputError(f"{file} is not as it was written", checksums.CHANGED, "Restore it, or train again.")
        plan = parse_yaml(data, file)
        if isinstance(plan, dict) and plan.get("fold") == number:
            return plan
    raise InputError(f"{url} is not a cross-validation", f"it has no plan of fold {number}", _AGAIN)


def _held_out(url: str, version: Version, plan: Mapping[str, Any]) -> frozenset[str]:
    """SHA-256 of the photos that a fold was validated on, and not trained."""
    # The dataset may have moved since; its fingerprint says whether it is the same.
    trained = versions.load(f"{version.url}@{plan['dataset_version']}")
    if trained.fingerprint != plan["fingerprint"]:
        raise InputError(
            f"{url} was not trained on {version.url}",
            f"its photos are those of {plan['dataset']}@{plan['dataset_version']}",
            "Name a cross-validation of this dataset.",
        )
    fold = folds.of_fold(matching(trained, plan["where"]), plan["fold"], plan["folds"], plan["seed"])
    return frozenset(fold.usable("val")["image_id"])
