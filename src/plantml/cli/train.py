"""`plantml train`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from plantml.cli.arguments import Dataset
from plantml.cli.command import ConfigFile, PrintConfig, Sets, command, show_config
from plantml.cli.console import Console, Page
from plantml.errors import UsageError

if TYPE_CHECKING:
    from plantml.train.config import Plan
    from plantml.train.crossvalidation import CrossValidationResult
    from plantml.train.train import TrainingResult

EXAMPLES = [
    "plantml train leaves --out runs/first",
    "plantml train leaves@7 --out runs/big --backbone resnet50 --epochs 20",
    "plantml train leaves --out s3://bucket/runs/first --targets disease --config configs/train.yaml",
    "plantml train leaves --out runs/night --preset best --budget 8h",
    "plantml train leaves --out runs/lab --where 'source == \"lab\"' --dry-run",
    "plantml train leaves@9 --out runs/second --from runs/first",
    "plantml train leaves --out runs/folds --folds 5 --preset quick",
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "train", examples=EXAMPLES)(train)


def train(
    console: Console,
    dataset: Dataset,
    out: Annotated[str, typer.Option(metavar="RUN", help="URL of the run's folder.")] = "run",
    preset: Annotated[
        str | None,
        typer.Option(help="quick (heads on a frozen backbone), balanced, or best. [default: balanced]"),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="Wall-clock time to plan for and to keep to, like 20m or 8h.")
    ] = None,
    targets: Annotated[str | None, typer.Option(metavar="A,B", help="Targets to predict; all if not given.")] = None,
    where: Annotated[
        str | None, typer.Option(metavar="CONDITION", help="Only photos for which this holds, by columns.")
    ] = None,
    warm_start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="BUNDLE",
            help="Start from its weights (a run, a bundle, REGISTRY/NAME@ALIAS); classes are joined by name.",
        ),
    ] = None,
    folds: Annotated[
        int | None, typer.Option(metavar="N", min=2, help="Cross-validate with N models instead of making one.")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="A timm model. [default: tf_efficientnet_lite0]")] = None,
    size: Annotated[int | None, typer.Option(help="Height and width of the input, pixels. [default: auto]")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the photos. [default: auto, by their number]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Photos a step. [default: auto]")] = None,
    target_risk: Annotated[
        float | None, typer.Option(help="Share of wrong answers among accepted ones. [default: 0.05]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of every random choice. [default: 0]")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps or auto. [default: auto]")] = None,
    devices: Annotated[int | None, typer.Option(help="GPUs, or processes, a machine. [default: 1]")] = None,
    nodes: Annotated[int | None, typer.Option(help="Machines. [default: 1]")] = None,
    strategy: Annotated[str | None, typer.Option(help="Of Lightning for several devices, like ddp.")] = None,
    checkpoint_every: Annotated[
        str | None, typer.Option(metavar="TIME", help="Longest time between checkpoints. [default: 5m, or an epoch]")
    ] = None,
    logger: Annotated[str | None, typer.Option(metavar="A,B", help="tensorboard, mlflow, or both.")] = None,
    tracking_uri: Annotated[str | None, typer.Option(metavar="URI", help="MLflow's store.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over if there is a run at --out.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan with its reasons and the expected time, and stop.")
    ] = False,
    config: ConfigFile = None,
    sets: Sets = None,
    print_config: PrintConfig = False,
) -> None:
    """Train a model on a dataset with splits.

    Writes RUN/bundle (the model), plots, history and metrics. Interrupted or killed, the same command goes
    on; finished, it does nothing.
    """
    from plantml.cli.extras import need_train

    need_train()
    from plantml import settings
    from plantml.train.config import TrainConfig

    flags = {
        "preset": preset,
        "budget": budget,
        "where": where,
        "targets": _listed(targets),
        "warm_start": warm_start,
        "folds": folds,
        "backbone": backbone,
        "size": size,
        "epochs": epochs,
        "batch_size": batch_size,
        "target_risk": target_risk,
        "seed": seed,
        "device": device,
        "devices": devices,
        "nodes": nodes,
        "strategy": strategy,
        "checkpoint_every": checkpoint_every,
        "logger": _listed(logger),
        "tracking_uri": tracking_uri,
    }
    resolved = settings.resolve(TrainConfig, "train", flags=flags, sets=sets or (), file=config)
    if print_config:
        show_config(console, resolved.lines())
        return
    if resolved.value.folds and resolved.value.devices * resolved.value.nodes > 1:
        raise UsageError("--folds trains on one device", "", "Leave --devices and --nodes away.")
    from plantml.train import selection

    version = selection.load_checked(dataset, resolved.value, out)
    # All that can be told at once is told: these imports take seconds.
    from plantml.concurrency import Stop
    from plantml.train import crossvalidation
    from plantml.train import train as run
    from plantml.train.session import Listener

    if dry_run:
        asked = resolved.value
        one = asked.model_copy(update={"fold": 1}) if asked.folds else asked  # all folds are planned alike
        plan = run.make_plan(selection.select(version, one), one, console.machine)
        shown = {"plan": plan.model_dump(mode="json"), "models": max(1, asked.folds)}
        console.result("train", shown, lambda page: _show_plan(page, plan, max(1, asked.folds)))
        return
    listener = Listener(console.say, console.progress)
    call: dict[str, Any] = {
        "machine": console.machine,
        "fresh": fresh,
        "config_lines": resolved.lines(),
        "listener": listener,
    }
    with Stop() as stop:
        if resolved.value.folds:
            folded = crossvalidation.cross_validate(version, out, resolved.value, stop=stop, **call)
            content = {"run": folded.out, "folds": folded.scores, "mean": folded.mean, "spread": folded.spread}
            console.result("train", content, lambda page: _show_folds(page, folded))
            return
        done = run.train(version, out, resolved.value, stop=stop, **call)
    if done is None:
        return  # another process has the result
    made: dict[str, Any] = {
        "run": done.run,
        "bundle": done.bundle.url,
        "model": done.bundle.digest,
        "changed": done.changed,
        "resumed": done.resumed,
        "seconds": round(done.seconds, 1),
        "validation": dict(done.scores),
    }
    console.result("train", made, lambda page: _show(page, done))


def _listed(text: str | None) -> list[str] | None:
    return [name.strip() for name in text.split(",")] if text else None


def _show_plan(page: Page, plan: "Plan", models: int) -> None:
    from plantml.train import config as recipe

    shown: dict[str, Any] = {
        "dataset": f"{plan.dataset}@{plan.dataset_version}",
        "targets": ", ".join(
            f"{target.name} ({len(target.classes)} classes)" if target.classes else f"{target.name} ({target.unit})"
            for target in plan.targets
        ),
        "photos": f"{plan.train_photos} to learn from, {plan.val_photos} to judge by",
        "size": f"{plan.input.height} x {plan.input.width}",
        "fit": plan.input.mode,
    }
    skipped = {"dataset", "dataset_version", "fingerprint", "asked", "reasons", "targets", "train_photos", "val_photos",
               "input", "class_weights", "class_logits", "step_seconds", "seconds", "other_seconds",
               "versions"}  # fmt: skip
    others = plan.model_dump(mode="json", exclude=skipped)
    shown |= {key: value for key, value in others.items() if value or value == 0}
    unused = recipe.NOT_IN_A_PROBE if plan.mode == "probe" else recipe.ONLY_IN_A_PROBE
    shown = {key: value for key, value in shown.items() if key not in unused}
    asked = recipe.chosen(plan.asked)
    why = {key: "as asked" if key in asked else "the default" for key in plan.asked if key in shown}
    why["epoch_photos"] = "all of them"
    rows = [[key, str(value), plan.reasons.get(key, why.get(key, ""))] for key, value in shown.items()]
    page.table(("plan", "", "why"), rows)
    minutes, seconds = divmod(round(models * plan.seconds), 60)
    step = "" if plan.mode == "probe" else f", {plan.step_seconds:.2f} s a step"
    what = f"for {models} models" if models > 1 else f"as measured{step}"
    page.line(f"Expected time: {minutes} min {seconds} s, {what}.", style="bold")
    if plan.shortfall:
        page.line(plan.shortfall, style="yellow")


def _show_folds(page: Page, done: "CrossValidationResult") -> None:
    rows = [
        [name, done.mean[name], done.spread[name], "  ".join(f"{score:.3f}" for score in found)]
        for name, found in done.scores.items()
        if "." in name
    ]
    page.table(("validation of each fold", "mean", "spread", "folds"), rows)
    page.line(f"Runs: {done.out}/fold-1 and so on. Without --folds one model is made, on the dataset's own split.")


def _show(page: Page, done: "TrainingResult") -> None:
    if not done.changed:
        page.line(f"Nothing to do: {done.run} is finished.")
    page.line(f"Model {done.bundle.digest[:12]} in {done.bundle.url}", style="bold")
    rows = [[name, value] for name, value in done.scores.items() if "." in name]
    page.table(("validation split", "score"), rows)
    page.line(f"Pictures: {done.run}/plots")
    page.next(f"plantml validate {done.plan.dataset} --model {done.run}")
