"""`plantml dataset verify` and `gc`: the files themselves."""

from typing import Annotated

import typer

from plantml.cli.arguments import Dataset
from plantml.cli.console import Console, count

VERIFY_EXAMPLES = ["plantml dataset verify leaves", "plantml dataset verify s3://bucket/leaves@7 --json"]


def verify(console: Console, dataset: Dataset) -> None:
    """Read every photo of a version, and all versions and tags, and compare hashes: damage ends with exit code 4.

    DATASET@7 reads that version alone. Files of an older plantml that hold no checksum are listed.
    """
    from plantml.cli import verification
    from plantml.data import maintenance

    threads = 4 * console.machine.threads
    found = maintenance.verify(dataset, threads=threads, progress=console.progress("verifying"))
    hint = (
        f"Restore them from a backup; a missing photo also comes back with plantml dataset merge {dataset} COPY. "
        f"Without the newest version: plantml dataset restore {dataset} N goes on from version N."
    )
    verification.tell(console, "dataset verify", found, kind="dataset", came="imported", hint=hint)


GC_EXAMPLES = ["plantml dataset gc leaves --dry-run", "plantml dataset gc leaves --derived"]


def gc(
    console: Console,
    dataset: Dataset,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")] = False,
    derived: Annotated[
        bool, typer.Option("--derived", help="Also what can be made again: embeddings, notes of imports.")
    ] = False,
    min_age: Annotated[
        float, typer.Option(metavar="HOURS", min=0, help="Leave files that are younger: an import may be under way.")
    ] = 24.0,
) -> None:
    """Remove files that no version names: what killed imports left behind."""
    from plantml.data import maintenance

    found = maintenance.collect(dataset, dry_run=dry_run, derived=derived, min_age=3600 * min_age)
    content = {
        "removed": found.removed,
        "images": list(found.images),
        "derived": list(found.derived),
        "bytes": found.bytes,
    }
    number = len(found.images) + len(found.derived)
    console.result(
        "dataset gc",
        content,
        lambda page: page.line(
            f"{count(number, 'file')}, {found.bytes / 1e6:.1f} MB, {'removed' if found.removed else 'would be removed'}"
        ),
    )
