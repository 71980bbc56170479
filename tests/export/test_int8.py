import json

import numpy as np
import onnx
import pytest

from plantml.errors import InputError
from plantml.export import int8, samples
from plantml.model import bundle as bundles
from plantml.model import runtimes


@pytest.fixture(scope="module")
def photos(every_form):
    bundle = every_form.bundle
    version = samples.version_of(bundle, None)
    return {split: samples.of_split(version, bundle.contract, split, 24) for split in ("train", "val")}


@pytest.fixture(scope="module")
def quantised(every_form):
    """The int8 file as a protobuf and as a runtime."""
    (data,) = every_form.made["onnx-int8"].files
    return onnx.load_from_string(data), runtimes.read_onnx("leaf.int8.onnx", data)


def test_it_is_a_model_of_its_own_that_names_where_it_came_from(every_form, quantised):
    opened = quantised[1][0]
    assert opened.contract.derived_from == every_form.bundle.digest != opened.digest
    assert len(opened.digest) == 64
    assert opened.contract.targets == every_form.bundle.contract.targets
    assert opened.contract.unknown_threshold != every_form.bundle.contract.unknown_threshold
    assert opened.contract.temperatures.keys() == every_form.bundle.contract.temperatures.keys()


def test_the_digest_is_that_of_contract_and_tensors(quantised):
    model, (opened, _) = quantised
    tensors = {entry.name: onnx.numpy_helper.to_array(entry).tobytes() for entry in model.graph.initializer}
    assert bundles.digest(opened.contract, tensors) == opened.digest


def test_weights_are_int8_by_channel_and_activations_uint8(every_form, quantised):
    model = quantised[0]
    kinds = {entry.name: entry for entry in model.graph.initializer}
    weights = [name for name in kinds if name.endswith("weight_quantized")]
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    in_float = every_form.made["onnx-int8"].settings["in_float"]
    assert len(weights) == len(convolutions) - len(in_float) > 30
    for name in weights:
        assert kinds[name].data_type == onnx.TensorProto.INT8
        assert list(kinds[name.replace("_quantized", "_scale")].dims) == [kinds[name].dims[0]]
    points = {node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert {kinds[name].data_type for name in points} == {onnx.TensorProto.UINT8}


def test_all_after_the_embedding_is_float(quantised):
    model = quantised[0]
    tail = {node.op_type for node in model.graph.node if node.name.startswith("tail/")}
    assert {"Gemm", "Softmax", "TopK"} <= tail
    assert not {"QuantizeLinear", "DequantizeLinear"} & tail
    assert len(model.SerializeToString()) < 0.5 * 14_000_000


def test_the_embedding_is_near_the_networks_own(every_form, quantised, photos):
    val = photos["val"].pixels
    ours = quantised[1][1].run(val)["embedding"]
    theirs = runtimes.open_model(every_form.bundle.url)[1].run(val)["embedding"]
    cosine = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosine.min() > 0.95


def test_any_batch_gives_the_same_answers(quantised, photos):
    val, session = photos["val"].pixels[:5], quantised[1][1]
    whole, single = session.run(val), [session.run(val[at : at + 1]) for at in range(5)]
    for name, numbers in whole.items():
        assert np.array_equal(numbers, np.concatenate([part[name] for part in single]))


def test_how_it_was_made_is_told(every_form):
    settings = every_form.made["onnx-int8"].settings
    assert settings["method"] in int8.METHODS
    assert "split train" in settings["calibrated_on"]
    assert "split val" in settings["chosen_on"]
    json.dumps(settings)


def quantise(every_form, photos, **changes):
    bundle = every_form.bundle
    given = {"train": photos["train"].pixels, "val": photos["val"], "max_drop": 0.01} | changes
    return int8.quantise(
        bundle.contract, bundle.digest, bundle.read(bundles.WEIGHTS), bundle.read(bundles.ONNX), **given
    )


@pytest.mark.slow
def test_layers_that_hurt_stay_in_float(every_form, quantised, photos, monkeypatch):
    monkeypatch.setattr(int8, "METHODS", {"min-max": ("MinMax", {})})
    wanted = every_form.made["onnx-int8"].settings["noise"] * 0.7
    monkeypatch.setattr(int8, "NOISE", wanted)
    result = quantise(every_form, photos)
    assert len(every_form.made["onnx-int8"].settings["in_float"]) < len(result.in_float) < 40
    assert result.noise <= wanted
    kept, before = (
        {entry.name for entry in model.graph.initializer if entry.data_type == onnx.TensorProto.INT8}
        for model in (onnx.load_from_string(result.model), quantised[0])
    )
    assert len(kept) < len(before)


@pytest.mark.slow
def test_the_search_ends_when_its_time_is_up(every_form, photos, monkeypatch):
    monkeypatch.setattr(int8, "NOISE", 0.0)
    probed = []
    quantised = int8._Quantiser.quantised
    monkeypatch.setattr(
        int8._Quantiser,
        "quantised",
        lambda self, method, **given: (
            probed.append((method, bool(given.get("only")))),
            quantised(self, method, **given),
        )[1],
    )
    quantise(every_form, photos, seconds=0.0)
    assert {method for method, _ in probed} == {"min-max"}
    assert not any(single for _, single in probed)


def test_without_labels_nothing_can_be_chosen(every_form, photos):
    blind = samples.Sample("leaves@1", photos["val"].pixels, {}, photos["val"].groups)
    with pytest.raises(InputError, match="no labels"):
        quantise(every_form, photos, val=blind)
