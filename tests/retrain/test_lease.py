"""One of several works, a dead one's work is taken over, and a lost lease is noticed."""

import contextlib
import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plantml import storage
from plantml.errors import Exit, InputError, StoppedError, StorageError
from plantml.retrain import lease as leases
from plantml.retrain import rounds
from plantml.retrain.lease import Lease, LeaseStop
from plantml.storage.event_log import Event, Events


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
from plantml.retrain.lease import Lease
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
    code = "import os, sys\nfrom plantml.retrain.lease import Lease\nLease(sys.argv[1], 3600).take()\nos._exit(9)"
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


def test_a_busy_loop_says_who_works(loop, paint_feed, honest, tmp_path, monkeypatch) -> None:
    loop.write([(paint_feed(tmp_path / "first", honest(4), 1), {})])
    with monkeypatch.context() as patch:
        patch.setattr(leases, "_process", lambda: {"host": "box-2", "boot": "x", "pid": 7, "started": "1"})
        assert Lease(rounds.log(loop.place("work")), 3600).take() is None
    busy = loop()
    assert busy["outcome"] == "busy"
    assert "box-2" in busy["reasons"][0]
    step = loop.cli("retrain", loop.file, "--step", "add")
    assert (step.code, "box-2" in step.err) == (Exit.STORAGE, True)  # a task that is tried again
    assert not Path(loop.place("data")).exists()


# --- state ------------------------------------------------------------------------------------


def test_of_two_results_of_a_step_the_first_counts(url) -> None:
    begun = {"round": 1}
    one, other = (rounds.Round(url, 1, begun) for _ in range(2))
    assert one.next == "add"
    assert one.record("add", {"n": 1}, {}) == {"n": 1}
    assert other.record("add", {"n": 2}, {}) == {"n": 1}
    assert rounds.Round(url, 1, begun).results == {"add": {"n": 1}}
    assert json.loads(storage.read(f"{url}/rounds/000001/01-add.json"))["step"] == "add"


def test_rounds_are_a_fold_over_events(url) -> None:
    assert rounds.state(url).open == 0
    assert rounds.begin(url, {"base": 0, "config": {}}) == 1
    assert rounds.begin(url, {"base": 5}) == 1  # one at a time
    assert rounds.state(url).begun[1]["base"] == 0
    rounds.end(url, 1, {"outcome": "abandoned"})
    rounds.end(url, 1, {"outcome": "promoted"})
    assert rounds.state(url).ended[1][1]["outcome"] == "abandoned"
    assert rounds.state(url).last == 0
    assert rounds.begin(url, {"base": 0, "config": {}}) == 2
    rounds.end(url, 2, {"outcome": "refused"})
    assert (rounds.state(url).open, rounds.state(url).last) == (0, 2)


contents = st.dictionaries(
    st.sampled_from(["act", "round", "config", "outcome", "until", "lease", "host", "boot", "pid", "started"]),
    st.sampled_from(["begin", "end", "take", "renew", "release", "done"])
    | st.none() | st.integers(0, 2) | st.floats() | st.just({}) | st.just([]),
)  # fmt: skip


@settings(max_examples=100)
@given(st.lists(contents, max_size=3))
def test_whatever_events_there_are_they_are_understood_or_told_as_damaged(content) -> None:
    events = [Event(number, "2026-01-01T00:00:00Z", one) for number, one in enumerate(content, start=1)]
    for read in (leases.current_holder, rounds.fold):
        with contextlib.suppress(StorageError):
            read(events)


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"result": 1}', "[" * 9000, "no json"])
def test_a_damaged_result_of_a_step_is_told_by_its_file(tmp_path, text) -> None:
    one = rounds.Round(str(tmp_path), 1, {})
    one.record("add", {"rows": 1}, {})
    file = tmp_path / "rounds" / "000001" / "01-add.json"
    for content in (text, file.read_text().replace('"rows": 1', '"rows": 2')):
        file.write_text(content)
        with pytest.raises(InputError, match=r"01-add\.json is damaged") as error:
            rounds.Round(str(tmp_path), 1, {})
        assert "delete it" in error.value.hint
