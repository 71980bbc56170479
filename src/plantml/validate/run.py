"""`plantml validate`: a model's answers for a dataset's photos, held against the labels."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from plantml import charts, metrics, storage
from plantml.bundle import Contract
from plantml.data import versions
from plantml.data.manifest import Version
from plantml.errors import InputError
from plantml.metrics import ClassReport, Report
from plantml.predict.pipeline import Pipeline, Prediction
from plantml.predict.records import allowed_failures
from plantml.settings import Config
from plantml.targets import Target
from plantml.validate import gates
from plantml.validate.gates import Gate
from plantml.work import Progress, Stop, silent

METRICS_FORMAT = 1
METRICS = "metrics.json"


class ValidateConfig(Config):
    """What can be set for `plantml validate`."""

    model: str | None = Field(None, description="run, bundle or .onnx file to judge")
    split: str = Field("test", description="split to judge on: train, val, test, or all")
    out: str | None = Field(None, description="URL of a folder for metrics.json, predictions and plots")
    runtime: str = Field("auto", description="auto, onnxruntime or torch")
    device: str = Field("cpu", description="cpu, or a device as torch names it")
    batch: int = Field(8, ge=1, le=1024, description="images a call of the model")
    max_failures: int | str = Field("0", description="unreadable photos that still end well: a number, or a share")
    min: tuple[str, ...] = Field((), description="gates NAME=NUMBER: the score must be at least this")
    max: tuple[str, ...] = Field((), description="gates NAME=NUMBER: the score must be at most this")


@dataclass(frozen=True)
class Validated:
    """What a validation found.

    Attributes:
        dataset: reference of the version.
        split: judged.
        model: digest.
        photos: of the split.
        failed: name and reason of photos that gave no answer; they count as nothing in the scores.
        reports: by target that model and dataset share and that is labelled.
        scores: headline numbers.
        decisions: photos by decision.
        gates: judged ones.
        out: URL of the folder that was written, or none.
        allowed: photos without an answer that still end well.
    """

    dataset: str
    split: str
    model: str
    photos: int
    failed: Sequence[tuple[str, str]]
    reports: Sequence[Report]
    scores: Mapping[str, float]
    decisions: Mapping[str, int]
    gates: Sequence[Gate]
    out: str | None
    allowed: int

    @property
    def passed(self) -> bool:
        """True if no gate failed."""
        return all(gate.passed for gate in self.gates)


def validate(
    ref: str, pipeline: Pipeline, config: ValidateConfig, *, stop: Stop, progress: Progress = silent
) -> Validated:
    """Judge a model on a split of a dataset.

    Raises:
        InputError: the split is empty, model and dataset share no target, or a label is unknown to the
            model; it is named.
        UsageError: a gate names a number that there is not.
    """
    wanted = [*gates.parse("min", config.min), *gates.parse("max", config.max)]
    version = versions.load(ref)
    rows = _rows(version, config.split)
    targets = _shared_targets(pipeline.bundle.contract, version, rows)
    urls = [version.image_url(path) for path in rows["path"]]
    predictions = []
    for done, prediction in enumerate(pipeline.run(stop.until(urls)), start=1):
        predictions.append(prediction)
        progress(done, len(urls))
    if stop:
        raise stop.error(f"Validation stopped after {len(predictions)} of {len(urls)} photos", "Repeat the command.")

    _check_unchanged(rows, predictions)
    if all(found.probabilities is None for found in predictions):
        raise InputError(f"No photo of {version.ref} could be read", predictions[0].record.failure or "")
    answered = [number for number, found in enumerate(predictions) if found.probabilities is not None]
    reports = [
        found
        for target in targets
        if answered and (found := metrics.report(target, *_answers(target, rows, predictions, answered)))
    ]
    judged = gates.judge(wanted, metrics.every_score(reports)) if wanted else []
    result = Validated(
        dataset=version.ref,
        split=config.split,
        model=pipeline.bundle.digest,
        photos=len(predictions),
        failed=[
            (name, found.record.failure)
            for name, found in zip(rows["name"], predictions, strict=True)
            if found.record.failure is not None
        ],
        reports=reports,
        scores=metrics.headline(reports),
        decisions=_decisions(predictions),
        gates=judged,
        out=storage.absolute(config.out) if config.out else None,
        allowed=allowed_failures(config.max_failures, len(predictions)),
    )
    if result.out:
        _write(result, targets, version, rows, predictions)
    return result


def _rows(version: Version, split: str) -> pl.DataFrame:
    rows = version.usable(None if split == "all" else split).sort("source", "name")
    if rows.is_empty():
        there = sorted(set(version.usable()["split"].drop_nulls()))
        raise InputError(
            f"{version.ref} has no photos in its {split} split",
            f"it has {', '.join(there) or 'no splits'}",
            f"Split it: plantml dataset split {version.url}" if not there else "Name another one: --split all",
        )
    return rows


def _shared_targets(contract: Contract, version: Version, rows: pl.DataFrame) -> list[Target]:
    have = {target.name: target for target in version.targets}
    shared = []
    for target in contract.targets:
        theirs = have.get(target.name)
        if theirs is None or rows[target.name].drop_nulls().is_empty():
            continue
        if theirs.kind != target.kind:
            raise InputError(
                f"{target.name} is a {theirs.kind} in {version.ref} and a {target.kind} to the model",
                "they cannot be compared",
            )
        target.encode(rows[target.name].to_list())  # an unknown class is told before the work, not after
        shared.append(target)
    if not shared:
        raise InputError(
            f"The model and {version.ref} share no target with labels",
            f"the model predicts {', '.join(target.name for target in contract.targets)};"
            f" the dataset has {', '.join(have) or 'none'}",
        )
    return shared


def _answers(
    target: Target, rows: pl.DataFrame, predictions: Sequence[Prediction], answered: list[int]
) -> tuple[list[Any], NDArray[np.float32]]:
    found = [predictions[number].probabilities for number in answered]
    labels = rows[target.name].gather(answered).to_list()
    return labels, np.stack([answer[target.name] for answer in found if answer is not None])


def _check_unchanged(rows: pl.DataFrame, predictions: Sequence[Prediction]) -> None:
    """A photo that is no longer the one that was labelled would make the score a lie."""
    for name, image_id, found in zip(rows["name"], rows["image_id"], predictions, strict=True):
        if found.record.image_id not in {None, image_id}:
            raise InputError(
                f"{name} is not the photo that was imported",
                f"its bytes do not have the SHA-256 {image_id[:12]}… any more",
                "Restore it from a backup, or import the photos again into a new dataset.",
            )


def _decisions(predictions: Sequence[Prediction]) -> dict[str, int]:
    made = [found.record.decision for found in predictions if found.record.decision]
    return {name: made.count(name) for name in ("accept", "review", "unknown")}


def _write(
    result: Validated,
    targets: Sequence[Target],
    version: Version,
    rows: pl.DataFrame,
    predictions: Sequence[Prediction],
) -> None:
    assert result.out is not None
    files = {
        f"confusion_{found.target}.png": charts.confusion(found)
        for found in result.reports
        if isinstance(found, ClassReport)
    }
    table = _predictions_table(targets, rows, predictions)
    for name, write in (("predictions.parquet", table.write_parquet), ("predictions.csv", table.write_csv)):
        buffer = io.BytesIO()
        write(buffer)
        files[name] = buffer.getvalue()
    content = as_json(result) | {"fingerprint": version.fingerprint}
    files[METRICS] = (json.dumps(content, indent=2) + "\n").encode()
    storage.publish(result.out, files, last=METRICS)


def as_json(result: Validated) -> dict[str, Any]:
    """The result as the content of `metrics.json`."""
    return {
        "plantml_metrics": METRICS_FORMAT,
        "dataset": result.dataset,
        "split": result.split,
        "model": result.model,
        "photos": result.photos,
        "failed": [list(pair) for pair in result.failed],
        "scores": dict(result.scores),
        "targets": {found.target: metrics.as_json(found) for found in result.reports},
        "decisions": dict(result.decisions),
        "gates": [
            {"name": gate.name, gate.kind: gate.bound, "value": gate.value, "passed": gate.passed}
            for gate in result.gates
        ],
    }


def _predictions_table(
    targets: Sequence[Target], rows: pl.DataFrame, predictions: Sequence[Prediction]
) -> pl.DataFrame:
    """One row a photo: who it is, the truth, the answer, and every class's probability."""
    table = rows.select("source", "name", "image_id", "group", "split")
    columns: dict[str, pl.Series] = {
        "decision": pl.Series([found.record.decision for found in predictions], dtype=pl.String),
        "unknown": pl.Series([found.record.unknown for found in predictions], dtype=pl.Float64),
        "failure": pl.Series([found.record.failure for found in predictions], dtype=pl.String),
    }
    for target in targets:
        truth = rows[target.name]
        columns[f"{target.name}_true"] = truth.list.join("|") if target.kind == "multilabel" else truth
        said = [_said(target, found) for found in predictions]
        dtype = pl.Float64 if target.kind == "value" else pl.String
        columns[f"{target.name}_predicted"] = pl.Series(said, dtype=dtype)
        for number, name in enumerate(target.classes):
            numbers = [
                None if found.probabilities is None else float(found.probabilities[target.name][number])
                for found in predictions
            ]
            columns[f"{target.name}[{name}]"] = pl.Series(numbers, dtype=pl.Float32)
    return table.with_columns(series.alias(name) for name, series in columns.items())


def _said(target: Target, found: Prediction) -> Any:
    if found.record.targets is None:
        return None
    answer = found.record.targets[target.name]
    if target.kind == "class":
        return answer["label"]
    return answer["value"] if target.kind == "value" else "|".join(name for name, _ in answer["labels"])
