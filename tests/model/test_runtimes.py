import json
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from plantml import imaging
from plantml.errors import InputError, MissingExtraError, NotFoundError, StorageError, UsageError
from plantml.export.onnx import serialised
from plantml.model import bundle, file_formats, network, runtimes


@pytest.fixture(scope="module")
def opened(trained):
    return runtimes.open_model(trained.run)


@pytest.fixture(scope="module")
def batch(trained, opened):
    """Real inputs: uint8 [13, 64, 64, 3]."""
    files = sorted(Path(trained.photos).rglob("*.jpg"))[:13]
    return np.stack([imaging.decode(file.read_bytes(), opened[0].contract.input) for file in files])


def foreign(path, metadata=()):
    """A little ONNX model that plantml did not make."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 64, 64, 3])
    same = helper.make_tensor_value_info("same", TensorProto.UINT8, ["n", 64, 64, 3])
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["same"])], "foreign", [image], [same])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, dict(metadata))
    Path(path).write_bytes(serialised(model))
    return str(path)


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


# --- what runs --------------------------------------------------------------------------------


def test_torch_and_onnxruntime_give_the_same_answers(trained, opened, batch):
    bundle, fast = opened
    again, slow = runtimes.open_model(trained.run, runtime="torch")
    assert (fast.name, slow.name, again) == ("onnxruntime", "torch", bundle)
    ours, theirs = fast.run(batch), slow.run(batch)
    assert list(ours) == list(theirs)
    for name, numbers in ours.items():
        assert numbers.dtype == np.float32
        scale = max(1, float(np.abs(theirs[name]).max()))
        np.testing.assert_allclose(numbers, theirs[name], atol=2e-5 * scale, err_msg=name)


def test_answers_are_what_the_contract_promises(opened, batch):
    bundle, fast = opened
    outputs = fast.run(batch)
    for target in bundle.contract.targets:
        answer = outputs[f"target.{target.name}"]
        assert answer.shape == (13, target.size)
        if target.kind == "class":
            np.testing.assert_allclose(answer.sum(axis=1), 1, atol=1e-5)
    assert outputs["embedding"].shape == (13, bundle.contract.architecture.embedding)
    assert outputs["unknown"].shape == (13,)
    assert len({float(unknown) for unknown in outputs["unknown"]}) > 1


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_batch_size_changes_no_bit(opened, batch, size):
    fast = opened[1]
    whole = fast.run(batch)
    parts = [fast.run(batch[start : start + size]) for start in range(0, len(batch), size)]
    assert same(whole, {name: np.concatenate([part[name] for part in parts]) for name in whole})


def test_threads_change_no_bit(opened, batch):
    fast = opened[1]
    whole = fast.run(batch)
    with ThreadPoolExecutor(4) as pool:
        assert all(same(whole, result) for result in pool.map(fast.run, [batch] * 12))


def test_device_and_runtime_auto(trained):
    assert runtimes.open_model(trained.run, runtime="auto", device="cpu")[1].name == "onnxruntime"


# --- one file alone ---------------------------------------------------------------------------


def test_an_onnx_file_alone_is_the_whole_model(trained, opened, batch, tmp_path):
    bundle, fast = opened
    shutil.copy(f"{trained.run}/bundle/model.onnx", tmp_path / "leaf.onnx")
    alone, session = runtimes.open_model(str(tmp_path / "leaf.onnx"))
    assert alone.contract == bundle.contract
    assert alone.digest == bundle.digest
    assert alone.url == str(tmp_path / "leaf.onnx")
    assert same(session.run(batch), fast.run(batch))
    with pytest.raises(InputError, match="one file only"):
        alone.read("model.safetensors")


def test_a_foreign_onnx_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="was not made by plantml"):
        runtimes.open_model(foreign(tmp_path / "foreign.onnx"))


@pytest.mark.parametrize(
    ("contract", "message"),
    [("{", "not valid JSON"), ("[]", "not a valid model contract"), ("{}", "bundle format None")],
)
def test_an_onnx_file_with_a_damaged_contract_is_refused(tmp_path, contract, message):
    notes = {"plantml": contract, "plantml_digest": "ab"}
    with pytest.raises(InputError, match=message):
        runtimes.open_model(foreign(tmp_path / "foreign.onnx", notes))


def test_an_onnx_file_of_a_later_format_asks_for_an_update(opened, tmp_path):
    content = json.loads(opened[0].contract.canonical()) | {"format": 99}
    file = foreign(tmp_path / "later.onnx", {"plantml": json.dumps(content), "plantml_digest": "ab"})
    with pytest.raises(InputError, match="bundle format 99") as error:
        runtimes.open_model(file)
    assert error.value.hint == "Update plantml."


@pytest.mark.parametrize("data", [b"", b"no graph", b"\x08\x09" * 50])
def test_bytes_that_are_no_onnx_are_refused(tmp_path, data):
    file = tmp_path / "model.onnx"
    file.write_bytes(data)
    with pytest.raises(InputError):
        runtimes.open_model(str(file))


def test_an_onnx_file_whose_answers_are_not_its_contracts_is_refused(opened, tmp_path):
    notes = {"plantml": opened[0].contract.canonical().decode(), "plantml_digest": "ab"}
    with pytest.raises(InputError, match="do not match its contract"):
        runtimes.open_model(foreign(tmp_path / "empty.onnx", notes))


def test_an_edited_weight_of_a_single_file_is_noticed(trained, tmp_path):
    model = onnx.load(f"{trained.run}/bundle/model.onnx")
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    data = bytearray(weights.raw_data)
    data[len(data) // 2] ^= 1
    weights.raw_data = bytes(data)
    onnx.save(model, tmp_path / "edited.onnx")
    with pytest.raises(InputError, match="was changed after plantml wrote it") as error:
        runtimes.open_model(str(tmp_path / "edited.onnx"))
    assert "Export it again" in error.value.hint

    kept = [entry for entry in model.metadata_props if entry.key != file_formats.SEAL_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, tmp_path / "unsealed.onnx")
    with pytest.raises(InputError, match="not made by plantml, or changed since"):
        runtimes.open_model(str(tmp_path / "unsealed.onnx"))


# --- OpenVINO ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def converted(trained, opened, tmp_path_factory):
    """An `.xml` with its `.bin`."""
    pytest.importorskip("openvino")
    from plantml.export.onnx import notes_of
    from plantml.export.openvino import to_openvino

    bundle, file = opened[0], tmp_path_factory.mktemp("openvino") / "leaf.xml"
    model, weights = to_openvino(bundle.read("model.onnx"), notes_of(bundle.contract, bundle.digest))
    file.write_bytes(model)
    file.with_suffix(".bin").write_bytes(weights)
    return file


def test_openvino_gives_the_answers_of_onnxruntime(trained, opened, converted, batch):
    bundle, alone = runtimes.open_model(str(converted))
    assert (bundle.contract, bundle.digest) == (opened[0].contract, opened[0].digest)
    _, of_bundle = runtimes.open_model(trained.run, runtime="openvino")
    wanted = opened[1].run(batch)
    for session in (alone, of_bundle):
        result = session.run(batch)
        assert list(result) == list(wanted)
        for name, numbers in wanted.items():
            scale = max(1, float(np.abs(numbers).max()))
            np.testing.assert_allclose(result[name], numbers, atol=2e-5 * scale, err_msg=name)


def test_openvino_answers_many_threads_at_once(converted, batch):
    _, session = runtimes.open_model(str(converted))
    whole = session.run(batch)
    with ThreadPoolExecutor(4) as pool:
        assert all(same(whole, result) for result in pool.map(session.run, [batch] * 12))


def test_a_bin_of_another_model_is_refused(converted, tmp_path):
    shutil.copy(converted, tmp_path / "leaf.xml")
    weights = bytearray(converted.with_suffix(".bin").read_bytes())
    weights[len(weights) // 2] ^= 1
    (tmp_path / "leaf.bin").write_bytes(weights)
    with pytest.raises(InputError, match="do not belong together"):
        runtimes.open_model(str(tmp_path / "leaf.xml"))
    (tmp_path / "leaf.bin").unlink()
    with pytest.raises(NotFoundError):
        runtimes.open_model(str(tmp_path / "leaf.xml"))


@pytest.mark.parametrize("key", ["plantml", "plantml_digest", "plantml_weights", "plantml_seal"])
def test_an_edited_xml_is_refused(converted, tmp_path, key):
    shutil.copy(converted.with_suffix(".bin"), tmp_path / "leaf.bin")
    model = converted.read_bytes()
    place = model.index(b'value="', model.rindex(f"<{key} ".encode())) + 20
    for edited in (
        model[:place] + bytes([model[place] ^ 1]) + model[place + 1 :],
        model.replace(f"<{key} ".encode(), b"<other "),
        model[:place],
    ):
        assert edited != model
        (tmp_path / "leaf.xml").write_bytes(edited)
        with pytest.raises(InputError, match="changed"):
            runtimes.open_model(str(tmp_path / "leaf.xml"))


def test_a_signal_is_no_crash_after_models_were_closed_in_any_order(run_python, converted):
    """OpenVINO puts back a stack for signals that is gone by then, unless it is kept from it."""
    code = """
import contextlib, faulthandler, gc, signal, sys
from plantml.errors import UsageError
faulthandler.enable()  # which gives signals a stack of their own
from plantml.model import runtimes
first, second = (runtimes.open_model(sys.argv[1]) for _ in range(2))
third, fourth = (runtimes.open_core() for _ in range(2))
with contextlib.suppress(UsageError):  # of a processor without it
    files = [open(file, "rb").read() for file in sys.argv[1:]]
    fifth = runtimes.OpenVinoRuntime(*files, bfloat16=True)
for name in ("first", "third", "second", "fourth", "fifth"):
    globals().pop(name, None)
    gc.collect()
messages = []
signal.signal(signal.SIGTERM, lambda *_: messages.append("asked to end"))
signal.raise_signal(signal.SIGTERM)
print(*messages)
"""
    process = run_python(code, converted, converted.with_suffix(".bin"))
    out, err = process.communicate(timeout=100)
    assert (process.returncode, out) == (0, "asked to end\n"), err


def test_the_first_call_of_openvino_is_made_alone(monkeypatch):
    """Two first calls at the same time block each other forever, see `OpenVinoRuntime.run`."""
    running, most, alone = [], [], threading.Event()

    def infer(self, batch, columns):
        running.append(1)
        most.append(len(running))
        alone.wait(0.05)
        running.pop()
        return {}

    monkeypatch.setattr(runtimes.OpenVinoRuntime, "_has_run", False)
    monkeypatch.setattr(runtimes.OpenVinoRuntime, "_run", infer)
    runtime = object.__new__(runtimes.OpenVinoRuntime)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(runtime.run, range(4)))
        assert max(most) == 1
        list(pool.map(runtime.run, range(4)))
    assert max(most) > 1


def test_importing_openvino_calls_nobody(run_python):
    """Its package sends an event when it is imported, by another package that is not let in."""
    pytest.importorskip("openvino")
    code = (
        "import sys; from plantml.model.runtimes import import_openvino; import_openvino();"
        "print([name for name in sys.modules if name.startswith('openvino_telemetry')])"
    )
    out, err = run_python(code).communicate(timeout=120)
    assert out.strip() == "[]", err


# --- what does not run ------------------------------------------------------------------------


@pytest.mark.parametrize("choice", ["auto", "onnxruntime", "torch"])
def test_a_damaged_file_of_the_bundle_is_noticed(trained, tmp_path, choice):
    shutil.copytree(f"{trained.run}/bundle", tmp_path / "bundle")
    for name in ("model.onnx", "model.safetensors"):
        file = tmp_path / "bundle" / name
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    with pytest.raises(StorageError, match="is damaged"):
        runtimes.open_model(str(tmp_path / "bundle"), runtime=choice)


@pytest.mark.parametrize("choice", runtimes.RUNTIMES)
def test_an_edited_contract_opens_in_no_runtime(trained, tmp_path, choice):
    """One value under each key of a real contract; `test_bundle` changes every value."""
    shutil.copytree(f"{trained.run}/bundle", tmp_path / "bundle")
    file = tmp_path / "bundle/model.json"
    content = json.loads(file.read_text())
    for key, value in content["contract"].items():
        odd = value[::-1] if isinstance(value, list) else value | {"x": 1} if isinstance(value, dict) else f"{value}1"
        file.write_text(json.dumps(content | {"contract": content["contract"] | {key: odd}}))
        with pytest.raises(InputError):
            runtimes.open_model(str(tmp_path / "bundle"), runtime=choice)


def test_weights_of_another_type_or_shape_do_not_run(trained):
    result = bundle.find(trained.run)
    weights = network.read_weights(result.read(bundle.WEIGHTS))
    name = next(
        name
        for name, tensor in sorted(weights.items())
        if tensor.dtype == torch.float32 and tensor.dim() > 1 and len(tensor) > 1  # not that of a value
    )
    for other in (weights[name].view(torch.int32), weights[name][:1], None):
        changed = {key: tensor for key, tensor in {**weights, name: other}.items() if tensor is not None}
        with pytest.raises(InputError, match="do not match the model's contract"):
            network.rebuild(result.contract, changed)


def test_unknown_runtime_lists_those_that_there_are(trained):
    with pytest.raises(UsageError, match="tensorflow") as error:
        runtimes.open_model(trained.run, runtime="tensorflow")
    assert "onnxruntime" in error.value.hint
    assert "torch" in error.value.hint


def test_onnxruntime_on_another_device_points_to_torch(trained):
    for ref in (trained.run, f"{trained.run}/bundle/model.onnx"):
        with pytest.raises(UsageError, match="not on cuda") as error:
            runtimes.open_model(ref, runtime="onnxruntime", device="cuda")
        assert "--runtime torch" in error.value.hint


@pytest.mark.parametrize("device", ["greenhouse", "cuda:99"])
def test_a_device_that_is_not_there_is_wrong_usage(trained, device):
    with pytest.raises(UsageError, match=device):
        runtimes.open_model(trained.run, device=device)


def test_openvino_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match="OpenVINO is not installed") as error:
        runtimes.import_openvino()
    assert "plantml[openvino]" in error.value.hint


def test_an_onnx_file_in_torch_is_refused(trained):
    with pytest.raises(UsageError, match="runs only in onnxruntime"):
        runtimes.open_model(f"{trained.run}/bundle/model.onnx", runtime="torch")


@pytest.mark.parametrize("name", ["nothing", "nothing.onnx"])
def test_no_model_is_not_found(tmp_path, name):
    with pytest.raises(NotFoundError, match="nothing"):
        runtimes.open_model(str(tmp_path / name))
