"""Models that are made in milliseconds and really run: the mean colour of a photo through a small matrix."""

import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save
from tests.colour_models import graph

from plantml import storage
from plantml.imaging import Fit
from plantml.model import bundle
from plantml.model.contract import Architecture, Contract, Origin
from plantml.targets import Target

SIZE = 8


def contract(seed=0, classes=("bean", "tomato"), dataset=("data", 1, "")):
    url, version, fingerprint = dataset
    return Contract(
        targets=(Target("category", "class", classes),),
        input=Fit(SIZE, SIZE, "squash"),
        architecture=Architecture(backbone="colour", embedding=3, mean=(0.5,) * 3, std=(0.5,) * 3, bank=1),
        temperatures={"category": 1.0},
        thresholds={"category": 0.5},
        unknown_threshold=1.0,
        dataset=Origin(url=url, version=version, fingerprint=fingerprint),
        metrics={"macro_f1": 0.5 + seed / 1000, "category.f1[bean]": 0.5},
        seed=seed,
        versions={"plantml": "0"},
    )


def files_of(seed=0, *, card="# A card\n", size=0, **options):
    """The files of a bundle by name; another seed, another digest."""
    promised = contract(seed, **options)
    classes = len(promised.targets[0].classes)
    weights = np.random.default_rng(seed).normal(0, 3, (3, classes)).astype(np.float32)
    tensors = {"weights": weights, "ballast": np.zeros(size, np.uint8)}
    digest = bundle.digest(promised, {name: value.tobytes() for name, value in tensors.items()})
    files = {
        bundle.ONNX: graph(promised, digest, {"category": weights}),
        bundle.WEIGHTS: save(tensors),
        bundle.CARD: card.encode(),
    }
    return {**files, bundle.MODEL_JSON: bundle.model_json(promised, digest, files)}


@pytest.fixture(scope="session")
def bundle_files():
    """`bundle_files(seed, **options)`: the files of a small model."""
    return files_of


@pytest.fixture
def make_bundle(tmp_path):
    """`make_bundle(seed, **options)`: URL of a small model's bundle."""

    def make(seed=0, **options):
        url = str(tmp_path / f"bundle-{seed}")
        storage.publish(url, files_of(seed, **options), last=bundle.MODEL_JSON)
        return url

    return make


@pytest.fixture
def start_python(tmp_path):
    """`start_python(code, *args)`: a Python process of its own that is spoken to by stdin and stdout."""

    def start(code, *args):
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen([sys.executable, "-c", code, *map(str, args)], cwd=tmp_path, text=True, **pipes)

    return start
