"""`plantml validate`."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from plantml.cli.command import command
from plantml.cli.console import Console, Page, count
from plantml.errors import FailuresError, GateError, UsageError
from plantml.settings import Resolved
from plantml.validate.config import ValidateConfig

if TYPE_CHECKING:
    from plantml.concurrency import Stop
    from plantml.metrics import Interval
    from plantml.model.pipeline import Pipeline
    from plantml.validate.predictions import Fill
    from plantml.validate.results import ValidationResult

_WORST = 8


@command(
    "plantml validate leaves --model runs/first",
    "plantml validate leaves --model runs/first --report report.html --robustness",
    "plantml validate leaves@7 --model model.onnx --split all --out validation",
    "plantml validate leaves --model runs/first --min macro_f1=0.85 --min 'disease.recall[rust]=0.9'",
    "plantml validate leaves --model runs/new --against runs/old --max-drop 0.01 --junit gates.xml",
    "plantml validate trays --model runs/boxes --min boxes.ap50=0.8 --max boxes.count_mae=0.5 --report report.html",
    "plantml validate field lab --model runs/first --where 'camera == \"Nokia\"' --shared-classes",
    "plantml validate s3://bucket/leaves --model s3://bucket/runs/first --json",
    "plantml validate s3://bucket/leaves --model s3://bucket/runs/first --on ray",
    config=ValidateConfig,
)
def validate(
    console: Console,
    resolved: Resolved[ValidateConfig],
    datasets: Annotated[
        list[str], typer.Argument(metavar="DATASET", help="URLs of datasets; append @N or @TAG for a version.")
    ],
) -> None:
    """Validate a model on a split, with the same code as detect.

    Every metric has a 95 % interval, by bootstrap over groups of photos. Repeat an interrupted command to resume it.
    """
    from plantml.concurrency import Stop
    from plantml.validate import predictions, results
    from plantml.validate import validate as library

    config = resolved.value
    if config.model is None:
        raise UsageError("No model is given", "", "Choose one: --model RUN")
    pipeline = _open(console, config.model, config)
    other = _open(console, config.against, config) if config.against else None
    with Stop() as stop:
        machine = predictions.Machine(console.machine, stop, console.progress)
        if config.engine is not None:
            machine = replace(machine, fill=_filler(console, config.engine, datasets[0], config, stop))
        result = library.validate(datasets, pipeline, config, machine=machine, other=other)
    console.result(results.as_json(result), lambda page: _show(page, result))
    if not result.passed:
        failed = [gate for gate in result.gates if not gate.passed]
        raise GateError(
            f"{len(failed)} of {len(result.gates)} gates failed",
            "; ".join(str(gate) for gate in failed),
            "Look at the report of --out, improve the model or its data, or change the gates.",
        )
    if len(result.failed) > result.allowed:
        raise FailuresError(
            f"{len(result.failed)} of {result.photos} photos failed, but only {result.allowed} are tolerated",
            "the metrics are those of the other photos",
            "Repair or exclude them, or raise --max-failures.",
        )


def _filler(console: Console, name: str, dataset: str, config: ValidateConfig, stop: "Stop") -> "Fill":
    from plantml.data import versions
    from plantml.engines import opening, validation

    engine = opening.open_engine(name, console.machine)
    url, _ = versions.parse_reference(dataset)
    return validation.filler(engine, url, config, machine=console.machine, stop=stop, listener=console.listener)


def _open(console: Console, ref: str, config: ValidateConfig) -> "Pipeline":
    from plantml.registry.references import open_pipeline

    return open_pipeline(
        ref,
        runtime=config.runtime,
        device=config.device,
        cache=console.machine.cache(),
        tile=config.tile,
        threads=console.machine.threads,
        batch=config.batch,
        speed=config.speed,
        machine=console.machine,
    )


def _show(page: Page, result: "ValidationResult") -> None:
    from plantml.metrics import ValueReport

    page.line(
        f"{result.dataset}, split {result.split}: {result.photos} photos, model {result.model[:12]}", style="bold"
    )
    scores = [[name, value, _interval(result.intervals.get(name))] for name, value in result.scores.items()]
    page.table(("metric", "value", f"95 % interval, {count(result.groups, 'group')}"), scores)
    for report in result.reports:
        if not isinstance(report, ValueReport):
            head = [name for name in next(iter(report.per_class.values()), {}) if name != "support"]
            rows = []
            for name, row in report.per_class.items():
                around = _interval(result.intervals.get(f"{report.target}.f1[{name}]"))
                rows.append([name, *(row[score] for score in head), around, row["support"]])
            title = f"{report.target} of matched boxes" if result.detections else report.target
            page.table((title, *head, "f1, 95 %", result.unit), rows)
    _show_boxes(page, result)
    _show_anomalies(page, result)
    _show_slices(page, result)
    _show_comparison(page, result)
    page.line("Decisions: " + ", ".join(f"{name} {number}" for name, number in result.decisions.items()))
    for target, number in result.left_out.items():
        page.line(f"Left out: {number} {result.unit} with a {target} that a model does not know")
    if result.unannotated:
        page.line(f"Left out: {result.unannotated} photos without annotated boxes")
    if result.without_photo:
        page.line(f"Left out: {count(result.without_photo, 'row')} without a photo")
    for name, reason in result.failed[:10]:
        page.line(f"Failed: {name} ({reason})")
    for gate in result.gates:
        page.line(str(gate))
    for url in [*result.written, *([result.out] if result.out else [])]:
        page.line(f"Written: {url}")
    if result.review:
        page.line(f"To label next: {result.review} photos in {result.out}/review")


def _show_boxes(page: Page, result: "ValidationResult") -> None:
    """The scores of each class of box."""
    scores = ("ap", "ap50", "precision", "recall", "f1", "count_bias", "count_mae")
    for target, report in result.detections.items():
        if target != "boxes":
            rows = []
            for name, row in report.per_class.items():
                around = _interval(result.intervals.get(f"boxes.{target}.ap50[{name}]"))
                numbers = [row.get(score, "") for score in scores]
                rows.append([name, *numbers[:2], around, *numbers[2:], row["support"]])
            page.table((f"boxes by {target}", *scores[:2], "ap50, 95 %", *scores[2:], "boxes"), rows)


def _show_anomalies(page: Page, result: "ValidationResult") -> None:
    """The scores of each kind of anomaly."""
    if result.anomalies:
        rows = [
            [kind, row["auroc"], _interval(result.intervals.get(f"anomaly.auroc[{kind}]")), row["sensitivity"],
             _interval(result.intervals.get(f"anomaly.sensitivity[{kind}]")), int(row["support"])]
            for kind, row in result.anomalies.items()
        ]  # fmt: skip
        page.table(("anomalous", "AUROC", "95 %", "sensitivity", "95 %", "photos"), rows)


def _show_slices(page: Page, result: "ValidationResult") -> None:
    worst = [each for each in result.slices if each.gap > 0][:_WORST]
    if worst:
        rows = [
            [f"{each.by}: {each.value}", each.target, each.number, _interval(each.interval), each.rest, each.photos]
            for each in worst
        ]
        page.table(("worst slices", "target", "metric", "95 % interval", "other photos", "photos"), rows)
    if result.leaks and result.leaks.leaked:
        first = next(iter(result.leaks.clean.items()), None)
        without = f"; without them {first[0]} is {first[1]:.4f}" if first else "; no photo is left without them"
        page.line(
            f"{result.leaks.leaked} of {result.leaks.photos} photos are near-duplicates of training photos{without}"
        )
    if result.contributions:
        page.table(
            ("without", "metric", "with", "without", "drop", "95 % interval"),
            [
                [each.covariate, f"{each.target}.{each.score}", each.before, each.after, each.drop,
                 _interval(each.interval)]
                for each in result.contributions.drops
            ],
        )  # fmt: skip
        for warning in result.contributions.warnings:
            page.line(f"Warning: {warning}", style="yellow")
    if result.robustness:
        rows = [[name, *scores] for name, scores in result.robustness.scores.items()]
        page.table((f"{result.robustness.score} under", "none", "mild", "strong"), rows)


def _show_comparison(page: Page, result: "ValidationResult") -> None:
    from plantml.validate.compare import percent

    against = result.comparison
    if against is None:
        return
    page.table(
        (f"against {against.ref}", "other", "this", "difference", "95 % interval", "sure", "this is"),
        [
            [each.name, each.other, each.value, f"{each.difference:+.4f}", _interval(each.interval),
             "" if each.probability is None else percent(max(each.probability, 1 - each.probability)), each.verdict]
            for each in against.differences
        ],
    )  # fmt: skip
    if against.duels:
        page.table(
            ("target", "class", "photos", "only this one correct", "only the other correct", "McNemar's p"),
            [
                [
                    duel.target,
                    duel.label or "all",
                    duel.paired.photos,
                    duel.paired.wins,
                    duel.paired.losses,
                    duel.paired.p,
                ]
                for duel in against.duels
            ],
        )
    page.line(f"{len(against.changed)} predictions differ")
    page.line(against.verdict, style="bold")


def _interval(interval: "Interval | None") -> str:
    return f"{interval.low:.4f} – {interval.high:.4f}" if interval else ""
