"""A model that is a formula: answers that a test can foresee, and no training."""

import io
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
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

    def run(self, batch, columns=None):
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
BUNDLE = Bundle("formula", CONTRACT, "f" * 64, {})


class Spots:
    """Finds every red or blue spot: `apple` or `plum`. No training.

    A spot is a connected area; its box is the smallest around it, so that a test can foresee it.
    """

    name = "spots"

    def __init__(self, size=64, boxes=16):
        self.size, self.boxes, self.calls, self.dies_after = size, boxes, 0, None

    def run(self, batch, columns=None):
        assert batch.dtype == np.uint8
        assert batch.shape[1:] == (self.size, self.size, 3)
        self.calls += 1
        if self.dies_after is not None and self.calls > self.dies_after:
            raise KeyboardInterrupt
        count = len(batch)
        boxes, score = np.zeros((count, self.boxes, 4), np.float32), np.zeros((count, self.boxes), np.float32)
        fruit = np.full((count, self.boxes, 2), 0.5, np.float32)
        for row, pixels in enumerate(batch.astype(int)):
            red, blue = (pixels[..., one] - pixels[..., other] > 100 for one, other in ((0, 2), (2, 0)))
            spots = [(where, label) for label, mask in enumerate((red, blue))
                     for where in ndimage.find_objects(ndimage.label(mask)[0])]  # fmt: skip
            for place, ((rows, columns), label) in enumerate(spots[: self.boxes]):
                boxes[row, place] = columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start
                score[row, place] = 0.9
                fruit[row, place] = (0.9, 0.1) if label == 0 else (0.1, 0.9)
        return {"boxes": boxes, "score": score, "target.fruit": fruit}


DETECTOR = make_contract(
    Target("fruit", "class", ("apple", "plum")),
    input=Fit(64, 64),
    detection={"boxes": 16, "slope": 1, "offset": 0, "threshold": 0.5, "accept": 0.8},
)


@pytest.fixture(scope="session")
def detector_contract():
    """What `spots` finds."""
    return DETECTOR


@pytest.fixture
def spots():
    """A detector."""
    return Spots()


@pytest.fixture
def find(spots):
    """`find(*sources, key=value…)`: a detection of spots; its result and the records that it wrote."""
    return partial(_detect, Bundle("spots", DETECTOR, "d" * 64, {}), spots)


@pytest.fixture
def paint_spots(tmp_path):
    """`paint_spots(name, *spots, size=(64, 64))`: a picture with spots, (x, y, w, h, colour); its path."""

    def make(name, *spots, size=(64, 64)):
        file = tmp_path / "trays" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGB", size, "black")
        for x, y, w, h, colour in spots:
            picture.paste(colour, (x, y, x + w, y + h))
        picture.save(file)
        return file

    return make


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
        return config, build_pipeline(BUNDLE, formula, config, 2)

    return make


@pytest.fixture
def run(formula):
    """`run(*sources, key=value…)`: a detection with the formula; its result and the records that it wrote."""

    return partial(_detect, BUNDLE, formula)


def _detect(bundle, runtime, *sources, stop=None, extras=None, **settings):
    config = DetectConfig(**{key: str(value) if isinstance(value, Path) else value for key, value in settings.items()})
    pipeline = build_pipeline(bundle, runtime, config, 2)
    stdout = io.StringIO()
    with Stop() as own:
        found = collect([str(source) for source in sources], may_be_empty=True)
        done = detect(found, pipeline, config, stdout=stdout, stop=stop or own, extras=extras)
    text = stdout.getvalue()
    if config.out != "-" and config.out.endswith(".jsonl") and storage.exists(config.out):
        text = storage.read(config.out).decode("utf-8", "surrogateescape")
    return done, [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def paint(tmp_path):
    """`paint(name, green, size=(16, 12), **save)`: a picture of one colour; its path. 255 is a bean, 0 a tomato."""

    def make(name, green, size=(16, 12), **save):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (100, green, 40)).save(file, **save)
        return file

    return make
