import os
import signal
import time

import numpy as np
import pytest

from plantml.concurrency import Stop
from plantml.errors import StoppedError
from plantml.validate import prediction_cache
from plantml.validate.prediction_cache import PredictionCache

PHOTOS = [(name, name, {}) for name in ("none", "rust", "blight")] * 12


def test_what_was_answered_is_not_answered_again(paint, painted, judged):
    data, pipeline = paint(PHOTOS), painted()
    first = judged(data, pipeline)
    assert (first.new, pipeline.runtime.seen) == (36, 36)
    again = judged(data, pipeline)
    assert (again.new, pipeline.runtime.seen) == (0, 36)
    assert again.scores == first.scores
    assert again.decisions == first.decisions
    fresh = judged(data, pipeline, fresh=True)
    assert (fresh.new, pipeline.runtime.seen) == (36, 72)


def test_kept_answers_are_the_very_ones(paint, painted, judged, tmp_path):
    data, pipeline = paint(PHOTOS), painted()
    tables = []
    for name in ("first", "again"):
        judged(data, pipeline, out=str(tmp_path / name))
        tables.append((tmp_path / name / "predictions.csv").read_bytes())
    assert tables[0] == tables[1]


def test_another_model_or_runtime_is_asked_itself(paint, painted, judged):
    data, pipeline = paint(PHOTOS), painted()
    judged(data, pipeline)
    other = painted(digest="other")
    assert judged(data, other).new == 36
    pipeline.runtime.name = "elsewhere"
    assert judged(data, pipeline).new == 36


class StopsAfter(Stop):
    """As if a signal came after so many photos."""

    def __init__(self, photos):
        super().__init__()
        self.left = photos

    def until(self, items):
        for item in items:
            self.left -= 1
            if self.left < 0:
                self._signal = signal.SIGTERM
                return
            yield item


def test_a_stopped_validation_goes_on_where_it_was(paint, painted, judged):
    data, pipeline = paint(PHOTOS), painted()
    with pytest.raises(StoppedError, match="after 20 of 36") as error:
        judged(data, pipeline, stop=StopsAfter(20))
    assert "resume" in error.value.hint
    result = judged(data, pipeline)
    assert result.new == 16
    assert pipeline.runtime.seen == 36


KILLED = """
import sys, time, runpy
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from plantml.validate import prediction_cache
prediction_cache.SEGMENT_ROWS = 4
from plantml.model import pipeline
answer = pipeline.Pipeline.predict_bytes
def slow(self, sources):
    time.sleep(0.15)
    return answer(self, sources)
pipeline.Pipeline.predict_bytes = slow
from plantml.cli.app import run
from plantml.cli.console import Streams
sys.exit(run(sys.argv[2:], Streams()))
"""


def test_a_killed_validation_goes_on_where_it_was(cli, trained, run_python, tmp_path, monkeypatch):
    monkeypatch.setenv("PLANTML_CACHE_DIR", str(tmp_path / "cache"))
    line = ["validate", trained.data, "--model", trained.run, "--split", "all", "--batch", 2]
    process = run_python(KILLED, tmp_path, *line)
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "cache").rglob("*.parquet"))) < 3 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    answered = []
    from plantml.model.pipeline import Pipeline

    predict = Pipeline.predict_bytes
    monkeypatch.setattr(
        Pipeline, "predict_bytes", lambda self, photos: answered.extend(photos) or predict(self, photos)
    )
    result = cli(*line, "--json")
    assert result.code == 0, result.err
    assert 0 < len(answered) <= 72 - 12
    assert cli(*line, "--fresh", "--json").json["scores"] == result.json["scores"]


def test_a_damaged_segment_is_left_out(tmp_path):
    store = PredictionCache.open(tmp_path / "predictions" / "model-photos")
    store.add("a", "{}", np.array([1.5], np.float32))
    store.flush()
    (folder,) = (tmp_path / "predictions").iterdir()
    (folder / "0-0.parquet").write_bytes(b"half")
    again = PredictionCache.open(tmp_path / "predictions" / "model-photos")
    assert again.get("a")[1].tolist() == [1.5]
    assert again.get("b") is None
    assert not (folder / "0-0.parquet").exists()


def test_without_a_name_nothing_is_kept(tmp_path):
    store = PredictionCache.open(None)
    store.add("a", "{}", np.array([1.5], np.float32))
    store.flush()
    assert not list(tmp_path.iterdir())


def test_the_least_used_models_are_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr(prediction_cache, "_MODELS", 3)
    for number in range(6):
        store = PredictionCache.open(tmp_path / "predictions" / f"model{number}-photos")
        store.add("a", "{}", np.array([1.0], np.float32))
        store.flush()
        os.utime(tmp_path / "predictions" / f"model{number}-photos", (number, number))
    PredictionCache.open(tmp_path / "predictions" / "another-photos")
    assert sorted(folder.name for folder in (tmp_path / "predictions").iterdir()) == [
        "model3-photos",
        "model4-photos",
        "model5-photos",
    ]


def test_a_photo_left_in_place_is_asked_for_again_if_it_changed(cli, painted, judged, tmp_path, write_photos):
    home = write_photos(tmp_path / "photos", ["rust/1.png", "none/2.png", "blight/3.png"])
    line = (home, tmp_path / "data", "--reference", "--labels", "disease")
    assert cli("dataset", "import", *line).code == 0
    pipeline = painted()
    assert judged(str(tmp_path / "data"), pipeline, split="all").new == 3
    assert judged(str(tmp_path / "data"), pipeline, split="all").new == 0
    os.utime(home / "rust" / "1.png", (1, 1))
    assert judged(str(tmp_path / "data"), pipeline, split="all").new == 1
    (home / "none" / "2.png").unlink()
    result = judged(str(tmp_path / "data"), pipeline, split="all")
    assert [name for name, _ in result.failed] == ["none/2.png"]
