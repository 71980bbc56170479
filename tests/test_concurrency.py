import contextlib
import signal
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantml.concurrency import Stop, batched, in_threads
from plantml.errors import Exit


@given(st.lists(st.integers()), st.integers(1, 7))
def test_batches_hold_all_items_in_order_and_only_the_last_is_short(items, size):
    batches = list(batched(items, size))
    assert [item for batch in batches for item in batch] == items
    assert all(len(batch) == size for batch in batches[:-1])
    assert all(0 < len(batch) <= size for batch in batches)


def test_batches_are_taken_when_they_are_asked_for():
    taken = []
    batches = batched((taken.append(i) or i for i in range(100)), 3)
    assert next(batches) == [0, 1, 2]
    assert len(taken) == 3


def test_results_come_in_the_order_of_the_items():
    first_is_held = threading.Event()

    def work(item):
        if item == 0:
            assert first_is_held.wait(10)
        if item == 2:
            first_is_held.set()
        return item * 10

    assert list(in_threads(work, range(20), 4)) == [item * 10 for item in range(20)]


def test_work_is_done_at_the_same_time():
    together = threading.Barrier(3, timeout=10)
    assert list(in_threads(lambda item: together.wait() >= 0, range(3), 3)) == [True] * 3


def test_no_more_items_are_taken_than_can_be_under_way():
    taken = []
    results = in_threads(lambda item: item, (taken.append(i) or i for i in range(1000)), 2)
    for expected in range(10):
        assert next(results) == expected
        assert len(taken) <= expected + 1 + 2 * 2
    results.close()
    assert len(taken) < 20


def test_an_error_is_raised_in_its_place_and_the_rest_is_not_begun():
    begun = []

    def work(item):
        begun.append(item)
        if item == 5:
            raise KeyError(item)
        return item

    with pytest.raises(KeyError):
        list(in_threads(work, range(1000), 2))
    assert len(begun) <= 5 + 1 + 2 * 2 + 1


def test_what_waits_for_a_thread_when_an_error_comes_is_never_begun():
    begun = []

    def work(item):
        begun.append(item)
        if item == 0:
            raise KeyError(item)
        time.sleep(0.3)

    with pytest.raises(KeyError):
        list(in_threads(work, range(1000), 1))
    assert begun in ([0], [0, 1])


def test_results_before_an_error_are_given():
    results = in_threads(lambda item: 10 // (3 - item), range(10), 2)
    assert [next(results), next(results), next(results)] == [3, 5, 10]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_no_thread_is_left_behind_when_nobody_listens_any_more():
    before = threading.active_count()
    results = in_threads(lambda item: item, range(1000), 4)
    next(results)
    results.close()
    assert threading.active_count() == before


_SIGNALLED = """
import signal, sys
from plantml.concurrency import Stop

with Stop() as stop:
    assert not stop
    signal.raise_signal(int(sys.argv[1]))
    assert stop
error = stop.error("Stopped", "Repeat the command.")
print(int(error.exit_code), error.hint)
"""

_INTERRUPTED_TWICE = """
import signal
from plantml.concurrency import Stop

with Stop():
    signal.raise_signal(signal.SIGINT)
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        print("at once")
"""


_STOPPED_AT_AN_ITEM = """
import signal
from plantml.concurrency import Stop

with Stop() as stop:
    seen = []
    for item in stop.until(range(10)):
        seen.append(item)
        if item == 3:
            signal.raise_signal(signal.SIGTERM)
print(seen)
"""

_TERMINATED_TWICE = """
import signal
from plantml.concurrency import Stop

with Stop() as stop:
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    print("asked" if stop else "not asked")
"""


# In a process of their own: a worker of the test run has ideas of its own about signals.
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, Exit.INTERRUPTED), (signal.SIGTERM, Exit.TERMINATED)])
def test_a_signal_asks_for_the_end_and_gives_its_exit_code(run_python, number, code):
    out, err = run_python(_SIGNALLED, int(number)).communicate(timeout=60)
    assert out.split(maxsplit=1) == [str(int(code)), "Repeat the command.\n"], err


def test_items_end_where_a_stop_is_asked_for(run_python):
    out, err = run_python(_STOPPED_AT_AN_ITEM).communicate(timeout=60)
    assert out == "[0, 1, 2, 3]\n", err


def test_all_items_come_where_nothing_stops_them():
    with Stop() as stop:
        assert list(stop.until(range(5))) == [0, 1, 2, 3, 4]


def test_a_second_interrupt_interrupts_at_once(run_python):
    out, err = run_python(_INTERRUPTED_TWICE).communicate(timeout=60)
    assert out == "at once\n", err


def test_a_second_termination_waits_for_the_clean_place_too(run_python):
    out, err = run_python(_TERMINATED_TWICE).communicate(timeout=60)
    assert out == "asked\n", err


@pytest.mark.parametrize("work", [lambda: None, lambda: 1 / 0], ids=["well", "badly"])
def test_signals_are_handled_afterwards_as_before_however_it_ended(work):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with contextlib.suppress(ZeroDivisionError), Stop():
        assert signal.getsignal(signal.SIGTERM) != before[1]
        work()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_outside_the_main_thread_it_never_says_stop():
    said = []

    def run():
        with Stop() as stop:
            said.append(bool(stop))
            said.extend(stop.until([1, 2]))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    assert said == [False, 1, 2]
