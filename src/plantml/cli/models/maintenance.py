"""`plantml models verify`, `remove` and `gc`: stored files."""

from dataclasses import asdict
from typing import Annotated

import typer

from plantml.cli.arguments import By, DryRun, MinAge, Model, Version, Why
from plantml.cli.command import command
from plantml.cli.console import Console, Page, count


@command("plantml models verify models/leaf", "plantml models verify s3://bucket/models/leaf@production")
def verify(
    console: Console,
    ref: Annotated[str, typer.Argument(metavar="REGISTRY/NAME[@N]", help="Model, or one version of it.")],
) -> None:
    """Verify the checksums of all files.

    The exit code is 4 if a file is missing or damaged.
    """
    from plantml.cli import verification
    from plantml.registry import maintenance

    result = maintenance.verify(ref, progress=console.progress("verifying"))
    hint = "Restore the files from a backup or another registry, or roll back: plantml models rollback"
    verification.report(console, result, kind="model", stored="added", hint=hint)


@command("plantml models remove models/leaf@2 --why 'trained on the wrong labels'")
def remove(console: Console, version: Version, why: Why = "", by: By = None) -> None:
    """Remove a version that has no alias.

    Its number is never reused. Its files are deleted by `plantml models gc`.
    """
    from plantml import registry
    from plantml.registry import ledger

    url, at = ledger.parse_reference(version)
    number = int(at) if at and at.isdecimal() else registry.resolve(version)[1].number
    result = registry.remove(url, number, by=by, why=why)
    content = {"model": result.model, "version": number, "changed": result.changed}

    def show(page: Page) -> None:
        page.line(
            f"Version {number} of {url} is removed."
            if result.changed
            else "Nothing to do: the version was removed before."
        )
        page.hint(f"Delete its files: plantml models gc {url}")

    console.result(content, show)


@command("plantml models gc models/leaf --dry-run", "plantml models gc models/leaf --min-age 0")
def gc(console: Console, model: Model, dry_run: DryRun = False, min_age: MinAge = 24.0, by: By = None) -> None:
    """Remove the files of removed versions and of interrupted commands."""
    from plantml.registry import maintenance

    result = maintenance.collect_garbage(model, by=by, dry_run=dry_run, min_age=3600 * min_age)

    def show(page: Page) -> None:
        for what, numbers in (("never finished", result.unfinished), ("removed", result.removed)):
            if numbers:
                page.line(f"Versions {what}: {', '.join(map(str, numbers))}")
        action = "removed" if result.gone else "would be removed"
        page.line(f"{count(len(result.files), 'file')}, {result.bytes / 1e6:.1f} MB, {action}")

    console.result(asdict(result), show)
