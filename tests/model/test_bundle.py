import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from safetensors.numpy import save

from plantml import storage
from plantml.errors import Exit, InputError, NotFoundError, PlantmlError, StorageError
from plantml.export.onnx import serialised
from plantml.imaging import Fit
from plantml.model import bundle
from plantml.model.contract import Architecture, Combinations, Contract, Origin, Withheld, parse_contract
from plantml.targets import Target, Threshold

CONTRACT = Contract(
    targets=(Target("disease", "class", ("none", "rust")), Target("severity", "value", unit="fraction")),
    input=Fit(64, 64),
    architecture=Architecture(backbone="resnet18", embedding=4, mean=(0.5,) * 3, std=(0.5,) * 3, bank=2),
    temperatures={"disease": 1.5},
    thresholds={"disease": 0.8},
    unknown_threshold=0.3,
    dataset=Origin(url="s3://bucket/leaves", version=7, fingerprint="ab" * 32),
    metrics={"macro_f1": 0.9},
    seed=1,
    versions={"plantml": "0.1.0"},
)
TENSORS = {"head.weight": b"\1\2", "head.bias": b"\3", "bank": b"\4"}


def onnx_file(contract, digest):
    """A graph that gives back what it gets, with the notes of a model."""
    image, same = (helper.make_tensor_value_info(name, TensorProto.UINT8, [1]) for name in ("image", "same"))
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["same"])], "graph", [image], [same])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"plantml": contract.canonical().decode(), "plantml_digest": digest})
    return serialised(model)


WEIGHTS = save({name: np.frombuffer(data, np.uint8) for name, data in TENSORS.items()})
FILES = {
    "model.onnx": onnx_file(CONTRACT, bundle.digest(CONTRACT, TENSORS)),
    "model.safetensors": WEIGHTS,
    "README.md": b"card",
}


def changed(**changes):
    return CONTRACT.model_copy(update=changes)


OTHERS = {
    "targets": changed(targets=CONTRACT.targets[:1]),
    "class order": changed(targets=(Target("disease", "class", ("rust", "none")), CONTRACT.targets[1])),
    "unit": changed(targets=(CONTRACT.targets[0], Target("severity", "value", unit="percent"))),
    "input": changed(input=Fit(64, 96)),
    "fit": changed(input=Fit(64, 64, "crop")),
    "architecture": changed(architecture=CONTRACT.architecture.model_copy(update={"mean": (0.4, 0.5, 0.5)})),
    "temperatures": changed(temperatures={"disease": 1.6}),
    "thresholds": changed(thresholds={"disease": 0.7}),
    "target_risk": changed(target_risk=0.05),
    "acceptance": changed(acceptance={"disease": Threshold(0.8, 0.9, 0.05, 0.1, 300, provisional=False)}),
    "combinations": changed(combinations=Combinations(targets=("disease",), seen=(("rust",),))),
    "withheld": changed(withheld=(Withheld(targets=("severity",), where="disease", label="none"),)),
    "unknown_threshold": changed(unknown_threshold=0.31),
    "dataset": changed(dataset=Origin(url="s3://bucket/leaves", version=8, fingerprint="ab" * 32)),
    "metrics": changed(metrics={"macro_f1": 0.91}),
    "seed": changed(seed=2),
    "versions": changed(versions={"plantml": "0.1.1"}),
}


def written(url, files=FILES):
    name = bundle.digest(CONTRACT, TENSORS)
    for file, data in files.items():
        storage.write(storage.join(url, file), data)
    storage.write(storage.join(url, "model.json"), bundle.model_json(CONTRACT, name, files))
    return url


@pytest.fixture
def folder(tmp_path):
    return written(str(tmp_path / "bundle"))


# --- find -------------------------------------------------------------------------------------


def test_a_run_means_its_bundle(folder):
    alone = bundle.find(folder)
    assert bundle.find(str(Path(folder).parent)) == alone
    assert bundle.find(f"{folder}/") == alone
    assert alone.url == folder
    assert alone.contract == CONTRACT
    assert alone.digest == bundle.digest(CONTRACT, TENSORS)
    assert sorted(alone.files) == sorted(FILES)


def test_a_trained_run_is_found(trained):
    result = bundle.find(trained.run)
    assert result == bundle.find(f"{trained.run}/bundle")
    assert sorted(result.files) == ["README.md", "model.onnx", "model.safetensors"]
    for name in result.files:
        assert result.read(name)


def test_nothing_there_is_an_error_that_says_what_to_name(tmp_path):
    with pytest.raises(NotFoundError, match=r"no model at .*nowhere") as error:
        bundle.find(str(tmp_path / "nowhere"))
    assert "plantml train" in error.value.hint


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"{}", b'{"contract": {}}', b"\xff\xfe"])
def test_damaged_model_json_is_an_input_error(folder, text):
    Path(folder, "model.json").write_bytes(text)
    with pytest.raises(InputError):
        bundle.find(folder)


def rewritten(folder, change):
    file = Path(folder, "model.json")
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("key", ["digest", "files", "contract"])
def test_missing_key_of_model_json_is_named(folder, key):
    rewritten(folder, lambda content: content.pop(key))
    with pytest.raises(InputError, match=key):
        bundle.find(folder)


def test_unknown_format_asks_for_an_update(folder):
    rewritten(folder, lambda content: content["contract"].update(format=2))
    with pytest.raises(InputError, match="bundle format 2") as error:
        bundle.find(folder)
    assert error.value.hint == "Update plantml."


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda contract: contract.pop("thresholds"), "thresholds"),
        (lambda contract: contract["architecture"].update(mean=[0.5]), r"architecture\.mean"),
        (lambda contract: contract.update(surprise=1), "surprise"),
        (lambda contract: contract["targets"][0].update(kind="guess"), r"targets\.0\.kind"),
    ],
)
def test_contract_that_does_not_hold_names_its_first_fault(folder, change, named):
    rewritten(folder, lambda content: change(content["contract"]))
    with pytest.raises(InputError, match=named):
        bundle.find(folder)


# --- read -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(FILES))
def test_one_flipped_bit_is_noticed(folder, name):
    assert bundle.find(folder).read(name) == FILES[name]
    data = bytearray(FILES[name])
    data[2] ^= 1
    Path(folder, name).write_bytes(data)
    with pytest.raises(StorageError, match=f"{name} is damaged"):
        bundle.find(folder).read(name)


def test_a_lost_file_is_not_found(folder):
    Path(folder, "model.safetensors").unlink()
    with pytest.raises(NotFoundError, match=r"model\.safetensors"):
        bundle.find(folder).read("model.safetensors")
    Path(folder, "model.onnx").unlink()
    with pytest.raises(InputError, match=r"is incomplete: model\.onnx is missing"):
        bundle.find(folder)


def test_a_file_that_was_never_there_lists_those_that_are(folder):
    with pytest.raises(InputError, match=r"has no model\.engine.*README\.md, model\.onnx"):
        bundle.find(folder).read("model.engine")


def test_remote_files_are_fetched_once_and_checked(memory_url, tmp_path):
    result, cache = bundle.find(written(memory_url)), storage.Cache(tmp_path, 10_000)
    assert result.read("model.onnx", cache) == FILES["model.onnx"]
    storage.write(f"{memory_url}/model.onnx", b"other")
    assert result.read("model.onnx", cache) == FILES["model.onnx"]
    with pytest.raises(StorageError, match="damaged"):
        result.read("model.onnx", storage.Cache(tmp_path / "empty", 10_000))
    next(tmp_path.glob(f"*/{result.files['model.onnx']}")).write_bytes(b"damaged")
    with pytest.raises(StorageError, match="in the cache is damaged"):
        result.read("model.onnx", cache)


# --- what is believed: nothing ----------------------------------------------------------------


def leaves(value, path=()):
    """The path of each scalar, and of each empty list or object."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    paths = [result for key, part in inner for result in leaves(part, (*path, key))]
    return paths or [path]


def put(content, path, value):
    """A copy with another value at a path."""
    content = json.loads(json.dumps(content))
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return content


def at(content, path):
    for key in path:
        content = content[key]
    return content


def others(value):
    """Values that are not this one: near it, of another type, and such that make no sense anywhere."""
    odd = [None, [value], float("nan"), 10**400, -1, "\N{SNOWMAN}"]
    match value:
        case bool():
            return [not value, int(value), *odd]
        case int():
            return [value + 1, float(value), str(value), *odd]
        case float():
            return [value + 0.01, str(value), *odd]
        case str():
            return [f"{value}x", value.upper() + " ", *odd]
        case _:
            return [*odd, {} if value == [] else []]


FULL = CONTRACT.model_copy(
    update={
        "biases": {"disease": (0.5, -0.5)},
        "target_risk": 0.05,
        "acceptance": OTHERS["acceptance"].acceptance,
        "combinations": OTHERS["combinations"].combinations,
        "withheld": OTHERS["withheld"].withheld,
        "derived_from": "cd" * 32,
    }
)


def opens(folder):
    """The exit code of opening a bundle for any runtime: what `find` and reading each of its files end with."""
    try:
        result = bundle.find(folder)
        for name in result.files:
            result.read(name)
    except PlantmlError as error:
        return error.exit_code
    return Exit.DONE


@pytest.fixture
def full(tmp_path):
    """A bundle whose contract has everything, and the content of its `model.json`."""
    digest = bundle.digest(FULL, TENSORS)
    files = {**FILES, "model.onnx": onnx_file(FULL, digest)}
    folder = tmp_path / "full"
    text = bundle.model_json(FULL, digest, files)
    storage.publish(str(folder), {**files, "model.json": text})
    assert opens(str(folder)) == Exit.DONE
    return folder, json.loads(text)


def test_every_value_of_model_json_is_checked(full):
    folder, content = full
    paths = leaves(content)
    assert len(paths) > 40
    for path in paths:
        for value in others(at(content, path)):
            (folder / "model.json").write_text(json.dumps(put(content, path, value)))
            assert opens(str(folder)) in {Exit.INPUT, Exit.STORAGE}, (path, value)


def test_every_missing_or_further_key_of_model_json_is_noticed(full):
    folder, content = full
    for path in {result[:end] for result in leaves(content) for end in range(len(result))}:
        parent = at(content, path)
        for key in parent if isinstance(parent, dict) else range(len(parent)):
            less = [part for number, part in enumerate(parent) if number != key]
            if isinstance(parent, dict):
                less = {name: part for name, part in parent.items() if name != key}
            text = put({"": content}, ("", *path), less)[""]
            (folder / "model.json").write_text(json.dumps(text))
            if (*path, key) != ("files", "README.md"):
                assert opens(str(folder)) in {Exit.INPUT, Exit.STORAGE}, (path, key)
        more = {**parent, "surprise": 1} if isinstance(parent, dict) else [*parent, parent[0]]
        (folder / "model.json").write_text(json.dumps(put({"": content}, ("", *path), more)[""]))
        assert opens(str(folder)) in {Exit.INPUT, Exit.STORAGE}, path


def test_two_classes_that_were_exchanged_are_noticed(full):
    folder, content = full
    classes = content["contract"]["targets"][0]["classes"]
    (folder / "model.json").write_text(json.dumps(put(content, ("contract", "targets", 0, "classes"), classes[::-1])))
    with pytest.raises(InputError, match=r"holds another contract: targets differs"):
        bundle.find(str(folder))


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "model.pkl", "sub/model.onnx", ""])
def test_a_file_that_a_bundle_does_not_have_is_refused(full, name):
    folder, content = full
    (folder / "model.json").write_text(json.dumps(put(content, ("files", name), "ab" * 32)))
    with pytest.raises(InputError, match="a bundle has no file"):
        bundle.find(str(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (b"[" * 100_000, "nested too deep"),
        (b'{"digest": ' + b"9" * 5000 + b"}", "too many digits"),
        (b'{"digest": "\\ud800"}', "half of a surrogate pair"),
        (b'{"contract": NaN}', "digest is missing"),
    ],
)
def test_json_that_is_none_is_named(full, change, message):
    folder, _ = full
    (folder / "model.json").write_bytes(change)
    with pytest.raises(InputError, match=message) as error:
        bundle.find(str(folder))
    assert str(folder / "model.json") in str(error.value)


def test_keys_of_other_formats_are_refused_in_words(full):
    folder, content = full
    (folder / "model.json").write_text(json.dumps(put(content, ("contract", "labels"), ["none", "rust"])))
    with pytest.raises(
        InputError, match="labels: bundle format 1 has no such key; another version of plantml wrote it"
    ):
        bundle.find(str(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": ()}, "there are none"),
        ({"targets": CONTRACT.targets[:1] * 2}, "two have the same name"),
        ({"targets": (Target("a/b", "class", ("x",)),)}, "cannot be named"),
        ({"targets": (Target("disease", "class", ("x", "x")),)}, "the classes of disease"),
        ({"targets": (Target("disease", "class"),)}, "the classes of disease"),
        ({"targets": (Target("disease", "value", ("x",)),)}, "the classes of disease"),
        ({"input": Fit(-1, 64)}, "a size"),
        ({"input": Fit(10**9, 64)}, "a size"),
        ({"thresholds": {"rust": 0.5}}, "thresholds: there is no target 'rust'"),
        ({"temperatures": {"disease": 0.0}}, "must be above 0"),
        ({"temperatures": {"disease": float("nan")}}, "must be above 0"),
        ({"biases": {"disease": (0.5,)}}, "one per class"),
        ({"combinations": Combinations(targets=("severity",), seen=(("rust",),))}, "combinations: 'rust'"),
        ({"combinations": Combinations(targets=("disease",), seen=(("rust", "none"),))}, "combinations: 'rust, none'"),
        ({"withheld": (Withheld(targets=("disease",), where="disease", label="none"),)}, "withheld: 'disease where"),
        ({"withheld": (Withheld(targets=("severity",), where="disease", label="x"),)}, "withheld: 'severity where"),
    ],
)
def test_a_contract_that_no_network_can_keep_is_refused(change, message):
    """Whatever its digest: it may have been made so."""
    with pytest.raises(InputError, match=message):
        parse_contract("here", json.loads(changed(**change).canonical()))


def rehashed(content, name, data):
    return put(content, ("files", name), hashlib.sha256(data).hexdigest())


def test_files_of_another_model_are_noticed_even_with_their_hashes(full):
    folder, content = full
    for name, data in [
        ("model.onnx", FILES["model.onnx"]),
        ("model.safetensors", save({"head.weight": np.zeros(2, np.uint8)})),
    ]:
        (folder / "model.json").write_text(json.dumps(rehashed(content, name, data)))
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(data)
        assert opens(str(folder)) == Exit.INPUT
        (folder / name).write_bytes(before)


def test_an_onnx_file_whose_metadata_were_edited_to_fit_is_noticed(full):
    folder, content = full
    data = (folder / "model.onnx").read_bytes()
    edited = data.replace(b'"disease":0.8', b'"disease":0.1')
    assert edited != data
    (folder / "model.onnx").write_bytes(edited)
    fitting = put(rehashed(content, "model.onnx", edited), ("contract", "thresholds", "disease"), 0.1)
    (folder / "model.json").write_text(json.dumps(fitting))
    with pytest.raises(InputError, match=r"model\.onnx was changed after plantml wrote it"):
        bundle.find(str(folder)).read("model.onnx")
    with pytest.raises(InputError, match="does not match its digest"):
        bundle.find(str(folder)).read("model.safetensors")


@given(share=st.floats(0, 0.999), name=st.sampled_from(["model.json", "model.onnx", "model.safetensors"]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_that_was_cut_off_is_noticed(full, share, name):
    folder, _ = full
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(len(data) * share)])
    assert opens(str(folder)) in {Exit.INPUT, Exit.STORAGE}
    (folder / name).write_bytes(data)


# --- digest -----------------------------------------------------------------------------------


@pytest.mark.parametrize("what", OTHERS)
def test_digest_changes_with_the_contract(what):
    assert bundle.digest(OTHERS[what], TENSORS) != bundle.digest(CONTRACT, TENSORS)


def test_digest_is_that_of_the_contract_however_it_was_written():
    content = json.loads(CONTRACT.canonical())
    backwards = {key: content[key] for key in reversed(content)}
    again = parse_contract("here", json.loads(json.dumps(backwards, indent=7)))
    assert again == CONTRACT
    assert again.canonical() == CONTRACT.canonical()


def test_a_contract_from_before_there_was_an_account_keeps_its_digest():
    """The canonical bytes as they were written then."""
    old = json.loads(CONTRACT.canonical())
    assert not {"target_risk", "acceptance", "combinations", "withheld"} & set(old)
    text = json.dumps(old, sort_keys=True, separators=(",", ":")).encode()
    assert parse_contract("here", old).canonical() == text


@pytest.mark.parametrize("what", OTHERS)
def test_every_contract_survives_its_file(what):
    content = json.loads(bundle.model_json(OTHERS[what], "digest", FILES))["contract"]
    assert parse_contract("here", content) == OTHERS[what]


tensors = st.dictionaries(st.text("abc.", min_size=1, max_size=4), st.binary(min_size=1, max_size=8), min_size=1)


@given(tensors, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_digest_does_not_depend_on_the_order_of_tensors(found, random):
    names = list(found)
    random.shuffle(names)
    assert bundle.digest(CONTRACT, {name: found[name] for name in names}) == bundle.digest(CONTRACT, found)


@given(tensors, st.data())
@settings(deadline=None)
def test_digest_changes_with_any_bit_and_any_name(found, data):
    name = data.draw(st.sampled_from(sorted(found)))
    place = data.draw(st.integers(0, len(found[name]) - 1))
    flipped = bytearray(found[name])
    flipped[place] ^= 1 << data.draw(st.integers(0, 7))
    digest = bundle.digest(CONTRACT, found)
    assert bundle.digest(CONTRACT, {**found, name: bytes(flipped)}) != digest
    assert (
        bundle.digest(CONTRACT, {key if key != name else f"{name}x": value for key, value in found.items()}) != digest
    )
