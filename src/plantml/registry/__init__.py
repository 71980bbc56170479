"""Models under management: numbered, immutable bundles, and aliases that name the one in service.

`plantml.registry.ledger` reads a registry; this is the Python interface to change it:

    from plantml import registry

    entry = registry.add("runs/night", "s3://bucket/models/leaf", by="cron", why="nightly", alias="challenger")
    registry.promote("s3://bucket/models/leaf", entry.number, "production", by="cron", why="better",
                     evidence=json.load(open("evidence/metrics.json")), expected=7)
"""

from typing import TYPE_CHECKING

__all__ = [
    "AddedVersion",
    "Change",
    "Entry",
    "Event",
    "Ledger",
    "add",
    "aliases",
    "current_user",
    "history",
    "load",
    "promote",
    "remove",
    "resolve",
    "rollback",
    "unalias",
]

if TYPE_CHECKING:
    from plantml.registry.ledger import Entry, Ledger, load, resolve
    from plantml.registry.operations import Change, aliases, current_user, history, promote, remove, rollback, unalias
    from plantml.registry.publishing import AddedVersion, add
    from plantml.storage.event_log import Event
else:
    from plantml.loading import from_modules

    # A reference is looked up in the ledger, which needs nothing that changes a registry.
    __getattr__ = from_modules(
        __all__, "plantml.registry.ledger", "plantml.registry.operations", "plantml.registry.publishing",
        "plantml.storage.event_log",
    )  # fmt: skip
