"""A network small enough to look at photos in no time, and rows that need no photos."""

import hashlib

import numpy as np
import pytest
from tests.validate.conftest import draw, finder  # noqa: F401 - fixtures

from plantml.curate.context import Subject
from plantml.data import versions
from plantml.data.manifest import Version
from plantml.settings import machine


@pytest.fixture(scope="session")
def embedder(tmp_path_factory):
    """Path of an ONNX file whose `embedding` is the picture at 4 x 4 pixels: uint8 [N, 32, 32, 3] to [N, 48]."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=kind.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Sub", ["flat", "grey"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", kind.UINT8, ["n", 32, 32, 3])],
        [helper.make_tensor_value_info("embedding", kind.FLOAT, ["n", 48])],
        [helper.make_tensor("grey", kind.FLOAT, [1], [110.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    file = tmp_path_factory.mktemp("model") / "tiny.onnx"
    onnx.save(model, file)
    return str(file)


@pytest.fixture
def looked():
    """Columns of a row whose photo looks ordinary: `looked(number, **more)`."""

    def make(number, **more):
        rng = np.random.default_rng(number)
        usual = {
            "name": f"{number:04d}.jpg",
            "image_id": hashlib.sha256(str(number).encode()).hexdigest(),
            "mode": "RGB",
            "orientation": 1,
            "frames": 1,
            "width": 200,
            "height": 100,
            "phash": int(rng.integers(0, 2**63)),
            "brightness": 0.5 + 0.02 * rng.normal(),
            "contrast": 0.2 + 0.01 * rng.normal(),
            "sharpness": float(np.exp(6 + 0.2 * rng.normal())),
            "entropy": 7.0,
            "dark": 0.0,
            "white": 0.0,
            "redness": -0.05 + 0.01 * rng.normal(),
            "blueness": -0.1 + 0.01 * rng.normal(),
            "border": bytes(24),
        }
        return usual | more

    return make


@pytest.fixture
def subject_of(make_rows):
    """`subject_of(records, targets)`: a subject whose photos are only rows."""
    return lambda records, targets=(): Subject(Version("mem", 1, make_rows(records, targets), targets), machine())


@pytest.fixture
def commit(make_rows, tmp_path):
    """`commit(records, targets)`: URL of a dataset of rows without photos."""

    def make(records, targets=()):
        url = str(tmp_path / "dataset")
        versions.change(url, "make", {}, lambda _: (make_rows(records, targets), targets, None))
        return url

    return make
