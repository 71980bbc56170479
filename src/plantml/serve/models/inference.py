"""The queue in front of the network: a bounded number of photos waits for one thread per core.

A thread takes its even share of what already waits: on a CPU a batch is no faster than its photos one by one. For a GPU
it waits some milliseconds for a whole batch. Nobody waits longer than the deadline, and the photos of a client who left
are not computed.
"""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

from fastapi import Request

from plantml.serve.web.problems import RequestError, busy
from plantml.serve.web.tracing import Tracing

A = TypeVar("A")
B = TypeVar("B")

Work = Callable[[list[A]], Sequence[B]]
"""Computes one result per item. Equal work is done together: give the same method of the same object."""

_MOST_BYTES = 2**29
"""Most bytes of photos that wait."""


class DeadlineError(RequestError):
    """The deadline passed before all photos were computed."""


@dataclass(eq=False)
class _Waiting:
    work: Work[Any, Any]
    item: Any
    size: int
    future: asyncio.Future[Any]
    since: float = field(default_factory=time.perf_counter)
    waited: float = 0.0


class InferenceQueue:
    """Items that wait, and the threads that compute them.

    Args:
        threads: that compute.
        batch: most items of one call.
        capacity: most items that wait; more are refused.
        note_wait: called with the seconds that each item has waited.
        note_refusal: called with `full` or `deadline` for each refusal.
        wait: seconds that an item waits until a call has its most items.
        tracing: has a span for the items of a call.
    """

    def __init__(
        self,
        threads: int,
        batch: int,
        capacity: int,
        note_wait: Callable[[float], None] = lambda _: None,
        note_refusal: Callable[[str], None] = lambda _: None,
        *,
        wait: float = 0.0,
        tracing: Tracing = Tracing(),  # noqa: B008 - it holds nothing
    ) -> None:
        self.capacity = capacity
        self._wait = wait
        self._batch, self._note_wait, self._note_refusal, self._tracing = batch, note_wait, note_refusal, tracing
        self._waiting: deque[_Waiting] = deque()
        self._size = 0
        self._changed = threading.Condition()
        self._has_ended = False
        self._threads = [threading.Thread(target=self._run, name=f"predict-{n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        """Items that wait."""
        return len(self._waiting)

    def check(self) -> None:
        """Raise `RequestError` 503 if nothing more is taken: ask before a request's body is read."""
        if self._has_ended:
            raise busy("it is shutting down")
        if len(self._waiting) >= self.capacity or self._size >= _MOST_BYTES:
            self._refuse()

    async def compute(self, work: Work[A, B], items: Sequence[tuple[A, int]], seconds: float) -> list[B]:
        """The results for some items, in order.

        Args:
            work: computes them.
            items: each with its size in bytes.
            seconds: to wait at most.

        Raises:
            RequestError: 503, the queue is full or the deadline has passed. Nothing of it waits any longer then, nor
                after this coroutine was cancelled.
        """
        with self._tracing.span("inference", photos=len(items)) as span:
            waiting = self._add(work, items)
            results = await self._results(waiting, seconds)
            if span is not None:
                span.set_attribute("plantml.queue_seconds", max(each.waited for each in waiting))
            return results

    async def _results(self, waiting: Sequence[_Waiting], seconds: float) -> list[Any]:
        try:
            async with asyncio.timeout(seconds):
                return [await each.future for each in waiting]
        except TimeoutError:
            self._note_refusal("deadline")
            why = f"the photos were not predicted within {seconds:g} s"
            raise DeadlineError(503, "The server is busy", why, "Try again later, with fewer photos.") from None
        finally:
            self._discard(waiting)

    def close(self) -> None:
        """Compute what waits, then end; new items are refused."""
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _add(self, work: Work[A, B], items: Sequence[tuple[A, int]]) -> list[_Waiting]:
        loop = asyncio.get_running_loop()
        waiting = [_Waiting(work, item, size, loop.create_future()) for item, size in items]
        with self._changed:
            self.check()
            if len(self._waiting) + len(waiting) > self.capacity:
                self._refuse()
            self._waiting += waiting
            self._size += sum(each.size for each in waiting)
            self._changed.notify(len(waiting))
        return waiting

    def _refuse(self) -> NoReturn:
        self._note_refusal("full")
        raise busy(f"{len(self._waiting)} photos wait already")

    def _discard(self, unwanted: Sequence[_Waiting]) -> None:
        """Forget items of a request that nobody waits for, so that others get their places."""
        dropped = set()
        for each in unwanted:
            if each.future.cancel() or each.future.cancelled():
                dropped.add(each)
            else:
                each.future.exception()  # asyncio logs what nobody has looked at
        if not dropped:
            return
        with self._changed:
            dropped &= set(self._waiting)
            self._waiting = deque(each for each in self._waiting if each not in dropped)
            self._size -= sum(each.size for each in dropped)

    def _run(self) -> None:
        while taken := self._take():
            _settle(_compute([each for each in taken if not each.future.cancelled()]))
            del taken  # while nothing waits, no photo is kept

    def _patience(self) -> float | None:
        """Seconds that a thread waits before it takes what there is; `None` for as long as there is nothing."""
        if self._has_ended or (self._waiting and (not self._wait or len(self._waiting) >= self._batch)):
            return 0.0
        if not self._waiting:
            return None
        return max(0.0, self._waiting[0].since + self._wait - time.perf_counter())

    def _take(self) -> list[_Waiting]:
        """What one thread computes next, of one work; nothing at the end."""
        with self._changed:
            while (patience := self._patience()) != 0:
                self._changed.wait(patience)
            if not self._waiting:
                return []
            share = self._batch if self._wait else -(-len(self._waiting) // len(self._threads))
            number = min(self._batch, share)
            taken = [self._waiting.popleft()]
            while self._waiting and len(taken) < number and self._waiting[0].work == taken[0].work:
                taken.append(self._waiting.popleft())
            self._size -= sum(each.size for each in taken)
        now = time.perf_counter()
        for each in taken:
            each.waited = now - each.since
            self._note_wait(each.waited)
        return taken


@dataclass(frozen=True)
class _Outcome:
    future: asyncio.Future[Any]
    result: object = None
    error: Exception | None = None


def _compute(taken: list[_Waiting]) -> list[_Outcome]:
    """Compute items of one work. If they fail together, one by one: an error is that of its own item."""
    if not taken:
        return []
    try:
        results = taken[0].work([each.item for each in taken])
    except Exception as error:  # noqa: BLE001 - raised where the result is awaited
        if len(taken) == 1:
            return [_Outcome(taken[0].future, error=error)]
        return [outcome for each in taken for outcome in _compute([each])]
    return [_Outcome(each.future, result) for each, result in zip(taken, results, strict=True)]


def _settle(outcomes: Sequence[_Outcome]) -> None:
    """Give futures their results and errors, from another thread than that of their loop, which wakes up once."""

    def settle() -> None:
        for each in outcomes:
            if each.future.done():  # nobody waits any more
                continue
            if each.error is None:
                each.future.set_result(each.result)
            else:
                each.future.set_exception(each.error)

    if outcomes:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            outcomes[0].future.get_loop().call_soon_threadsafe(settle)


@contextlib.asynccontextmanager
async def cancelled_with(gone: Callable[[], Any]) -> AsyncIterator[None]:
    """Cancel the block when `gone`, a coroutine function, returns: the client has left.

    Raises:
        RequestError: 499, for the access log.
    """
    task = asyncio.current_task()
    assert task is not None
    watcher = asyncio.ensure_future(gone())
    has_left = False

    def cancel(done: asyncio.Future[Any]) -> None:
        nonlocal has_left
        if not done.cancelled():
            has_left = True
            task.cancel()

    watcher.add_done_callback(cancel)
    try:
        yield
    except asyncio.CancelledError:
        if has_left and not task.uncancel():
            raise RequestError(499, "The client has left") from None
        raise
    finally:
        watcher.remove_done_callback(cancel)
        watcher.cancel()


async def gone(request: Request) -> None:
    """Return when the client of a request, whose body was read, has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
