"""`plantml validate`: score a model's predictions for a dataset against the labels."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from plantml import storage
from plantml.errors import InputError, UsageError
from plantml.model.contract import Contract
from plantml.model.pipeline import Pipeline, Prediction
from plantml.model.records import allowed_failures
from plantml.targets import Target
from plantml.validate import ci_reports, gates, leaks, prediction_tables, results, review
from plantml.validate.anomalies.task import AnomalyTask
from plantml.validate.boxes import tables as box_tables
from plantml.validate.boxes.task import BoxTask
from plantml.validate.compare import Terms
from plantml.validate.config import ValidateConfig
from plantml.validate.predictions import Machine, Predictions
from plantml.validate.results import OtherModel, Validation, ValidationResult
from plantml.validate.selection import DATASET, Photos
from plantml.validate.task import Files, Task

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

    `other` is the model that `config.against` names.

    Raises:
        InputError: the split is empty, model and dataset share no target, or a label is unknown to the
            model; it is named.
        UsageError: a gate names an unknown score, or two settings contradict each other.
        StoppedError: a signal came; the predictions so far are cached.
    """
    requested = [*gates.parse("min", config.min), *gates.parse("max", config.max)]
    task = _task(pipeline, config, machine)
    _check(task, config, other)
    models = [each.bundle.contract.targets for each in (pipeline, other) if each]
    photos = task.select([refs] if isinstance(refs, str) else refs, models)
    ours = task.predict(pipeline, photos.rows, "validating")
    readable = ours.readable
    if other:
        targets = _shared_targets(task, photos, other)
        theirs = task.predict(other, photos.rows, "the other model")
        readable = [at for at in readable if theirs.items[at].probabilities is not None]
    rows = photos.rows[readable]

    outcomes = task.outcomes(task.contract, photos.targets, photos, ours, readable)
    evaluation = task.evaluate(outcomes)
    rival, comparison = None, None
    if other:
        rival = OtherModel(theirs, targets, task.outcomes(other.bundle.contract, targets, photos, theirs, readable))
        terms = Terms(
            ref=config.against or "",
            model=other.bundle.digest,
            names=rows["name"].to_list(),
            max_drop=config.max_drop,
            same_model=other.bundle.digest == pipeline.bundle.digest,
        )
        comparison = task.compare((outcomes, evaluation), (rival.outcomes, task.evaluate(rival.outcomes)), terms)
    trained = task.learnt_from(leaks.training_rows(photos.versions, task.contract))
    result = ValidationResult(
        versions=[
            (version.ref, version.fingerprint, int((photos.rows[DATASET] == version.ref).sum()))
            for version in photos.versions
        ],
        split=config.split,
        model=pipeline.bundle.digest,
        form=pipeline.bundle.form_note,
        contract=task.contract,
        photos=len(ours.items),
        failed=_failures(photos.rows, ours, rival),
        reports=evaluation.reports,
        scores=evaluation.scores,
        intervals=evaluation.intervals,
        groups=outcomes.groups.count,
        decisions=_decisions(ours.items),
        slices=task.slices(outcomes, evaluation, rows, trained),
        leaks=leaks.leaks(
            pl.concat([trained, leaks.unlabelled_rows(photos.versions, task.contract)], how="diagonal_relaxed"),
            photos.rows,
            readable,
            evaluation,
            lambda places: task.evaluate(task.outcomes(task.contract, photos.targets, photos, ours, places)),
        ),
        comparison=comparison,
        gates=[
            *gates.judge(requested, evaluation.every, evaluation.intervals),
            *(comparison.gates if comparison else ()),
        ],
        left_out=photos.left_out,
        unannotated=photos.unannotated,
        without_photo=sum(
            version.without_photo(None if config.split == "all" else config.split).height for version in photos.versions
        ),
        out=storage.absolute(config.out) if config.out else None,
        allowed=allowed_failures(config.max_failures, len(ours.items)),
        new=ours.new + (rival.predictions.new if rival else 0),
        config=config,
        **task.attributes(photos, evaluation),
    )
    return _write(task, Validation(result, pipeline, photos, ours, readable, outcomes, rival, machine.photos))


def predict(
    ref: str, pipeline: Pipeline, config: ValidateConfig, machine: Machine, name: str
) -> tuple[Predictions, Files]:
    """Predictions for the photos of a dataset that `validate` takes, and their tables as Parquet and CSV.

    Raises as `validate`; progress is shown under this name.
    """
    task = _task(pipeline, config, machine)
    photos = task.select([ref], [task.contract.targets])
    predicted = task.predict(pipeline, photos.rows, name)
    if task.finds_boxes:
        places = predicted.readable
        outcomes = task.outcomes(task.contract, photos.targets, photos, predicted, places)
        table = box_tables.predictions(photos, predicted, outcomes, places)
    else:
        table = prediction_tables.predictions(photos, predicted)
    return predicted, prediction_tables.files("predictions", table)


def _task(pipeline: Pipeline, config: ValidateConfig, machine: Machine) -> Task:
    tasks = {"image": Task, "anomaly": AnomalyTask}
    return tasks.get(pipeline.bundle.contract.task, BoxTask)(pipeline, config, machine)


def _check(task: Task, config: ValidateConfig, other: Pipeline | None) -> None:
    boxes, theirs = task.finds_boxes, other.bundle.contract if other else None
    if theirs and (theirs.detection is not None) != boxes:
        finder = config.model if boxes else config.against
        raise UsageError(
            "The two models cannot be compared",
            f"only {finder or 'one of them'} finds boxes",
            "Name two models of the same task.",
        )
    if theirs and _normal(theirs) != _normal(task.contract):
        raise UsageError(
            "The two models cannot be compared",
            "they were not trained to find anomalies among the same normal photos",
            "Name two models of the same task.",
        )
    if task.contract.anomaly:
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


def _normal(contract: Contract) -> str | None:
    return contract.anomaly.normal if contract.anomaly else None


def _shared_targets(task: Task, photos: Photos, other: Pipeline) -> list[Target]:
    """The targets of the other model that ours has too, with the other's classes."""
    theirs = {target.name: target for target in other.bundle.contract.targets}
    shared = [
        theirs[each.name] for each in photos.targets if each.name in theirs and theirs[each.name].kind == each.kind
    ]
    if not shared and not task.finds_boxes and not task.contract.anomaly:
        raise InputError(
            "The two models share no target with labels",
            f"the other model predicts {', '.join(theirs)}",
            "Compare with a model of the same targets.",
        )
    return shared


def _failures(rows: pl.DataFrame, ours: Predictions, rival: OtherModel[Any] | None) -> list[tuple[str, str]]:
    failures = []
    for at, (name, prediction) in enumerate(zip(rows["name"], ours.items, strict=True)):
        failure = prediction.record.failure or (rival.predictions.items[at].record.failure if rival else None)
        if failure is not None:
            failures.append((name, failure))
    return failures


def _decisions(items: Sequence[Prediction]) -> dict[str, int]:
    decisions = [prediction.record.decision for prediction in items if prediction.record.decision]
    return {name: decisions.count(name) for name in ("accept", "review", "unknown")}


def _write(task: Task, validation: Validation[Any]) -> ValidationResult:
    """Write the outputs that the settings name."""
    result, config = validation.result, validation.result.config
    to_review = task.to_review(validation) if config.review else {}
    pictures = sum(name.startswith(f"{review.FOLDER}/images/") for name in to_review)
    result = replace(result, review=pictures)
    validation = replace(validation, result=result)
    charts = task.pictures(validation) if config.report or result.out else {}
    renders: Sequence[tuple[str | None, Callable[[], bytes]]] = (
        (config.report, lambda: task.render(validation, charts, task.machine.progress("report"))),
        (config.markdown, lambda: ci_reports.markdown(result)),
        (config.junit, lambda: ci_reports.junit(result)),
    )
    written = []
    for url, render in renders:
        if url:
            storage.write(storage.absolute(url), render())
            written.append(storage.absolute(url))
    if result.out:
        report = (json.dumps(results.as_json(result), indent=2) + "\n").encode()
        files = {**charts, **to_review, **task.tables(validation), METRICS: report}
        storage.publish(result.out, files, last=METRICS)
    return replace(result, written=written)
