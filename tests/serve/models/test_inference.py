"""The queue: bounded, shared evenly, cancelled, drained."""

import asyncio
import gc
import threading
import time
import weakref

import pytest

from plantml.serve.models.inference import DeadlineError, InferenceQueue, cancelled_with
from plantml.serve.web.problems import RequestError


@pytest.fixture
def queue_of():
    """`queue_of(threads=…, batch=…, capacity=…)`: a queue that is closed at the end."""
    queues = []

    def make(threads=1, batch=4, capacity=8, **more):
        queues.append(queue := InferenceQueue(threads, batch, capacity, **more))
        return queue

    yield make
    for queue in queues:
        queue.close()


class Gate:
    """Work that waits until it is opened, and remembers what it was given."""

    def __init__(self):
        self.open, self.begun, self.calls = threading.Event(), threading.Event(), []

    def double(self, items):
        self.calls.append(items)
        self.begun.set()
        assert self.open.wait(10)
        return [2 * item for item in items]


def sized(*items, size=1):
    return [(item, size) for item in items]


async def until(condition):
    while not condition():
        await asyncio.sleep(0.002)


@pytest.fixture
def gate():
    there = Gate()
    yield there
    there.open.set()


def test_results_come_in_order(queue_of):
    queue = queue_of(threads=3, capacity=100)

    async def ask(start):
        return await queue.compute(lambda items: [item + 1 for item in items], sized(*range(start, start + 9)), 5)

    async def all_at_once():
        return await asyncio.gather(*(ask(start) for start in range(0, 90, 9)))

    assert [each for part in asyncio.run(all_at_once()) for each in part] == list(range(1, 91))


def test_a_thread_takes_its_share_of_what_waits_and_only_equal_work(queue_of, gate):
    queue, other = queue_of(threads=1, batch=3), Gate()
    other.open.set()

    async def walk():
        asks = [asyncio.ensure_future(queue.compute(gate.double, sized(0), 5))]
        await until(gate.begun.is_set)
        asks += [asyncio.ensure_future(queue.compute(gate.double, sized(n), 5)) for n in range(1, 6)]
        asks += [asyncio.ensure_future(queue.compute(other.double, sized(6), 5))]
        await until(lambda: len(queue) == 6)
        gate.open.set()
        return await asyncio.gather(*asks)

    assert asyncio.run(walk()) == [[2 * n] for n in range(7)]
    assert gate.calls == [[0], [1, 2, 3], [4, 5]]
    assert other.calls == [[6]]


def test_a_slow_start_is_shared_by_a_batch_that_waits(queue_of):
    """A network whose calls take as long for one photo as for many, as on a GPU."""

    def ask(wait):
        queue, calls = queue_of(threads=2, batch=4, capacity=16, wait=wait), []

        def slow_start(items):
            calls.append(len(items))
            time.sleep(0.002)
            return items

        async def walk():
            return await asyncio.gather(*(queue.compute(slow_start, sized(n), 60) for n in range(8)))

        assert asyncio.run(walk()) == [[n] for n in range(8)]
        return calls

    assert ask(wait=30.0) == [4, 4]
    assert len(ask(wait=0.0)) > 2


def test_a_batch_that_does_not_fill_goes_without_the_rest(queue_of):
    queue = queue_of(threads=2, batch=64, capacity=64, wait=0.1)

    def count(items):
        return [len(items)] * len(items)

    async def walk():
        return await asyncio.gather(*(queue.compute(count, sized(n), 60) for n in range(2)))

    assert asyncio.run(walk()) == [[2], [2]]
    waits = []
    ending = queue_of(threads=1, batch=64, wait=60.0, note_wait=waits.append)

    async def end():
        last = asyncio.ensure_future(ending.compute(lambda items: items, sized(1), 60))
        await until(lambda: len(ending) == 1)
        await asyncio.to_thread(ending.close)
        return await last

    assert asyncio.run(end()) == [1]
    assert waits[0] < 60


def test_a_full_queue_refuses_at_once_and_takes_again_when_there_is_room(queue_of, gate):
    queue = queue_of(capacity=2)

    async def walk():
        asks = [asyncio.ensure_future(queue.compute(gate.double, sized(0), 5))]
        await until(gate.begun.is_set)
        queue.check()
        asks.append(asyncio.ensure_future(queue.compute(gate.double, sized(1, 2), 5)))
        await until(lambda: len(queue) == 2)
        with pytest.raises(RequestError) as refused:
            queue.check()
        assert refused.value.status == 503
        assert int(refused.value.headers["Retry-After"]) > 0
        with pytest.raises(RequestError, match="busy"):
            await queue.compute(gate.double, sized(3), 5)
        gate.open.set()
        await asyncio.gather(*asks)
        return await queue.compute(gate.double, sized(3), 5)

    assert asyncio.run(walk()) == [6]


def test_more_bytes_than_memory_should_hold_are_refused(queue_of, gate):
    queue = queue_of(capacity=100)

    async def walk():
        asks = [asyncio.ensure_future(queue.compute(gate.double, sized(0), 5))]
        await until(gate.begun.is_set)
        asks.append(asyncio.ensure_future(queue.compute(gate.double, sized(1, size=2**40), 5)))
        await until(lambda: len(queue) == 1)
        with pytest.raises(RequestError, match="busy"):
            queue.check()
        gate.open.set()
        await asyncio.gather(*asks)
        queue.check()

    asyncio.run(walk())


@pytest.mark.parametrize("how", ["deadline", "leaves"])
def test_what_nobody_waits_for_is_not_computed(queue_of, gate, how):
    queue = queue_of(capacity=2)

    async def walk():
        first = asyncio.ensure_future(queue.compute(gate.double, sized(0), 5))
        await until(gate.begun.is_set)
        second = asyncio.ensure_future(queue.compute(gate.double, sized(1, 2), 0.05 if how == "deadline" else 5))
        await until(lambda: len(queue) == 2)
        if how == "leaves":
            second.cancel()
        with pytest.raises(DeadlineError if how == "deadline" else asyncio.CancelledError):
            await second
        assert len(queue) == 0
        third = asyncio.ensure_future(queue.compute(gate.double, sized(3), 5))
        await until(lambda: len(queue) == 1)
        gate.open.set()
        return await asyncio.gather(first, third)

    assert asyncio.run(walk()) == [[0], [6]]
    assert gate.calls == [[0], [3]]


def test_a_client_who_leaves_ends_the_request_and_another_error_stays(queue_of):
    async def walk():
        left = asyncio.Event()
        asyncio.get_running_loop().call_later(0.02, left.set)
        with pytest.raises(RequestError, match="left"):
            async with cancelled_with(left.wait):
                await asyncio.sleep(5)
        with pytest.raises(ZeroDivisionError):
            async with cancelled_with(asyncio.Event().wait):
                raise ZeroDivisionError
        async with cancelled_with(asyncio.Event().wait):
            done = True
        assert asyncio.current_task().cancelling() == 0
        return done

    assert asyncio.run(walk())


def test_an_error_hits_its_own_item_only(queue_of, gate):
    queue = queue_of(batch=8)

    def divide(items):
        return [6 // item for item in items]

    async def walk():
        first = asyncio.ensure_future(queue.compute(gate.double, sized(0), 5))
        await until(gate.begun.is_set)
        asks = [asyncio.ensure_future(queue.compute(divide, sized(n), 5)) for n in (1, 0, 3)]
        await until(lambda: len(queue) == 3)
        gate.open.set()
        await first
        return await asyncio.gather(*asks, return_exceptions=True)

    one, error, two = asyncio.run(walk())
    assert (one, two) == ([6], [2])
    assert isinstance(error, ZeroDivisionError)


def test_closing_finishes_what_waits_and_refuses_the_rest(queue_of, gate):
    queue = queue_of(capacity=8)

    async def walk():
        asks = [asyncio.ensure_future(queue.compute(gate.double, sized(n), 5)) for n in range(5)]
        await until(gate.begun.is_set)
        closing = asyncio.ensure_future(asyncio.to_thread(queue.close))
        await until(lambda: _refuses(queue))
        gate.open.set()
        await closing
        return await asyncio.gather(*asks)

    assert asyncio.run(walk()) == [[0], [2], [4], [6], [8]]


def _refuses(queue):
    try:
        queue.check()
    except RequestError:
        return True
    return False


def test_waits_are_measured(queue_of, gate):
    waits = []
    queue = queue_of(note_wait=waits.append)

    async def walk():
        first = asyncio.ensure_future(queue.compute(gate.double, sized(0), 5))
        await until(gate.begun.is_set)
        second = asyncio.ensure_future(queue.compute(gate.double, sized(1), 5))
        await asyncio.sleep(0.05)
        gate.open.set()
        await asyncio.gather(first, second)

    asyncio.run(walk())
    assert waits[0] < 0.05 <= waits[1]


def test_nothing_is_kept_of_what_was_computed(queue_of):
    class Photo:
        pass

    queue, known = queue_of(threads=2, capacity=50), weakref.WeakSet()

    async def walk():
        for _ in range(50):
            photos = [Photo() for _ in range(10)]
            known.update(photos)
            await queue.compute(lambda items: [len(items) for _ in items], sized(*photos), 5)

    asyncio.run(walk())
    end = time.monotonic() + 5
    while len(known) and time.monotonic() < end:  # a thread lets go of the last ones when it waits again
        gc.collect()
        time.sleep(0.01)
    assert not len(known)
