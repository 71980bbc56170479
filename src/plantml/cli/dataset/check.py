"""`plantml dataset check`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from plantml.cli.arguments import Dataset, Embedding
from plantml.cli.console import Console, Page, count
from plantml.errors import GateError

if TYPE_CHECKING:
    from plantml.curate.findings import Finding, Report

CHECK_EXAMPLES = [
    "plantml dataset check leaves",
    "plantml dataset check leaves --html report.html",
    "plantml dataset check leaves --fail-on error,suspicious-label   # exit code 4, for CI",
    "plantml dataset check s3://bucket/leaves --skip crops --findings findings.parquet",
]

_STYLES = {"error": "red", "warning": "yellow", "info": "blue"}


def check(
    console: Console,
    dataset: Dataset,
    html: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write a report to look through: one page, pictures inside.")
    ] = None,
    findings: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write all findings as Parquet, one row a finding and photo.")
    ] = None,
    fail_on: Annotated[
        str | None,
        typer.Option(
            metavar="LEVELS", help="Exit code 4 on any finding so severe (error, warning, info) or of these codes."
        ),
    ] = None,
    only: Annotated[str | None, typer.Option(metavar="A,B", help="Run these checks only.")] = None,
    skip: Annotated[str | None, typer.Option(metavar="A,B", help="Leave these checks out.")] = None,
    model: Embedding = None,
) -> None:
    """Find what is wrong with a dataset.

    Files, pictures, copies, labels, boxes, shortcuts and outliers; each finding with its evidence and what to do
    about it. Nothing is changed: `plantml dataset clean` does that. The checks are files, pictures, duplicates,
    groups, labels, boxes, shortcuts, suspicious, outliers and crops.
    """
    from plantml import storage
    from plantml.curate import check as library
    from plantml.curate import findings_table, report
    from plantml.curate.context import Subject

    levels = library.levels(fail_on) if fail_on else ()
    found = library.run(
        dataset, console.machine, only=_names(only), skip=_names(skip), model=model, progress=console.progress
    )
    if findings:
        storage.write(findings, findings_table.to_parquet(found))
    if html:
        subject = Subject(found.version, console.machine)
        storage.write(html, report.render(found, subject, console.progress("drawing")))
    failing = found.failing(levels)
    content = {
        "dataset": found.version.ref,
        "fingerprint": found.version.fingerprint,
        "counts": found.counts(),
        "findings": [findings_table.as_json(found, finding) for finding in found.findings],
        "checked": list(found.checked),
        "not_checked": dict(found.not_checked),
        "notes": list(found.notes),
        "failing": len(failing),
    }
    console.result("dataset check", content, lambda shown: _show(shown, found, dataset, html))
    if failing:
        raise GateError(f"{count(len(failing), 'finding')} of {fail_on}", _by_code(failing), _next(dataset))


def _show(shown: Page, found: "Report", dataset: str, html: str | None) -> None:
    from plantml.curate.findings import CODES

    usable = found.version.usable().height
    shown.line(
        f"{found.version.ref}: {count(len(found.findings), 'finding')} in {count(usable, 'photo')}", style="bold"
    )
    for code, number in found.counts().items():
        kind = CODES[code]
        shown.line()
        shown.line(f"{kind.severity}: {number} x {kind.title} ({code})", style=_STYLES[kind.severity])
        some = [finding for finding in found.findings if finding.code == code]
        for finding in some[:3]:
            shown.line(f"  {_where(found, finding)}{finding.evidence}")
        if number > 3:
            shown.line(f"  … and {number - 3} more")
        shown.line(f"  -> {kind.remedy}")
    if found.notes or found.not_checked:
        shown.line()
    for note in found.notes:
        shown.line(note)
    for name, why in found.not_checked.items():
        shown.line(f"Not checked: {name}. {why}")
    if html:
        shown.line(f"The report is in {html}")
    elif found.findings:
        shown.line(f"Look at them: plantml dataset check {dataset} --html report.html")
    codes = [code for code in found.counts() if CODES[code].cleans]
    if codes:
        shown.next(f"{_next(dataset)}")


def _where(found: "Report", finding: "Finding") -> str:
    if not finding.rows:
        return ""
    more = f" and {len(finding.rows) - 1} more" if len(finding.rows) > 1 else ""
    return f"{found.name(finding.rows[0])}{more}: "


def _by_code(findings: "list[Finding]") -> str:
    counts: dict[str, int] = {}
    for finding in findings:
        counts[finding.code] = counts.get(finding.code, 0) + 1
    return ", ".join(f"{code} {number}" for code, number in counts.items())


def _next(dataset: str) -> str:
    return f"plantml dataset clean {dataset} --apply CODE,… --dry-run"


def _names(text: str | None) -> Any:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())
