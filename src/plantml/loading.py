"""Load modules when they are needed, and quickly."""

import contextlib
import gc
import importlib
import sys
from collections.abc import Callable, Collection, Iterator
from typing import Any


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Pause the garbage collector while a command loads its modules, and keep it from what they created.

    Nearly all of that stays until the end, but each collection would visit it again: a quarter of the time of a short
    command. Only for the command line: what else the process holds by then is not collected any more, either.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            freeze()
            gc.enable()


def freeze() -> None:
    """Keep the garbage collector from all that exists now: for what stays until the end."""
    if "torch" not in sys.modules:  # its compiler would report frozen objects as leaks
        gc.freeze()


def from_modules(names: Collection[str], *modules: str) -> Callable[[str], Any]:
    """A `__getattr__` for a package (PEP 562) that loads its modules, in this order, until one has the name."""

    def get(name: str) -> Any:
        if name in names:
            for module in modules:
                with contextlib.suppress(AttributeError):
                    return getattr(importlib.import_module(module), name)
        raise AttributeError(f"{modules[0].rpartition('.')[0]} has no {name!r}")

    return get
