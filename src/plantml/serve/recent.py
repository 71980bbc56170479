"""A mapping that keeps what was used last."""

from collections import OrderedDict
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(OrderedDict[K, V]):
    """A mapping of at most so many entries, of which one more takes the place of the one that was used longest ago.

    Not safe for threads: its owner has a lock.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        while len(self) > self._most:
            self.popitem(last=False)

    def use(self, key: K) -> V | None:
        """What is kept for a key, which counts as used; `None` if nothing is."""
        if key in self:
            self.move_to_end(key)
        return self.get(key)
