"""One of several works, a dead one's work is taken over, and a lost lease is noticed."""

import contextlib
import time

import pytest
from hypothesis import given, settings
from tests.histories import histories

from plantml.errors import StoppedError, StorageError
from plantml.storage import lease as leases
from plantml.storage.event_log import Events
from plantml.storage.lease import Lease, LeaseStop


def acts(url):
    return [event.content["act"] for event in Events(url).read()]


def test_one_of_several_has_it(url) -> None:
    log = f"{url}/events"
    first, second = Lease(log, 60), Lease(log, 60)
    assert first.take() is None
    with first:
        holder = second.take()
        assert holder is not None
        assert holder["host"]
    assert second.take() is None
    with second:
        pass
    assert acts(log) == ["take", "release", "take", "release"]


def test_of_many_at_once_one_has_it(tmp_path, run_python) -> None:
    code = """
import sys, time
from plantml.storage.lease import Lease
lease = Lease(sys.argv[1], 60)
while time.time() < float(sys.argv[2]): pass
print("mine" if lease.take() is None else "theirs")
time.sleep(2)
"""
    start = time.time() + 4
    processes = [run_python(code, tmp_path / "events", start) for _ in range(4)]
    answers = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert sorted(answers) == ["mine", "theirs", "theirs", "theirs"]


def test_it_is_renewed_while_it_is_held_and_runs_out_when_it_is_not(tmp_path) -> None:
    log = str(tmp_path / "events")
    lease = Lease(log, 0.6)
    assert lease.take() is None
    with lease:
        time.sleep(1.5)
        assert Lease(log, 0.6).take() is not None
        assert not lease.lost
    assert "renew" in acts(log)

    silent = Lease(log, 0.2)
    assert silent.take() is None  # and never renewed, as if its machine had gone
    time.sleep(0.3)
    assert Lease(log, 60).take() is None


def test_what_a_dead_process_of_this_machine_held_is_free_at_once(tmp_path, run_python) -> None:
    log = str(tmp_path / "events")
    code = "import os, sys\nfrom plantml.storage.lease import Lease\nLease(sys.argv[1], 3600).take()\nos._exit(9)"
    run_python(code, log).communicate(timeout=60)
    assert acts(log) == ["take"]
    if leases._boot():
        assert Lease(log, 60).take() is None


def test_of_another_machine_it_is_not(tmp_path, monkeypatch) -> None:
    log = str(tmp_path / "events")
    with monkeypatch.context() as patch:
        patch.setattr(leases, "_process", lambda: {"host": "other", "boot": "other 1", "pid": 1, "started": "1"})
        assert Lease(log, 3600).take() is None
    holder = Lease(log, 60).take()
    assert holder is not None
    assert holder["host"] == "other"
    assert leases.current_holder(Events(log).read(), now=time.time() + 3601) is None


def test_who_lost_it_is_told_to_stop(tmp_path) -> None:
    log = str(tmp_path / "events")
    lease = Lease(log, 0.6)
    assert lease.take() is None
    stop = LeaseStop()
    with stop, lease:
        stop.lease = lease
        assert not stop
        # Another machine, whose clock is ahead, takes it.
        Events(log).append(lambda _: {"act": "take", "until": time.time() + 60, "lease": "theirs"})
        deadline = time.monotonic() + 10
        while not stop and time.monotonic() < deadline:
            time.sleep(0.05)
        assert stop
        with pytest.raises(StoppedError, match="another machine"):
            raise stop.error("Stopped", "Repeat.")
    assert acts(log) == ["take", "take"]  # it does not release what is not its own


@settings(max_examples=100)
@given(histories(["act", "until", "lease", "host", "boot", "pid", "started"], ["take", "renew", "release", "done"]))
def test_whatever_events_there_are_they_are_understood_or_told_as_damaged(events) -> None:
    with contextlib.suppress(StorageError):
        leases.current_holder(events)
