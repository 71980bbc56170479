"""`plantml retrain`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from plantml.cli.command import PrintConfig, Sets, command, show_config
from plantml.cli.console import Console, Page
from plantml.errors import UsageError

if TYPE_CHECKING:
    from plantml.retrain.retrain import RetrainResult

EXAMPLES = [
    "plantml retrain retrain.yaml",
    "plantml retrain retrain.yaml --min-new 200 --every 7d",
    "plantml retrain retrain.yaml --on-drift --on-result ./tell.sh",
    "plantml retrain retrain.yaml --dry-run",
    "plantml retrain retrain.yaml --step train",
    "plantml retrain retrain.yaml --set gates.max_drop=0.02 --set train.budget=8h --print-config",
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "retrain", examples=EXAMPLES)(retrain)


def retrain(
    console: Console,
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="YAML file: what grows, what is trained, what decides.")
    ],
    step: Annotated[
        str | None, typer.Option(metavar="STEP", help="Do this step of the round only, if those before it are done.")
    ] = None,
    min_new: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Trigger: so many new or corrected photos.")
    ] = None,
    every: Annotated[
        str | None, typer.Option(metavar="TIME", help="Trigger: so long after the last round, like 7d or 12h.")
    ] = None,
    on_drift: Annotated[
        bool | None, typer.Option("--on-drift", help="Trigger: detections drift away from the training photos.")
    ] = None,
    on_result: Annotated[
        str | None, typer.Option(metavar="CMD", help="Call this with the result as JSON on its standard input.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, with the command of each step, and stop.")
    ] = False,
    abandon: Annotated[bool, typer.Option("--abandon", help="Give up the round that is open.")] = False,
    sets: Sets = None,
    print_config: PrintConfig = False,
) -> None:
    """Train a challenger on what is new, and put it into service if it is better.

    For cron: nothing new ends at once, a round that was cut off goes on where it was, and of several machines one
    works. The steps are add, clean, split, production, train, predict, compare, choose, register and report. Without
    a trigger any new photo begins a round. A challenger that is refused is no error: exit code 0.
    """
    from plantml import settings
    from plantml.retrain import retrain as run
    from plantml.retrain.config import RetrainConfig
    from plantml.retrain.lease import LeaseStop

    flags = {"min_new": min_new, "every": every, "on_drift": on_drift, "on_result": on_result}
    resolved = settings.resolve(RetrainConfig, "retrain", flags=flags, sets=sets or (), file=config)
    if print_config:
        show_config(console, resolved.lines())
        return
    if sum((step is not None, dry_run, abandon)) > 1:
        raise UsageError("--step, --dry-run and --abandon exclude each other", "", "Give one of them.")
    if dry_run:
        found, lines = run.plan(resolved.value, console.machine)
        content = _content(found) | {"commands": lines}
        console.result("retrain", content, lambda page: _show_plan(page, found, lines))
        return
    with LeaseStop() as stop:
        if abandon:
            found = run.abandon(resolved.value, stop)
        else:
            listener = run.Listener(console.say, console.progress, console.warn)
            found = run.retrain(resolved.value, machine=console.machine, stop=stop, step=step, listener=listener)
    console.result("retrain", _content(found), lambda page: _show(page, found))


def _content(found: "RetrainResult") -> dict[str, Any]:
    return {
        "outcome": found.outcome,
        "reasons": list(found.reasons),
        "round": found.round,
        "done": list(found.done),
        "results": dict(found.results),
        "news": found.news,
        "report": found.report,
    }


def _show(page: Page, found: "RetrainResult") -> None:
    number = f"Round {found.round}: " if found.round else ""
    page.line(f"{number}{found.outcome}", style="bold")
    for reason in found.reasons:
        page.line(f"  {reason}")
    registered = found.results.get("register")
    if registered and found.report:
        before = f"version {registered['before']}" if registered["before"] else "no model"
        page.line(f"The challenger is version {registered['version']}; {before} was in service before.")
        page.line(f"Report: {found.report}/report.html")


def _show_plan(page: Page, found: "RetrainResult", lines: "dict[str, list[str]]") -> None:
    _show(page, found)
    for name, commands in lines.items():
        page.line(f"{name}", style="bold")
        for line in commands:
            page.line(f"  {line}")
