"""The commands of `plantml models`."""

from plantml.cli.models import inspect, maintenance, promotion, transfer

COMMANDS = (
    transfer.add,
    inspect.list_,
    inspect.show,
    inspect.diff,
    promotion.promote,
    promotion.rollback,
    promotion.unalias,
    inspect.history,
    maintenance.verify,
    transfer.copy,
    transfer.pack,
    maintenance.remove,
    maintenance.gc,
    transfer.push,
)
"""In the order of the help page."""
