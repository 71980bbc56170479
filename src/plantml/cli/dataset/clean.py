"""`plantml dataset clean`."""

from typing import TYPE_CHECKING, Annotated

import typer

from plantml.cli.arguments import Dataset, Embedding
from plantml.cli.console import Console, Page, count, show_next

if TYPE_CHECKING:
    from plantml.curate.clean import Cleaned

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
        typer.Option(metavar="CODE,…", help="Codes of findings to put right; error or warning for all of these."),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
    model: Embedding = None,
) -> None:
    """Put findings right, in a new version.

    Photos are left out with the reason, or mended; of copies the best stays, and copies with different labels
    are set aside for review, never guessed. Nothing is deleted: `plantml dataset restore` goes back.
    """
    from plantml.curate import clean as library

    codes = library.codes(apply)
    done = library.clean(dataset, codes, console.machine, model=model, dry_run=dry_run, progress=console.progress)
    version = done.committed.version
    content = {
        "dataset": version.ref,
        "fingerprint": version.fingerprint,
        "changed": done.committed.changed,
        "dry_run": dry_run,
        "excluded": dict(done.excluded),
        "review": dict(done.review),
        "mended": dict(done.mended),
        "undecided": done.undecided,
    }
    console.result("dataset clean", content, lambda page: _show(page, done, dataset, dry_run=dry_run))


def _show(page: Page, done: "Cleaned", dataset: str, *, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    page.line(f"{done.committed.version.ref}{' (nothing changed: a dry run)' if dry_run else ''}", style="bold")
    for what, counts in (("left out", done.excluded), ("set aside for review", done.review), ("mended", done.mended)):
        for code, number in counts.items():
            page.line(f"{count(number, 'photo')} {would}{what}: {code}")
    if not (done.excluded or done.review or done.mended):
        page.line("Nothing to do.")
    if done.undecided:
        page.line(
            f"{count(done.undecided, 'copy', 'copies')} with different labels not touched: decide with `relabel`,"
            " or set them aside with --apply conflicting-labels."
        )
    if not dry_run and done.committed.changed:
        before = done.committed.version.number - 1
        page.line(f"Compare: plantml dataset diff {dataset}@{before} {done.committed.version.ref}")
        show_next(page, done.committed.version, dataset)
