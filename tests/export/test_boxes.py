"""The forms of a detector: of a small one, whose own boxes are the truth."""

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load, save
from scipy import ndimage
from tests.contracts import make_contract
from tests.model.test_detector import Levels

from plantml.errors import MissingExtraError, UsageError
from plantml.export import int8, proof
from plantml.export.onnx import notes_of, to_onnx
from plantml.export.openvino import to_openvino
from plantml.export.pt2 import to_pt2
from plantml.export.samples import AnnotatedBoxes, Sample
from plantml.imaging import Fit
from plantml.metrics.detection import iou
from plantml.model import bundle as bundles
from plantml.model import detector, runtimes
from plantml.model.box_calibration import MOST
from plantml.model.contract import Architecture, Detection
from plantml.targets import Target

pytestmark = pytest.mark.slow  # three exports of a network

HEALTH = Target("health", "class", ("healthy", "diseased"))
SIZE = 96


COUNTS = 0.55
"""Score from which a box counts; where nothing is, all cells have exactly 0.5."""

OVERLAP = 0.2
"""IoU from which the graph removes the second of two boxes: here, in most photos."""


class Finder:
    """A detector with its files, its photos and the boxes that it finds in them, as numbers of torch."""

    def __init__(self):
        architecture = Architecture(backbone="", embedding=8, mean=(0.5,) * 3, std=(0.5,) * 3, bank=0)
        self.contract = make_contract(
            HEALTH,
            architecture=architecture,
            input=Fit(SIZE, SIZE),
            detection=Detection(
                boxes=MOST, slope=1.0, offset=0.0, threshold=COUNTS, accept=0.7, tile=640, overlap=OVERLAP
            ),
        )
        torch.manual_seed(3)
        net = detector.CentreNet(architecture, [HEALTH])
        torch.nn.init.constant_(net.heads["centre"][2].bias, 0.0)
        torch.nn.init.constant_(net.heads["sides"][2].bias, 0.5)
        for head in net.heads.values():
            head[2].weight.data *= 8
        net.heads["centre"][2].weight.data *= 50
        deployed = detector.DeployedDetector(net, self.contract.detection, {}).eval()
        state = deployed.state_dict()
        self.digest = bundles.digest(self.contract, {name: each.numpy().tobytes() for name, each in state.items()})
        self.weights = save(state)
        self.onnx = to_onnx(self.contract, self.weights, self.digest)
        noise = np.random.default_rng(0).normal(size=(12, SIZE, SIZE, 3))
        smooth = ndimage.gaussian_filter(noise, (0, 5, 5, 0))
        self.pixels = (127 + 100 * smooth / np.abs(smooth).max()).clip(0, 255).astype(np.uint8)
        with torch.inference_mode():
            outputs = deployed(torch.from_numpy(self.pixels))
        self.outputs = {name: each.numpy() for name, each in zip(deployed.output_names, outputs, strict=True)}

    def annotated(self):
        """Its boxes as annotations."""
        sides, labels = [], []
        for boxes, scores, health in zip(
            *(self.outputs[name] for name in ("boxes", "score", "target.health")), strict=True
        ):
            sides.append(boxes[scores >= COUNTS])
            labels.append({"health": health[scores >= COUNTS].argmax(axis=1)})
        return Sample("photos", self.pixels, {}, np.arange(len(self.pixels)), AnnotatedBoxes(sides, labels))


@pytest.fixture(scope="module")
def finder():
    """The small detector."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detector, "bare_features", lambda *_: Levels())
        yield Finder()


def overlaps(outputs):
    """The largest IoU of two boxes that count, by photo."""
    counted = [boxes[scores >= COUNTS] for boxes, scores in zip(outputs["boxes"], outputs["score"], strict=True)]
    return [np.triu(iou(boxes, boxes), 1).max(initial=0.0) for boxes in counted]


def test_the_graph_removes_second_boxes(finder):
    assert max(overlaps(finder.outputs)) < OVERLAP
    every = detector.rebuild(finder.contract, load(finder.weights))
    every.detection = finder.contract.detection.model_copy(update={"overlap": None})
    with torch.inference_mode():
        boxes, scores, _ = every(torch.from_numpy(finder.pixels))
    assert max(overlaps({"boxes": boxes.numpy(), "score": scores.numpy()})) > OVERLAP


@pytest.mark.parametrize("form", ["onnx", "pt2", "openvino", "bfloat16"])
def test_every_form_finds_the_same_boxes(finder, form):
    runtime = {
        "onnx": lambda: runtimes.read_onnx("a.onnx", finder.onnx)[1],
        "pt2": lambda: runtimes.read_program("a.pt2", to_pt2(finder.contract, finder.weights, finder.digest))[1],
        "openvino": lambda: runtimes.read_openvino(
            "a.xml", *to_openvino(finder.onnx, notes_of(finder.contract, finder.digest))
        )[1],
        "bfloat16": lambda: bfloat16(finder.onnx),
    }[form]()
    outputs = runtime.run(finder.pixels)
    if form == "bfloat16":
        sample = finder.annotated()
        proven = proof.compare(finder.contract, finder.outputs, outputs, served=finder.contract, boxes=sample.boxes)
        assert not proven.costs_too_much(0.1)
        assert max(overlaps(outputs)) < OVERLAP + 0.02
    else:
        proven = proof.compare(finder.contract, finder.outputs, outputs)
        assert proven.holds, proven.unequal
    single = runtime.run(finder.pixels[:1])
    for name, numbers in single.items():  # torch and OpenVINO compute another batch size in another order
        np.testing.assert_allclose(numbers, outputs[name][:1], rtol=0, atol=0 if form == "onnx" else 1e-3)


def bfloat16(onnx):
    try:
        return runtimes.OpenVinoRuntime(onnx, bfloat16=True)
    except (MissingExtraError, UsageError) as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def made(finder):
    """Contract and annotated photos of the detector, its boxes, and what comes of it in 8 bits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8, "METHODS", {"min-max": ("MinMax", {})})
        val = finder.annotated()
        files = finder.contract, finder.digest, finder.weights, finder.onnx
        result = int8.quantise(*files, train=finder.pixels[:6], val=val, max_drop=0.01)
    return finder, val, result


def test_boxes_and_their_labels_stay(made):
    finder, val, result = made
    assert sum(map(len, val.boxes.sides)) > 50
    assert result.before == pytest.approx(1)
    assert result.after > 0.8
    assert 0 < result.noise < 0.05
    (opened, session) = runtimes.read_onnx("boxes.onnx", result.model)
    proven = proof.compare(
        finder.contract, finder.outputs, session.run(val.pixels), served=opened.contract, boxes=val.boxes
    )
    assert proven.change.after == pytest.approx(result.after, abs=0.01)
    assert proven.agreement > 0.85
    assert not proven.costs_too_much(0.15)
    assert "score is" in proven.costs_too_much(0.0)


def test_it_is_a_model_of_its_own(made):
    finder, _, result = made
    assert result.contract.derived_from == finder.digest
    tensors = {
        entry.name: onnx.numpy_helper.to_array(entry).tobytes()
        for entry in onnx.load_from_string(result.model).graph.initializer
    }
    assert bundles.digest(result.contract, tensors) == result.digest
    assert result.contract.detection.tile == finder.contract.detection.tile
    assert result.contract.detection.overlap == OVERLAP
    assert result.contract.detection.slope != finder.contract.detection.slope
    assert result.contract.metrics["boxes.ap"] > 0.5


def test_the_last_layers_stay_in_float(made):
    kinds = {entry.name: entry.data_type for entry in onnx.load_from_string(made[-1].model).graph.initializer}
    assert onnx.TensorProto.INT8 in kinds.values()
    last = [kind for name, kind in kinds.items() if name.endswith(".2.weight")]
    assert last == [onnx.TensorProto.FLOAT] * 3
    assert not any(name.startswith("tail/") for name, kind in kinds.items() if kind == onnx.TensorProto.INT8)


def test_any_batch_gives_the_same_boxes(made):
    _, val, result = made
    session = runtimes.OnnxRuntime(result.model)
    whole, single = session.run(val.pixels[:3]), [session.run(val.pixels[at : at + 1]) for at in range(3)]
    counted = result.contract.detection.threshold
    is_counted = [{"boxes": boxes[scores >= counted][None], "score": np.ones((1, (scores >= counted).sum()))}
                  for boxes, scores in zip(whole["boxes"], whole["score"], strict=True)]  # fmt: skip
    assert max(overlaps(each)[0] for each in is_counted) < OVERLAP
    for name, numbers in whole.items():
        assert np.array_equal(numbers, np.concatenate([part[name] for part in single]))
