import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plantml import bundle, storage
from plantml.bundle import Architecture, Combinations, Contract, Origin
from plantml.calibration import Threshold
from plantml.errors import InputError, NotFoundError, StorageError
from plantml.images import Fit
from plantml.targets import Target

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
FILES = {"model.onnx": b"graph", "model.safetensors": b"weights", "README.md": b"card"}
TENSORS = {"head.weight": b"\1\2", "head.bias": b"\3", "bank": b"\4"}


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
    found = bundle.find(trained.run)
    assert found == bundle.find(f"{trained.run}/bundle")
    assert sorted(found.files) == ["README.md", "model.onnx", "model.safetensors"]
    for name in found.files:
        assert found.read(name)


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
    Path(folder, "model.onnx").unlink()
    with pytest.raises(NotFoundError, match=r"model\.onnx"):
        bundle.find(folder).read("model.onnx")


def test_a_file_that_was_never_there_lists_those_that_are(folder):
    with pytest.raises(InputError, match=r"has no model\.engine.*README\.md, model\.onnx"):
        bundle.find(folder).read("model.engine")


def test_remote_files_are_fetched_once_and_checked(memory_url, tmp_path):
    found, cache = bundle.find(written(memory_url)), storage.Cache(tmp_path, 1000)
    assert found.read("model.onnx", cache) == b"graph"
    storage.write(f"{memory_url}/model.onnx", b"other")
    assert found.read("model.onnx", cache) == b"graph"
    with pytest.raises(StorageError, match="damaged"):
        found.read("model.onnx", storage.Cache(tmp_path / "empty", 1000))


# --- digest -----------------------------------------------------------------------------------


@pytest.mark.parametrize("what", OTHERS)
def test_digest_changes_with_the_contract(what):
    assert bundle.digest(OTHERS[what], TENSORS) != bundle.digest(CONTRACT, TENSORS)


def test_digest_is_that_of_the_contract_however_it_was_written():
    content = json.loads(CONTRACT.canonical())
    backwards = {key: content[key] for key in reversed(content)}
    again = bundle.parse_contract("here", json.loads(json.dumps(backwards, indent=7)))
    assert again == CONTRACT
    assert again.canonical() == CONTRACT.canonical()


def test_a_contract_from_before_there_was_an_account_keeps_its_digest():
    """The canonical bytes as they were written then."""
    old = json.loads(CONTRACT.canonical())
    assert not {"target_risk", "acceptance", "combinations"} & set(old)
    text = json.dumps(old, sort_keys=True, separators=(",", ":")).encode()
    assert bundle.parse_contract("here", old).canonical() == text


@pytest.mark.parametrize("what", OTHERS)
def test_every_contract_survives_its_file(what):
    content = json.loads(bundle.model_json(OTHERS[what], "digest", FILES))["contract"]
    assert bundle.parse_contract("here", content) == OTHERS[what]


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
