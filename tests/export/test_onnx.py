import json
import logging

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import save

from plantml.export.onnx import to_onnx
from plantml.imaging import Fit
from plantml.model.contract import Architecture, Contract, Origin
from plantml.model.network import Deployed, PlantNet, bare_backbone
from plantml.targets import Target

CONTRACT = Contract(
    targets=(
        Target("health", "class", ("diseased", "healthy")),
        Target("disease", "class", ("none", "rust", "blight")),
        Target("symptoms", "multilabel", ("spots", "curl")),
        Target("weight", "value", unit="g"),
    ),
    input=Fit(64, 96),
    architecture=Architecture(
        backbone="test_efficientnet", embedding=256, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), bank=7
    ),
    temperatures={"health": 1.5, "symptoms": 0.7},
    biases={"disease": (0.4, -0.3, 0.0)},
    thresholds={"disease": 0.8},
    unknown_threshold=0.3,
    dataset=Origin(url="data", version=1, fingerprint="ab"),
    metrics={"macro_f1": 0.5},
    seed=1,
    versions={},
)


@pytest.fixture(scope="module")
def deployed():
    torch.manual_seed(1)
    net = PlantNet(
        CONTRACT.architecture, CONTRACT.targets, bare_backbone(CONTRACT.architecture.backbone, CONTRACT.input)
    )
    net(torch.randint(0, 256, (8, 64, 96, 3), dtype=torch.uint8))  # gives its layers statistics of their own
    net.get_buffer("scale_weight")[:2] = torch.tensor([30.0, 10.0])
    bank = net.eval().embed(torch.randint(0, 256, (7, 64, 96, 3), dtype=torch.uint8)).detach()
    return Deployed(net, CONTRACT.temperatures, bank, biases=CONTRACT.biases).eval()


@pytest.fixture(scope="module")
def exported(deployed):
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.INFO)
    model = to_onnx(CONTRACT, save(deployed.state_dict()), "the digest")
    after = logger.level
    logger.setLevel(before)
    assert after == logging.INFO, "the exporter left the loggers changed"
    return model


def test_the_file_is_a_session_that_needs_nothing_of_ours(deployed, exported):
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    assert (image.name, image.type) == ("image", "tensor(uint8)")
    assert image.shape[1:] == [64, 96, 3]
    assert [output.name for output in session.get_outputs()] == deployed.output_names
    assert {output.type for output in session.get_outputs()} == {"tensor(float)"}


def test_the_contract_and_the_digest_are_in_the_metadata(exported):
    model = onnx.load_from_string(exported)
    notes = {entry.key: entry.value for entry in model.metadata_props}
    assert set(notes) == {"plantml", "plantml_digest", "plantml_seal"}
    assert notes["plantml_digest"] == "the digest"
    assert Contract.model_validate(json.loads(notes["plantml"])) == CONTRACT
    assert model.producer_name == "plantml"
    onnx.checker.check_model(model)


@pytest.mark.parametrize("size", [1, 2, 3, 17])
def test_any_batch_gives_the_answers_of_the_network(deployed, exported, size):
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    batch = np.random.default_rng(size).integers(0, 256, (size, 64, 96, 3), np.uint8)
    with torch.inference_mode():
        wanted = deployed(torch.from_numpy(batch))
    for name, ours, theirs in zip(deployed.output_names, session.run(None, {"image": batch}), wanted, strict=True):
        assert len(ours) == size
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-5, err_msg=name)


def test_scalar_normalisation_is_one_multiply_and_one_subtraction(trained):
    """Three numbers instead of one would cost int8 its speed."""
    model = onnx.load(f"{trained.run}/bundle/model.onnx")
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    before = []
    for node in model.graph.node:
        if node.op_type == "Conv":
            break
        if node.op_type in {"Add", "Sub", "Mul", "Div"}:
            before.append((node.op_type, shapes[node.input[1]]))
    assert [kind for kind, _ in before] == ["Mul", "Sub"]
    assert {int(np.prod(shape)) for _, shape in before} == {1}
