"""Small bundles that find boxes: two per photo, the left and the right half, with scores and fruits by its colour."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save
from tests.contracts import make_contract
from tests.serve.conftest import TARGETS, write_bundle

from plantml import storage
from plantml.export.onnx import serialised
from plantml.model import bundle
from plantml.targets import Target

FRUITS = (Target("fruit", "class", ("apple", "plum")), Target("ripeness", "class", ("green", "ripe", "rotten")))
_HALVES = np.array([0, 0, 4, 8, 4, 0, 4, 8], np.float32)


def _graph(contract, digest, weights):
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "places"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "white"], ["colour"]),
        helper.make_node("MatMul", ["colour", "nothing"], ["zeros"]),
        helper.make_node("Add", ["zeros", "halves"], ["flat"]),
        helper.make_node("Reshape", ["flat", "box_shape"], ["boxes"]),
        helper.make_node("MatMul", ["colour", "w.score"], ["logits"]),
        helper.make_node("Add", ["logits", "shift"], ["shifted"]),
        helper.make_node("Sigmoid", ["shifted"], ["score"]),
    ]
    constants = {
        "places": np.array([1, 2]), "white": np.array([255], np.float32), "nothing": np.zeros((3, 8), np.float32),
        "halves": _HALVES, "box_shape": np.array([-1, 2, 4]), "shift": np.array([3, 1], np.float32), **weights,
    }  # fmt: skip
    constants = {f"w.{name}" if name in weights else name: value for name, value in constants.items()}
    outputs = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["N", 2, 4]),
        helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N", 2]),
    ]
    for target in contract.heads:
        name, size = target.name, target.size
        constants[f"shape.{name}"] = np.array([-1, 2, size])
        nodes += [
            helper.make_node("MatMul", ["colour", f"w.{name}"], [f"flat.{name}"]),
            helper.make_node("Reshape", [f"flat.{name}", f"shape.{name}"], [f"logits.{name}"]),
            helper.make_node("Softmax", [f"logits.{name}"], [f"target.{name}"], axis=2),
        ]
        outputs.append(helper.make_tensor_value_info(f"target.{name}", TensorProto.FLOAT, ["N", 2, size]))
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 8, 8, 3])
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "halves", [image], outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {bundle.CONTRACT_KEY: contract.canonical().decode(), bundle.DIGEST_KEY: digest})
    return serialised(model)


def write_detector(url, *, targets=FRUITS, classifier=None, tile=None, more=None, unknown=1.0):
    """Write the bundle of a detector that really runs; `more` are further files."""
    detection = {"boxes": 2, "slope": 1, "offset": 0, "threshold": 0.1, "accept": 0.2}
    detection |= {"classifier": classifier} if classifier else {}
    detection |= {"tile": tile} if tile else {}
    thresholds = {target.name: 0.5 for target in targets}
    contract = make_contract(*targets, detection=detection, thresholds=thresholds, unknown_threshold=unknown)
    rng = np.random.default_rng(7)
    weights = {"score": rng.normal(0, 1, (3, 2)).astype(np.float32)}
    weights |= {each.name: rng.normal(0, 3, (3, 2 * each.size)).astype(np.float32) for each in contract.heads}
    digest = bundle.digest(contract, {name: value.tobytes() for name, value in weights.items()})
    files = {bundle.ONNX: _graph(contract, digest, weights), bundle.WEIGHTS: save(weights), bundle.CARD: b"# A card\n"}
    files |= more or {}
    files[bundle.MODEL_JSON] = bundle.model_json(contract, digest, files)
    storage.publish(url, files, last=bundle.MODEL_JSON)
    return url


def write_tray(url):
    """Write the bundle of a detector with the classifier of `write_bundle` for its boxes."""
    classifier = bundle.find(write_bundle(f"{url}-classifier"))
    names = (bundle.MODEL_JSON, *classifier.files)
    more = {bundle.CLASSIFIER + name: storage.read(storage.join(classifier.url, name)) for name in names}
    return write_detector(url, targets=TARGETS, classifier=classifier.digest, more=more)
