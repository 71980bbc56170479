"""`plantml dataset …`: the table of its commands."""

import typer

from plantml.cli.command import command, group
from plantml.cli.dataset import check, clean, drift, edit, embed, export, import_, info, maintenance, synth, versions

COMMANDS = (
    ("synth", synth.synth, synth.SYNTH_EXAMPLES),
    ("import", import_.import_, import_.IMPORT_EXAMPLES),
    ("add", import_.add, import_.ADD_EXAMPLES),
    ("export", export.export, export.EXPORT_EXAMPLES),
    ("info", info.info, info.INFO_EXAMPLES),
    ("log", info.log, info.LOG_EXAMPLES),
    ("diff", info.diff, info.DIFF_EXAMPLES),
    ("check", check.check, check.CHECK_EXAMPLES),
    ("clean", clean.clean, clean.CLEAN_EXAMPLES),
    ("split", versions.split, versions.SPLIT_EXAMPLES),
    ("relabel", edit.relabel, edit.RELABEL_EXAMPLES),
    ("rename-class", edit.rename_class, edit.RENAME_EXAMPLES),
    ("merge", edit.merge, edit.MERGE_EXAMPLES),
    ("subset", edit.subset, edit.SUBSET_EXAMPLES),
    ("embed", embed.embed, embed.EMBED_EXAMPLES),
    ("similar", embed.similar, embed.SIMILAR_EXAMPLES),
    ("drift", drift.drift, drift.DRIFT_EXAMPLES),
    ("restore", edit.restore, edit.RESTORE_EXAMPLES),
    ("verify", maintenance.verify, maintenance.VERIFY_EXAMPLES),
    ("gc", maintenance.gc, maintenance.GC_EXAMPLES),
    ("tag", versions.tag, versions.TAG_EXAMPLES),
)
"""Name, function and examples of each command, in the order of the help page."""


def register(app: typer.Typer) -> None:
    """Add the group and its commands."""
    dataset = group("dataset", "Import, inspect, clean, split and compare datasets of photos.")
    for name, function, examples in COMMANDS:
        command(dataset, name, examples=examples)(function)
    app.add_typer(dataset)
