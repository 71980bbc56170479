"""The commands of `plantml dataset`."""

from plantml.cli.dataset import check, clean, drift, edit, embed, export, import_, info, maintenance, synth, versions

COMMANDS = (
    synth.synth,
    import_.import_,
    import_.add,
    export.export,
    info.info,
    info.log,
    info.diff,
    check.check,
    clean.clean,
    versions.split,
    edit.relabel,
    edit.join,
    edit.rename_class,
    edit.merge,
    edit.subset,
    embed.embed,
    embed.similar,
    drift.drift,
    edit.restore,
    maintenance.verify,
    maintenance.gc,
    versions.tag,
)
"""In the order of the help page."""
