"""A model that is a formula: answers that a test can foresee, and no training."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.contracts import make_contract

from plantml import storage
from plantml.concurrency import Stop
from plantml.detect.config import DetectConfig
from plantml.detect.detect import build_pipeline, detect
from plantml.detect.sources import collect
from plantml.imaging import Fit
from plantml.model.bundle import Bundle
from plantml.targets import Target

SIZE = 8


class Formula:
    """`bean` by the green in the upper left corner, `tomato` else; the embedding is the mean colour."""

    name = "formula"

    def __init__(self, size=SIZE):
        self.size, self.calls = size, 0

    def run(self, batch):
        assert batch.dtype == np.uint8
        assert batch.shape[1:] == (self.size, self.size, 3)
        self.calls += 1
        green = batch[:, 0, 0, 1].astype(np.float32) / 255
        colour = batch.mean(axis=(1, 2)).astype(np.float32) / 255
        spots = np.stack([green, np.zeros_like(green)], axis=1)
        return {
            "target.category": np.stack([green, 1 - green], axis=1),
            "target.symptoms": spots,
            "target.severity": colour[:, :1],
            "embedding": colour,
            "unknown": np.zeros(len(batch), np.float32),
        }


CONTRACT = make_contract(
    Target("category", "class", ("bean", "tomato")),
    Target("symptoms", "multilabel", ("spots", "curl")),
    Target("severity", "value", unit="fraction"),
    embedding=3,
    input=Fit(SIZE, SIZE, "squash"),
    thresholds={"category": 0.75},
)


@pytest.fixture(scope="session")
def contract():
    """What the formula predicts."""
    return CONTRACT


@pytest.fixture
def formula():
    """The model."""
    return Formula()


@pytest.fixture
def configured(formula):
    """`configured(key=value…)`: a configuration and the pipeline that it asks for."""

    def make(**settings):
        config = DetectConfig(**settings)
        return config, build_pipeline(Bundle("formula", CONTRACT, "f" * 64, {}), formula, config, 2)

    return make


@pytest.fixture
def run(configured):
    """`run(*sources, key=value…)`: a detection with the formula; its result and the records that it wrote."""

    def work(*sources, stop=None, extras=None, split=None, **settings):
        config, pipeline = configured(**{key: str(value) if isinstance(value, Path) else value
                                         for key, value in settings.items()})  # fmt: skip
        stdout = io.StringIO()
        with Stop() as own:
            found = collect([str(source) for source in sources], may_be_empty=True)
            done = detect(found, pipeline, config, stdout=stdout, stop=stop or own, extras=extras)
        text = stdout.getvalue()
        if config.out != "-" and config.out.endswith(".jsonl") and storage.exists(config.out):
            text = storage.read(config.out).decode("utf-8", "surrogateescape")
        return done, [json.loads(line) for line in text.splitlines()]

    return work


@pytest.fixture
def paint(tmp_path):
    """`paint(name, green, size=(16, 12), **save)`: a picture of one colour; its path. 255 is a bean, 0 a tomato."""

    def make(name, green, size=(16, 12), **save):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (100, green, 40)).save(file, **save)
        return file

    return make
