"""`plantml validate`: score a model's predictions for a dataset against the labels."""

import json
from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from plantml import storage
from plantml.errors import InputError, UsageError
from plantml.model.pipeline import Pipeline, Prediction
from plantml.model.records import allowed_failures
from plantml.targets import Target
from plantml.validate import (
    ci_reports,
    compare,
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
from plantml.validate.config import ValidateConfig
from plantml.validate.prediction_cache import PredictionCache
from plantml.validate.predictions import Machine, Predictions
from plantml.validate.results import OtherModel, Validation, ValidationResult
from plantml.validate.selection import DATASET, Photos

METRICS = "metrics.json"


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
    _check(config, other)
    models = [each.bundle.contract.targets for each in (pipeline, other) if each is not None]
    photos = selection.select([refs] if isinstance(refs, str) else refs, models, config)
    ours = _predict(pipeline, photos.rows, "validating", config, machine)
    theirs = _predict_other(other, photos, config, machine) if other else None
    readable = [at for at in ours.readable if theirs is None or theirs.predictions.items[at].probabilities is not None]
    outcomes = scoring.outcomes(photos.targets, photos, ours, readable)
    evaluation = scoring.evaluate(outcomes, config)
    comparison = None
    if other and theirs:
        their_outcomes = scoring.outcomes(theirs.targets, photos, theirs.predictions, readable)
        comparison = compare.compare(
            config.against or "",
            other.bundle.digest,
            (outcomes, evaluation),
            (their_outcomes, scoring.evaluate(their_outcomes, config)),
            names=photos.rows["name"].gather(readable).to_list(),
            max_drop=config.max_drop,
            same_model=other.bundle.digest == pipeline.bundle.digest,
        )
    passed = gates.judge(requested, evaluation.every, evaluation.intervals) if requested else []
    trained = leaks.training_rows(photos.versions, pipeline.bundle.contract)
    result = ValidationResult(
        versions=[
            (version.ref, version.fingerprint, int((photos.rows[DATASET] == version.ref).sum()))
            for version in photos.versions
        ],
        split=config.split,
        model=pipeline.bundle.digest,
        contract=pipeline.bundle.contract,
        photos=len(ours.items),
        failed=_failures(photos.rows, ours, theirs),
        reports=evaluation.reports,
        scores=evaluation.scores,
        intervals=evaluation.intervals,
        groups=outcomes.groups.count,
        decisions=_decisions(ours.items),
        slices=slices.slices(
            outcomes,
            photos.rows[readable],
            _training_counts(trained, photos.targets),
            resamples=config.resamples,
            seed=config.seed,
        ),
        leaks=leaks.leaks(trained, photos, ours, readable, evaluation, config=config),
        robustness=robustness.robustness(pipeline, photos, config, machine) if config.robustness else None,
        comparison=comparison,
        gates=[*passed, *(comparison.gates if comparison else ())],
        left_out=photos.left_out,
        review=0,
        out=storage.absolute(config.out) if config.out else None,
        written=(),
        allowed=allowed_failures(config.max_failures, len(ours.items)),
        new=ours.new + (theirs.predictions.new if theirs else 0),
        config=config,
    )
    return _write(Validation(result, pipeline, photos, ours, readable, outcomes, theirs, machine.photos), machine)


def _check(config: ValidateConfig, other: Pipeline | None) -> None:
    if config.max_drop is not None and other is None:
        raise UsageError("--max-drop needs a second model", "", "Name the other model: --against RUN")
    if config.review and not config.out:
        raise UsageError("--review needs an output folder", "", "Name a folder: --out DIR")
    files = (config.report, config.markdown, config.junit)
    storage.check_output(*files, storage.join(config.out, METRICS) if config.out else None)


# --- predictions and scores -------------------------------------------------------------------


def _predict(
    pipeline: Pipeline, rows: pl.DataFrame, name: str, config: ValidateConfig, machine: Machine
) -> Predictions:
    cache = PredictionCache.of(pipeline, "photos", machine.settings, device=config.device, fresh=config.fresh)
    return predictions.predict(pipeline, rows, cache, machine, name)


def _predict_other(other: Pipeline, photos: Photos, config: ValidateConfig, machine: Machine) -> OtherModel:
    """The other model's predictions, and those of its targets that ours has too, with its own classes."""
    theirs = {target.name: target for target in other.bundle.contract.targets}
    shared = [
        theirs[each.name] for each in photos.targets if each.name in theirs and theirs[each.name].kind == each.kind
    ]
    if not shared:
        raise InputError(
            "The two models share no target with labels",
            f"the other model predicts {', '.join(theirs)}",
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


def _write(validation: Validation, machine: Machine) -> ValidationResult:
    result, config = validation.result, validation.result.config
    files: dict[str, bytes] = {}
    if config.review:
        files |= _review(validation, machine)
        result = replace(result, review=sum(name.startswith(f"{review.FOLDER}/images/") for name in files))
    written = []
    if config.report:
        storage.write(storage.absolute(config.report), report.render(validation, machine.progress("report")))
        written.append(config.report)
    for url, render in ((config.markdown, ci_reports.markdown), (config.junit, ci_reports.junit)):
        if url:
            storage.write(storage.absolute(url), render(result))
            written.append(url)
    result = replace(result, written=[storage.absolute(url) for url in written])
    if result.out:
        files |= report.pictures(validation)
        files |= prediction_tables.write(validation)
        files[METRICS] = (json.dumps(results.as_json(result), indent=2) + "\n").encode()
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
    return review.files(rows, items, targets, picks, model=validation.result.model, photo_cache=machine.photos)
