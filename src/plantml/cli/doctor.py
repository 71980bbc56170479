"""`plantml doctor`."""

from dataclasses import asdict
from typing import Annotated

import typer

from plantml.cli.command import command
from plantml.cli.console import Console, Page, count
from plantml.errors import GateError

_STYLES = {"ok": None, "warning": "yellow", "problem": "bold red"}


@command("plantml doctor", "plantml doctor s3://bucket/leaves", "plantml doctor s3://bucket/leaves --write --json")
def doctor(
    console: Console,
    urls: Annotated[
        list[str] | None, typer.Argument(metavar="[URL]...", help="Datasets, photos or buckets to check.")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Also test writing: create a small file under each URL and delete it.")
    ] = False,
) -> None:
    """Check this machine and the storage that you name.

    Covers software, processor, GPU, cache and settings. Uses the network only for the URLs. The exit code is 4 if a
    URL cannot be used; all other findings are advice.
    """
    from plantml import doctor as library

    diagnosis = library.diagnose(urls or (), write=write, offline=console.offline)
    levels = [finding.level for finding in diagnosis.findings]
    problems, warnings = levels.count(library.Level.PROBLEM), levels.count(library.Level.WARNING)
    content = {
        "problems": problems,
        "warnings": warnings,
        "findings": [asdict(finding) for finding in diagnosis.findings],
    }

    def show(page: Page) -> None:
        rows = [(finding.level.value, finding.name, finding.text) for finding in diagnosis.findings]
        page.table(("", "check", "finding"), rows)
        for finding in diagnosis.findings:
            if finding.fix:
                page.line(f"{finding.level.value.capitalize()}: {finding.name}: {finding.text}", _STYLES[finding.level])
                page.line(f"  Fix: {finding.fix}")
        page.line(f"{count(problems, 'problem')}, {count(warnings, 'warning')}", "bold")

    console.result(content, show)
    if diagnosis.unusable:
        raise GateError(
            f"Cannot use {', '.join(diagnosis.unusable)}",
            "the findings above show the reason",
            "Follow the advice of the findings, then run plantml doctor again.",
        )
