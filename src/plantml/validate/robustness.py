"""Scores on mildly and strongly perturbed photos: what a dirty lens or a cloud may cost.

The changes are made on the picture as the model gets it (after Hendrycks and Dietterich 2019, "Benchmarking neural
network robustness to common corruptions and perturbations"), so that they mean the same for every camera; lengths
are for an input of 224 pixels and grow with it.
"""

import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from plantml import imaging, metrics
from plantml.imaging import Pixels
from plantml.model.pipeline import Pipeline
from plantml.targets import Target
from plantml.validate.config import ValidateConfig
from plantml.validate.prediction_cache import PredictionCache
from plantml.validate.predictions import Change, Machine, measured, predict_changed
from plantml.validate.selection import Photos

LEVELS = ("none", "mild", "strong")
_SIDE = 224


@dataclass(frozen=True)
class Robustness:
    """Scores by change and level.

    Attributes:
        photos: that were changed.
        score: which is reported: `macro_f1`, or `r2` where only values are predicted.
        strengths: by change, what mild and strong mean.
        scores: by change, the score at each of `LEVELS`.
    """

    photos: int
    score: str
    strengths: Mapping[str, tuple[str, str]]
    scores: Mapping[str, Sequence[float]]


def _blur(sigma: float, pixels: Pixels) -> Pixels:
    picture = Image.fromarray(pixels)
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(sigma * min(pixels.shape[:2]) / _SIDE)))


def _noise(deviation: float, pixels: Pixels) -> Pixels:
    rng = np.random.default_rng(zlib.crc32(pixels.tobytes()))  # the same photo, the same noise
    return _levels(pixels + rng.normal(0, deviation, pixels.shape))


def _light(factor: float, pixels: Pixels) -> Pixels:
    return _levels(pixels * factor)


def _jpeg(quality: int, pixels: Pixels) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def _rotation(degrees: float, pixels: Pixels) -> Pixels:
    fill = (imaging.PAD,) * 3
    return np.asarray(Image.fromarray(pixels).rotate(degrees, Image.Resampling.BICUBIC, fillcolor=fill))


def _resize(factor: float, pixels: Pixels) -> Pixels:
    picture = Image.fromarray(pixels)
    small = picture.resize((max(1, round(picture.width / factor)), max(1, round(picture.height / factor))))
    return np.asarray(small.resize(picture.size, Image.Resampling.BICUBIC))


def _levels(numbers: Any) -> Pixels:
    pixels: Pixels = np.clip(np.rint(numbers), 0, 255).astype(np.uint8)
    return pixels


CHANGES: Mapping[str, tuple[Callable[[Any, Pixels], Pixels], tuple[Any, Any], str]] = {
    "blur": (_blur, (1.0, 3.0), "deviation {} px"),
    "noise": (_noise, (10.0, 30.0), "deviation {} grey levels"),
    "darker": (_light, (0.7, 0.4), "light × {}"),
    "lighter": (_light, (1.3, 1.8), "light × {}"),
    "jpeg": (_jpeg, (40, 10), "quality {}"),
    "rotation": (_rotation, (10.0, 45.0), "{} degrees"),
    "resize": (_resize, (2.0, 4.0), "1/{} and back"),
}
"""By name: the function, its mild and strong strengths, and their description. Add perturbations here."""


def changes() -> dict[str, Change]:
    """All changes, called `name:level`, after the unchanged photo."""
    by_name: dict[str, Change] = {"none": lambda pixels: pixels}
    for name, (change, strengths, _) in CHANGES.items():
        for level, strength in zip(LEVELS[1:], strengths, strict=True):
            by_name[f"{name}:{level}"] = partial(change, strength)
    return by_name


def robustness(pipeline: Pipeline, photos: Photos, config: ValidateConfig, machine: Machine) -> Robustness:
    """Scores under every perturbation, on at most `config.robustness_photos` photos, sampled by the seed."""
    cache = PredictionCache.of(pipeline, "changed", machine.settings, device=config.device, fresh=config.fresh)
    sampled = photos.at(sample(photos.rows.height, config.robustness_photos, config.seed))
    predicted: dict[str, dict[int, Mapping[str, Any]]] = {}
    columns = measured(pipeline, sampled.rows)
    as_they_are = None if columns is None else dict.fromkeys(changes(), columns)
    for at, by_change in predict_changed(pipeline, sampled.rows, changes(), cache, machine, as_they_are):
        for name, outputs in by_change.items():
            predicted.setdefault(name, {})[at] = outputs
    places = sorted(predicted["none"])
    rows = sampled.rows[places]
    truth = {target.name: target.encode(rows[target.name].to_list()) for target in sampled.targets}
    score = "macro_f1" if any(target.kind != "value" for target in sampled.targets) else "r2"

    def of(name: str) -> float:
        return _score(sampled.targets, truth, [predicted[name][at] for at in places])

    return Robustness(
        photos=len(places),
        score=score,
        strengths={
            name: (words.format(f"{mild:g}"), words.format(f"{strong:g}"))
            for name, (_, (mild, strong), words) in CHANGES.items()
        },
        scores={name: [of("none"), of(f"{name}:mild"), of(f"{name}:strong")] for name in CHANGES},
    )


def sample(photos: int, most: int, seed: int) -> list[int]:
    """Places of at most so many of the photos, in order."""
    if photos <= most:
        return list(range(photos))
    return sorted(np.random.default_rng(seed).choice(photos, most, replace=False).tolist())


def _score(targets: Sequence[Target], truth: Mapping[str, Any], predicted: Sequence[Mapping[str, Any]]) -> float:
    outputs = {target.name: np.stack([each[target.name] for each in predicted]) for target in targets}
    scores = metrics.headline(metrics.reports_of(targets, truth, outputs))
    return scores["macro_f1"] if "macro_f1" in scores else next(iter(scores.values()))


def as_json(result: Robustness) -> dict[str, Any]:
    """The scores as JSON types."""
    return {
        "photos": result.photos,
        "score": result.score,
        "levels": list(LEVELS),
        "changes": {
            name: {"mild": result.strengths[name][0], "strong": result.strengths[name][1], "scores": list(scores)}
            for name, scores in result.scores.items()
        },
    }
