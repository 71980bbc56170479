"""`plantml train`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from plantml.cli.arguments import Dataset
from plantml.cli.command import ConfigFile, PrintConfig, Sets, command, show_config
from plantml.cli.console import Console, Page

if TYPE_CHECKING:
    from plantml.train.run import Trained

EXAMPLES = [
    "plantml train leaves --out runs/first",
    "plantml train leaves@7 --out runs/big --backbone resnet50 --epochs 20",
    "plantml train leaves --out s3://bucket/runs/first --targets disease --config configs/train.yaml",
    "plantml train leaves --out runs/look --preset quick",
    "plantml train leaves --out runs/lab --where 'source == \"lab\"' --dry-run",
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
    targets: Annotated[str | None, typer.Option(metavar="A,B", help="Targets to predict; all if not given.")] = None,
    where: Annotated[
        str | None, typer.Option(metavar="CONDITION", help="Only photos for which this holds, by columns.")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="A timm model. [default: tf_efficientnet_lite0]")] = None,
    size: Annotated[int | None, typer.Option(help="Height and width of the input, pixels. [default: auto]")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the photos. [default: auto, by their number]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Photos a step. [default: auto]")] = None,
    seed: Annotated[int | None, typer.Option(help="Of every random choice. [default: 0]")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps or auto. [default: auto]")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over if there is a run at --out.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
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
    from plantml.train import recipe, run
    from plantml.train.recipe import TrainConfig
    from plantml.work import Stop

    flags = {
        "preset": preset,
        "where": where,
        "targets": [name.strip() for name in targets.split(",")] if targets else None,
        "backbone": backbone,
        "size": size,
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": seed,
        "device": device,
    }
    resolved = settings.resolve(TrainConfig, "train", flags=flags, sets=sets or (), file=config)
    if print_config:
        show_config(console, resolved.lines())
        return
    if dry_run:
        _, plan = run.make_plan(dataset, resolved.value, console.machine)
        content, why = plan.model_dump(mode="json"), recipe.reasons(resolved.value, plan)
        console.result("train", {"plan": content, "reasons": why}, lambda page: _show_plan(page, content, why))
        return
    listener = run.Listener(console.say, console.progress)
    with Stop() as stop:
        done = run.train(
            dataset, out, resolved.value, machine=console.machine, fresh=fresh, stop=stop, listener=listener
        )
    content = {
        "run": done.run,
        "bundle": done.bundle.url,
        "model": done.bundle.digest,
        "changed": done.changed,
        "resumed": done.resumed,
        "seconds": round(done.seconds, 1),
        "validation": dict(done.scores),
    }
    console.result("train", content, lambda page: _show(page, done))


def _show_plan(page: Page, plan: dict[str, Any], why: dict[str, str]) -> None:
    for key, value in plan.items():
        shown = value
        if key == "targets":
            shown = ", ".join(
                f"{target['name']} ({target['kind']}, {len(target['classes'])} classes)" for target in value
            )
        page.line(f"{key}: {shown}" + (f"   # {why[key]}" if key in why else ""))


def _show(page: Page, done: "Trained") -> None:
    if not done.changed:
        page.line(f"Nothing to do: {done.run} is finished.")
    page.line(f"Model {done.bundle.digest[:12]} in {done.bundle.url}", style="bold")
    rows = [[name, value] for name, value in done.scores.items() if "." in name]
    page.table(("validation split", "score"), rows)
    page.line(f"Pictures: {done.run}/plots")
    page.line(f"Next: plantml validate {done.plan.dataset} --model {done.run}")
