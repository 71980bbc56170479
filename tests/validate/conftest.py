"""A model whose answers are written in the names of the photos, so that every number can be told beforehand."""

import json
from collections.abc import Sequence

import numpy as np
import pytest

from plantml import settings
from plantml.concurrency import Stop
from plantml.imaging import Fit
from plantml.model.bundle import Bundle
from plantml.model.contract import Architecture, Contract, Origin
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

    def run(self, batch):
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
    from PIL import Image

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
