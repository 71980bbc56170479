"""`plantml dataset …`: the table of its commands."""

import typer

from plantml.cli.command import command, group
from plantml.cli.dataset import (
    care,
    checking,
    cleaning,
    drift,
    editing,
    embedding,
    export,
    importing,
    look,
    synth,
    versions,
)

COMMANDS = (
    ("synth", synth.synth, synth.SYNTH_EXAMPLES),
    ("import", importing.import_, importing.IMPORT_EXAMPLES),
    ("add", importing.add, importing.ADD_EXAMPLES),
    ("export", export.export, export.EXPORT_EXAMPLES),
    ("info", look.info, look.INFO_EXAMPLES),
    ("log", look.log, look.LOG_EXAMPLES),
    ("diff", look.diff, look.DIFF_EXAMPLES),
    ("check", checking.check, checking.CHECK_EXAMPLES),
    ("clean", cleaning.clean, cleaning.CLEAN_EXAMPLES),
    ("split", versions.split, versions.SPLIT_EXAMPLES),
    ("relabel", editing.relabel, editing.RELABEL_EXAMPLES),
    ("rename-class", editing.rename_class, editing.RENAME_EXAMPLES),
    ("merge", editing.merge, editing.MERGE_EXAMPLES),
    ("subset", editing.subset, editing.SUBSET_EXAMPLES),
    ("embed", embedding.embed, embedding.EMBED_EXAMPLES),
    ("similar", embedding.similar, embedding.SIMILAR_EXAMPLES),
    ("drift", drift.drift, drift.DRIFT_EXAMPLES),
    ("restore", editing.restore, editing.RESTORE_EXAMPLES),
    ("verify", care.verify, care.VERIFY_EXAMPLES),
    ("gc", care.gc, care.GC_EXAMPLES),
    ("tag", versions.tag, versions.TAG_EXAMPLES),
)
"""Name, function and examples of each command, in the order of the help page."""


def register(app: typer.Typer) -> None:
    """Add the group and its commands."""
    dataset = group("dataset", "Import, look at, split and compare datasets of photos.")
    for name, function, examples in COMMANDS:
        command(dataset, name, examples=examples)(function)
    app.add_typer(dataset)
