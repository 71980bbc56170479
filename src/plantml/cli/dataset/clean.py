"""`plantml dataset clean`."""

from typing import TYPE_CHECKING, Annotated

import typer

from plantml.cli.arguments import DatasetUrl, DryRun, Embedding
from plantml.cli.command import command
from plantml.cli.console import Console, Page, as_json, count, show_next

if TYPE_CHECKING:
    from plantml.curate.clean import Cleaned
    from plantml.data.versions import Committed


@command(
    "plantml dataset clean leaves --apply empty-file,exact-duplicates --dry-run",
    "plantml dataset clean leaves --apply error",
    "plantml dataset clean apples --apply boxes-centre-as-corner",
)
def clean(
    console: Console,
    dataset: DatasetUrl,
    apply: Annotated[
        str, typer.Option(metavar="CODE,…", help="Codes of findings to fix; error or warning for all of that severity.")
    ],
    dry_run: DryRun = False,
    model: Embedding = None,
) -> None:
    """Fix findings, in a new version.

    Photos are excluded with a reason, or repaired. Of exact duplicates, the best is kept; those with different labels
    are set aside for review. Nothing is deleted: undo with `plantml dataset restore`.
    """
    from plantml.curate import clean as library

    codes = library.codes(apply)
    committed = library.clean(dataset, codes, console.machine, model=model, dry_run=dry_run, progress=console.progress)
    content = as_json(committed, "report") | as_json(committed.report) | {"dry_run": dry_run}
    console.result(content, lambda page: _show(page, committed, dataset, dry_run=dry_run))


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
