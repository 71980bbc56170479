import json
from pathlib import Path

import pytest

import plantml
from plantml import registry, storage
from plantml.errors import GateError, InputError, NotFoundError, StorageError, UsageError
from plantml.model import bundle
from plantml.registry import ledger, references

ME = {"by": "me"}


def test_versions_are_numbered_immutable_bundles(url, make_bundle):
    first = registry.add(make_bundle(1), f"{url}/leaf", why="the first", **ME)
    second = registry.add(make_bundle(2), f"{url}/leaf", alias="challenger", **ME)
    assert (first.number, second.number) == (1, 2)
    found = references.find(f"{url}/leaf@challenger")
    assert (found.url, found.digest) == (second.url, second.digest)
    assert found.ref == f"{url}/leaf@challenger"
    assert references.find(f"{url}/leaf@1").digest == first.digest
    assert references.find(first.url).digest == first.digest
    assert found.read(bundle.CARD) == b"# A card\n"
    assert dict(registry.aliases(f"{url}/leaf")) == {"challenger": 2}
    acts = [(event.content["act"], event.content["by"]) for event in registry.history(f"{url}/leaf")]
    assert acts == [("begin", "me"), ("add", "me"), ("begin", "me"), ("add", "me"), ("promote", "me")]


def test_the_same_model_is_added_once_wherever_it_comes_from(tmp_path, make_bundle):
    model = f"{tmp_path}/models/leaf"
    first = registry.add(make_bundle(1), model, **ME)
    events = len(registry.history(model))
    again = registry.add(f"{model}@1", model, **ME)
    assert (again.number, again.changed, first.changed) == (1, False, True)
    assert len(registry.history(model)) == events
    assert registry.add(make_bundle(1), model, alias="challenger", **ME).number == 1
    assert registry.aliases(model)["challenger"] == 1


def test_a_model_without_a_version_is_asked_back(tmp_path, make_bundle):
    model = f"{tmp_path}/models/leaf"
    for seed in (1, 2):
        registry.add(make_bundle(seed), model, **ME)
    registry.promote(model, 1, "production", why="first", force=True, **ME)
    with pytest.raises(InputError) as error:
        references.find(model)
    assert error.value.why == "its versions: 1, 2; production is version 1"
    assert error.value.hint == f"Name one: {model}@production"
    with pytest.raises(InputError, match="no alias 'challenger'"):
        references.find(f"{model}@challenger")
    with pytest.raises(NotFoundError, match="no model at"):
        references.find(f"{tmp_path}/nowhere@production")


def test_an_at_in_the_name_of_a_folder_is_a_name_where_no_registry_is(tmp_path, bundle_files):
    storage.publish(str(tmp_path / "leaf@3"), bundle_files(1))
    assert references.find(str(tmp_path / "leaf@3")).ref == ""


def test_how_a_run_was_trained_goes_with_it(tmp_path, bundle_files):
    storage.publish(str(tmp_path / "run/bundle"), bundle_files(1))
    (tmp_path / "run/plan.yaml").write_text("parent: abc\nlr: 0.1\n")
    entry = registry.add(str(tmp_path / "run"), f"{tmp_path}/models/leaf", **ME)
    assert storage.read(storage.join(entry.url, "plan.yaml")) == b"parent: abc\nlr: 0.1\n"
    assert "plan.yaml" in entry.files
    there = registry.add(f"{tmp_path}/models/leaf@1", f"{tmp_path}/other/leaf", **ME)
    assert there.files == entry.files


@pytest.mark.parametrize(
    ("name", "data", "error"),
    [
        ("model.onnx", b"no graph", StorageError),
        ("model.safetensors", None, NotFoundError),
        ("README.md", b"another card", StorageError),
        ("model.json", b"{", InputError),
    ],
)
def test_what_is_not_whole_is_not_taken(tmp_path, make_bundle, name, data, error):
    url = Path(make_bundle(1))
    (url / name).write_bytes(data) if data is not None else (url / name).unlink()
    with pytest.raises(error):
        registry.add(str(url), f"{tmp_path}/models/leaf", **ME)
    assert not (tmp_path / "models").exists()


def test_a_bundle_of_two_models_is_refused(tmp_path, bundle_files):
    files, other = bundle_files(1), bundle_files(2)
    content = json.loads(files["model.json"])
    for name, why in (("model.onnx", "two models"), ("model.safetensors", "does not match its digest")):
        mixed = {**files, name: other[name]}
        hashes = {**content["files"], name: json.loads(other["model.json"])["files"][name]}
        mixed["model.json"] = json.dumps({**content, "files": hashes}).encode()
        url = str(tmp_path / name / "bundle")
        storage.publish(url, mixed)
        with pytest.raises(InputError, match=why):
            registry.add(url, f"{tmp_path}/models/leaf", **ME)


def test_an_exported_file_is_no_version(tmp_path, make_bundle):
    with pytest.raises(InputError, match="is an exported model"):
        registry.add(f"{make_bundle(1)}/model.onnx", f"{tmp_path}/models/leaf", **ME)


def test_a_place_that_holds_something_else_is_refused(tmp_path, make_bundle):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/todo.txt").write_text("")
    with pytest.raises(InputError, match="other files"):
        registry.add(make_bundle(1), f"{tmp_path}/notes", **ME)
    for name in ("leaf.onnx", "leaf@3", "..hidden", "le af"):
        with pytest.raises(InputError, match="valid name for a model"):
            registry.add(make_bundle(1), f"{tmp_path}/models/{name}", **ME)
    with pytest.raises(UsageError, match="evidence"):
        registry.add(make_bundle(1), f"{tmp_path}/models/leaf", alias="production", **ME)
    with pytest.raises(InputError, match="alias"):
        registry.add(make_bundle(1), f"{tmp_path}/models/leaf", alias="a.b", **ME)


def test_a_copy_tells_what_happened_where_it_came_from(tmp_path, url, make_bundle):
    here, there = f"{tmp_path}/models/leaf", f"{url}/customer/leaf"
    registry.add(make_bundle(1), here, **ME)
    registry.promote(here, 1, "production", why="the only one", force=True, **ME)
    copied = registry.add(f"{here}@production", there, by="you")
    source = registry.history(there)[-1].content["source"]
    assert (source["model"], source["version"]) == (here, 1)
    assert [act["act"] for act in source["history"]] == ["add", "promote"]
    assert copied.digest == references.find(f"{here}@1").digest
    assert dict(registry.aliases(there)) == {}


def test_a_registered_model_predicts_and_names_itself(tmp_path, make_bundle, photo):
    entry = registry.add(make_bundle(1), f"{tmp_path}/models/leaf", alias="here", **ME)
    model = plantml.load(f"{tmp_path}/models/leaf@here")
    assert model.digest == entry.digest
    assert model.predict([photo()])[0].record.model == entry.digest


def test_a_removed_number_is_never_used_again(tmp_path, make_bundle):
    model = f"{tmp_path}/models/leaf"
    registry.add(make_bundle(1), model, alias="old", **ME)
    registry.add(make_bundle(2), model, **ME)
    with pytest.raises(GateError, match="not removed"):
        registry.remove(model, 1, **ME)
    registry.remove(model, 2, **ME)
    assert not registry.remove(model, 2, **ME).changed
    with pytest.raises(InputError, match="no version 2"):
        references.find(f"{model}@2")
    assert registry.add(make_bundle(2), model, **ME).number == 3
    assert sorted(ledger.load(model).entries) == [1, 3]
