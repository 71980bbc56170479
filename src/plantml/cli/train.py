"""`plantml train`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from plantml.cli.arguments import Dataset
from plantml.cli.command import command
from plantml.cli.console import Console, Page, count
from plantml.errors import UsageError
from plantml.settings import Resolved
from plantml.train.config import TrainConfig

if TYPE_CHECKING:
    from plantml.train.crossvalidation import CrossValidationResult
    from plantml.train.network_training import TrainingResult
    from plantml.train.plan import Plan


@command(
    "plantml train leaves --out runs/first",
    "plantml train leaves@7 --out runs/big --backbone resnet50 --epochs 20",
    "plantml train leaves --out s3://bucket/runs/first --targets disease --config configs/train.yaml",
    "plantml train leaves --out runs/night --preset best --budget 8h",
    "plantml train leaves --out runs/lab --where 'source == \"lab\"' --dry-run",
    "plantml train leaves@9 --out runs/second --from runs/first",
    "plantml train fields --out runs/fields --tile 1024   # boxes in large photos",
    "plantml train leaves --out runs/more --unlabelled season   # photos that nobody has labelled",
    "plantml train trays --out runs/more --from runs/few --unlabelled season   # boxes in such photos",
    "plantml train leaves --out runs/folds --folds 5 --preset quick",
    config=TrainConfig,
)
def train(
    console: Console,
    resolved: Resolved[TrainConfig],
    dataset: Dataset,
    out: Annotated[str, typer.Option(metavar="RUN", help="Folder of the run.")] = "run",
    fresh: Annotated[bool, typer.Option("--fresh", help="Replace the run at --out.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, its reasons and the expected time, then exit.")
    ] = False,
) -> None:
    """Train a model on a dataset with splits.

    Writes RUN/bundle (the model), plots, history and metrics. Repeat an interrupted command to resume it; a finished
    run is left as it is.
    """
    from plantml.extras import need_train

    need_train()
    config = resolved.value
    if config.folds and config.devices * config.nodes > 1:
        raise UsageError("--folds trains on one device", "", "Remove --devices and --nodes.")
    from plantml.train import selection

    version = selection.load_checked(dataset, config, out, console.warn)
    # Every early check is done: these imports take seconds.
    from plantml.concurrency import Stop
    from plantml.train import crossvalidation
    from plantml.train import train as library

    if dry_run:
        one = config.model_copy(update={"fold": 1}) if config.folds else config  # all folds are planned alike
        plan = library.first_plan(selection.select(version, one), one, console.machine)
        models = max(1, config.folds)
        content = {"plan": plan.model_dump(mode="json"), "models": models}
        console.result(content, lambda page: _show_plan(page, plan, models))
        return
    options: dict[str, Any] = {
        "machine": console.machine,
        "fresh": fresh,
        "config_lines": resolved.lines(),
        "listener": console.listener,
    }
    with Stop() as stop:
        if config.folds:
            folded = crossvalidation.cross_validate(version, out, config, stop=stop, **options)
            content = {"run": folded.out, "folds": folded.scores, "mean": folded.mean, "spread": folded.spread}
            console.result(content, lambda page: _show_folds(page, folded))
            return
        result = library.train(version, out, config, stop=stop, **options)
    if result is not None:  # else another process has the result
        console.result(_as_json(result), lambda page: _show(page, result))


def _as_json(result: "TrainingResult") -> dict[str, Any]:
    return {
        "run": result.run,
        "bundle": result.bundle.url,
        "model": result.bundle.digest,
        "changed": result.changed,
        "resumed": result.resumed,
        "seconds": round(result.seconds, 1),
        "validation": dict(result.scores),
    }


def _show_plan(page: Page, plan: "Plan", models: int) -> None:
    from plantml.train import plan as plans

    values: dict[str, Any] = {
        "dataset": f"{plan.dataset}@{plan.dataset_version}",
        "targets": ", ".join(
            f"{target.name} ({count(len(target.classes), 'class', 'classes')})"
            if target.classes
            else f"{target.name} ({target.unit})"
            for target in plan.targets
        )
        or ("those of the boxes, in stage 2" if plan.task == "tray" else "where plants are, and nothing else"),
        "photos": f"{plan.train_photos} to train on, {plan.val_photos} to validate on",
        "size": f"{plan.input.height} x {plan.input.width}",
        "fit": plan.input.mode,
        "withheld": "; ".join(map(str, plan.withheld)),
    }
    hidden = {"dataset", "dataset_version", "fingerprint", "asked", "reasons", "targets", "train_photos", "val_photos",
              "input", "withheld", "class_weights", "class_logits", "step_seconds", "seconds", "other_seconds",
              "versions"}  # fmt: skip
    if not plan.unlabelled:
        hidden |= {"pseudo_threshold", "unlabelled_photos"}
    others = plan.model_dump(mode="json", exclude=hidden)
    others["unlabelled_left_out"] = ", ".join(f"{number} {why}" for why, number in plan.unlabelled_left_out.items())
    values |= others
    values = {key: value for key, value in values.items() if value or value == 0}
    unused = plans.NOT_IN_A_PROBE if plan.mode == "probe" else plans.ONLY_IN_A_PROBE
    values = {key: value for key, value in values.items() if key not in unused}
    anomaly = values.pop("anomaly")
    if plan.task == "anomaly":
        values = {key: value for key, value in values.items() if key in plans.IN_ANOMALIES}
        values |= {key: anomaly[key] for key in ("levels", "cells")}
    else:
        values.pop("false_alarms")
    changed = plans.non_defaults(plan.asked)
    origins = {key: "setting" if key in changed else "default" for key in plan.asked if key in values}
    origins["epoch_photos"] = "all photos"
    rows = [[key, str(value), plan.reasons.get(key, origins.get(key, ""))] for key, value in values.items()]
    page.table(("plan", "", "reason"), rows)
    minutes, seconds = divmod(round(models * plan.seconds), 60)
    step = "" if plan.mode == "probe" else f", {plan.step_seconds:.2f} s per step"
    basis = f"for {models} models" if models > 1 else f"as measured{step}"
    stage = " of stage 1, finding plants" if plan.task == "tray" else ""
    page.line(f"Expected time{stage}: {minutes} min {seconds} s, {basis}.", style="bold")
    if plan.task == "tray":
        page.line("Stage 2, judging a crop of each, is planned when the crops are cut.")
    if plan.shortfall:
        page.line(plan.shortfall, style="yellow")


def _show_folds(page: Page, result: "CrossValidationResult") -> None:
    rows = [
        [name, result.mean[name], result.spread[name], "  ".join(f"{score:.3f}" for score in scores)]
        for name, scores in result.scores.items()
        if "." in name
    ]
    page.table(("validation of each fold", "mean", "spread", "folds"), rows)
    page.line(f"Runs: {result.out}/fold-1 and so on. Without --folds, one model is trained on the dataset's split.")


def _show(page: Page, result: "TrainingResult") -> None:
    if not result.changed:
        page.line(f"Nothing to do: {result.run} is finished.")
    page.line(f"Model {result.bundle.digest[:12]} in {result.bundle.url}", style="bold")
    rows = [[name, value] for name, value in result.scores.items() if "." in name]
    page.table(("validation split", "metric"), rows)
    page.line(f"Plots: {' and '.join(result.plots)}")
    page.next(f"plantml validate {result.plan.dataset} --model {result.run}")
