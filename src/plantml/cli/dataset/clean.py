"""`plantml dataset clean`."""

from typing import TYPE_CHECKING, Annotated

import typer

from plantml.cli.arguments import Dataset, Embedding
from plantml.cli.console import Console, Page, count, show_next

if TYPE_CHECKING:
    from plantml.curate.clean import Cleaned
    from plantml.data.versions import Committed

CLEAN_EXAMPLES = [
    "plantml dataset clean leaves --apply empty-file,exact-duplicates --dry-run",
    "plantml dataset clean leaves --apply error",
    "plantml dataset clean apples --apply boxes-centre-as-corner",
]


def clean(
    console: Console,
    dataset: Dataset,
    apply: Annotated[
        str,
        typer.Option(metavar="CODE,…", help="Codes of findings to fix; error or warning for all of that severity."),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done; change nothing.")] = False,
    model: Embedding = None,
) -> None:
    """Fix findings, in a new version.

    Photos are excluded with a reason, or repaired. Of exact duplicates, the best is kept; those with different labels
    are set aside for review. Nothing is deleted: undo with `plantml dataset restore`.
    """
    from plantml.curate import clean as library

    codes = library.codes(apply)
    committed = library.clean(dataset, codes, console.machine, model=model, dry_run=dry_run, progress=console.progress)
    version, result = committed.version, committed.report
    content = {
        "dataset": version.ref,
        "fingerprint": version.fingerprint,
        "changed": committed.changed,
        "dry_run": dry_run,
        "excluded": dict(result.excluded),
        "review": dict(result.review),
        "mended": dict(result.mended),
        "undecided": result.undecided,
    }
    console.result("dataset clean", content, lambda page: _show(page, committed, dataset, dry_run=dry_run))


def _show(page: Page, committed: "Committed[Cleaned]", dataset: str, *, dry_run: bool) -> None:
    version, result = committed.version, committed.report
    would = "would be " if dry_run else ""
    page.line(f"{version.ref}{' (dry run, nothing changed)' if dry_run else ''}", style="bold")
    for what, counts in (
        ("excluded", result.excluded),
        ("set aside for review", result.review),
        ("repaired", result.mended),
    ):
        for code, number in counts.items():
            page.line(f"{count(number, 'photo')} {would}{what}: {code}")
    if not (result.excluded or result.review or result.mended):
        page.line("Nothing to do.")
    if result.undecided:
        page.line(
            f"{count(result.undecided, 'copy', 'copies')} with different labels unchanged: correct them with `relabel`,"
            " or set them aside with --apply conflicting-labels."
        )
    if not dry_run and committed.changed:
        before = version.number - 1
        page.line(f"Compare: plantml dataset diff {dataset}@{before} {version.ref}")
        show_next(page, version, dataset)
