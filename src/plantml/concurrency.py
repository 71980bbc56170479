"""Long work: in batches, in threads, with progress, and with an end that a signal may ask for."""

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

from plantml.errors import StoppedError, TerminatedError

A = TypeVar("A")
B = TypeVar("B")

Progress = Callable[[int, int], None]
"""Called with (done, total) now and then; total 0 means that it is not known."""


def silent(done: int, total: int) -> None:
    """Nobody listens."""


def batched(items: Iterable[A], size: int) -> Iterator[list[A]]:
    """The items in lists of `size`, the last one shorter."""
    todo = iter(items)
    while batch := list(islice(todo, size)):
        yield batch


def in_threads(work: Callable[[A], B], items: Iterable[A], threads: int) -> Iterator[B]:
    """Results in the order of the items, with a bounded number of items under way.

    An error of the work is raised at its place; what is under way then is finished, the rest is not begun.
    """
    under_way: deque[Future[B]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                under_way.append(pool.submit(work, item))
                if len(under_way) > 2 * threads:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()


class Stop:
    """Notes SIGINT and SIGTERM while it is entered, so that the work can end at a clean place.

    A second Ctrl-C interrupts at once. Outside the main thread, where signals cannot be caught, it only
    never says stop.
    """

    def __init__(self) -> None:
        self._signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self._signal is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        self._signal = number

    def until(self, items: Iterable[A]) -> Iterator[A]:
        """The items, until a stop is asked for."""
        for item in items:
            if self:
                return
            yield item

    def error(self, what: str, hint: str) -> StoppedError:
        """The error that ends a stopped command with the signal's exit code."""
        if self._signal == signal.SIGTERM:
            return TerminatedError(what, "terminated", hint)
        return StoppedError(what, "interrupted", hint)
