"""`plantml dataset …`: the table of its commands."""

import typer

from plantml.cli.command import command, group
from plantml.cli.dataset import importing, look, synth, versions

_COMMANDS = (
    ("synth", synth.synth, synth.SYNTH_EXAMPLES),
    ("import", importing.import_, importing.IMPORT_EXAMPLES),
    ("info", look.info, look.INFO_EXAMPLES),
    ("log", look.log, look.LOG_EXAMPLES),
    ("diff", look.diff, look.DIFF_EXAMPLES),
    ("split", versions.split, versions.SPLIT_EXAMPLES),
    ("tag", versions.tag, versions.TAG_EXAMPLES),
)


def register(app: typer.Typer) -> None:
    """Add the group and its commands."""
    dataset = group("dataset", "Import, look at, split and compare datasets of photos.")
    for name, function, examples in _COMMANDS:
        command(dataset, name, examples=examples)(function)
    app.add_typer(dataset)
