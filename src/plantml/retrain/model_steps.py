"""Steps 4 to 9: the model in service, a challenger, both judged on the same photos, and the choice."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from plantml import registry, storage
from plantml.errors import GateError, MissingExtraError, NotFoundError
from plantml.metrics import bootstrap
from plantml.registry import ledger
from plantml.registry.version_files import inspect
from plantml.retrain import data_steps
from plantml.retrain.round_context import Result, Work
from plantml.validate import prediction_cache, prediction_tables, predictions, selection
from plantml.validate import validate as validation
from plantml.validate.config import ValidateConfig
from plantml.validate.gates import told

CHALLENGER, IN_SERVICE = "challenger", "production"
"""Names of the two models in results and folders."""

PROMOTE, REFUSE = "promote", "refuse"
_SLACK = 1e-9


def production(work: Work) -> Result:
    """The version in service, with its number and digest, so that the rest of the round speaks of one model."""
    entry = ledger.Acts(work.config.model).ledger().current(work.config.alias)
    if entry is None:
        return {"number": 0, "url": "", "digest": ""}
    inspect(entry.url, work.machine.cache())  # hours of training would be for nothing if it is damaged
    return {"number": entry.number, "url": entry.url, "digest": entry.digest}


def train(work: Work) -> Result:
    """Train the challenger; what was begun goes on."""
    if find_spec("pytorch_lightning") is None:
        raise MissingExtraError("The challenger cannot be trained", "training is not installed", extra="train")
    from plantml.train import train as training  # torch is needed here, and in no other step

    config = work.config.train
    if work.config.start == "warm" and work.model:
        config = config.model_copy(update={"warm_start": work.result("production")["url"]})
    done = training.train(
        work.result("split")["dataset"],
        work.round.place(CHALLENGER),
        config,
        machine=work.machine,
        stop=work.stop,
        listener=training.Listener(work.say, work.progress),
    )
    assert done is not None  # one process only, see `consistency.check`
    scores = {name: value for name, value in done.scores.items() if "[" not in name}
    return {"run": done.run, "bundle": done.bundle.url, "digest": done.bundle.digest, "val": scores}


def models(work: Work) -> dict[str, str]:
    """The models to judge by name, the challenger first."""
    found = {CHALLENGER: str(work.result("train")["bundle"])}
    if work.model:
        found[IN_SERVICE] = str(work.result("production")["url"])
    return found


def predict(work: Work) -> Result:
    """Answers of both for all test photos, as CSV and Parquet."""
    made = {}
    for name, url in models(work).items():
        pipeline = work.pipeline(url)
        model = prediction_cache.identity(pipeline.bundle, pipeline.runtime.name, "cpu")
        known = prediction_cache.Kept.open(work.machine.cache_dir, model, "photos", fresh=False)
        selected = selection.select([work.result("split")["dataset"]], [pipeline.bundle.contract.targets], _asked(url))
        said = predictions.predict(pipeline, selected.rows, known, work.stop, work.progress(f"predicting, {name}"))
        files = prediction_tables.files("predictions", prediction_tables.predictions(selected, said))
        out = work.round.place("predictions", name)
        storage.publish(out, files)
        failed = len(said.predictions) - len(said.answered)
        made[name] = {"model": pipeline.bundle.digest, "photos": len(said.predictions), "failed": failed,
                      "files": [storage.join(out, file) for file in files]}  # fmt: skip
    return made


def compare(work: Work) -> Result:
    """Both on all test photos, on the frozen and on the recent ones: paired, over groups, class by class."""
    both, gates = models(work), work.config.gates
    machine = validation.Machine(work.machine.cache_dir, work.stop, work.progress)
    opened = {name: work.pipeline(url) for name, url in both.items()}
    drop = gates.max_drop if IN_SERVICE in both else None
    compared = {}
    for name, where in data_steps.test_sets(work).items():
        out = work.round.place("compare", name)
        asked = _asked(
            both[CHALLENGER],
            against=both.get(IN_SERVICE),
            where=where,
            out=out,
            max_failures="100%",
            seed=work.config.seed,
            # The gates are about all test photos; `choose` looks at the parts itself.
            **({"min": gates.min, "max": gates.max, "max_drop": drop} if name == "all" else {}),
        )
        found = validation.validate(
            work.result("split")["dataset"], opened[CHALLENGER], asked, machine=machine, other=opened.get(IN_SERVICE)
        )
        brief = _brief(validation.as_json(found))
        compared[name] = brief | {"out": out, "where": where, "groups": found.groups}
    return compared


def _asked(model: str, **more: Any) -> ValidateConfig:
    return ValidateConfig.model_validate({"model": model, **more})


def _brief(content: Mapping[str, Any]) -> dict[str, Any]:
    """What the choice, and a reader, need of a validation."""
    against = content["against"]
    return {
        "photos": content["photos"],
        "scores": {name: value for name, value in content["scores"].items() if "[" not in name},
        "gates": content["gates"],
        "verdict": against["verdict"] if against else "",
        "differences": against["differences"] if against else [],
        "classes": [duel for duel in against["mcnemar"] if duel["class"]] if against else [],
    }


def choose(work: Work) -> Result:
    """Promote the challenger if all gates passed, it is the better one, and no worse on any test set."""
    compared, gates = work.result("compare"), work.config.gates
    failed = [_gate_said(gate) for gate in compared["all"]["gates"] if not gate["passed"]]
    if not work.model:
        reasons = failed or ["no model is in service yet, and no gate failed"]
        return {"decision": REFUSE if failed else PROMOTE, "reasons": reasons}
    failed += [said for name in ("frozen", "recent") if (said := _worse(compared, name, gates.max_drop))]
    first = _first(compared["all"])
    if gates.sure and first and not failed and not _better(first, gates.sure):
        failed.append(f"it is not better: {_said(first)}")
    if failed:
        return {"decision": REFUSE, "reasons": failed}
    return {"decision": PROMOTE, "reasons": [_said(first) if first else "no gate failed"]}


def _worse(compared: Result, name: str, bound: float) -> str:
    """Says so if the mean over classes is too much lower on a test set; single classes have few photos there.

    A set of too few groups decides nothing by itself: its photos count among all.
    """
    first = _first(compared[name]) if name in compared else None
    if first is None or _gain(first) >= -bound - _SLACK or compared[name]["groups"] < bootstrap.FEW:
        return ""
    return f"{first['name']} on the {name} test set is {first['this']:.4f}, and {first['other']:.4f} in service"


def _first(found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The deciding difference."""
    differences: Sequence[Mapping[str, Any]] = found["differences"]
    return differences[0] if differences else None


def _gain(difference: Mapping[str, Any]) -> float:
    return float(difference["difference"])


def _better(first: Mapping[str, Any], sure: float) -> bool:
    if first["sure"] is None:  # too few groups to resample
        return _gain(first) > 0
    return float(first["sure"]) > sure


def _said(first: Mapping[str, Any]) -> str:
    sure = "" if first["sure"] is None else f", better in {first['sure']:.1%} of resamples"
    return f"{first['name']} {first['this']:.4f} against {first['other']:.4f}{sure}"


def _gate_said(gate: Mapping[str, Any]) -> str:
    name, wanted = told(gate)
    return f"{name} is {gate['value']:.4f}, {wanted} was asked for"


def register(work: Work) -> Result:
    """Add the challenger to the registry, with its evidence, and promote it if it was chosen."""
    config, chosen = work.config, work.result("choose")
    why = f"round {work.round.number} of {storage.absolute(config.work)}: {chosen['decision']}"
    evidence = {"round": work.round.url, "decision": chosen["decision"], "reasons": chosen["reasons"]}
    added = registry.add(
        work.result("train")["run"],
        config.model,
        by=work.by,
        why=why,
        evidence=evidence,
        alias=config.challenger,
        cache=work.machine.cache(),
    )
    outcome, reasons = "refused", list(chosen["reasons"])
    if chosen["decision"] == PROMOTE:
        outcome, reasons = _promote(work, added.number, why, reasons)
    dataset, aside = work.result("split")["dataset"], 0
    if outcome == "refused" and config.refused == "review":
        head = data_steps.set_aside(work)
        dataset, aside = head.ref, data_steps.count_aside(head, work)
        reasons.append(f"{aside} new photos are set aside until somebody looks at them: dataset info {dataset}")
    now = ledger.Acts(config.model).ledger().current(config.alias)
    return {"version": added.number, "digest": added.digest, "outcome": outcome, "reasons": reasons,
            "before": work.result("production")["number"], "now": now.number if now else 0, "dataset": dataset,
            "set_aside": aside}  # fmt: skip


def _promote(work: Work, number: int, why: str, reasons: list[str]) -> tuple[str, list[str]]:
    """Move the alias, unless this round did so before it was cut off, and somebody moved it on since."""
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
    try:
        events = registry.history(model)
    except NotFoundError:
        return False
    return any(
        event.content["act"] == "promote"
        and event.content["alias"] == alias
        and event.content["version"] == number
        and event.content["why"] == why
        for event in events
    )
