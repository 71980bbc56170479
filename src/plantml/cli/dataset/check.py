"""`plantml dataset check`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from plantml.cli.arguments import Dataset, Embedding, Engine, Html
from plantml.cli.command import command
from plantml.cli.console import Console, Page, count
from plantml.errors import GateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from plantml.curate.context import Subject
    from plantml.curate.findings import Finding, Report
    from plantml.curate.keypoint_matches import Elsewhere

_STYLES = {"error": "red", "warning": "yellow", "info": "blue"}


@command(
    "plantml dataset check leaves",
    "plantml dataset check leaves --html report.html",
    "plantml dataset check leaves --fail-on error,suspicious-label   # exit code 4, for CI",
    "plantml dataset check trays --folds run   # boxes, by the models of a cross-validation",
    "plantml dataset check s3://bucket/leaves --skip crops --findings findings.parquet",
)
def check(
    console: Console,
    dataset: Dataset,
    html: Html = None,
    findings: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write all findings as Parquet, one row per finding and photo.")
    ] = None,
    fail_on: Annotated[
        str | None,
        typer.Option(
            metavar="LEVELS", help="Exit with code 4 on findings of these severities (error, warning, info) or codes."
        ),
    ] = None,
    only: Annotated[str | None, typer.Option(metavar="A,B", help="Run only these checks.")] = None,
    skip: Annotated[str | None, typer.Option(metavar="A,B", help="Skip these checks.")] = None,
    model: Embedding = None,
    folds: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Cross-validation of this dataset, from train --folds; its models check the boxes of the photos that"
            " they were not trained on.",
        ),
    ] = None,
    on: Engine = None,
) -> None:
    """Find problems in a dataset.

    Each finding has its evidence and a remedy. Nothing is changed; use `plantml dataset clean` to fix findings. The
    checks are files, pictures, duplicates, groups, labels, boxes, box-labels, shortcuts, suspicious, outliers and
    crops; box-labels needs --folds.
    """
    from plantml import storage
    from plantml.cli.dataset.embed import filler
    from plantml.curate import check as library
    from plantml.curate import findings as tables
    from plantml.curate import report
    from plantml.curate.context import Subject

    storage.check_output(findings, html)
    levels = library.levels(fail_on, folds=folds) if fail_on else ()
    result = library.run(
        dataset,
        console.machine,
        only=_names(only),
        skip=_names(skip),
        model=model,
        folds=folds,
        progress=console.progress,
        fill=filler(console, on, model),
        keypoints=_on_engine(console, on),
    )
    if findings:
        storage.write(findings, tables.to_parquet(result))
    if html:
        subject = Subject(result.version, console.machine)
        storage.write(html, report.render(result, subject, console.progress("drawing")))
    failing = result.failing(levels)
    content = {
        "dataset": result.version.ref,
        "fingerprint": result.version.fingerprint,
        "counts": result.counts(),
        "findings": [tables.as_json(result, finding) for finding in result.findings],
        "checked": list(result.checked),
        "not_checked": dict(result.not_checked),
        "notes": list(result.notes),
        "failing": len(failing),
    }
    console.result(content, lambda shown: _show(shown, result, dataset, html))
    if failing:
        raise GateError(f"{count(len(failing), 'finding')} of {fail_on}", _by_code(failing), _next(dataset))


def _on_engine(console: Console, on: str | None) -> "Callable[[Subject], Elsewhere] | None":
    """What compares keypoints on the engine of `--on`, if there is one."""
    if on is None:
        return None
    from plantml.engines import keypoints, opening

    engine = opening.open_engine(on, console.machine)
    return lambda subject: keypoints.OnEngine(subject, engine, console.listener)


def _show(shown: Page, result: "Report", dataset: str, html: str | None) -> None:
    from plantml.curate.findings import CODES

    usable = result.version.usable().height
    shown.line(
        f"{result.version.ref}: {count(len(result.findings), 'finding')} in {count(usable, 'photo')}", style="bold"
    )
    for code, number in result.counts().items():
        kind = CODES[code]
        shown.line()
        shown.line(f"{kind.severity}: {number} x {kind.title} ({code})", style=_STYLES[kind.severity])
        findings = [finding for finding in result.findings if finding.code == code]
        for finding in findings[:3]:
            shown.line(f"  {_where(result, finding)}{finding.evidence}")
        if number > 3:
            shown.line(f"  … and {number - 3} more")
        shown.line(f"  -> {kind.remedy}")
    if result.notes or result.not_checked:
        shown.line()
    for note in result.notes:
        shown.line(note)
    for name, why in result.not_checked.items():
        shown.line(f"Not checked: {name}. {why}")
    if html:
        shown.line(f"Report: {html}")
    elif result.findings:
        shown.line(f"Browse the findings: plantml dataset check {dataset} --html report.html")
    codes = [code for code in result.counts() if CODES[code].cleans]
    if codes:
        shown.next(f"{_next(dataset)}")


def _where(result: "Report", finding: "Finding") -> str:
    if not finding.rows:
        return ""
    more = f" and {len(finding.rows) - 1} more" if len(finding.rows) > 1 else ""
    return f"{result.name(finding.rows[0])}{more}: "


def _by_code(findings: "list[Finding]") -> str:
    counts: dict[str, int] = {}
    for finding in findings:
        counts[finding.code] = counts.get(finding.code, 0) + 1
    return ", ".join(f"{code} {number}" for code, number in counts.items())


def _next(dataset: str) -> str:
    return f"plantml dataset clean {dataset} --apply CODE,… --dry-run"


def _names(text: str | None) -> Any:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())
