"""Steps 4 to 9: find the model in service, train a challenger, compare both on the same photos, and choose."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from plantml import registry, storage
from plantml.errors import GateError, InputError, MissingExtraError
from plantml.metrics import bootstrap
from plantml.registry import ledger, references
from plantml.registry.version_files import inspect
from plantml.retrain import data_steps
from plantml.retrain.rounds import CHALLENGER, Result, Work
from plantml.validate import predictions, results
from plantml.validate import validate as validation
from plantml.validate.config import ValidateConfig
from plantml.validate.gates import describe

IN_SERVICE = "production"
"""Name of the model in service in results and folders, beside the challenger."""

_BOXES = "finds boxes"
_DOES = {"image": "predicts for whole photos", "boxes": _BOXES, "tray": _BOXES, "anomaly": "finds anomalies"}
"""What a model of a task does; others cannot be compared with it."""

PROMOTE, REFUSE = "promote", "refuse"
_SLACK = 1e-9


def production(work: Work) -> Result:
    """Look up the version in service, which stays the same for the rest of the round."""
    entry = ledger.History(work.config.model).ledger().current(work.config.alias)
    if entry is None:
        return {"number": 0, "url": "", "digest": ""}
    inspect(entry.url, work.machine.cache())  # fail before hours of training, not after
    return {"number": entry.number, "url": entry.url, "digest": entry.digest}


def train(work: Work) -> Result:
    """Train the challenger, or resume its training."""
    if find_spec("pytorch_lightning") is None:
        raise MissingExtraError("The challenger cannot be trained", "training is not installed", extra="train")
    from plantml.train import selection
    from plantml.train import train as training  # only this step needs torch

    config = work.config.train
    selected = selection.select(work.result("split")["dataset"], config)
    if work.model:
        _check_task(work, selected.task)
    if work.config.start == "warm" and work.model:
        config = config.model_copy(update={"warm_start": work.result("production")["url"]})
    run = training.train(
        selected, work.round.place(CHALLENGER), config, machine=work.machine, stop=work.stop, listener=work.listener
    )
    assert run is not None  # one process only, see `consistency.check`
    scores = {name: value for name, value in run.scores.items() if "[" not in name}
    return {"run": run.run, "bundle": run.bundle.url, "digest": run.bundle.digest, "val": scores}


def _check_task(work: Work, task: str) -> None:
    """Raise `InputError` if a challenger of this task could not be compared with the model in service."""
    in_service = references.find(work.model, work.machine.cache()).contract.task
    if _DOES[in_service] != _DOES[task]:
        raise InputError(
            f"A challenger of task {task} cannot be compared with {work.model}",
            f"the model in service {_DOES[in_service]}, the challenger {_DOES[task]}",
            "Set train.task; or name another model in the configuration.",
        )


def models(work: Work) -> dict[str, str]:
    """URLs of the models to compare by name, the challenger first."""
    urls = {CHALLENGER: str(work.result("train")["bundle"])}
    if work.model:
        urls[IN_SERVICE] = str(work.result("production")["url"])
    return urls


def predict(work: Work) -> Result:
    """Predict all test photos with both models, as CSV and Parquet."""
    dataset, results = work.result("split")["dataset"], {}
    machine = predictions.Machine(work.machine, work.stop, work.listener.progress)
    for name, url in models(work).items():
        pipeline = work.pipeline(url)
        predicted, files = validation.predict(dataset, pipeline, _validate_config(url), machine, f"predicting, {name}")
        out = work.round.place("predictions", name)
        storage.publish(out, files)
        failed = len(predicted.items) - len(predicted.readable)
        results[name] = {"model": pipeline.bundle.digest, "photos": len(predicted.items), "failed": failed,
                      "files": [storage.join(out, file) for file in files]}  # fmt: skip
    return results


def compare(work: Work) -> Result:
    """Compare both on all, frozen and recent test photos: paired, over groups, and by class."""
    both, gates = models(work), work.config.gates
    machine = predictions.Machine(work.machine, work.stop, work.listener.progress)
    opened = {name: work.pipeline(url) for name, url in both.items()}
    drop = gates.max_drop if IN_SERVICE in both else None
    compared = {}
    for name, where in data_steps.test_sets(work).items():
        out = work.round.place("compare", name)
        config = _validate_config(
            both[CHALLENGER],
            against=both.get(IN_SERVICE),
            where=where,
            out=out,
            max_failures="100%",
            seed=work.config.seed,
            # Gates apply to all test photos; `choose` checks the frozen and recent ones.
            **({"min": gates.min, "max": gates.max, "max_drop": drop} if name == "all" else {}),
        )
        result = validation.validate(
            work.result("split")["dataset"], opened[CHALLENGER], config, machine=machine, other=opened.get(IN_SERVICE)
        )
        summary = _summary(results.as_json(result))
        compared[name] = summary | {"out": out, "where": where, "groups": result.groups}
    return compared


def _validate_config(model: str, **more: Any) -> ValidateConfig:
    return ValidateConfig.model_validate({"model": model, **more})


def _summary(content: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a validation that `choose` and the report use."""
    against = content["against"]
    return {
        "photos": content["photos"],
        "scores": {name: value for name, value in content["scores"].items() if "[" not in name},
        "gates": content["gates"],
        "verdict": against["verdict"] if against else "",
        "differences": against["differences"] if against else [],
        "classes": [test for test in against["mcnemar"] if test["class"]] if against else [],
    }


def choose(work: Work) -> Result:
    """Promote the challenger if all gates pass, it is better, and it is not worse on any test set."""
    compared, gates = work.result("compare"), work.config.gates
    failed = [_describe_gate(gate) for gate in compared["all"]["gates"] if not gate["passed"]]
    if not work.model:
        reasons = failed or ["no model is in service yet, and no gate failed"]
        return {"decision": REFUSE if failed else PROMOTE, "reasons": reasons}
    failed += [reason for name in ("frozen", "recent") if (reason := _worse(compared, name, gates.max_drop))]
    decisive = _decisive(compared["all"])
    if gates.sure and decisive and not failed and not _is_better(decisive, gates.sure):
        failed.append(f"it is not better: {_describe(decisive)}")
    if failed:
        return {"decision": REFUSE, "reasons": failed}
    return {"decision": PROMOTE, "reasons": [_describe(decisive) if decisive else "no gate failed"]}


def _worse(compared: Result, name: str, bound: float) -> str:
    """Why the challenger is worse on a test set, by the mean over classes; empty if it is not.

    Single classes have too few photos there. A set with too few groups is not checked by itself.
    """
    decisive = _decisive(compared[name]) if name in compared else None
    if decisive is None or _gain(decisive) >= -bound - _SLACK or compared[name]["groups"] < bootstrap.FEW:
        return ""
    return (
        f"{decisive['name']} on the {name} test set is {decisive['this']:.4f}, and {decisive['other']:.4f} in service"
    )


def _decisive(comparison: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The decisive difference."""
    differences: Sequence[Mapping[str, Any]] = comparison["differences"]
    return differences[0] if differences else None


def _gain(difference: Mapping[str, Any]) -> float:
    return float(difference["difference"])


def _is_better(difference: Mapping[str, Any], sure: float) -> bool:
    if difference["sure"] is None:  # too few groups to resample
        return _gain(difference) > 0
    return float(difference["sure"]) > sure


def _describe(difference: Mapping[str, Any]) -> str:
    sure = "" if difference["sure"] is None else f", better in {difference['sure']:.1%} of resamples"
    return f"{difference['name']} {difference['this']:.4f} against {difference['other']:.4f}{sure}"


def _describe_gate(gate: Mapping[str, Any]) -> str:
    name, limit = describe(gate)
    return f"{name} is {gate['value']:.4f}, required {limit}"


def register(work: Work) -> Result:
    """Add the challenger to the registry with its evidence, and promote it if chosen."""
    config, choice = work.config, work.result("choose")
    why = f"round {work.round.number}: {choice['decision']}"
    evidence = {"round": work.round.url, "decision": choice["decision"], "reasons": choice["reasons"]}
    added = registry.add(
        work.result("train")["run"],
        config.model,
        by=work.by,
        why=why,
        evidence=evidence,
        alias=config.challenger,
        cache=work.machine.cache(),
    )
    outcome, reasons = "refused", list(choice["reasons"])
    if choice["decision"] == PROMOTE:
        outcome, reasons = _promote(work, added.number, why, reasons)
    dataset, aside = work.result("split")["dataset"], 0
    if outcome == "refused" and config.refused == "review":
        head = data_steps.set_aside(work)
        dataset, aside = head.ref, data_steps.count_aside(head, work)
        reasons.append(f"{aside} new photos are set aside for review: dataset info {dataset}")
    now = ledger.History(config.model).ledger().current(config.alias)
    return {"version": added.number, "digest": added.digest, "outcome": outcome, "reasons": reasons,
            "before": work.result("production")["number"], "now": now.number if now else 0, "dataset": dataset,
            "set_aside": aside}  # fmt: skip


def _promote(work: Work, number: int, why: str, reasons: list[str]) -> tuple[str, list[str]]:
    """Move the alias, unless this round already did before it was interrupted."""
    config = work.config
    if _was_promoted(config.model, number, config.alias, why):
        return "promoted", reasons
    try:
        registry.promote(
            config.model,
            number,
            config.alias,
            by=work.by,
            why=why,
            evidence=work.result("compare")["all"]["out"],
            expected=work.result("production")["number"],
        )
    except GateError as error:
        return "not promoted", [*reasons, f"{error}. {error.hint}"]
    return "promoted", reasons


def _was_promoted(model: str, number: int, alias: str, why: str) -> bool:
    return any(
        event.content["act"] == "promote"
        and event.content["alias"] == alias
        and event.content["version"] == number
        and event.content["why"] == why
        for event in registry.history(model)
    )
