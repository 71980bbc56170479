"""Threads and batch: measured where it is worth it, kept, and of no consequence for the answers."""

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest

from plantml import settings
from plantml.errors import StorageError
from plantml.model import autotune
from plantml.model.pipeline import BATCH, Pipeline
from plantml.model.runtimes import open_model

MANY = autotune.WORTH


class Clockwork:
    """A runtime whose calls take so long: `seconds(images)`."""

    name = "clockwork"

    def __init__(self, seconds):
        self._seconds, self.calls = seconds, []

    def run(self, batch, columns=None):
        assert batch.dtype == np.uint8
        self.calls.append(len(batch))
        time.sleep(self._seconds(len(batch)))
        return {}


@pytest.fixture
def machine(tmp_path):
    return settings.Machine(cache_dir=tmp_path / "cache", threads=2)


@pytest.fixture
def timed(trained):
    """`timed(seconds)`: a pipeline of a runtime whose calls take so long."""
    bundle = open_model(trained.run)[0]
    return lambda seconds: Pipeline(bundle, Clockwork(seconds))


def test_what_was_asked_for_is_taken_unmeasured(timed, machine):
    pipeline = timed(lambda images: 0)
    assert autotune.choose(pipeline, machine, MANY, threads=3, batch=5) == autotune.Setting(3, 5, "as set")
    assert pipeline.runtime.calls == []


def test_few_images_are_not_worth_measuring(timed, machine):
    pipeline = timed(lambda images: 0)
    result = autotune.choose(pipeline, machine, MANY - 1, threads=1)
    assert (result.threads, result.batch) == (1, BATCH)
    assert str(MANY) in result.why
    assert pipeline.runtime.calls == []
    assert not machine.cache_dir.exists()


def test_a_clearly_faster_batch_is_found_and_kept(timed, machine):
    pipeline = timed(lambda images: 0.004)  # the same for any number: the largest wins
    began = time.monotonic()
    result = autotune.choose(pipeline, machine, MANY)
    assert time.monotonic() - began < 4  # a second and a half, on a busy machine
    assert (result.threads, result.batch) == (2, 16)
    assert "measured" in result.why
    pipeline.runtime.calls.clear()
    again = autotune.choose(pipeline, machine, MANY)
    assert (again.threads, again.batch) == (2, 16)
    assert "kept" in again.why
    assert pipeline.runtime.calls == []


@pytest.mark.parametrize(
    "text", ["", "3", "[" * 100_000, '{"threads": "2", "batch": 8, "why": ""}',
             '{"threads": 1e9, "batch": 8, "why": ""}',
             '{"threads": 99999999999, "batch": 8, "why": ""}', '{"threads": 2}', "\udcff"]
)  # fmt: skip
def test_what_was_kept_and_makes_no_sense_is_measured_again(text, timed, machine):
    pipeline = timed(lambda images: 0.004)
    autotune.choose(pipeline, machine, MANY, threads=1)
    (kept,) = (machine.cache_dir / "speed").glob("*.json")
    kept.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert "kept" not in autotune.choose(pipeline, machine, MANY, threads=1).why


def test_only_what_is_left_open_is_measured(timed, machine):
    pipeline = timed(lambda images: 0.004)
    assert autotune.choose(pipeline, machine, MANY, batch=3).batch == 3
    assert set(pipeline.runtime.calls) == {3}


def test_a_damaged_or_locked_cache_costs_time_only(timed, machine, monkeypatch):
    pipeline = timed(lambda images: 0.001 * images if images == BATCH else 0.005 * images)
    assert autotune.choose(pipeline, machine, MANY).batch == BATCH
    [note] = machine.cache_dir.rglob("*.json")
    for text in ("", "[]", "{}", json.dumps({"threads": 2})):
        note.write_text(text)
        assert autotune.choose(pipeline, machine, MANY).batch == BATCH
    note.unlink()

    def refuse(url, data):
        raise StorageError("no room", "", "")

    monkeypatch.setattr(autotune.storage, "write", refuse)
    assert autotune.choose(pipeline, machine, MANY).batch == BATCH


def test_a_slow_model_is_not_kept_busy_with_measuring():
    calls = []
    speeds = autotune.measure(
        lambda images: (calls.append(images), time.sleep(0.05 * images)), (1, 8), [(1, 4), (1, 16)]
    )
    assert set(speeds) <= {(1, 8), (1, 4)}
    assert 16 not in calls


@pytest.mark.parametrize(
    ("speeds", "best"),
    [
        ({(2, 8): 100.0, (2, 16): 104.0}, (2, 8)),
        ({(2, 8): 100.0, (2, 16): 106.0, (1, 8): 90.0}, (2, 16)),
        ({(2, 8): 100.0, (1, 8): 120.0, (2, 4): 110.0}, (1, 8)),
        ({(2, 8): 100.0}, (2, 8)),
    ],
)
def test_the_usual_is_left_for_a_clear_gain_only(speeds, best):
    assert autotune.fastest(speeds, (2, 8)) == best


def test_a_device_is_offered_larger_batches(timed, machine):
    pipeline = timed(lambda images: 0.004)
    assert autotune.choose(pipeline, machine, MANY, device="cuda").batch == 128


@pytest.mark.parametrize(("threads", "batch"), [(1, 1), (1, 16), (2, 4), (3, 5)])
def test_the_answers_do_not_depend_on_it(trained, threads, batch):
    bundle, runtime = open_model(trained.run)
    urls = sorted(Path(trained.photos).rglob("*.jpg"))[:19]

    def answers(**given):
        result = Pipeline(bundle, runtime, **given).run([*map(str, urls), "missing.jpg"])
        return [json.dumps(prediction.record.as_json()) for prediction in result]

    assert answers(threads=threads, batch=batch) == answers(threads=2, batch=BATCH)


def test_a_long_run_says_what_it_chose_and_why(cli, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(autotune, "WORTH", 50)
    line = ("detect", trained.photos, "--model", trained.run, "--verbose", "--out")
    first = cli(*line, tmp_path / "a.jsonl")
    assert first.code == 0, first.err
    assert re.search(r"\d threads?, batch size \d+ \(measured: \d+ x 8 [\d.]+/s", first.err)
    assert "kept from an earlier run" in cli(*line, tmp_path / "b.jsonl").err
    asked = cli(*line, tmp_path / "c.jsonl", "--threads", 1, "--batch", 3)
    assert "1 thread, batch size 3 (as set)" in asked.err
    texts = {(tmp_path / f"{name}.jsonl").read_bytes() for name in "abc"}
    assert len(texts) == 1
