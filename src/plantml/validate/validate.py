"""`plantml validate`: score a model's predictions for a dataset against the labels."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from plantml import storage
from plantml.errors import InputError, UsageError
from plantml.model.pipeline import Pipeline, Prediction
from plantml.model.records import allowed_failures
from plantml.targets import Target
from plantml.validate import (
    anomalies,
    box_report,
    box_review,
    box_scoring,
    box_selection,
    box_tables,
    ci_reports,
    compare,
    covariates,
    gates,
    leaks,
    prediction_tables,
    predictions,
    report,
    results,
    review,
    robustness,
    scoring,
    selection,
    slices,
)
from plantml.validate.compare import Comparison
from plantml.validate.config import ValidateConfig
from plantml.validate.prediction_cache import PredictionCache
from plantml.validate.predictions import Machine, Predictions
from plantml.validate.results import BoxValidation, OtherModel, Validation, ValidationResult
from plantml.validate.scoring import Evaluation
from plantml.validate.selection import DATASET, Photos

METRICS = "metrics.json"

Requested = Sequence[tuple[str, str, float]]
"""Gates, see `gates.parse`."""

Files = Mapping[str, bytes]
"""Contents by file name."""


def validate(
    refs: str | Sequence[str],
    pipeline: Pipeline,
    config: ValidateConfig,
    *,
    machine: Machine,
    other: Pipeline | None = None,
) -> ValidationResult:
    """Validate a model on a split of one or more datasets, and write the outputs that the settings name.

    Args:
        refs: datasets.
        pipeline: of the model.
        config: the settings.
        machine: cache, signals, progress.
        other: model to compare with, which `config.against` names.

    Raises:
        InputError: the split is empty, model and dataset share no target, or a label is unknown to the
            model; it is named.
        UsageError: a gate names an unknown score, or two settings contradict each other.
        StoppedError: a signal came; the predictions so far are cached.
    """
    requested = [*gates.parse("min", config.min), *gates.parse("max", config.max)]
    _check(config, pipeline, other)
    named = [refs] if isinstance(refs, str) else refs
    tasks = {"image": _validate_labels, "anomaly": _validate_anomalies}
    return tasks.get(pipeline.bundle.contract.task, _validate_boxes)(
        (pipeline, other), named, config, requested, machine
    )


def predict(
    ref: str, pipeline: Pipeline, config: ValidateConfig, machine: Machine, name: str
) -> tuple[Predictions, Files]:
    """Predictions for the photos of a dataset that `validate` takes, and their tables as Parquet and CSV.

    Raises as `validate`; progress is shown under this name.
    """
    if _finds_boxes(pipeline):
        photos = box_selection.select([ref], _targets(pipeline), config)
        predicted = _predict(pipeline, photos.rows, name, config, machine)
        places = predicted.readable
        outcomes = box_scoring.outcomes(pipeline.bundle.contract, photos.targets, photos, predicted, places)
        table = box_tables.predictions(photos, predicted, outcomes, places)
    else:
        photos = selection.select([ref], _targets(pipeline), config)
        predicted = _predict(pipeline, photos.rows, name, config, machine)
        table = prediction_tables.predictions(photos, predicted)
    return predicted, prediction_tables.files("predictions", table)


def _terms(pipeline: Pipeline, other: Pipeline, rows: pl.DataFrame, config: ValidateConfig) -> dict[str, Any]:
    """What `compare` is told beside the scores of both models."""
    return {
        "ref": config.against or "",
        "digest": other.bundle.digest,
        "names": rows["name"].to_list(),
        "max_drop": config.max_drop,
        "same_model": other.bundle.digest == pipeline.bundle.digest,
    }


def _validate_labels(
    models: tuple[Pipeline, Pipeline | None],
    refs: Sequence[str],
    config: ValidateConfig,
    requested: Requested,
    machine: Machine,
) -> ValidationResult:
    pipeline, other = models
    photos = selection.select(refs, _targets(pipeline, other), config)
    ours, theirs, readable = _predictions(models, photos, config, machine)
    outcomes = scoring.outcomes(photos.targets, photos, ours, readable)
    evaluation = scoring.evaluate(outcomes, config)
    comparison = None
    if other and theirs:
        their_outcomes = scoring.outcomes(theirs.targets, photos, theirs.predictions, readable)
        comparison = compare.compare(
            ours=(outcomes, evaluation),
            theirs=(their_outcomes, scoring.evaluate(their_outcomes, config)),
            **_terms(pipeline, other, photos.rows[readable], config),
        )
    trained = leaks.training_rows(photos.versions, pipeline.bundle.contract)
    result = _result(
        (pipeline, photos, ours, theirs),
        (evaluation, comparison),
        requested,
        config,
        groups=outcomes.groups.count,
        slices=slices.slices(
            outcomes,
            photos.rows[readable],
            _training_counts(trained, photos.targets),
            resamples=config.resamples,
            seed=config.seed,
        ),
        leaks=leaks.leaks(
            trained,
            photos.rows,
            readable,
            evaluation,
            lambda places: scoring.evaluate(scoring.outcomes(photos.targets, photos, ours, places), config),
        ),
        robustness=robustness.robustness(pipeline, photos, config, machine) if config.robustness else None,
        contributions=covariates.contributions(pipeline, photos, config, machine),
    )
    validation = Validation(result, pipeline, photos, ours, readable, outcomes, theirs, machine.photos)
    to_review = _review(validation, machine) if config.review else {}
    return _write(
        replace(result, review=_images(to_review)),
        draw=lambda: report.pictures(validation),
        render=lambda charts: report.render(validation, charts, machine.progress("report")),
        write=lambda: to_review | prediction_tables.write(validation),
    )


def _validate_anomalies(
    models: tuple[Pipeline, Pipeline | None],
    refs: Sequence[str],
    config: ValidateConfig,
    requested: Requested,
    machine: Machine,
) -> ValidationResult:
    pipeline, other = models
    anomaly = pipeline.bundle.contract.anomaly
    assert anomaly is not None
    photos = anomalies.select(refs, anomaly, config)
    ours, theirs, readable = _predictions(models, photos, config, machine)
    outcomes = anomalies.outcomes(photos, ours, readable)
    evaluation = anomalies.evaluate(outcomes, config)
    comparison = None
    if other and theirs:
        their_outcomes = anomalies.outcomes(photos, theirs.predictions, readable)
        comparison = compare.compare(
            ours=(outcomes, evaluation),
            theirs=(their_outcomes, anomalies.evaluate(their_outcomes, config)),
            **_terms(pipeline, other, photos.rows[readable], config),
        )
    trained = anomalies.normal_rows(leaks.training_rows(photos.versions, pipeline.bundle.contract), anomaly.normal)
    rows = photos.rows[readable]
    result = _result(
        (pipeline, photos, ours, theirs),
        (evaluation, comparison),
        requested,
        config,
        groups=outcomes.groups.count,
        slices=slices.slices(outcomes, rows, {}, resamples=config.resamples, seed=config.seed),
        leaks=leaks.leaks(
            trained,
            photos.rows,
            readable,
            evaluation,
            lambda places: anomalies.evaluate(anomalies.outcomes(photos, ours, places), config),
        ),
        anomalies=evaluation.kinds,
    )
    validation = Validation(result, pipeline, photos, ours, readable, outcomes, theirs, machine.photos)
    return _write(
        result,
        draw=lambda: anomalies.pictures(validation),
        render=lambda charts: anomalies.render(validation, charts, machine.progress("report")),
        write=lambda: prediction_tables.write(validation),
    )


def _validate_boxes(
    models: tuple[Pipeline, Pipeline | None],
    refs: Sequence[str],
    config: ValidateConfig,
    requested: Requested,
    machine: Machine,
) -> ValidationResult:
    pipeline, other = models
    photos = box_selection.select(refs, _targets(pipeline, other), config)
    ours, theirs, readable = _predictions(models, photos, config, machine)
    contract = pipeline.bundle.contract
    outcomes = box_scoring.outcomes(contract, photos.targets, photos, ours, readable)
    evaluation = box_scoring.evaluate(outcomes, config)
    comparison, their_outcomes = None, None
    if other and theirs:
        their_outcomes = box_scoring.outcomes(
            other.bundle.contract, theirs.targets, photos, theirs.predictions, readable
        )
        comparison = compare.compare_boxes(
            ours=(outcomes, evaluation),
            theirs=(their_outcomes, box_scoring.evaluate(their_outcomes, config)),
            **_terms(pipeline, other, photos.rows[readable], config),
        )
    trained = leaks.training_rows(photos.versions, contract)
    result = _result(
        (pipeline, photos, ours, theirs),
        (evaluation, comparison),
        requested,
        config,
        groups=outcomes.groups.count,
        slices=slices.box_slices(
            evaluation.counts,
            outcomes.groups,
            photos.rows[readable],
            resamples=config.resamples,
            seed=config.seed,
        ),
        leaks=leaks.leaks(
            trained,
            photos.rows,
            readable,
            evaluation,
            lambda places: box_scoring.evaluate(
                box_scoring.outcomes(contract, photos.targets, photos, ours, places), config
            ),
        ),
        detections=evaluation.detections,
    )
    validation = BoxValidation(result, pipeline, photos, ours, readable, outcomes, their_outcomes, machine.photos)
    to_review = _review_boxes(validation, machine) if config.review else {}
    return _write(
        replace(result, review=_images(to_review)),
        draw=lambda: box_report.pictures(validation),
        render=lambda charts: box_report.render(validation, charts, machine.progress("report")),
        write=lambda: to_review | box_tables.write(validation),
    )


def _result(
    predicted: tuple[Pipeline, Photos, Predictions, OtherModel | None],
    scored: tuple[Evaluation, Comparison | None],
    requested: Requested,
    config: ValidateConfig,
    **more: Any,
) -> ValidationResult:
    """The result, with `more` of its attributes."""
    (pipeline, photos, ours, theirs), (evaluation, comparison) = predicted, scored
    passed = gates.judge(requested, evaluation.every, evaluation.intervals) if requested else []
    defaults: dict[str, Any] = {"slices": (), "robustness": None}
    return ValidationResult(
        versions=[
            (version.ref, version.fingerprint, int((photos.rows[DATASET] == version.ref).sum()))
            for version in photos.versions
        ],
        split=config.split,
        model=pipeline.bundle.digest,
        form=pipeline.bundle.form_note,
        contract=pipeline.bundle.contract,
        photos=len(ours.items),
        failed=_failures(photos.rows, ours, theirs),
        reports=evaluation.reports,
        scores=evaluation.scores,
        intervals=evaluation.intervals,
        decisions=_decisions(ours.items),
        comparison=comparison,
        gates=[*passed, *(comparison.gates if comparison else ())],
        left_out=photos.left_out,
        unannotated=photos.unannotated,
        review=0,
        out=storage.absolute(config.out) if config.out else None,
        written=(),
        allowed=allowed_failures(config.max_failures, len(ours.items)),
        new=ours.new + (theirs.predictions.new if theirs else 0),
        config=config,
        **(defaults | more),
    )


def _check(config: ValidateConfig, pipeline: Pipeline, other: Pipeline | None) -> None:
    boxes = _finds_boxes(pipeline)
    if other is not None and _finds_boxes(other) != boxes:
        finder = config.model if boxes else config.against
        raise UsageError(
            "The two models cannot be compared",
            f"only {finder or 'one of them'} finds boxes",
            "Name two models of the same task.",
        )
    ours, theirs = (each and each.bundle.contract.anomaly for each in (pipeline, other))
    if other is not None and (ours and ours.normal) != (theirs and theirs.normal):
        raise UsageError(
            "The two models cannot be compared",
            "they were not trained to find anomalies among the same normal photos",
            "Name two models of the same task.",
        )
    if pipeline.bundle.contract.anomaly is not None:
        for name in ("robustness", "review", "shared_classes"):
            if getattr(config, name):
                flag = name.replace("_", "-")
                raise UsageError(
                    f"--{flag} is not for models of anomalies",
                    "it is about models that predict classes",
                    f"Leave --{flag} out; --report shows the worst photos.",
                )
    if config.robustness and boxes:
        raise UsageError(
            "--robustness is not for models that find boxes",
            "it is about the classes of whole photos",
            "Leave --robustness out; --report shows the worst photos.",
        )
    if config.tile is not None and not boxes:
        raise UsageError(
            "--tile is for models that find boxes", "this one predicts for whole photos", "Leave --tile out."
        )
    if config.max_drop is not None and other is None:
        raise UsageError("--max-drop needs a second model", "", "Name the other model: --against RUN")
    if config.review and not config.out:
        raise UsageError("--review needs an output folder", "", "Name a folder: --out DIR")
    files = (config.report, config.markdown, config.junit)
    storage.check_output(*files, storage.join(config.out, METRICS) if config.out else None)


# --- predictions and scores -------------------------------------------------------------------


def _finds_boxes(pipeline: Pipeline) -> bool:
    return pipeline.bundle.contract.detection is not None


def _targets(*pipelines: Pipeline | None) -> list[Sequence[Target]]:
    return [each.bundle.contract.targets for each in pipelines if each is not None]


def _predictions(
    models: tuple[Pipeline, Pipeline | None], photos: Photos, config: ValidateConfig, machine: Machine
) -> tuple[Predictions, OtherModel | None, list[int]]:
    """The predictions of both models, and the places of the photos with a prediction of each."""
    pipeline, other = models
    ours = _predict(pipeline, photos.rows, "validating", config, machine)
    theirs = _predict_other(other, photos, config, machine) if other else None
    readable = [at for at in ours.readable if theirs is None or theirs.predictions.items[at].probabilities is not None]
    return ours, theirs, readable


def _predict(
    pipeline: Pipeline, rows: pl.DataFrame, name: str, config: ValidateConfig, machine: Machine
) -> Predictions:
    what = "boxes" if _finds_boxes(pipeline) else "photos"
    cache = PredictionCache.of(pipeline, what, machine.settings, device=config.device, fresh=config.fresh)
    return predictions.predict(pipeline, rows, cache, machine, name)


def _predict_other(other: Pipeline, photos: Photos, config: ValidateConfig, machine: Machine) -> OtherModel:
    """The other model's predictions, and those of its targets that ours has too, with its own classes."""
    theirs = {target.name: target for target in other.bundle.contract.targets}
    shared = [
        theirs[each.name] for each in photos.targets if each.name in theirs and theirs[each.name].kind == each.kind
    ]
    if not shared and not _finds_boxes(other):
        raise InputError(
            "The two models share no target with labels",
            f"the other model predicts {', '.join(theirs)}",
            "Compare with a model of the same targets.",
        )
    return OtherModel(_predict(other, photos.rows, "the other model", config, machine), shared)


def _training_counts(trained: pl.DataFrame, targets: Sequence[Target]) -> dict[str, dict[str, int]]:
    """By class target, training photos of each class."""
    return {
        target.name: dict(trained[target.name].drop_nulls().value_counts().iter_rows())
        for target in targets
        if target.kind == "class" and target.name in trained.columns
    }


def _failures(rows: pl.DataFrame, ours: Predictions, theirs: OtherModel | None) -> list[tuple[str, str]]:
    failures = []
    for at, (name, prediction) in enumerate(zip(rows["name"], ours.items, strict=True)):
        failure = prediction.record.failure or (theirs.predictions.items[at].record.failure if theirs else None)
        if failure is not None:
            failures.append((name, failure))
    return failures


def _decisions(items: Sequence[Prediction]) -> dict[str, int]:
    decisions = [prediction.record.decision for prediction in items if prediction.record.decision]
    return {name: decisions.count(name) for name in ("accept", "review", "unknown")}


# --- outputs ----------------------------------------------------------------------------------


def _write(
    result: ValidationResult,
    *,
    draw: Callable[[], Files],
    render: Callable[[Files], bytes],
    write: Callable[[], Files],
) -> ValidationResult:
    """Write the outputs that the settings name.

    Args:
        result: of the validation.
        draw: makes the charts.
        render: makes the report from them.
        write: makes the other files of the output folder.
    """
    config, written = result.config, []
    charts = draw() if config.report or result.out else {}
    renders: Sequence[tuple[str | None, Callable[[], bytes]]] = (
        (config.report, lambda: render(charts)),
        (config.markdown, lambda: ci_reports.markdown(result)),
        (config.junit, lambda: ci_reports.junit(result)),
    )
    for url, make in renders:
        if url:
            storage.write(storage.absolute(url), make())
            written.append(storage.absolute(url))
    result = replace(result, written=written)
    if result.out:
        files = {**charts, **write(), METRICS: (json.dumps(results.as_json(result), indent=2) + "\n").encode()}
        storage.publish(result.out, files, last=METRICS)
    return result


def _review(validation: Validation, machine: Machine) -> dict[str, bytes]:
    """Label Studio tasks: from unlabelled photos if there are any, or else from the validated ones."""
    targets, config = validation.pipeline.bundle.contract.targets, validation.result.config
    rows = review.candidates(validation.photos.versions, validation.photos.targets)
    items = validation.predictions.items
    if rows.is_empty():
        rows = validation.photos.rows
    else:
        items = _predict(validation.pipeline, rows, "unlabelled photos", config, machine).items
    picks = review.choose(rows, items, targets, config.review)
    return review.label_files(rows, items, targets, picks, model=validation.result.model, photo_cache=machine.photos)


def _review_boxes(validation: BoxValidation, machine: Machine) -> dict[str, bytes]:
    """As `_review`: from photos without annotation if there are any, or else from the validated ones."""
    contract, config = validation.pipeline.bundle.contract, validation.result.config
    rows, items = box_review.candidates(validation.photos.versions), validation.predictions.items
    if rows.is_empty():
        rows = validation.photos.rows
    else:
        items = _predict(validation.pipeline, rows, "photos without annotation", config, machine).items
    picks = box_review.choose(rows, items, contract, config.review)
    return box_review.files(rows, items, contract, picks, model=validation.result.model, photo_cache=machine.photos)


def _images(files: Files) -> int:
    """Photos among the files of a review."""
    return sum(name.startswith(f"{review.FOLDER}/images/") for name in files)
