"""`plantml validate`."""

from typing import TYPE_CHECKING, Annotated

import typer

from plantml.cli.command import ConfigFile, PrintConfig, Sets, command, show_config
from plantml.cli.console import Console, Page
from plantml.errors import FailuresError, GateError, UsageError

if TYPE_CHECKING:
    from plantml.metrics import Interval
    from plantml.model.pipeline import Pipeline
    from plantml.validate.config import ValidateConfig
    from plantml.validate.results import ValidationResult

EXAMPLES = [
    "plantml validate leaves --model runs/first",
    "plantml validate leaves --model runs/first --report report.html --robustness",
    "plantml validate leaves@7 --model model.onnx --split all --out validation",
    "plantml validate leaves --model runs/first --min macro_f1=0.85 --min 'disease.recall[rust]=0.9'",
    "plantml validate leaves --model runs/new --against runs/old --max-drop 0.01 --junit gates.xml",
    "plantml validate field lab --model runs/first --where 'camera == \"Nokia\"' --shared-classes",
    "plantml validate s3://bucket/leaves --model s3://bucket/runs/first --json",
]

_WORST = 8


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "validate", examples=EXAMPLES)(validate)


def validate(
    console: Console,
    datasets: Annotated[
        list[str], typer.Argument(metavar="DATASET...", help="URLs of datasets; @N or @TAG for a version.")
    ],
    model: Annotated[
        str | None, typer.Option(metavar="M", help="Run, bundle, exported file or REGISTRY/NAME@N to judge.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="M", help="Another model to compare with, on the same photos.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="train, val, test or all. [default: test]")] = None,
    where: Annotated[
        str | None, typer.Option(metavar="CONDITION", help="Only photos for which this holds, by columns.")
    ] = None,
    map_: Annotated[
        str | None,
        typer.Option("--map", metavar="FILE", help="CSV that renames the dataset's classes: [target,]from,to."),
    ] = None,
    shared_classes: Annotated[
        bool | None, typer.Option("--shared-classes", help="Leave out photos whose class the model does not know.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder for metrics.json, predictions and charts.")
    ] = None,
    report: Annotated[str | None, typer.Option(metavar="FILE", help="Write a report, one HTML file.")] = None,
    markdown: Annotated[str | None, typer.Option(metavar="FILE", help="Write a summary in Markdown.")] = None,
    junit: Annotated[str | None, typer.Option(metavar="FILE", help="Write the gates as JUnit XML.")] = None,
    review: Annotated[
        int | None,
        typer.Option(metavar="N", help="Write what to label next to OUT/review, as tasks for Label Studio."),
    ] = None,
    robustness: Annotated[
        bool | None, typer.Option("--robustness", help="Judge on blurred, noisy, dark… photos too.")
    ] = None,
    min_: Annotated[
        list[str] | None,
        typer.Option("--min", metavar="NAME=NUMBER", help="Gate: exit code 4 if the score is lower."),
    ] = None,
    max_: Annotated[
        list[str] | None,
        typer.Option("--max", metavar="NAME=NUMBER", help="Gate: exit code 4 if the score is higher."),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER",
            help="Gate: exit code 4 if macro-F1, or a class's F1, is lower than the other model's by more.",
        ),
    ] = None,
    max_failures: Annotated[
        str | None, typer.Option(metavar="N|N%", help="Unreadable photos that still end with exit code 0. [default: 0]")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Images a call of the model. [default: 8]")] = None,
    runtime: Annotated[str | None, typer.Option(help="auto, onnxruntime, torch, openvino. [default: auto]")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, or as torch names it. [default: cpu]")] = None,
    fresh: Annotated[
        bool | None, typer.Option("--fresh", help="Predict again what an earlier validation predicted.")
    ] = None,
    config: ConfigFile = None,
    sets: Sets = None,
    print_config: PrintConfig = False,
) -> None:
    """Judge a model on a split, by the very code that detect runs.

    Every score has a 95 % interval, from a bootstrap over groups of photos. A validation that was interrupted
    or killed goes on where it was.
    """
    from plantml import settings
    from plantml.concurrency import Stop
    from plantml.validate import results
    from plantml.validate import validate as run
    from plantml.validate.config import ValidateConfig

    flags = {
        "model": model,
        "against": against,
        "split": split,
        "where": where,
        "map": map_,
        "shared_classes": shared_classes,
        "out": out,
        "report": report,
        "markdown": markdown,
        "junit": junit,
        "review": review,
        "robustness": robustness,
        "min": min_,
        "max": max_,
        "max_drop": max_drop,
        "max_failures": max_failures,
        "batch": batch,
        "runtime": runtime,
        "device": device,
        "fresh": fresh,
    }
    resolved = settings.resolve(ValidateConfig, "validate", flags=flags, sets=sets or (), file=config)
    if print_config:
        show_config(console, resolved.lines())
        return
    chosen = resolved.value
    if chosen.model is None:
        raise UsageError("No model is named", "", "Name one: --model RUN")
    pipeline = _open(console, chosen.model, chosen)
    other = _open(console, chosen.against, chosen) if chosen.against else None
    with Stop() as stop:
        machine = run.Machine(console.machine.cache_dir, stop, console.progress)
        found = run.validate(datasets, pipeline, chosen, machine=machine, other=other)
    console.result("validate", results.as_json(found), lambda page: _show(page, found))
    if not found.passed:
        failed = [gate for gate in found.gates if not gate.passed]
        raise GateError(f"{len(failed)} of {len(found.gates)} gates failed", "; ".join(str(gate) for gate in failed))
    if len(found.failed) > found.allowed:
        raise FailuresError(
            f"{len(found.failed)} of {found.photos} photos gave no answer, {found.allowed} were allowed",
            "the scores are those of the others",
            "Mend or exclude them; --max-failures allows more.",
        )


def _open(console: Console, ref: str, chosen: "ValidateConfig") -> "Pipeline":
    from plantml.model.pipeline import Pipeline
    from plantml.registry.references import open_model

    bundle, opened = open_model(ref, runtime=chosen.runtime, device=chosen.device, cache=console.machine.cache())
    return Pipeline(bundle, opened, threads=console.machine.threads, batch=chosen.batch)


def _show(page: Page, found: "ValidationResult") -> None:
    from plantml.metrics import ValueReport

    page.line(f"{found.dataset}, split {found.split}: {found.photos} photos, model {found.model[:12]}", style="bold")
    scores = [[name, value, _around(found.intervals.get(name))] for name, value in found.scores.items()]
    page.table(("score", "number", f"95 % interval, {found.groups} groups"), scores)
    for report in found.reports:
        if not isinstance(report, ValueReport):
            head = [name for name in next(iter(report.per_class.values()), {}) if name != "support"]
            rows = []
            for name, row in report.per_class.items():
                around = _around(found.intervals.get(f"{report.target}.f1[{name}]"))
                rows.append([name, *(row[score] for score in head), around, row["support"]])
            page.table((report.target, *head, "f1, 95 %", "photos"), rows)
    _show_slices(page, found)
    _show_comparison(page, found)
    page.line("Decisions: " + ", ".join(f"{name} {number}" for name, number in found.decisions.items()))
    for target, number in found.left_out.items():
        page.line(f"Left out: {number} photos whose {target} a model does not know")
    for name, reason in found.failed[:10]:
        page.line(f"No answer: {name} ({reason})")
    for gate in found.gates:
        page.line(str(gate))
    for url in [*found.written, *([found.out] if found.out else [])]:
        page.line(f"Written: {url}")
    if found.review:
        page.line(f"To label next: {found.review} photos in {found.out}/review")


def _show_slices(page: Page, found: "ValidationResult") -> None:
    worst = [each for each in found.slices if each.gap > 0][:_WORST]
    if worst:
        rows = [
            [f"{each.by}: {each.value}", each.target, each.number, _around(each.interval), each.rest, each.photos]
            for each in worst
        ]
        page.table(("worst slices", "target", "score", "95 % interval", "others", "photos"), rows)
    if found.leaks and found.leaks.leaked:
        first = next(iter(found.leaks.clean.items()), None)
        without = f"; without them {first[0]} is {first[1]:.4f}" if first else "; no photo is left without"
        page.line(
            f"{found.leaks.leaked} of {found.leaks.photos} photos are near-duplicates of training photos{without}"
        )
    if found.robustness:
        rows = [[name, *scores] for name, scores in found.robustness.scores.items()]
        page.table((f"{found.robustness.score} under", "none", "mild", "strong"), rows)


def _show_comparison(page: Page, found: "ValidationResult") -> None:
    from plantml.validate.compare import percent

    against = found.comparison
    if against is None:
        return
    page.table(
        (f"against {against.ref}", "other", "this", "difference", "95 % interval", "sure", "this is"),
        [
            [each.name, each.other, each.value, f"{each.difference:+.4f}", _around(each.interval),
             "" if each.probability is None else percent(max(each.probability, 1 - each.probability)), each.verdict]
            for each in against.differences
        ],
    )  # fmt: skip
    page.table(
        ("target", "class", "photos", "only this right", "only the other right", "McNemar's p"),
        [
            [duel.target, duel.label or "all", duel.paired.photos, duel.paired.wins, duel.paired.losses, duel.paired.p]
            for duel in against.duels
        ],
    )
    page.line(f"{len(against.changed)} photos are answered differently")
    page.line(against.verdict, style="bold")


def _around(interval: "Interval | None") -> str:
    return f"{interval.low:.4f} – {interval.high:.4f}" if interval else ""
