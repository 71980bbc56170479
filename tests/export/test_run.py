import json
import shutil
from pathlib import Path

import pytest

import plantml
from plantml.data import versions
from plantml.errors import Exit, UsageError
from plantml.export import run
from plantml.export.run import target_url


@pytest.fixture(scope="module")
def exported(cli, trained, tmp_path_factory):
    """The result as JSON and the file."""
    to = tmp_path_factory.mktemp("exported") / "models" / "leaf.onnx"
    result = cli("export", trained.run, "--to", to, "--json")
    assert result.code == Exit.DONE, result.err
    return result.json, to


@pytest.fixture
def moved(trained, tmp_path):
    """The bundle on a machine that has never seen its dataset."""
    shutil.copytree(f"{trained.run}/bundle", tmp_path / "bundle")
    file = tmp_path / "bundle" / "model.json"
    content = json.loads(file.read_text())
    content["contract"]["dataset"]["url"] = str(tmp_path / "elsewhere")
    file.write_text(json.dumps(content))
    return tmp_path / "bundle"


@pytest.fixture
def ready_made(trained, monkeypatch):
    """The exporter's file is there already: only what is around it is looked at."""
    made = Path(trained.run, "bundle", "model.onnx").read_bytes()
    monkeypatch.setattr(run, "to_onnx", lambda contract, weights, digest: made)


def test_the_result_says_what_was_compared(trained, exported):
    result, to = exported
    version = versions.load(trained.data)
    assert result["url"] == str(to)
    assert result["format"] == "onnx"
    assert result["model"] == plantml.load(trained.run).digest
    assert result["bytes"] == to.stat().st_size
    assert result["photos"] == version.usable("test").height > 0
    assert result["compared_on"] == f"{version.ref}, split test"
    assert result["agreement"] == 1
    assert 0 <= result["difference"] < 1e-4


def test_the_file_alone_predicts_what_the_bundle_predicts(trained, exported):
    leaves = sorted(Path(trained.photos).rglob("*.jpg"))
    alone, bundle = plantml.load(exported[1]), plantml.load(trained.run)
    assert alone.contract == bundle.contract
    assert alone.predict(leaves) == bundle.predict(leaves)


@pytest.mark.usefixtures("ready_made")
def test_samples_and_split_choose_the_photos(cli, trained, tmp_path):
    result = cli("export", trained.run, "--to", tmp_path / "leaf.onnx", "--samples", 5, "--split", "train", "--json")
    assert result.json["photos"] == 5
    assert result.json["compared_on"].endswith("split train")
    result = cli("export", trained.run, "--to", tmp_path, "--samples", 20, "--split", "holdout", "--json")
    assert result.json["photos"] == 20
    assert result.json["compared_on"].endswith("split all")
    assert result.json["url"] == str(tmp_path / "model.onnx")


def test_a_lost_dataset_is_an_error_that_names_data(cli, moved, tmp_path):
    result = cli("export", moved, "--to", tmp_path / "leaf.onnx")
    assert result.code == Exit.INPUT
    assert f"is not at {tmp_path / 'elsewhere'}" in result.err
    assert "--data DATASET" in result.err
    assert not (tmp_path / "leaf.onnx").exists()


@pytest.mark.usefixtures("ready_made")
def test_another_dataset_can_take_its_place(cli, trained, moved, tmp_path):
    result = cli("export", moved, "--to", tmp_path / "leaf.onnx", "--data", trained.data, "--samples", 2, "--json")
    assert result.code == Exit.DONE, result.err
    assert result.json["photos"] == 2


def test_a_named_dataset_that_is_not_there_is_the_error(cli, trained, tmp_path):
    result = cli("export", trained.run, "--to", tmp_path / "leaf.onnx", "--data", tmp_path / "nothing")
    assert result.code == Exit.INPUT
    assert f"no dataset at {tmp_path / 'nothing'}" in result.err


@pytest.mark.usefixtures("ready_made")
def test_a_dataset_without_a_photo_is_an_input_error(cli, trained, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "empty.jpg").write_bytes(b"")
    cli("dataset", "import", tmp_path / "photos", tmp_path / "data", "--labels", "none")
    assert versions.load(str(tmp_path / "data")).usable().is_empty()
    result = cli("export", trained.run, "--to", tmp_path / "leaf.onnx", "--data", tmp_path / "data")
    assert result.code == Exit.INPUT, result.err
    assert "photo" in result.err
    assert not (tmp_path / "leaf.onnx").exists()


@pytest.mark.usefixtures("ready_made")
def test_a_damaged_photo_is_an_input_error_that_names_it(cli, trained, tmp_path):
    shutil.copytree(trained.data, tmp_path / "data")
    victim = versions.load(str(tmp_path / "data")).usable("test").sort("image_id")["path"][0]
    (tmp_path / "data" / victim).write_bytes(b"no picture")
    result = cli("export", trained.run, "--to", tmp_path / "leaf.onnx", "--data", tmp_path / "data")
    assert result.code == Exit.INPUT, result.err
    assert victim in result.err
    assert not (tmp_path / "leaf.onnx").exists()


def test_nothing_there_to_export_is_an_input_error(cli, tmp_path):
    result = cli("export", tmp_path, "--to", tmp_path / "leaf.onnx")
    assert result.code == Exit.INPUT
    assert "no model" in result.err


@pytest.mark.parametrize(
    ("to", "url"),
    [
        ("/models/leaf.onnx", "/models/leaf.onnx"),
        ("/models", "/models/model.onnx"),
        ("s3://bucket/leaf.ONNX", "s3://bucket/leaf.ONNX"),
        ("s3://bucket/models/", "s3://bucket/models/model.onnx"),
    ],
)
def test_the_target_is_a_file_or_a_folder_for_it(to, url):
    assert target_url(to) == url


def test_a_folder_with_a_dot_in_its_name_is_a_folder(tmp_path):
    (tmp_path / "v1.2").mkdir()
    assert target_url(str(tmp_path / "v1.2")) == str(tmp_path / "v1.2" / "model.onnx")


def test_an_unknown_format_lists_those_that_there_are():
    with pytest.raises(UsageError, match=r"\.engine") as error:
        target_url("/models/leaf.engine")
    assert "onnx" in error.value.hint
