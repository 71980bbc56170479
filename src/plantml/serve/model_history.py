"""Models of the registry as callers see them, and the promotion of versions by the evidence of their trainings."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field

from plantml import registry as registries
from plantml import storage
from plantml.data import versions
from plantml.errors import GateError, InputError, NotFoundError
from plantml.parsing import parse_json_object
from plantml.registry import evidence as evidences
from plantml.registry import inspection, ledger
from plantml.registry.inspection import ModelDetails
from plantml.registry.ledger import Entry, Ledger
from plantml.registry.operations import GUARDED, Change, is_guarded
from plantml.serve.service import Service
from plantml.serve.users import audit, visibility
from plantml.serve.users.caller import ADMIN, Caller
from plantml.serve.web.problems import forbidden
from plantml.storage.event_log import Event

_PLOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\.png")


class ModelSummary(BaseModel):
    """A model of the registry."""

    name: str = Field(examples=["leaf"])
    versions: list[int] = Field(examples=[[1, 2, 3]])
    aliases: dict[str, int] = Field(examples=[{"production": 2, "challenger": 3}])


class AliasAnswer(BaseModel):
    """What an alias points to, and since when."""

    name: str = Field(examples=["production"])
    version: int
    since: str
    by: str
    why: str


class VersionSummary(BaseModel):
    """A version of a model."""

    number: int
    digest: str
    aliases: list[str]
    added: str = Field(description="ISO 8601 in UTC.")
    by: str
    why: str
    dataset: str = Field(examples=["leaves@7"])
    metrics: dict[str, float] = Field(description="Of the validation split, and of targets that the caller may see.")


class ModelAnswer(BaseModel):
    """A model, its versions and what its aliases point to."""

    name: str
    versions: list[VersionSummary]
    aliases: list[AliasAnswer]


class VersionAnswer(VersionSummary):
    """One version, with what its users must know."""

    size: int = Field(description="Bytes.")
    task: str = Field(examples=["image"])
    contract: dict[str, Any] = Field(description="Targets that the caller may see, input, thresholds, origin.")
    config: dict[str, Any] = Field(description="Settings of the training; empty if a target is hidden.")
    plots: list[str] = Field(description="Plots of its training, if this server trained it.")
    training: int | None = Field(description="The training on this server that produced it.")
    validated: bool = Field(description="True if there is evidence for a promotion.")


class HistoryEvent(BaseModel):
    """One event of a model's history."""

    number: int
    time: str
    act: str = Field(examples=["promote"])
    version: int | None
    alias: str | None
    before: int | None = Field(description="What the alias pointed to before; 0 for none.")
    by: str
    why: str
    forced: bool
    scores: dict[str, float] = Field(description="Of the evidence, for targets that the caller may see.")


class Moved(BaseModel):
    """What an alias points to now."""

    model: str
    alias: str
    version: int
    before: int = Field(description="0 for none.")
    changed: bool = Field(description="False if there was nothing to do.")


def model_url(service: Service, name: str) -> str:
    """URL of a model of the registry. Raises `NotFoundError` for what cannot be one."""
    return storage.join(service.registry, service.models.resolve(f"{name}@{GUARDED}")[0])


def summaries(service: Service) -> Sequence[ModelSummary]:
    """All models."""
    try:
        states = inspection.models(service.registry)
    except NotFoundError:  # the first training makes it
        return []
    return [
        ModelSummary(name=storage.basename(state.url), versions=sorted(state.entries), aliases=dict(state.aliases))
        for state in states
    ]


def describe(service: Service, caller: Caller, name: str) -> ModelAnswer:
    """A model. Raises `NotFoundError`."""
    state = ledger.load(model_url(service, name))
    return ModelAnswer(
        name=name,
        versions=[_summary(state, entry, caller) for _, entry in sorted(state.entries.items(), reverse=True)],
        aliases=[_alias(state, alias, number) for alias, number in state.aliases.items()],
    )


def describe_version(service: Service, caller: Caller, name: str, version: str) -> VersionAnswer:
    """A version by number or alias. Raises `NotFoundError`."""
    details, state, entry = _details(service, name, version)
    contract = details.bundle.contract
    sees_all = _sees_all(details, caller)
    job = service.jobs.trained(entry.digest)
    return VersionAnswer(
        **_summary(state, entry, caller).model_dump(),
        size=entry.size,
        task=contract.task,
        contract=visibility.visible_contract(contract, caller),
        config=details.config if sees_all else {},
        plots=_plots(service, entry) if sees_all else [],
        training=job.id if job else None,
        validated=service.jobs.validated(entry.digest) is not None,
    )


def card(service: Service, caller: Caller, name: str, version: str) -> str:
    """The model card, as Markdown. Raises `RequestError` 403 if a target is hidden."""
    details, _, _ = _details(service, name, version)
    _check_sees_all(details, caller, "the model card")
    return details.card


def plot(service: Service, caller: Caller, name: str, number: int, file: str) -> bytes:
    """A PNG of the training. Raises `NotFoundError`, and `RequestError` 403 if a target is hidden."""
    details, _, entry = _details(service, name, number)
    _check_sees_all(details, caller, "the picture")
    job = service.jobs.trained(entry.digest)
    if job is None or file not in _plots(service, entry):
        raise NotFoundError(f"There is no picture {file[:80]}", "", "GET the version: it lists its plots.")
    return storage.read(storage.join(job.run, "plots", file))


def history(service: Service, caller: Caller, name: str) -> Sequence[HistoryEvent]:
    """The events of a model, the newest first. Raises `NotFoundError`."""
    events = ledger.load(model_url(service, name)).events
    return [_event(event, caller) for event in reversed(events) if event.content["act"] != "begin"]


def promote(
    service: Service,
    caller: Caller,
    name: str,
    version: int,
    *,
    alias: str = GUARDED,
    why: str = "",
    evidence: Mapping[str, Any] | None = None,
    expected: int | None = None,
    force: bool = False,
) -> Moved:
    """Point an alias to a version, by evidence: a validation that is given, or that of its training.

    Args:
        service: the server.
        caller: who asks.
        name: of the model.
        version: its number.
        alias: `production`, and aliases that start with it, need evidence.
        why: reason, for the history.
        evidence: `metrics.json` of `plantml validate`.
        expected: version that the alias is thought to point to; 0 for none.
        force: without evidence; administrators only, and with a reason.

    Raises:
        RequestError: 403, `force` without the role.
        GateError: the evidence does not allow it, or there is none.
        NotFoundError: there is no such version.
        InputError: the evidence is malformed.
    """
    if force and not caller.may(ADMIN):
        raise forbidden(ADMIN)
    url = model_url(service, name)
    entry = _entry(ledger.load(url), version)
    if evidence is None and is_guarded(alias) and not force:
        evidence = _stored_evidence(service, entry)
    try:
        change = registries.promote(
            url,
            version,
            alias,
            by=caller.name,
            why=why,
            evidence=None if evidence is None else _with_served_datasets(service, evidence),
            expected=expected,
            force=force,
        )
    except GateError as error:
        # A gate is called by its target and bound, and what was left out by its class.
        targets = _details(service, name, version)[0].bundle.contract.targets
        words = set(re.findall(r"\w+", str(error)))
        if all(caller.may_see(target.name) for target in targets if target.name in words):
            why = error.why
        else:
            why = "the reason is of a target that needs a role"
        hint = "Validate it again, with a training of this `version`; or send metrics.json of plantml validate."
        raise GateError(f"{name}@{version} is not promoted to {alias}", why, hint) from None
    return _moved(service, caller, change, "model.promote", {"why": why, "force": force})


def rollback(service: Service, caller: Caller, name: str, *, alias: str = GUARDED, why: str = "") -> Moved:
    """Point an alias back to the version before. Raises as `operations.rollback`."""
    change = registries.rollback(model_url(service, name), alias, by=caller.name, why=why)
    return _moved(service, caller, change, "model.rollback", {"why": why})


def _moved(service: Service, caller: Caller, change: Change, act: str, detail: Mapping[str, Any]) -> Moved:
    name = storage.basename(change.model)
    moved = Moved(model=name, alias=change.alias, version=change.number, before=change.before, changed=change.changed)
    audit.note(service.database, caller, act, name, {**moved.model_dump(), **detail})
    return moved


def _stored_evidence(service: Service, entry: Entry) -> Mapping[str, Any] | None:
    job = service.jobs.validated(entry.digest)
    if job is None:
        return None
    url = storage.join(job.result["validation"], evidences.METRICS)
    return parse_json_object(storage.read(url), url)


def _with_served_datasets(service: Service, evidence: Mapping[str, Any]) -> Mapping[str, Any]:
    """Evidence whose datasets are those of this server, by name: no other URL is opened for a caller.

    A worker on another machine may know a dataset by another URL. That it is the same is shown by its fingerprint.
    """
    datasets = evidence.get("datasets")
    if not isinstance(datasets, list) or not all(
        isinstance(each, dict) and isinstance(each.get("ref"), str) for each in datasets
    ):
        raise InputError("The evidence names no dataset", "", "Send metrics.json of plantml validate as it is.")
    served = []
    for each in datasets:
        url, number = versions.parse_reference(each["ref"])
        served.append({**each, "ref": f"{service.datasets.url(storage.basename(url))}@{number}"})
    return {**evidence, "datasets": served}


def _details(service: Service, name: str, version: int | str) -> tuple[ModelDetails, Ledger, Entry]:
    url = model_url(service, name)
    state = ledger.load(url)
    entry = _entry(state, version)
    return inspection.show(f"{url}@{entry.number}", service.machine.cache()), state, entry


def _entry(state: Ledger, version: int | str) -> Entry:
    try:
        return state.entry(version)
    except InputError as error:
        raise NotFoundError(error.what, error.why, "GET the model: it lists its versions.") from error


def _sees_all(details: ModelDetails, caller: Caller) -> bool:
    return all(caller.may_see(target.name) for target in details.bundle.contract.targets)


def _check_sees_all(details: ModelDetails, caller: Caller, what: str) -> None:
    visibility.check_sees_all((target.name for target in details.bundle.contract.targets), caller, what)


def _plots(service: Service, entry: Entry) -> list[str]:
    job = service.jobs.trained(entry.digest)
    if job is None:
        return []
    try:
        names = [file.name for file in storage.list_files(storage.join(job.run, "plots"))]
    except NotFoundError:
        return []
    return sorted(name for name in names if _PLOT.fullmatch(name))


def _summary(state: Ledger, entry: Entry, caller: Caller) -> VersionSummary:
    content = entry.event.content
    dataset = content["dataset"]
    return VersionSummary(
        number=entry.number,
        digest=entry.digest,
        aliases=state.names(entry.number),
        added=entry.event.time,
        by=content["by"],
        why=content["why"],
        dataset=f"{storage.basename(dataset['url'])}@{dataset['version']}",
        metrics=visibility.visible_metrics(content["metrics"], caller),
    )


def _alias(state: Ledger, alias: str, number: int) -> AliasAnswer:
    moves = (event for event in reversed(state.events) if event.content.get("alias") == alias)
    last = next(moves)
    return AliasAnswer(
        name=alias, version=number, since=last.time, by=last.content["by"], why=last.content.get("why", "")
    )


def _event(event: Event, caller: Caller) -> HistoryEvent:
    content = event.content
    evidence = content.get("evidence") if content["act"] == "promote" else None
    return HistoryEvent(
        number=event.number,
        time=event.time,
        act=content["act"],
        version=content.get("version"),
        alias=content.get("alias"),
        before=content.get("from"),
        by=content["by"],
        why=content.get("why", ""),
        forced=bool(content.get("forced")),
        scores=visibility.visible_metrics((evidence or {}).get("scores") or {}, caller),
    )
