"""Parts are started again, given up or ended: with an engine that does what a test says."""

import sys
from types import SimpleNamespace

import pytest

from plantml.concurrency import Listener
from plantml.engines import dispatch, local
from plantml.engines.dispatch import Event, lost
from plantml.engines.jobs import ATTEMPTS, Job
from plantml.errors import InputError, StorageError


def job(*sizes):
    return Job(url="job", kind="detect", options={}, sizes=sizes, segments="out", ending=".jsonl", after=0, threads=1,
               offline=False, folder="/", witness=None, versions={})  # fmt: skip


class Scripted:
    """Ends every attempt at a part as `ends(number, attempt)` says; a part that it answers with "lost" is lost."""

    name, workers, threads = "scripted", 2, 1

    def __init__(self, ends=lambda number, attempt: None):
        self._ends, self._events, self.started = ends, [], []

    def start(self, job, attempts):
        self.started += attempts
        for place in attempts:
            self._events += [Event(*place, photos=1), Event(*place, has_ended=True, error=self._ends(*place))]

    def wait(self):
        events, self._events = self._events, []
        return events


def run(engine, job, *, stop=False):
    counts, warnings = [], []
    dispatch.run(job, engine, stop, Listener(warn=warnings.append), counts.append)
    return counts, warnings


def test_photos_of_all_parts_are_counted():
    counts, warnings = run(Scripted(), job(5, 5, 2))
    assert counts[-1] == 12
    assert warnings == []


def test_a_lost_part_is_started_again_and_counted_once():
    engine = Scripted(lambda number, attempt: lost("signal 9") if (number, attempt) == (2, 0) else None)
    counts, (warning,) = run(engine, job(5, 5))
    assert engine.started == [(1, 0), (2, 0), (2, 1)]
    assert counts[-1] == 10
    assert "signal 9" in warning


def test_a_part_that_is_lost_again_and_again_is_given_up_after_all_others_are_done():
    engine = Scripted(lambda number, _: lost("signal 9") if number == 1 else None)
    with pytest.raises(StorageError, match=f"Part 1 failed {ATTEMPTS} times") as error:
        run(engine, job(1, 1, 1))
    assert [attempt for number, attempt in engine.started if number == 1] == list(range(ATTEMPTS))
    assert "Repeat" in error.value.hint


def test_an_error_that_every_part_would_have_ends_all():
    engine = Scripted(lambda *_: InputError("other versions", "", "Install"))
    with pytest.raises(InputError, match="other versions"):
        run(engine, job(1, 1, 1))
    assert len(engine.started) == 3


def test_nothing_is_waited_for_after_a_stop():
    run(Scripted(lambda *_: lost("cancelled")), job(1, 1), stop=True)


def test_news_of_an_earlier_attempt_are_ignored():
    class Late(Scripted):
        def wait(self):
            late = [Event(1, 0, photos=99), Event(1, 0, has_ended=True)] if (1, 1) in self.started else []
            return [*late, *super().wait()]

    counts, _ = run(Late(lambda _, attempt: None if attempt else lost("signal 9")), job(5))
    assert max(counts) == 5


@pytest.mark.parametrize(("given", "expected"), [(None, "3"), ("1", "1")])
def test_the_libraries_of_a_local_worker_use_its_share_of_the_cores(monkeypatch, tmp_path, given, expected):
    script = f"import os, sys; sys.exit(os.environ['OMP_NUM_THREADS'] != {expected!r})"
    monkeypatch.setattr(local, "COMMAND", (sys.executable, "-c", script))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    with local.LocalEngine(1, 3) as engine:
        assert engine._begin(SimpleNamespace(url=str(tmp_path), digest="d")).process.wait(30) == 0
