"""`plantml retrain`."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from plantml.cli.command import command
from plantml.cli.console import Console, Page
from plantml.errors import UsageError
from plantml.retrain.config import RetrainConfig
from plantml.settings import Resolved

if TYPE_CHECKING:
    from plantml.retrain.retrain import RetrainResult

File = Annotated[
    str, typer.Argument(metavar="CONFIG", help="YAML file of feeds, training and gates; see configs/retrain.yaml.")
]


@command(
    "plantml retrain retrain.yaml",
    "plantml retrain retrain.yaml --min-new 200 --every 7d",
    "plantml retrain retrain.yaml --on-drift --on-result ./notify.sh",
    "plantml retrain retrain.yaml --dry-run",
    "plantml retrain retrain.yaml --step train",
    "plantml retrain retrain.yaml --set gates.max_drop=0.02 --set train.budget=8h --print-config",
    config=RetrainConfig,
    config_file=File,
)
def retrain(
    console: Console,
    resolved: Resolved[RetrainConfig],
    step: Annotated[
        str | None, typer.Option(metavar="STEP", help="Run only this step; the steps before it must have been run.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done, with the command of each step, then exit.")
    ] = False,
    abandon: Annotated[bool, typer.Option("--abandon", help="Abandon the open round.")] = False,
) -> None:
    """Train a challenger on new photos; promote it if it is better.

    Made for cron: it exits at once if nothing is new, resumes an interrupted round, and lets only one machine work
    at a time. The steps are add, clean, split, production, train, predict, compare, choose, register and report.
    Without a trigger, any new photo starts a round. A refused challenger is not an error: the exit code is 0.
    """
    from plantml.retrain import retrain as library
    from plantml.storage.lease import LeaseStop

    if sum((step is not None, dry_run, abandon)) > 1:
        raise UsageError("--step, --dry-run and --abandon exclude each other", "", "Use one of them.")
    if dry_run:
        result, commands = library.plan(resolved.value, console.machine)
        content = asdict(result) | {"commands": commands}
        console.result(content, lambda page: _show_plan(page, result, commands))
        return
    with LeaseStop() as stop:
        if abandon:
            result = library.abandon(resolved.value, stop)
        else:
            result = library.retrain(
                resolved.value, machine=console.machine, stop=stop, step=step, listener=console.listener
            )
    console.result(asdict(result), lambda page: _show(page, result))


def _show(page: Page, result: "RetrainResult") -> None:
    number = f"Round {result.round}: " if result.round else ""
    page.line(f"{number}{result.outcome}", style="bold")
    for reason in result.reasons:
        page.line(f"  {reason}")
    registered = result.results.get("register")
    if registered and result.report:
        before = f"version {registered['before']}" if registered["before"] else "no model"
        page.line(f"The challenger is version {registered['version']}; {before} was in service before.")
        page.line(f"Report: {result.report}/report.html")


def _show_plan(page: Page, result: "RetrainResult", commands: "dict[str, list[str]]") -> None:
    _show(page, result)
    for step, lines in commands.items():
        page.line(step, style="bold")
        for line in lines:
            page.line(f"  {line}")
