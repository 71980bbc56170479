"""What to label next: photos that the model is not certain of, unlike the training photos and unlike each other.

Each photo is worth its uncertainty (margin, Scheffer et al. 2001) times its distance from the training photos and from
those chosen before it (k-centre greedy, Sener and Savarese 2018), one photo of a group. Photos without a label come
first; where all have one, a second look at the judged ones is what is left.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
import polars as pl
from numpy.typing import NDArray

from plantml import storage
from plantml.data import photos
from plantml.data.exporters import label_studio
from plantml.data.manifest import Version
from plantml.model.pipeline import Prediction
from plantml.targets import Target
from plantml.validate.selection import DATASET, URL

FOLDER = "review"


@dataclass(frozen=True)
class Pick:
    """A photo to label: `uncertain`, with the margin between the best two classes, or `novel`, with `unknown`."""

    row: int
    why: str
    score: float


def candidates(dataset_versions: Sequence[Version], targets: Sequence[Target]) -> pl.DataFrame:
    """Usable photos that lack a label of one of the targets, with `dataset` and `url`."""

    def lacks_a_label(version: Version) -> pl.Expr:
        have = {target.name for target in version.targets}
        return pl.any_horizontal(
            *(pl.col(target.name).is_null() if target.name in have else pl.lit(value=True) for target in targets)
        )

    return usable_photos(dataset_versions, lacks_a_label)


def usable_photos(dataset_versions: Sequence[Version], condition: Callable[[Version], pl.Expr]) -> pl.DataFrame:
    """Usable photos that meet a condition, with `dataset` and `url`."""
    tables = []
    for version in dataset_versions:
        rows = version.usable().filter(condition(version))
        urls = pl.Series(URL, [version.image_url(path) for path in rows["path"]], dtype=pl.String)
        tables.append(rows.with_columns(pl.lit(version.ref).alias(DATASET), urls))
    return pl.concat(tables, how="diagonal_relaxed").sort(DATASET, "source", "name")


def margin(targets: Sequence[Target], outputs: Mapping[str, Any]) -> float:
    """The smallest margin over targets: between the best two classes, or twice a label's distance from 0.5."""
    margins = [1.0]
    for target in targets:
        numbers = np.sort(np.asarray(outputs[target.name], np.float64))[::-1]
        if target.kind == "class" and len(numbers) > 1:
            margins.append(float(numbers[0] - numbers[1]))
        elif target.kind == "multilabel" and len(numbers):
            margins.append(float(np.abs(2 * numbers - 1).min()))
    return min(margins)


def choose(rows: pl.DataFrame, predictions: Sequence[Prediction], targets: Sequence[Target], count: int) -> list[Pick]:
    """At most so many photos, the one that is worth most first; see the module."""
    readable = [row for row, prediction in enumerate(predictions) if prediction.probabilities is not None]
    if not readable:
        return []
    margins = np.array([margin(targets, predictions[row].probabilities or {}) for row in readable])
    unknown = np.array([predictions[row].record.unknown or 0.0 for row in readable])
    # A photo is uncertain or novel by its place among all.
    is_uncertain = (-margins).argsort().argsort() >= unknown.argsort().argsort()
    vectors = np.stack([np.asarray(predictions[row].embedding, np.float32) for row in readable])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    groups = _groups(rows)[readable]
    picks = []
    for at in most_valuable(vectors, 1 - margins, unknown, groups, count):
        why, score = ("uncertain", margins[at]) if is_uncertain[at] else ("novel", unknown[at])
        picks.append(Pick(readable[at], why, float(score)))
    return picks


def most_valuable(
    vectors: NDArray[np.float32],
    uncertainty: NDArray[Any],
    distance: NDArray[Any],
    groups: NDArray[np.int64],
    count: int,
) -> list[int]:
    """At most so many photos, one of a group: each with the largest uncertainty times distance when it is chosen.

    Args:
        vectors: embeddings, float32 [N, D] of length 1.
        uncertainty: [N], 0 to 1.
        distance: from the training photos, [N], as one minus a cosine.
        groups: int64 [N].
        count: how many.
    """
    # Where a model is certain of everything, or predicts values alone, distance decides.
    weights, distance = uncertainty + 1e-6, np.maximum(distance, 1e-6)
    chosen: list[int] = []
    is_left = np.ones(len(vectors), np.bool_)
    while len(chosen) < count and is_left.any():
        at = int(np.where(is_left, weights * distance, -1.0).argmax())
        chosen.append(at)
        is_left &= groups != groups[at]
        distance = np.minimum(distance, np.maximum(1 - vectors @ vectors[at], 1e-6))
    return chosen


def _groups(rows: pl.DataFrame) -> NDArray[np.int64]:
    """Numbers of the rows' groups; a photo without a group is one of its own."""
    return rows.select(pl.coalesce("group", "image_id").rank("dense")).to_series().to_numpy().astype(np.int64)


def one_of_each_group(rows: pl.DataFrame, picks: Iterable[Pick], count: int) -> list[Pick]:
    """The first picks of each group, at most so many."""
    groups = rows.select(pl.coalesce("group", "image_id")).to_series().to_list()
    first: dict[str, Pick] = {}
    for pick in picks:
        if len(first) < count:
            first.setdefault(groups[pick.row], pick)
    return list(first.values())


Predict = Callable[[Pick, Mapping[str, Any]], tuple[float, list[dict[str, Any]]]]
"""Gives the score of a task and its predictions, as results of Label Studio, for a photo and its row."""


def label_files(
    rows: pl.DataFrame,
    predictions: Sequence[Prediction],
    targets: Sequence[Target],
    picks: Sequence[Pick],
    *,
    model: str,
    photo_cache: storage.Cache | None,
) -> dict[str, bytes]:
    """As `files`, with the labels of whole photos as choices, and the interface."""

    def predict(pick: Pick, row: Mapping[str, Any]) -> tuple[float, list[dict[str, Any]]]:
        prediction = predictions[pick.row]
        return 1 - margin(targets, prediction.probabilities or {}), _results(targets, prediction, row)

    contents = files(rows, picks, predict, model=model, photo_cache=photo_cache)
    return contents | {f"{FOLDER}/interface.xml": label_studio.interface(targets, texts=("why",))}


def files(
    rows: pl.DataFrame, picks: Sequence[Pick], predict: Predict, *, model: str, photo_cache: storage.Cache | None
) -> dict[str, bytes]:
    """Tasks of Label Studio with the model's predictions to correct, and the photos; by path."""
    contents: dict[str, bytes] = {}
    tasks = []
    for number, each in enumerate(picks, start=1):
        row = rows.row(each.row, named=True)
        name = f"{FOLDER}/images/{number:05d}-{_plain(storage.basename(row['name']))}"
        contents[name] = photos.read(row["image_id"], row[URL], photo_cache)
        score, results = predict(each, row)
        prediction = {"model_version": f"plantml {model[:12]}", "score": score, "result": results}
        data = {
            "image": f"{label_studio.LOCAL_FILES}{quote(name.partition('/')[2])}",
            "name": row["name"],
            "source": row["source"],
            "dataset": row[DATASET],
            "why": each.why,
            "how": round(each.score, 4),
        }
        tasks.append({"id": number, "data": data, "predictions": [prediction]})
    contents[f"{FOLDER}/tasks.json"] = json.dumps(tasks, ensure_ascii=False, indent=1).encode()
    return contents


def _results(targets: Sequence[Target], prediction: Prediction, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    results = []
    for target in targets:
        predicted = (prediction.record.targets or {}).get(target.name)
        if predicted is None or target.kind == "value":
            continue
        labels = [predicted["label"]] if target.kind == "class" else [name for name, _ in predicted["labels"]]
        if labels:
            result = label_studio.choices(target.name, labels, (row["width"], row["height"]))
            results.append(result | ({"score": predicted["score"]} if target.kind == "class" else {}))
    return results


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name)
