"""What to label next for a model that finds boxes: the photos with the most doubtful boxes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from plantml import storage
from plantml.data import boxes
from plantml.data.exporters.label_studio import interface, rectangle
from plantml.data.exporters.naming import OBJECT, class_name
from plantml.data.manifest import Version
from plantml.model.contract import Contract
from plantml.model.pipeline import Prediction
from plantml.targets import Target
from plantml.validate import box_arrays, review
from plantml.validate.review import Pick

WHY = "doubtful"

Outputs = Mapping[str, NDArray[np.float32]]


def candidates(dataset_versions: Sequence[Version]) -> pl.DataFrame:
    """Usable photos without annotation, with `dataset` and `url`."""
    return review.usable_photos(dataset_versions, lambda _: pl.col("boxes").is_null())


def doubt(contract: Contract, outputs: Outputs) -> float:
    """How many mistakes are to be expected in a photo, by the calibrated scores.

    A box that counts is a mistake if there is no such object, or if a class of it is wrong; any other one, if there is.
    """
    assert contract.detection is not None
    scores = box_arrays.scores(outputs)
    right = scores.copy()
    for target in _classified(contract):
        likeliest = outputs[f"target.{target.name}"].max(axis=1, initial=0.0)
        right *= np.where(box_arrays.given(outputs[f"target.{target.name}"]), likeliest, 1.0)
    return float(np.where(scores >= contract.detection.threshold, 1 - right, scores).sum())


def choose(rows: pl.DataFrame, predictions: Sequence[Prediction], contract: Contract, count: int) -> list[Pick]:
    """At most so many photos, those with the most doubt first."""
    doubtful = [
        Pick(row, WHY, doubt(contract, prediction.probabilities))
        for row, prediction in enumerate(predictions)
        if prediction.probabilities is not None
    ]
    return review.one_of_each_group(rows, sorted(doubtful, key=lambda pick: -pick.score), count)


def files(
    rows: pl.DataFrame,
    predictions: Sequence[Prediction],
    contract: Contract,
    picks: Sequence[Pick],
    *,
    model: str,
    photo_cache: storage.Cache | None,
) -> dict[str, bytes]:
    """As `review.files`, with the boxes that count as rectangles."""
    names = _annotated_names(rows, contract)

    def predict(pick: Pick, row: Mapping[str, Any]) -> tuple[float, list[dict[str, Any]]]:
        outputs = predictions[pick.row].probabilities or {}
        results = _results(contract, outputs, row)
        names.update(dict.fromkeys(result["value"]["rectanglelabels"][0] for result in results))
        return round(pick.score, 4), results

    contents = review.files(rows, picks, predict, model=model, photo_cache=photo_cache)
    return contents | {f"{review.FOLDER}/interface.xml": interface((), names, texts=("why",))}


def _results(contract: Contract, outputs: Outputs, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    assert contract.detection is not None
    results: list[dict[str, Any]] = []
    for place in np.flatnonzero(box_arrays.scores(outputs) >= contract.detection.threshold).tolist():
        labels = {
            target.name: target.classes[int(outputs[f"target.{target.name}"][place].argmax())]
            for target in _classified(contract)
            if box_arrays.given(outputs[f"target.{target.name}"])[place]
        }
        x, y, w, h = (round(float(side), 2) for side in outputs["boxes"][place])
        drawn = rectangle(len(results) + 1, (x, y, w, h), _name(labels), (row["width"], row["height"]))
        results.append(drawn | {"score": float(box_arrays.scores(outputs)[place])})
    return results


def _annotated_names(rows: pl.DataFrame, contract: Contract) -> dict[str, None]:
    """The class names of boxes that may be drawn: those of the one target, or combinations that are annotated."""
    classified = _classified(contract)
    if len(classified) < 2:
        return dict.fromkeys(classified[0].classes if classified else [OBJECT])
    drawn = (box.classes for photo in rows["boxes"].to_list() for box in boxes.from_rows(photo) or ())
    names = {target.name for target in classified}
    return dict.fromkeys(sorted(_name(labels) for labels in drawn if labels.keys() == names))


def _name(labels: Mapping[str, str]) -> str:
    return next(iter(labels.values())) if len(labels) == 1 else class_name(labels, OBJECT)


def _classified(contract: Contract) -> list[Target]:
    return [target for target in contract.targets if target.kind == "class"]
