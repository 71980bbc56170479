"""Trainings as callers ask for them and see them: checked requests, progress, results, and the log."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from plantml import settings, storage
from plantml.data.filters import matching
from plantml.data.manifest import Version
from plantml.errors import InputError, NotFoundError, PlantmlError
from plantml.parsing import parse_yaml
from plantml.registry import ledger
from plantml.serve.service import Service
from plantml.serve.users import audit, visibility
from plantml.serve.users.caller import PROMOTER, Caller
from plantml.serve.web.problems import RequestError, busy, forbidden
from plantml.serve.work.jobs import Job, Stage, Status
from plantml.settings import Duration
from plantml.train.config import Preset, TrainConfig
from plantml.train.run_folder import HISTORY, PLAN

MOST = 100
"""Trainings that may wait or run at a time."""

_MOST_BYTES = 2**14
"""Of a request, as JSON."""

_OF_THE_WORKER = {
    "folds",
    "fold",
    "logger",
    "tracking_uri",
    "devices",
    "nodes",
    "strategy",
    "preset",
    "budget",
    "weights",
    "unlabelled",
}
"""Settings of `plantml train` that a request cannot choose, or chooses by a field of its own.

`weights` and `unlabelled` name files and URLs, which the worker would open for a caller.
"""

_TIMES = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0, "maximum": 366 * 86_400},
        {"type": "string", "pattern": r"^(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s?)?$"},
    ]
}
_Budget = Annotated[Duration, WithJsonSchema(_TIMES)]


class TrainingRequest(BaseModel):
    """What to train."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"dataset": "leaves", "name": "leaf", "preset": "quick", "budget": "20m"},
                {"dataset": "leaves@7", "name": "leaf", "config": {"epochs": 12, "warm_start": "leaf@production"}},
                {"dataset": "leaves", "name": "leaf", "retrain": {"min_new": 50, "gates": {"max_drop": 0.02}}},
            ]
        },
    )

    dataset: str = Field(
        max_length=256,
        description="Name of a dataset; append @N or @TAG for a version. Photos of the newest version that have no"
        " split are split first.",
    )
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="Name of the model in the registry: the result is its next version, and its challenger.",
    )
    version: int | None = Field(
        None,
        ge=1,
        le=10**9,
        description="Train nothing, and validate this version again, for its promotion:"
        " another version is in service since it was trained, or the test photos have changed.",
    )
    preset: Preset = Field("balanced", description="quick takes minutes, best takes longest.")
    budget: _Budget | None = Field(None, description="Longest time, in seconds or like 20m or 8h.")
    test_share: float = Field(0.15, ge=0, le=0.5, description="Share of test photos, if there is no split yet.")
    config: dict[str, Any] = Field(
        {}, max_length=64, description="Settings of `plantml train`, see docs/settings.md; `warm_start` is NAME@ALIAS."
    )
    retrain: dict[str, Any] | None = Field(
        None,
        max_length=64,
        description="Run a round of `plantml retrain` with these settings, `{}` for the defaults: train only if photos"
        " are new, and promote the result if it is better. Needs the role promoter, too.",
    )


class Progress(BaseModel):
    """The progress of a training."""

    epoch: int = Field(description="Epochs done so far.", examples=[3])
    epochs: int = Field(description="Maximum number of epochs; it may stop earlier.", examples=[20])
    score: float | None = Field(description="Best validation score so far; null if a target is hidden.")
    seconds_left: float | None = Field(
        description="At most this many seconds are left for the remaining epochs; null if not known."
    )


class TrainingResult(BaseModel):
    """The result of a training."""

    model: str | None = Field(examples=["leaf@4"], description="Null if a retraining had nothing to do.")
    digest: str
    scores: dict[str, float] = Field(description="On the validation split, of targets that the caller may see.")
    validated: bool = Field(description="True if there is evidence for a promotion: a validation on the test split.")
    outcome: str | None = Field(
        description="Of a retraining: promoted, refused, not promoted (somebody else promoted meanwhile) or nothing to"
        " do; null for a training.",
        examples=["promoted"],
    )
    reasons: list[str] = Field(description="For the outcome; they need the roles of all targets.")


class Failure(BaseModel):
    """Why a training failed, or its last attempt."""

    what: str
    why: str
    next: str
    exit_code: int = Field(description="Of the command that failed; negative for a signal.")


class Training(BaseModel):
    """A training."""

    id: int
    status: Status
    stage: Stage = Field(description="What it is doing, or did last.")
    dataset: str = Field(description="With the version it is trained on, once that is known.")
    name: str
    version: int | None = Field(description="The version that is validated again; null for a training.")
    preset: Preset
    budget: float | None = Field(description="Seconds.")
    test_share: float
    config: dict[str, Any]
    retrain: dict[str, Any] | None = Field(description="Settings of a retraining; null for a training.")
    by: str
    submitted: str = Field(description="ISO 8601 in UTC, as all times.")
    stage_began: str | None
    ended: str | None
    worker: str | None = Field(description="The machine that runs it.")
    retries: int = Field(description="Attempts lost because storage could not be reached.")
    progress: Progress | None
    result: TrainingResult | None
    failure: Failure | None


def submit(service: Service, caller: Caller, request: TrainingRequest) -> Training:
    """Ask for a training; the same one is not asked for twice while it waits or runs.

    Raises:
        NotFoundError: there is no such dataset, or model to start from.
        InputError: a setting does not fit.
        UsageError: settings contradict each other.
        RequestError: 403, it needs another role; 413, it is too large; 503, too many wait.
    """
    name, _, at = request.dataset.partition("@")
    version = service.datasets.load(request.dataset)
    config = _checked(request.config)
    matching(version, config.where)
    if config.where:  # whether a photo matches, which the training shows, tells of its labels
        visibility.check_sees_all((target.name for target in version.targets), caller, "a condition `where`")
    content = request.model_dump(mode="json")
    if len(json.dumps(content)) > _MOST_BYTES:  # it is kept for ever, and read with every list
        raise RequestError(413, "The settings are too large", f"at most {_MOST_BYTES} bytes", "Leave some out.")
    if request.retrain is not None:
        _check_retraining(service, caller, version, content)
    if request.version is not None:
        ledger.load(storage.join(service.registry, request.name)).entry(request.version)
    if config.warm_start:
        model, model_version = service.models.resolve(config.warm_start)
        ledger.load(storage.join(service.registry, model)).entry(model_version)
        content["config"]["warm_start"] = f"{model}@{model_version}"
    job = service.jobs.submit(
        content,
        caller.name,
        service.datasets.url(name),
        version.number if at else 0,
        most=MOST,
    )
    if job is None:
        raise busy(f"{MOST} trainings wait or run")
    audit.note(service.database, caller, "training.submit", str(job.id), content)
    return view(service, job, caller)


def _check_retraining(service: Service, caller: Caller, version: Version, content: Mapping[str, Any]) -> None:
    from plantml.serve.work import retraining  # it knows all checks of photos, a fifth of the start

    if not caller.may(PROMOTER):
        raise forbidden(PROMOTER)
    name, _, at = content["dataset"].partition("@")
    if at or content["version"] is not None:
        raise InputError(
            "A retraining takes no version", "it learns from the newest version of the dataset", "Leave version out."
        )
    if "gates" in content["retrain"]:  # whether they pass tells of a score, and they name classes
        visibility.check_sees_all((target.name for target in version.targets), caller, "gates")
    dataset, model = service.datasets.url(name), storage.join(service.registry, content["name"])
    retraining.configuration(content, dataset=dataset, model=model, work=service.jobs.work(dataset, content["name"]))


def cancel(service: Service, caller: Caller, number: int) -> Training:
    """End a training; one that has ended stays as it is. Raises `NotFoundError`."""
    job = service.jobs.cancel(number, caller.name)
    audit.note(service.database, caller, "training.cancel", str(number))
    return view(service, job, caller)


def view(service: Service, job: Job, caller: Caller) -> Training:
    """A training with what the caller may see of it."""
    request, result = job.request, job.result
    reasons = result.get("reasons", [])
    name = str(request["dataset"]).partition("@")[0]
    return Training(
        **{key: request[key] for key in ("name", "version", "preset", "budget", "test_share", "config")},
        retrain=_visible_retrain(service, caller, job),
        id=job.id,
        status=job.status,
        stage=job.stage,
        dataset=f"{name}@{job.version}" if job.version else name,
        by=job.by,
        submitted=job.submitted,
        stage_began=job.stage_began or None,
        ended=job.ended or None,
        worker=job.worker or None,
        retries=job.retries,
        progress=_progress(job, caller),
        result=TrainingResult(
            model=f"{result['model']}@{result['version']}" if result["version"] else None,
            digest=result["digest"],
            scores=visibility.visible_metrics(result["scores"], caller),
            validated=bool(result["validation"]),
            outcome=result.get("outcome"),
            reasons=reasons if reasons and _may_read_log(service, caller, job) else [],
        )
        if result
        else None,
        failure=_failure(service, job, caller) if job.failure else None,
    )


def _visible_retrain(service: Service, caller: Caller, job: Job) -> dict[str, Any] | None:
    """The settings of a retraining, without gates for who may not read its log: they name classes."""
    chosen = job.request.get("retrain")
    if not chosen or "gates" not in chosen or _may_read_log(service, caller, job):
        return chosen
    return {key: value for key, value in chosen.items() if key != "gates"}


def _failure(service: Service, job: Job, caller: Caller) -> Failure:
    """Why a training failed. The cause may name classes, so it is for those who may read the log."""
    failure = Failure(**job.failure)
    if _may_read_log(service, caller, job):
        return failure
    what = "The training failed"
    return Failure(what=what, why="the cause needs the roles of all targets", next="", exit_code=failure.exit_code)


def _may_read_log(service: Service, caller: Caller, job: Job) -> bool:
    try:
        check_log(service, caller, job)
    except PlantmlError:  # not theirs, or the dataset is not served any more
        return False
    return True


def check_log(service: Service, caller: Caller, job: Job) -> None:
    """Raise `RequestError` 403 if the log of a training may name targets that the caller may not see."""
    name = str(job.request["dataset"]).partition("@")[0]
    version = service.datasets.load(f"{name}@{job.version}" if job.version else name)
    plan = _plan(job)
    targets = [target.name for target in version.targets]
    visibility.check_sees_all(targets if plan is None else [*targets, *plan.targets], caller, "the log")


def _checked(config: Mapping[str, Any]) -> TrainConfig:
    if refused := sorted(_OF_THE_WORKER & set(config)):
        why = "it has a field of its own" if refused[0] in TrainingRequest.model_fields else "the worker decides it"
        raise InputError(f"Setting {refused[0]} cannot be chosen in config", why, "Leave it out.")
    checked = settings.check(TrainConfig, config, "config")
    if not all(part.isidentifier() for part in checked.backbone.split(".")):
        raise InputError("Setting backbone does not fit", "it names a timm model", "Use a name like resnet50.")
    return checked


@dataclass(frozen=True)
class _Plan:
    """What is read here of a run's plan."""

    epochs: int
    seconds: float
    targets: Sequence[str]


def _plan(job: Job) -> _Plan | None:
    """None before there is one."""
    if job.stage in {"", "prepare"}:
        return None
    url = storage.join(job.run, PLAN)
    try:
        content = parse_yaml(storage.read(url), url)
        return _Plan(
            int(content["epochs"]), float(content["seconds"]), [target["name"] for target in content["targets"]]
        )
    except (NotFoundError, LookupError, TypeError, ValueError):
        return None


def _progress(job: Job, caller: Caller) -> Progress | None:
    plan = _plan(job) if job.open or job.stage == "train" else None
    if plan is None:
        return None
    rows = _history(storage.join(job.run, HISTORY))
    done = len(rows)
    sees_all = all(map(caller.may_see, plan.targets))
    scores = [float(row["score"]) for row in rows if row.get("score") not in {None, "", "nan"}]
    left = plan.seconds * (1 - done / plan.epochs) if plan.seconds and job.stage == "train" else None
    return Progress(
        epoch=done,
        epochs=plan.epochs,
        score=max(scores) if scores and sees_all else None,
        seconds_left=None if left is None else round(max(left, 0.0), 1),
    )


def _history(url: str) -> list[dict[str, str]]:
    try:
        return list(csv.DictReader(io.StringIO(storage.read(url).decode())))
    except (NotFoundError, UnicodeDecodeError):
        return []
