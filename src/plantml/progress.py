"""How long work tells that it goes on, without knowing who listens."""

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with (done, total) now and then; total 0 means that it is not known."""


def silent(done: int, total: int) -> None:
    """Nobody listens."""
