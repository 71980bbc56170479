"""Detectors in 8 bits: a small one, whose own boxes are the truth."""

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save
from scipy import ndimage
from tests.contracts import make_contract
from tests.model.test_detector import Levels

from plantml.export import int8, proof
from plantml.export.onnx import to_onnx
from plantml.export.samples import AnnotatedBoxes, Sample
from plantml.imaging import Fit
from plantml.model import bundle as bundles
from plantml.model import detector, runtimes
from plantml.model.box_calibration import MOST
from plantml.model.contract import Architecture, Detection
from plantml.targets import Target

pytestmark = pytest.mark.slow  # two exports of a network

HEALTH = Target("health", "class", ("healthy", "diseased"))
SIZE = 96


@pytest.fixture(scope="module")
def made():
    """Contract, weights, ONNX file and annotated photos of a detector, and what comes of it in 8 bits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detector, "bare_features", lambda *_: Levels())
        patch.setattr(int8, "METHODS", {"min-max": ("MinMax", {})})
        architecture = Architecture(backbone="", embedding=8, mean=(0.5,) * 3, std=(0.5,) * 3, bank=0)
        contract = make_contract(
            HEALTH,
            architecture=architecture,
            input=Fit(SIZE, SIZE),
            detection=Detection(boxes=MOST, slope=1.0, offset=0.0, threshold=0.5, accept=0.6, tile=640),
        )
        torch.manual_seed(3)
        net = detector.CentreNet(architecture, [HEALTH])
        torch.nn.init.constant_(net.heads["centre"][2].bias, 0.0)
        torch.nn.init.constant_(net.heads["sides"][2].bias, 0.5)
        for head in net.heads.values():
            head[2].weight.data *= 8
        deployed = detector.DeployedDetector(net, contract.detection, {})
        weights = save(deployed.state_dict())
        model = to_onnx(contract, weights, "f" * 64)
        noise = np.random.default_rng(0).normal(size=(12, SIZE, SIZE, 3))
        smooth = ndimage.gaussian_filter(noise, (0, 5, 5, 0))
        pixels = (127 + 100 * smooth / np.abs(smooth).max()).clip(0, 255).astype(np.uint8)
        outputs = runtimes.OnnxRuntime(model).run(pixels)
        sides, labels = [], []
        for boxes, scores, health in zip(outputs["boxes"], outputs["score"], outputs["target.health"], strict=True):
            sides.append(boxes[scores >= 0.5])
            labels.append({"health": health[scores >= 0.5].argmax(axis=1)})
        val = Sample("photos", pixels, {}, np.arange(12), AnnotatedBoxes(sides, labels))
        result = int8.quantise(contract, "f" * 64, weights, model, train=pixels[:6], val=val, max_drop=0.01)
    return contract, val, outputs, result


def test_boxes_and_their_labels_stay(made):
    contract, val, outputs, result = made
    assert sum(map(len, val.boxes.sides)) > 50
    assert result.before == pytest.approx(1)
    assert result.after > 0.8
    assert 0 < result.noise < 0.05
    (opened, session) = runtimes.read_onnx("boxes.onnx", result.model)
    proven = proof.compare(contract, outputs, session.run(val.pixels), served=opened.contract, boxes=val.boxes)
    assert proven.change.after == pytest.approx(result.after, abs=0.01)
    assert proven.agreement > 0.85
    assert not proven.costs_too_much(0.15)
    assert "score is" in proven.costs_too_much(0.0)


def test_it_is_a_model_of_its_own(made):
    contract, _, _, result = made
    assert result.contract.derived_from == "f" * 64
    tensors = {
        entry.name: onnx.numpy_helper.to_array(entry).tobytes()
        for entry in onnx.load_from_string(result.model).graph.initializer
    }
    assert bundles.digest(result.contract, tensors) == result.digest
    assert result.contract.detection.tile == contract.detection.tile
    assert result.contract.detection.slope != contract.detection.slope
    assert result.contract.metrics["boxes.ap"] > 0.5


def test_the_last_layers_stay_in_float(made):
    kinds = {entry.name: entry.data_type for entry in onnx.load_from_string(made[-1].model).graph.initializer}
    assert onnx.TensorProto.INT8 in kinds.values()
    last = [kind for name, kind in kinds.items() if name.endswith(".2.weight")]
    assert last == [onnx.TensorProto.FLOAT] * 3
    assert not any(name.startswith("tail/") for name, kind in kinds.items() if kind == onnx.TensorProto.INT8)


def test_any_batch_gives_the_same_boxes(made):
    _, val, _, result = made
    session = runtimes.OnnxRuntime(result.model)
    whole, single = session.run(val.pixels[:3]), [session.run(val.pixels[at : at + 1]) for at in range(3)]
    for name, numbers in whole.items():
        assert np.array_equal(numbers, np.concatenate([part[name] for part in single]))
