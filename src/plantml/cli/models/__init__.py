"""`plantml models …`: the table of its commands."""

import typer

from plantml.cli.command import command, group
from plantml.cli.models import history, inspect, maintenance, promotion, transfer

COMMANDS = (
    ("add", transfer.add, transfer.ADD_EXAMPLES),
    ("list", inspect.list_, inspect.LIST_EXAMPLES),
    ("show", inspect.show, inspect.SHOW_EXAMPLES),
    ("diff", inspect.diff, inspect.DIFF_EXAMPLES),
    ("promote", promotion.promote, promotion.PROMOTE_EXAMPLES),
    ("rollback", promotion.rollback, promotion.ROLLBACK_EXAMPLES),
    ("unalias", promotion.unalias, promotion.UNALIAS_EXAMPLES),
    ("history", history.history, history.HISTORY_EXAMPLES),
    ("verify", maintenance.verify, maintenance.VERIFY_EXAMPLES),
    ("copy", transfer.copy, transfer.COPY_EXAMPLES),
    ("pack", transfer.pack, transfer.PACK_EXAMPLES),
    ("remove", maintenance.remove, maintenance.REMOVE_EXAMPLES),
    ("gc", maintenance.gc, maintenance.GC_EXAMPLES),
    ("push", transfer.push, transfer.PUSH_EXAMPLES),
)
"""Name, function and examples of each command, in the order of the help page."""


def register(app: typer.Typer) -> None:
    """Add the group and its commands."""
    models = group("models", "Register, compare, promote and distribute models.")
    for name, function, examples in COMMANDS:
        command(models, name, examples=examples)(function)
    app.add_typer(models)
