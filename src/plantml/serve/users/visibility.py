"""What a caller may see: a target's predictions need the role of its name, in every form."""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any

from plantml import storage
from plantml.model.bundle import Bundle
from plantml.model.contract import Contract
from plantml.model.pipeline import Pipeline
from plantml.model.runtimes import TwoStageRuntime
from plantml.serve.users.caller import Caller
from plantml.serve.web.problems import RequestError


def narrowed(pipeline: Pipeline, visible: AbstractSet[str]) -> Pipeline:
    """The pipeline of a model as if it had some of its targets only.

    Nothing of the others is read from the network's outputs. So nothing of them can be in a record, and its decision
    is the worst of the visible targets, from which a hidden one cannot be guessed.
    """
    if all(target.name in visible for target in pipeline.bundle.contract.targets):
        return pipeline
    runtime = pipeline.runtime
    if isinstance(runtime, TwoStageRuntime):
        runtime = TwoStageRuntime(runtime.detector, _narrowed(runtime.bundle, visible), runtime.classifier)
    return replace(pipeline, bundle=_narrowed(pipeline.bundle, visible), runtime=runtime)


def _narrowed(bundle: Bundle, visible: AbstractSet[str]) -> Bundle:
    contract = bundle.contract
    changes: dict[str, Any] = {"targets": tuple(target for target in contract.targets if target.name in visible)}
    if contract.combinations is not None and not set(contract.combinations.targets) <= visible:
        changes["combinations"] = None
    if contract.withheld is not None:  # that a target is left out would tell a hidden one
        rules = (rule for rule in contract.withheld if rule.where in visible)
        kept = [(rule, tuple(name for name in rule.targets if name in visible)) for rule in rules]
        changes["withheld"] = tuple(rule.model_copy(update={"targets": names}) for rule, names in kept if names) or None
    return replace(bundle, contract=contract.model_copy(update=changes))


def visible_record(record: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
    """A record that was made for another caller, or for the same one with other roles, with what is visible now.

    Where something had to go, the decision goes too: it was that of all.
    """
    shown = dict(record)
    hidden = {name for name in _targets_of(record) if not caller.may_see(name)}
    if not hidden:
        return shown
    # A box without a target tells what another one is, which may be hidden: see `contract.Withheld`.
    hidden |= {name for name in _targets_of(record) if any(name not in box["targets"] for box in record["boxes"])}
    shown["decision"] = None
    shown["targets"] = _without(shown["targets"] or {}, hidden)
    shown["boxes"] = [{**box, "targets": _without(box["targets"], hidden), "decision": None} for box in shown["boxes"]]
    for key in ("counts", "advice"):
        if key in shown:
            shown[key] = _without(shown[key], hidden)
    if shown.get("similar"):
        shown["similar"] = [
            {**photo, "labels": _without(photo["labels"], hidden)}
            | ({"name": ""} if hidden & set(photo["labels"]) else {})
            for photo in shown["similar"]
        ]
    shown.pop("tiles", None)
    return shown


def _targets_of(record: Mapping[str, Any]) -> set[str]:
    """Every target that a record says something of."""
    names = set(record["targets"] or {}) | set(record.get("counts") or {}) - {"boxes"}
    names.update(*(box["targets"] for box in record["boxes"]))
    names.update(*(photo["labels"] for photo in record.get("similar") or ()))
    return names


def _without(answers: Mapping[str, Any], hidden: AbstractSet[str]) -> dict[str, Any]:
    return {name: answer for name, answer in answers.items() if name not in hidden}


def visible_labels(labels: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
    """Labels by target, of those that a caller may see."""
    return {name: label for name, label in labels.items() if caller.may_see(name)}


def visible_metrics(metrics: Mapping[str, float], caller: Caller) -> dict[str, float]:
    """Metrics such as `disease.macro_f1` of the targets that a caller may see; those over all targets need all."""
    targets = {_target_of_metric(name) for name in metrics} - {""}
    visible = {name for name in targets if caller.may_see(name)}
    if visible == targets:
        visible = {*targets, ""}
    return {name: value for name, value in metrics.items() if _target_of_metric(name) in visible}


def visible_contract(contract: Contract, caller: Caller) -> dict[str, Any]:
    """A contract as JSON with what it says of the targets that a caller may see, and where its dataset is left out."""
    content = contract.as_json()
    hidden = {target.name for target in contract.targets if not caller.may_see(target.name)}
    content["targets"] = [target for target in content["targets"] if target["name"] not in hidden]
    for key in ("temperatures", "biases", "thresholds", "acceptance"):
        if key in content:
            content[key] = _without(content[key], hidden)
    if hidden:
        content.pop("combinations", None)
        content.pop("withheld", None)
    content["metrics"] = visible_metrics(content["metrics"], caller)
    content["dataset"]["url"] = storage.basename(content["dataset"]["url"])
    return content


def _target_of_metric(name: str) -> str:
    """`disease` of `disease.f1[rust]`; empty for a metric over all targets, or of boxes."""
    target, dot, _ = name.partition("[")[0].partition(".")
    return target if dot and target != "boxes" else ""


def check_sees_all(targets: Iterable[str], caller: Caller, what: str) -> None:
    """Raise `RequestError` 403 if a text or picture is of targets that a caller may not see."""
    hidden = sorted(name for name in set(targets) if not caller.may_see(name))
    if hidden:
        why = f"{what} is of targets that need a role"
        raise RequestError(403, "This is not allowed", why, "Ask an administrator for the roles of all targets.")
