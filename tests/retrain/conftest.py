"""Feeds of painted photos, whose disease is their colour, and a loop over them with a tiny network."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

COLOURS = {"none": (230, 30, 30), "rust": (30, 230, 30), "blight": (30, 30, 230), "mildew": (230, 230, 30)}
TINY = {"mode": "probe", "backbone": "test_convnext", "pretrained": False, "size": 32, "epochs": 30,
        "augment": 0, "device": "cpu"}  # fmt: skip


def _paint_feed(folder, photos, seed):
    """`[(label, colour)…]`: a folder of photos with a list; two photos a plant, and none looks like another."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    lines = ["image,disease,plant"]
    for number, (label, shown) in enumerate(photos):
        pixels = np.clip(rng.normal(COLOURS[shown], 12, (32, 32, 3)), 0, 255)
        pixels[:8] = rng.integers(0, 255, (8, 32, 1))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:03d}.png")
        lines.append(f"{number:03d}.png,{label},{folder.name}-{number // 2}")
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "list.csv")


def _honest(count, classes=("none", "rust", "blight")):
    """So many photos a class, plants of two photos, labelled as they look."""
    return [(name, name) for _ in range(count // 2) for name in classes for _ in range(2)]


@dataclass
class Loop:
    """A configuration on disk, and calls of it."""

    home: Path
    cli: object
    url: str
    feeds: list = field(default_factory=list)

    @property
    def file(self):
        return self.home / "retrain.yaml"

    def place(self, name):
        return f"{self.url}/{name}"

    def write(self, feeds, **more):
        config = {
            "dataset": self.place("data"),
            "model": self.place("models/leaf"),
            "work": self.place("work"),
            "feeds": [{"source": feed, "targets": ["disease"], "group_column": "plant"} | rest for feed, rest in feeds],
            "train": TINY,
            "gates": {"max_drop": 0.1, "sure": 0.0},
            "recent": 0.3,
        } | more
        self.file.write_text(yaml.safe_dump(config))

    def __call__(self, *options):
        result = self.cli("retrain", self.file, *options, "--json")
        assert result.code == 0, result.err + result.out
        return result.json

    def aliases(self):
        from plantml.registry import ledger

        return dict(ledger.History(self.place("models/leaf")).ledger().aliases)

    def report(self, number):
        from plantml import storage

        return json.loads(storage.read(self.place(f"work/rounds/{number:06d}/report.json")))


@pytest.fixture
def loop(tmp_path, cli):
    """A loop in an empty folder."""
    return Loop(tmp_path, cli, str(tmp_path / "home"))


@pytest.fixture(scope="session")
def paint_feed():
    """See `_paint_feed`."""
    return _paint_feed


@pytest.fixture(scope="session")
def honest():
    """See `_honest`."""
    return _honest
