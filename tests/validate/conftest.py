"""A model whose answers are written in the names of the photos, so that every number can be told beforehand."""

import hashlib
import io
import json
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from plantml import settings, storage
from plantml.concurrency import Stop
from plantml.data import versions
from plantml.data.boxes import Box
from plantml.data.manifest import Version
from plantml.imaging import Fit
from plantml.model.bundle import Bundle
from plantml.model.contract import Architecture, Contract, Detection, Origin
from plantml.model.pipeline import Pipeline
from plantml.targets import Target
from plantml.validate.config import ValidateConfig
from plantml.validate.predictions import Machine
from plantml.validate.validate import validate

DISEASE = Target("disease", "class", ("none", "rust", "blight"))
HEALTH = Target("health", "class", ("healthy", "diseased"))


class Painted:
    """Says the disease by which of red, green and blue is strongest in the middle of the photo."""

    name = "painted"

    def __init__(self, targets: Sequence[Target], mistakes: int = 0) -> None:
        self.targets, self.mistakes, self.seen = targets, mistakes, 0

    def run(self, batch, columns=None):
        self.seen += len(batch)
        middle = batch[:, 12:20, 12:20].astype(np.float32).mean(axis=(1, 2))
        scaled = np.exp(middle / 60)
        scaled /= scaled.sum(axis=1, keepdims=True)
        outputs = {}
        for target in self.targets:
            if target.kind == "value":
                answer = middle[:, :1] / 255
            elif target.name == "health":
                answer = np.stack([scaled[:, 0], 1 - scaled[:, 0]], axis=1)
            else:
                answer = np.concatenate([scaled, np.zeros((len(batch), target.size - 3), np.float32)], axis=1)
            outputs[f"target.{target.name}"] = answer.astype(np.float32)
        outputs["embedding"] = middle
        outputs["unknown"] = (1 - scaled.max(axis=1)).astype(np.float32)
        return outputs


def contract(targets: Sequence[Target], **more) -> Contract:
    return Contract(
        targets=tuple(targets),
        input=Fit(32, 32, "squash"),
        architecture=Architecture(backbone="painted", embedding=3, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), bank=1),
        temperatures={},
        thresholds={target.name: 0.6 for target in targets if target.kind != "value"},
        unknown_threshold=0.9,
        dataset=more.pop("dataset", Origin(url="", version=0, fingerprint="")),
        metrics={},
        seed=0,
        versions={},
        **more,
    )


@pytest.fixture
def painted(tmp_path):
    """`painted(targets=…, digest=…)`: a pipeline of such a model."""

    def make(targets=(HEALTH, DISEASE), digest="painted", **more):
        url = tmp_path / f"{digest}.model"
        url.write_text(json.dumps([digest, [target.name for target in targets]]))
        bundle = Bundle(str(url), contract(targets, **more), digest.ljust(64, "0"), {})
        return Pipeline(bundle, Painted(targets), threads=2, batch=4)

    return make


COLOURS = {"none": (200, 40, 40), "rust": (40, 200, 40), "blight": (40, 40, 200)}


@pytest.fixture
def paint(tmp_path, cli):
    """`paint([(truth, shown, {column: value})…])`: a dataset of photos that show one disease and are called another.

    Columns: `group`, `split` and any other of a list; photos are test photos if nothing else is said.
    """
    made = 0

    def make(photos, name="data", targets=("health", "disease")):
        nonlocal made
        home = tmp_path / f"{name}-photos"
        home.mkdir()
        lines = ["image,health,disease,plant,split,site"]
        for number, (truth, shown, more) in enumerate(photos):
            made += 1
            rng = np.random.default_rng(made + 1000)
            pixels = np.clip(rng.normal(COLOURS[shown], 25, (32, 32, 3)), 0, 255)
            pixels[:8] = rng.integers(0, 255, (8, 32, 1))  # so that no two look alike
            if "copy_of" in more:
                pixels = np.asarray(Image.open(home / f"{more['copy_of']:03d}.png")).copy()
                pixels[31, 31] ^= 1
            Image.fromarray(pixels.astype(np.uint8)).save(home / f"{number:03d}.png")
            health = "" if not truth else "healthy" if truth == "none" else "diseased"
            group, split = more.get("group", ""), more.get("split", "test")
            lines.append(f"{number:03d}.png,{health},{truth},{group},{split},{more.get('site', '')}")
        (home / "labels.csv").write_text("\n".join(lines) + "\n")
        options = [part for target in targets for part in ("--target", target)]
        data = tmp_path / name
        result = cli("dataset", "import", home / "labels.csv", data, *options, "--group-column", "plant")
        assert result.code == 0, result.err
        return str(data)

    return make


@pytest.fixture
def judged(tmp_path):
    """`judged(dataset, pipeline, other=…, **settings)`: the result of a validation."""

    def run(data, pipeline, other=None, stop=None, **config):
        machine = Machine(settings.Machine(cache_dir=tmp_path / "cache"), Stop() if stop is None else stop)
        return validate(data, pipeline, ValidateConfig(resamples=200, **config), machine=machine, other=other)

    return run


class Finder:
    """Finds the boxes that were written down for each photo, which its first pixel numbers.

    Answers are (x, y, w, h, score, class number); photos are 32 pixels wide and high, as the input.
    """

    name = "finder"

    def __init__(self, answers, classes, slots=8) -> None:
        self.answers, self.classes, self.slots, self.seen = answers, classes, slots, 0

    def run(self, batch, columns=None):
        self.seen += len(batch)
        boxes = np.zeros((len(batch), self.slots, 4), np.float32)
        score = np.zeros((len(batch), self.slots), np.float32)
        classes = np.zeros((len(batch), self.slots, self.classes), np.float32)
        for row, pixels in enumerate(batch):
            for place, (*sides, certainty, label) in enumerate(self.answers[int(pixels[0, 0, 0])]):
                boxes[row, place], score[row, place] = sides, certainty
                classes[row, place] = 0.1
                classes[row, place, label] = 0.9
        return {"boxes": boxes, "score": score, "target.health": classes}


@pytest.fixture
def finder(tmp_path):
    """`finder(answers, digest=…)`: a pipeline of such a model; boxes count from a score of 0.5."""

    def make(answers, digest="finder", classes=("healthy", "diseased"), threshold=0.5):
        url = tmp_path / f"{digest}.model"
        url.write_text(json.dumps([digest, answers]))
        detection = Detection(boxes=8, slope=1.0, offset=0.0, threshold=threshold, accept=0.8)
        of_boxes = contract([Target("health", "class", classes)]).model_copy(update={"detection": detection})
        bundle = Bundle(str(url), of_boxes, digest.ljust(64, "0"), {})
        return Pipeline(bundle, Finder(answers, len(classes)), threads=2, batch=4)

    return make


@pytest.fixture
def draw(tmp_path, make_rows):
    """`draw(photos)`: a dataset of photos with boxes (x, y, w, h, health), or None for one without annotation."""

    def make(photos, name="boxes", **columns):
        root = tmp_path / name
        rows = []
        for number, drawn in enumerate(photos):
            pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3)).astype(np.uint8)
            pixels[0, 0] = number
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            image_id = hashlib.sha256(buffer.getvalue()).hexdigest()
            path = f"images/{image_id[:2]}/{image_id}.png"
            storage.write(str(root / path), buffer.getvalue())
            boxes = (
                None
                if drawn is None
                else [Box(*sides, {} if label is None else {"health": label}).as_row() for *sides, label in drawn]
            )
            rows.append(
                {
                    "image_id": image_id,
                    "path": path,
                    "format": "PNG",
                    "width": 32,
                    "height": 32,
                    "split": "test",
                    "boxes": boxes,
                    **{column: values[number] for column, values in columns.items()},
                }
            )
        return versions.commit(Version(str(root), 0, make_rows(rows), ()), "import", {}, 0).ref

    return make
