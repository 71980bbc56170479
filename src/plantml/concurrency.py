"""Long work: in batches, in threads, with progress, and with an end that a signal may ask for."""

import contextlib
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Listener:
    """Receives status lines, details, warnings, and progress by stage; by default nobody listens."""

    say: Callable[[str], None] = lambda _: None
    detail: Callable[[str], None] = lambda _: None
    warn: Callable[[str], None] = lambda _: None
    progress: Callable[[str], Progress] = lambda _: silent


PATIENCE = 1.0
"""Seconds for which a wait may go on after a signal asked for the end: what is quick is finished."""


class _Ending:
    """The signal that asked this process to end, if one did."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.since = 0.0

    def note(self, number: int) -> None:
        if self.number is None:
            self.number, self.since = number, time.monotonic()

    def forget(self) -> None:
        self.number = None


_ending = _Ending()
"""Of the process, as signals are: threads that wait look here."""


def heed(what: str, since: float) -> None:
    """End a wait that began at `since` (monotonic) if a signal asked for the end and `PATIENCE` is over.

    Raises:
        StoppedError: with the signal's exit code; `what` says what was given up.
    """
    if _ending.number is not None and time.monotonic() - max(since, _ending.since) > PATIENCE:
        raise _stopped(_ending.number, what, "Repeat the command; what was finished is kept.")


def pause(seconds: float, what: str) -> None:
    """Sleep, but no longer than a signal allows. Raises as `heed`."""
    started = time.monotonic()
    while (left := started + seconds - time.monotonic()) > 0:
        heed(what, started)
        time.sleep(min(left, 0.1))


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """SIGINT and SIGTERM interrupt the main thread at once, and soon the waits of all others.

    SIGINT raises `KeyboardInterrupt`, SIGTERM `TerminatedError`. Outside the main thread nothing changes.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        _ending.note(number)
        if number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        raise TerminatedError("Terminated", "", "Repeat the command; what was finished is kept.")

    if threading.current_thread() is not threading.main_thread():  # a test or a host program owns the signals
        yield
        return
    heard = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _ending.forget()


def _stopped(number: int | None, what: str, hint: str) -> StoppedError:
    if number == signal.SIGTERM:
        return TerminatedError(what, "terminated", hint)
    return StoppedError(what, "interrupted", hint)


def batched(items: Iterable[A], size: int) -> Iterator[list[A]]:
    """The items in lists of `size`, the last one shorter."""
    todo = iter(items)
    while batch := list(islice(todo, size)):
        yield batch


def in_threads(work: Callable[[A], B], items: Iterable[A], threads: int) -> Iterator[B]:
    """Results in the order of the items, with a bounded number of items under way.

    An error, of the work or of the items, is raised at its place; what is under way then is finished, the rest is not
    begun.
    """
    under_way: deque[Future[B]] = deque()
    has_failed = threading.Event()

    def begin(item: A) -> B:
        if has_failed.is_set():  # the caller has not come to cancel it yet, nor will it ask for the result
            raise CancelledError
        try:
            return work(item)
        except BaseException:
            has_failed.set()
            raise

    with ThreadPoolExecutor(threads) as pool:
        failure: Exception | None = None
        todo = iter(items)
        try:
            while True:
                try:
                    item = next(todo)
                except StopIteration:
                    break
                except Exception as error:  # noqa: BLE001 - raised below, in its place
                    failure = error
                    break
                under_way.append(pool.submit(begin, item))
                if len(under_way) > 2 * threads:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
            if failure is not None:
                raise failure
        finally:
            for future in under_way:
                future.cancel()


class Stop:
    """Notes SIGINT and SIGTERM while it is entered, so that the work can end at a clean place.

    A wait for a storage ends soon after. A second Ctrl-C interrupts at once. Outside the main thread, where
    signals cannot be caught, it only never says stop.
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
        if self._signal is not None:
            _ending.forget()

    def __bool__(self) -> bool:
        return self._signal is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        self._signal = number
        _ending.note(number)

    def until(self, items: Iterable[A]) -> Iterator[A]:
        """The items, until a stop is asked for."""
        for item in items:
            if self:
                return
            yield item

    def error(self, what: str, hint: str) -> StoppedError:
        """The error that ends a stopped command with the signal's exit code."""
        return _stopped(self._signal, what, hint)
