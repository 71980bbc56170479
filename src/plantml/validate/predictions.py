"""A model's predictions for photos: cached ones, and the others from the code that `detect` runs."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from plantml import imaging, settings, storage
from plantml.concurrency import Progress, Stop, batched, in_threads, silent
from plantml.data import photos
from plantml.data.covariates import rows_of
from plantml.errors import InputError, PlantmlError, UsageError
from plantml.imaging import Pixels
from plantml.model.contract import Contract
from plantml.model.covariates import Columns, CovariateRow, encode
from plantml.model.pipeline import Pipeline, Prediction
from plantml.model.records import Record
from plantml.validate import box_arrays
from plantml.validate.prediction_cache import Entry, PredictionCache, photo_keys
from plantml.validate.selection import DATASET

Floats = NDArray[np.float32]
Change = Callable[[Pixels], Pixels]


Fill = Callable[[Pipeline, Sequence[tuple[str, str, str]], PredictionCache, Callable[[int], None]], None]
"""Predicts photos elsewhere, each named by its URL, SHA-256 and key in the cache, and adds them to the cache; tells how
many are done."""


@dataclass(frozen=True)
class Machine:
    """What a validation needs from the machine. `fill` predicts photos elsewhere; by default this process does."""

    settings: settings.Machine
    stop: Stop
    progress: Callable[[str], Progress] = lambda _: silent
    fill: "Fill | None" = None

    @cached_property
    def photos(self) -> storage.Cache:
        """The cache of remote photos."""
        return self.settings.cache()


@dataclass(frozen=True)
class Predictions:
    """A model's predictions for photos, in their order.

    Attributes:
        items: one prediction per photo; of models that find boxes, `probabilities` are as in `box_arrays`.
        new: predictions that were computed now; the others came from the cache.
    """

    items: Sequence[Prediction]
    new: int

    @property
    def readable(self) -> list[int]:
        """Places of photos with a prediction."""
        return [at for at, prediction in enumerate(self.items) if prediction.probabilities is not None]

    def outputs(self, target: str, photos: Sequence[int]) -> Floats:
        """Outputs of a target for some of the readable photos: float32 [P, classes]."""
        probabilities = [self.items[at].probabilities for at in photos]
        return np.stack([each[target] for each in probabilities if each is not None])


def predict(pipeline: Pipeline, rows: pl.DataFrame, cache: PredictionCache, machine: Machine, name: str) -> Predictions:
    """Predictions for all photos; progress is shown under this name.

    Raises:
        StoppedError: a signal came; the predictions so far are cached.
        InputError: no photo could be read.
        StorageError: the storage has failed; the predictions so far are cached.
    """
    contract, measured_rows = pipeline.bundle.contract, covariate_rows(pipeline, rows)
    keys = photo_keys(rows, None if measured_rows is None else list(map(json.dumps, measured_rows)))
    stop, progress = machine.stop, machine.progress(name)
    urls, image_ids = rows["url"].to_list(), rows["image_id"].to_list()

    def restore() -> tuple[list[Prediction | None], list[int]]:
        cached = [_restored(cache.get(key), contract, url) for key, url in zip(keys, urls, strict=True)]
        return cached, [at for at, prediction in enumerate(cached) if prediction is None]

    restored, missing = restore()
    done = len(urls) - len(missing)
    progress(done, len(urls))
    new = len(missing)
    if machine.fill is not None and missing:
        if measured_rows is not None:
            raise UsageError(
                "--on cannot be used with a model of measured columns", "parts are photos alone", "Leave --on out."
            )
        todo = [(urls[at], image_ids[at], key) for at in missing if (key := keys[at]) is not None]
        resumed = done
        machine.fill(pipeline, todo, cache, lambda photos: progress(resumed + photos, len(urls)))
        restored, missing = restore()
        done = len(urls) - len(missing)
    wanted = stop.until((urls[at], image_ids[at]) for at in missing)
    if measured_rows is None:
        predicted = predict_photos(pipeline, wanted, machine.photos)
    else:
        contents = photos.read_ahead(((image_id, url) for url, image_id in wanted), machine.photos)
        pairs = zip(contents, (measured_rows[at] for at in missing), strict=False)  # a stop ends them early
        work = partial(_with_covariates, pipeline)
        predicted = chain.from_iterable(in_threads(work, batched(pairs, pipeline.chunk), pipeline.threads))
    try:
        for at, prediction in zip(missing, predicted, strict=False):  # a stop ends them early
            restored[at] = prediction
            if prediction.probabilities is not None:
                cache.add(keys[at], *entry(contract, prediction))
            done += 1
            progress(done, len(urls))
    finally:
        cache.flush()
    if stop:
        raise stop.error(f"Validation stopped after {done} of {len(urls)} photos", "Repeat the command to resume.")
    predictions = [prediction for prediction in restored if prediction is not None]
    if all(prediction.probabilities is None for prediction in predictions):
        raise InputError(
            f"No photo of {', '.join(rows[DATASET].unique().sort())} could be read",
            predictions[0].record.failure or "",
            "Look at the photos: plantml dataset check DATASET",
        )
    return Predictions(predictions, new)


def predict_photos(pipeline: Pipeline, wanted: Iterable[tuple[str, str]], cache: storage.Cache) -> Iterator[Prediction]:
    """Predictions of photos, each named by its URL and SHA-256, in their order; remote ones are cached."""
    contents = photos.read_ahead(((image_id, url) for url, image_id in wanted), cache)
    is_detector = pipeline.bundle.contract.detection is not None
    work = box_arrays.predictor(pipeline) if is_detector else pipeline.predict_bytes
    return chain.from_iterable(in_threads(work, batched(contents, pipeline.chunk), pipeline.threads))


def entry(contract: Contract, prediction: Prediction) -> tuple[str, Floats, Floats | None]:
    """A prediction of a readable photo as the cache keeps it."""
    assert prediction.probabilities is not None
    numbers = _joined(contract, prediction.probabilities)
    return json.dumps(prediction.record.as_json()), numbers, prediction.embedding


def predict_changed(  # noqa: PLR0917
    pipeline: Pipeline,
    rows: pl.DataFrame,
    changes: Mapping[str, Change],
    cache: PredictionCache,
    machine: Machine,
    columns: Mapping[str, Columns] | None = None,
) -> Iterator[tuple[int, Mapping[str, Mapping[str, Floats]]]]:
    """Outputs for perturbed photos: place, then float32 [classes] by change and target; unreadable photos are left out.

    Each photo is read once. The changes are made at the model's input size. With `columns`, by change the covariates of
    all photos, [N, C], those go with it. Raises as `predict`.
    """
    contract, urls = pipeline.bundle.contract, rows["url"].to_list()
    keys = photo_keys(rows, None if columns is None else _hashes(columns))
    stop, progress = machine.stop, machine.progress("perturbed photos")
    length = sum(target.size for target in contract.targets)
    missing = []
    for at, key in enumerate(keys):
        cached = cache.get(key)
        if cached is None or len(cached[1]) != length * len(changes):
            missing.append(at)
        else:
            yield at, _by_change(cached[1], changes, contract)

    def work(contents: list[tuple[int, tuple[str, bytes | PlantmlError]]]) -> list[tuple[int, Floats]]:
        readable = []
        for at, (_, data) in contents:
            if isinstance(data, bytes):
                with contextlib.suppress(imaging.ImageError):
                    readable.append((at, imaging.decode(data, contract.input)))
        if not readable:
            return []
        parts = []
        for name, change in changes.items():
            measures = np.empty((len(readable), 0), np.float32)
            if columns is not None:
                measures = columns[name][[at for at, _ in readable]]
            outputs = pipeline.compute(np.stack([change(pixels) for _, pixels in readable]), measures)
            parts += [outputs[f"target.{target.name}"] for target in contract.targets]
        numbers = np.concatenate(parts, axis=1).astype(np.float32)
        return [(at, numbers[row]) for row, (at, _) in enumerate(readable)]

    done = len(urls) - len(missing)
    contents = photos.read_ahead(stop.until((rows["image_id"][at], urls[at]) for at in missing), machine.photos)
    placed = zip(missing, contents, strict=False)  # a stop ends them early
    try:
        for chunk in in_threads(work, batched(placed, pipeline.batch), pipeline.threads):
            for at, numbers in chunk:
                cache.add(keys[at], "", numbers)
                yield at, _by_change(numbers, changes, contract)
            done += len(chunk)
            progress(done, len(urls))
    finally:
        cache.flush()
    if stop:
        raise stop.error(
            f"Validation stopped after {done} of {len(urls)} changed photos", "Repeat the command to resume."
        )


def covariate_rows(pipeline: Pipeline, rows: pl.DataFrame) -> Sequence[CovariateRow] | None:
    """The covariates of photos; `None` for a model without any."""
    covariates = pipeline.bundle.contract.covariates
    return rows_of(rows, [each.name for each in covariates]) if covariates else None


def measured(pipeline: Pipeline, rows: pl.DataFrame) -> Columns | None:
    """The covariates of photos as the model takes them, [N, C]; `None` for a model without any."""
    covariates = pipeline.bundle.contract.covariates
    return encode(covariates, covariate_rows(pipeline, rows) or ()) if covariates else None


def _with_covariates(
    pipeline: Pipeline, pairs: Sequence[tuple[tuple[str, bytes | PlantmlError], CovariateRow]]
) -> list[Prediction]:
    return pipeline.predict_bytes([content for content, _ in pairs], [row for _, row in pairs])


def _hashes(columns: Mapping[str, Columns]) -> list[str]:
    """What names the covariates of each photo under all changes."""
    together = np.concatenate(list(columns.values()), axis=1)
    return [hashlib.sha256(row.tobytes()).hexdigest()[:16] for row in together]


def _joined(contract: Contract, probabilities: Mapping[str, Floats]) -> Floats:
    if contract.detection is not None:
        return box_arrays.joined(contract, probabilities)
    return np.concatenate([probabilities[target.name] for target in contract.targets])


def _split(contract: Contract, numbers: Floats) -> dict[str, Floats]:
    ends = np.cumsum([target.size for target in contract.targets])[:-1]
    parts = np.split(numbers, ends)
    return {target.name: part for target, part in zip(contract.targets, parts, strict=True)}


def _fits(contract: Contract, numbers: Floats) -> bool:
    return len(numbers) == sum(target.size for target in contract.targets)


def _by_change(numbers: Floats, changes: Mapping[str, Any], contract: Contract) -> Mapping[str, Mapping[str, Floats]]:
    parts = np.split(numbers, len(changes))
    return {name: _split(contract, part) for name, part in zip(changes, parts, strict=True)}


def _restored(cached: Entry | None, contract: Contract, url: str) -> Prediction | None:
    fits = _fits if contract.detection is None else box_arrays.fits
    has_embedding = contract.task == "image"
    if cached is None or not fits(contract, cached[1]) or (has_embedding and cached[2] is None):
        return None
    content: dict[str, Any] = json.loads(cached[0])
    content.pop("plantml_record")
    record = Record(**{**content, "image": url, "boxes": tuple(content["boxes"])})
    split = _split if contract.detection is None else box_arrays.split
    return Prediction(record, split(contract, cached[1]), cached[2])
