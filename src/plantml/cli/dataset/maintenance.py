"""`plantml dataset verify` and `gc`: stored files."""

from typing import Annotated

import typer

from plantml.cli.arguments import Dataset, DatasetUrl, DryRun, MinAge
from plantml.cli.command import command
from plantml.cli.console import Console, count


@command("plantml dataset verify leaves", "plantml dataset verify s3://bucket/leaves@7 --json")
def verify(console: Console, dataset: Dataset) -> None:
    """Verify the checksums of all photos, versions and tags.

    The exit code is 4 if a file is missing or damaged. DATASET@7 verifies only that version.
    """
    from plantml.cli import verification
    from plantml.data import maintenance

    threads = 4 * console.machine.threads
    result = maintenance.verify(dataset, threads=threads, progress=console.progress("verifying"))
    hint = (
        f"Restore them from a backup; or copy missing photos with plantml dataset merge {dataset} COPY. "
        f"To continue from version N: plantml dataset restore {dataset} N."
    )
    verification.report(console, result, kind="dataset", stored="imported", hint=hint)


@command("plantml dataset gc leaves --dry-run", "plantml dataset gc leaves --derived")
def gc(
    console: Console,
    dataset: DatasetUrl,
    dry_run: DryRun = False,
    derived: Annotated[
        bool, typer.Option("--derived", help="Also remove files that can be recomputed: embeddings, import caches.")
    ] = False,
    min_age: MinAge = 24.0,
) -> None:
    """Remove files that no version uses, such as those of interrupted imports."""
    from plantml.data import maintenance

    result = maintenance.collect(dataset, dry_run=dry_run, derived=derived, min_age=3600 * min_age)
    content = {
        "removed": result.removed,
        "images": list(result.images),
        "derived": list(result.derived),
        "bytes": result.bytes,
    }
    number = len(result.images) + len(result.derived)
    action = "removed" if result.removed else "would be removed"
    console.result(content, lambda page: page.line(f"{count(number, 'file')}, {result.bytes / 1e6:.1f} MB, {action}"))
