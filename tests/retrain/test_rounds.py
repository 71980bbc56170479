"""Rounds of a work folder: one at a time, each step's first result counts, and who works is told."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from tests.histories import histories

from plantml import storage
from plantml.errors import Exit, InputError, StorageError
from plantml.retrain import rounds
from plantml.storage import lease as leases
from plantml.storage.lease import Lease


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


@settings(max_examples=100)
@given(histories(["act", "round", "config", "outcome"], ["begin", "end", "take", "done"]))
def test_whatever_events_there_are_they_are_understood_or_told_as_damaged(events) -> None:
    with contextlib.suppress(StorageError):
        rounds.fold(events)


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
