"""A pack from anybody: what is not a bundle, whole and only that, is refused, and nothing of it is kept."""

import contextlib
import hashlib
import io
import json
import pickle
import random
import stat
import zipfile
from itertools import pairwise
from pathlib import Path

import pytest
from tests.serve.detectors import write_tray

from plantml import registry, storage
from plantml.errors import InputError, PlantmlError, StorageError, UsageError
from plantml.model.file_formats import seal
from plantml.registry import inspection, packs, references
from plantml.registry.version_files import inspect

ME = {"by": "me"}


class Evil:
    """Leaves a file behind wherever it is unpickled."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return Path.touch, (Path(self.place),)


@pytest.fixture
def write_pack(tmp_path, bundle_files):
    """`write_pack(changes, …)`: a pack of a good bundle with some files changed, added (bytes), or gone (None)."""

    def make(changes=None, *, infos=(), rehash=False, method=zipfile.ZIP_STORED):
        files = {**bundle_files(1), **(changes or {})}
        if rehash:
            content = json.loads(files["model.json"])
            hashed = {name: data for name, data in files.items() if data is not None and name != "model.json"}
            content["files"] = {name: hashlib.sha256(data).hexdigest() for name, data in hashed.items()}
            files["model.json"] = json.dumps(content).encode()
        url = tmp_path / "sent.plantml"
        with zipfile.ZipFile(url, "w", method) as file:
            for name, data in files.items():
                if data is not None:
                    file.writestr(name, data)
            for info, data in infos:
                file.writestr(info, data)
        return str(url)

    return make


def refused(pack, tmp_path, error=InputError):
    with pytest.raises(error) as caught:
        registry.add(pack, f"{tmp_path}/models/leaf", **ME)
    assert not (tmp_path / "models").exists()
    return str(caught.value)


def test_a_pack_goes_from_one_registry_to_another(tmp_path, url, make_bundle, cli, photo):
    registry.add(make_bundle(1), f"{url}/models/leaf", **ME)
    done = packs.pack(f"{url}/models/leaf@1", f"{tmp_path}/leaf.plantml")
    again = packs.pack(f"{url}/models/leaf@1", f"{tmp_path}/again.plantml")
    assert storage.read(done.url) == storage.read(again.url)  # the same model, the same file
    entry = registry.add(done.url, f"{tmp_path}/customer/leaf", **ME)
    assert entry.digest == done.bundle.digest
    assert entry.files == registry.load(f"{url}/models/leaf").entries[1].files
    import plantml

    assert plantml.load(done.url).predict([photo()])[0].record.model == entry.digest


def test_a_pack_is_called_like_one(tmp_path, make_bundle):
    with pytest.raises(UsageError, match="packs have this extension"):
        packs.pack(make_bundle(1), f"{tmp_path}/leaf.zip")


@pytest.mark.parametrize("name", ["../../escaped", "/etc/escaped", "a/../../escaped", "..\\escaped", "C:/escaped"])
def test_a_path_that_escapes_is_refused(tmp_path, write_pack, name):
    message = refused(write_pack(infos=[(zipfile.ZipInfo(name), b"x")]), tmp_path)
    assert "unsafe name" in message or "does not belong" in message
    assert not list(tmp_path.rglob("*escaped*"))


def test_a_name_in_the_contract_that_escapes_is_refused(tmp_path, write_pack):
    secret = tmp_path / "secret"
    secret.write_bytes(b"mine")
    content = json.loads(storage.read(f"zip://model.json::{write_pack()}"))
    content["files"]["../secret"] = hashlib.sha256(b"mine").hexdigest()
    assert "no file '../secret'" in refused(write_pack({"model.json": json.dumps(content).encode()}), tmp_path)


def test_a_symlink_is_refused(tmp_path, write_pack):
    link = zipfile.ZipInfo("README.md")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    assert "link or device" in refused(write_pack({"README.md": None}, infos=[(link, b"/etc/passwd")]), tmp_path)


def test_a_bomb_is_refused(tmp_path, write_pack):
    bomb = write_pack({"model.onnx": bytes(200 << 20)}, method=zipfile.ZIP_DEFLATED)
    assert Path(bomb).stat().st_size < 1 << 20
    assert "times its size" in refused(bomb, tmp_path)


def test_a_member_that_lies_about_its_size_is_refused(tmp_path, write_pack):
    pack = Path(write_pack({"README.md": bytes(50_000)}, rehash=True, method=zipfile.ZIP_DEFLATED))
    data = pack.read_bytes()
    assert data.count((50_000).to_bytes(4, "little")) == 2
    pack.write_bytes(data.replace((50_000).to_bytes(4, "little"), (40).to_bytes(4, "little")))
    assert "damaged" in refused(str(pack), tmp_path)


@pytest.mark.parametrize("name", ["README.md", "model.onnx", "model.safetensors"])
def test_a_wrong_digest_is_refused(tmp_path, write_pack, bundle_files, name):
    other = bundle_files(2, card="# Another\n")[name]
    assert "SHA-256" in refused(write_pack({name: other}), tmp_path, StorageError)
    if name != "README.md":  # every hash is right, and the digest is that of another model
        why = {"model.onnx": "mixes the files of two models", "model.safetensors": "does not match its digest"}
        assert why[name] in refused(write_pack({name: other}, rehash=True), tmp_path)


def test_what_the_cache_knows_does_not_stand_for_a_damaged_pack(tmp_path, write_pack, bundle_files):
    cache = storage.Cache(tmp_path / "cache", 1 << 30)
    whole = write_pack({})
    registry.add(whole, str(tmp_path / "one/leaf"), by="x", cache=cache)
    other = bundle_files(2, card="# Another\n")["model.safetensors"]
    with pytest.raises(StorageError, match="SHA-256"):
        registry.add(write_pack({"model.safetensors": other}), str(tmp_path / "other/leaf"), by="x", cache=cache)


def test_another_name_than_its_own_is_refused(tmp_path, write_pack, bundle_files):
    content = json.loads(bundle_files(1)["model.json"])
    content["digest"] = "0" * 64
    assert "names 000000000000" in refused(write_pack({"model.json": json.dumps(content).encode()}), tmp_path)
    content["digest"] = json.loads(bundle_files(1)["model.json"])["digest"]
    content["contract"]["thresholds"]["category"] = 0.01
    assert "another contract" in refused(write_pack({"model.json": json.dumps(content).encode()}), tmp_path)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("model.pkl", "'model.pkl' does not belong"),
        ("model.onnx", "not a complete ONNX file"),
        ("model.safetensors", "not a safetensors file"),
    ],
)
def test_a_pickle_is_refused_and_never_loaded(tmp_path, write_pack, name, why):
    mark = tmp_path / "unpickled"
    assert why in refused(write_pack({name: pickle.dumps(Evil(str(mark)))}, rehash=True), tmp_path)
    assert not mark.exists()


def test_a_plan_that_would_run_something_does_not(tmp_path, write_pack):
    mark = tmp_path / "run"
    evil = f"!!python/object/apply:os.system ['touch {mark}']".encode()
    registry.add(write_pack({"plan.yaml": evil}), f"{tmp_path}/models/leaf", **ME)
    with pytest.raises(InputError, match="not valid YAML"):
        inspection.show(f"{tmp_path}/models/leaf@1")
    assert not mark.exists()


def test_a_plan_that_grows_without_end_does_not(tmp_path, write_pack):
    lines = [
        "a: &a [lol, lol]",
        *(f"{one}: &{one} [{', '.join([f'*{before}'] * 9)}]" for before, one in pairwise("abcdefghijklm")),
    ]
    registry.add(write_pack({"plan.yaml": "\n".join([*lines, "lr: 0.1"]).encode()}), f"{tmp_path}/models/leaf", **ME)
    with pytest.raises(InputError, match="over 250,000 values"):
        inspection.show(f"{tmp_path}/models/leaf@1")


def test_files_that_are_nested_without_end_are_told(tmp_path, write_pack):
    deep = b"[" * 100_000
    assert "nested too deep" in refused(write_pack({"model.json": deep}), tmp_path)
    head = len(deep).to_bytes(8, "little") + deep
    assert "nested too deep" in refused(write_pack({"model.safetensors": head}, rehash=True), tmp_path)
    registry.add(write_pack({"plan.yaml": b"when: 2026-01-01\nlr: 0.1\n"}), f"{tmp_path}/models/leaf", **ME)
    assert inspection.show(f"{tmp_path}/models/leaf@1").config == {
        "when": "2026-01-01", "lr": 0.1, "size": "8 x 8", "fit": "squash",
    }  # fmt: skip


def test_what_is_no_zip_or_no_bundle_is_refused(tmp_path, write_pack):
    for data in (b"", b"PK\x03\x04 nonsense", pickle.dumps([1])):
        (tmp_path / "odd.plantml").write_bytes(data)
        assert "damaged or no such archive" in refused(str(tmp_path / "odd.plantml"), tmp_path)
    assert "no model" in refused(write_pack({"model.json": None}), tmp_path)
    assert "not in files" in refused(write_pack({"model.onnx": None}, rehash=True), tmp_path)
    assert "is incomplete" in refused(write_pack({"model.onnx": None}), tmp_path)
    twice = zipfile.ZipInfo("model.json")
    with pytest.warns(UserWarning, match="Duplicate"):
        assert "repeated name" in refused(write_pack(infos=[(twice, b"{}")]), tmp_path)


def test_a_graph_that_reads_files_beside_it_is_refused(tmp_path, write_pack, bundle_files):
    import onnx

    model = onnx.load_from_string(bundle_files(1)["model.onnx"])
    tensor = next(each for each in model.graph.initializer if each.name == "w.category")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")
    message = refused(write_pack({"model.onnx": seal(model.SerializeToString())}, rehash=True), tmp_path)
    assert "onnxruntime cannot load the file" in message


def test_bytes_that_were_changed_by_chance_are_never_a_bug(tmp_path, write_pack, bundle_files):
    rng = random.Random(1)
    good = bundle_files(1)
    for round_ in range(60):
        name = rng.choice(["model.onnx", "model.safetensors", "model.json", ""])
        data = bytearray(good[name] if name else Path(write_pack()).read_bytes())
        for _ in range(3):
            data[rng.randrange(len(data))] = rng.randrange(256)
        pack = write_pack({name: bytes(data)} if name else {}, rehash=name not in {"", "model.json"})
        if not name:
            Path(pack).write_bytes(data)
        with contextlib.suppress(PlantmlError):
            assert inspect(pack).bundle.digest == json.loads(good["model.json"])["digest"], round_


def test_nothing_is_unpacked_anywhere(write_pack, tmp_path):
    before = set(tmp_path.rglob("*"))
    pack = write_pack()
    assert inspect(pack).bundle.url == f"zip://::{pack}"
    assert set(tmp_path.rglob("*")) - before == {Path(pack)}
    assert references.find(pack).digest == json.loads(storage.read(f"zip://model.json::{pack}"))["digest"]
    assert zipfile.ZipFile(io.BytesIO(Path(pack).read_bytes())).testzip() is None


def test_a_model_of_two_stages_travels_in_a_pack(tmp_path):
    packed = packs.pack(write_tray(f"{tmp_path}/tray"), f"{tmp_path}/tray.plantml")
    added = registry.add(packed.url, f"{tmp_path}/models/tray", **ME)
    assert references.find(f"{tmp_path}/models/tray@{added.number}").classifier().contract.task == "image"
