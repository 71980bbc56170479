"""`plantml validate`."""

from typing import TYPE_CHECKING, Annotated

import typer

from plantml.cli.arguments import Dataset
from plantml.cli.command import ConfigFile, PrintConfig, Sets, command, show_config
from plantml.cli.console import Console, Page
from plantml.errors import FailuresError, GateError, UsageError

if TYPE_CHECKING:
    from plantml.validate.run import Validated

EXAMPLES = [
    "plantml validate leaves --model runs/first",
    "plantml validate leaves@7 --model model.onnx --split all --out report",
    "plantml validate leaves --model runs/first --min macro_f1=0.85 --min 'disease.recall[rust]=0.9'",
    "plantml validate s3://bucket/leaves --model s3://bucket/runs/first --json",
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "validate", examples=EXAMPLES)(validate)


def validate(
    console: Console,
    dataset: Dataset,
    model: Annotated[str | None, typer.Option(metavar="M", help="Run, bundle or .onnx file to judge.")] = None,
    split: Annotated[str | None, typer.Option(help="train, val, test or all. [default: test]")] = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder for metrics.json, predictions and confusion matrices."),
    ] = None,
    min_: Annotated[
        list[str] | None,
        typer.Option("--min", metavar="NAME=NUMBER", help="Gate: exit code 4 if the score is lower."),
    ] = None,
    max_: Annotated[
        list[str] | None,
        typer.Option("--max", metavar="NAME=NUMBER", help="Gate: exit code 4 if the score is higher."),
    ] = None,
    max_failures: Annotated[
        str | None, typer.Option(metavar="N|N%", help="Unreadable photos that still end with exit code 0. [default: 0]")
    ] = None,
    runtime: Annotated[str | None, typer.Option(help="auto, onnxruntime or torch. [default: auto]")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, or as torch names it. [default: cpu]")] = None,
    config: ConfigFile = None,
    sets: Sets = None,
    print_config: PrintConfig = False,
) -> None:
    """Judge a model on a split, by the very code that detect runs."""
    from plantml import settings
    from plantml.predict.pipeline import Pipeline
    from plantml.runtime import open_model
    from plantml.validate import run
    from plantml.validate.run import ValidateConfig
    from plantml.work import Stop

    flags = {
        "model": model,
        "split": split,
        "out": out,
        "min": min_,
        "max": max_,
        "max_failures": max_failures,
        "runtime": runtime,
        "device": device,
    }
    resolved = settings.resolve(ValidateConfig, "validate", flags=flags, sets=sets or (), file=config)
    if print_config:
        show_config(console, resolved.lines())
        return
    chosen = resolved.value
    if chosen.model is None:
        raise UsageError("No model is named", "", "Name one: --model RUN")
    bundle, opened = open_model(
        chosen.model, runtime=chosen.runtime, device=chosen.device, cache=console.machine.cache()
    )
    pipeline = Pipeline(bundle, opened, threads=console.machine.threads, batch=chosen.batch)
    with Stop() as stop:
        found = run.validate(dataset, pipeline, chosen, stop=stop, progress=console.progress("validating"))
    console.result("validate", run.as_json(found), lambda page: _show(page, found))
    if not found.passed:
        failed = [gate for gate in found.gates if not gate.passed]
        raise GateError(f"{len(failed)} of {len(found.gates)} gates failed", "; ".join(str(gate) for gate in failed))
    if len(found.failed) > found.allowed:
        raise FailuresError(
            f"{len(found.failed)} of {found.photos} photos gave no answer, {found.allowed} were allowed",
            "the scores are those of the others",
            "Mend or exclude them; --max-failures allows more.",
        )


def _show(page: Page, found: "Validated") -> None:
    from plantml.metrics import ValueReport

    page.line(f"{found.dataset}, split {found.split}: {found.photos} photos, model {found.model[:12]}", style="bold")
    names = list(dict.fromkeys(name for report in found.reports for name in report.scores))
    page.table(
        ("target", "photos", *names),
        [[report.target, report.photos, *(report.scores.get(name) for name in names)] for report in found.reports],
    )
    for report in found.reports:
        if not isinstance(report, ValueReport):
            page.table(
                (report.target, "precision", "recall", "f1", "photos"),
                [[name, *row.values()] for name, row in report.per_class.items()],
            )
    page.line("Decisions: " + ", ".join(f"{name} {number}" for name, number in found.decisions.items()))
    for name, reason in found.failed[:10]:
        page.line(f"No answer: {name} ({reason})")
    for gate in found.gates:
        page.line(str(gate))
    if found.out:
        page.line(f"Written: {found.out}")
