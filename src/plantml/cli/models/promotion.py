"""`plantml models promote`, `rollback` and `unalias`: aliases of versions."""

from typing import TYPE_CHECKING, Annotated

import typer

from plantml.cli.arguments import Alias, By, Model, Version, Why
from plantml.cli.command import command
from plantml.cli.console import Console, Page

if TYPE_CHECKING:
    from plantml.registry import Change


@command(
    "plantml models promote models/leaf@3 production --evidence evidence",
    "plantml models promote models/leaf@3 challenger",
    "plantml models promote models/leaf@1 production --force --why 'the only one so far'",
)
def promote(
    console: Console,
    version: Version,
    alias: Alias,
    evidence: Annotated[
        str | None, typer.Option(metavar="URL", help="Output folder of `plantml validate --against … --out DIR`.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Promote without evidence; needs --why.")] = False,
    expect: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Fail unless the alias points to this version; 0 for none.")
    ] = None,
    why: Why = "",
    by: By = None,
) -> None:
    """Point an alias to a version.

    Aliases that start with `production` need evidence: a validation on the whole test split of the newest dataset
    version, with all gates passed. If a version is in service, the validation must compare with it, with --max-drop.
    Without evidence, the exit code is 4.
    """
    from plantml import registry

    state, entry = registry.resolve(version)
    now = state.aliases.get(alias, 0) if expect is None else expect
    result = registry.promote(
        state.url, entry.number, alias, by=by, why=why, evidence=evidence, expected=now, force=force
    )
    _show_moved(console, result)


@command("plantml models rollback models/leaf production --why 'confuses soil with rust'")
def rollback(
    console: Console,
    model: Model,
    alias: Alias = "production",
    expect: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Fail unless the alias points to this version.")
    ] = None,
    why: Why = "",
    by: By = None,
) -> None:
    """Point an alias back to its previous version."""
    from plantml import registry

    now = registry.aliases(model).get(alias) if expect is None else expect
    result = registry.rollback(model, alias, by=by, why=why, expected=now)
    _show_moved(console, result)


@command("plantml models unalias models/leaf challenger")
def unalias(console: Console, model: Model, alias: Alias, why: Why = "", by: By = None) -> None:
    """Remove an alias."""
    from plantml import registry

    _show_moved(console, registry.unalias(model, alias, by=by, why=why))


def _show_moved(console: Console, result: "Change") -> None:
    content = {"model": result.model, "alias": result.alias, "version": result.number, "before": result.before,
               "changed": result.changed, "event": result.event.number if result.event else None}  # fmt: skip

    def show(page: Page) -> None:
        now = f"is version {result.number}" if result.number else "was removed"
        before = f", previously version {result.before}" if result.before and result.changed else ""
        page.line(f"{result.model}@{result.alias} {now}{before}", style="bold")
        if not result.changed:
            page.line("Nothing to do.")
        elif result.before and result.event and result.event.content["act"] == "promote":
            page.hint(f"To undo: plantml models rollback {result.model} {result.alias}")

    console.result(content, show)
