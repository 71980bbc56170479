import shutil
from pathlib import Path

import pytest

import plantml
from plantml.data import versions
from plantml.errors import Exit, UsageError
from plantml.export.export import form_of, target_url


@pytest.fixture(scope="module")
def exported(cli, trained, untimed, tmp_path_factory):
    """The result as JSON and the file."""
    to = tmp_path_factory.mktemp("exported") / "models" / "leaf.onnx"
    result = cli("export", trained.run, "--to", to, "--json")
    assert result.code == Exit.DONE, result.err
    return result.json, to


@pytest.fixture
def elsewhere(trained, tmp_path, monkeypatch):
    """A copy of the dataset; the one that the bundle names cannot be seen. Other test processes read it: it stays."""
    numbers = versions.numbers
    monkeypatch.setattr(versions, "numbers", lambda url: [] if url == trained.data else numbers(url))
    return shutil.copytree(trained.data, tmp_path / "elsewhere")


def test_the_result_says_what_was_compared(trained, exported):
    result, to = exported
    version = versions.load(trained.data)
    assert result["url"] == str(to)
    assert result["format"] == "onnx"
    assert result["model"] == plantml.load(trained.run).digest
    assert result["bytes"] == to.stat().st_size
    assert result["photos"] == version.usable("test").height > 0
    assert result["compared_on"] == f"{version.ref}, split test"
    assert result["agreement"] == result["decisions"] == 1
    assert 0 <= result["difference"] < 1e-4
    assert result["score"]["change"] == pytest.approx(0, abs=1e-5)
    assert set(result["speed"]) == {"1", "32"}
    assert all(one["latency_ms"] > 0 and one["images_per_s"] > 0 for one in result["speed"].values())
    assert [row["format"] for row in result["rows"]] == ["bundle", "onnx"]


def test_onnx_is_the_bundles_own_file_and_is_timed_once(exported):
    bundle, onnx = exported[0]["rows"]
    assert onnx["speed"] == bundle["speed"]
    assert {one["ratio"] for one in onnx["speed"].values()} == {1}


def test_the_file_alone_predicts_what_the_bundle_predicts(trained, exported):
    leaves = sorted(Path(trained.photos).rglob("*.jpg"))
    alone, bundle = plantml.load(exported[1]), plantml.load(trained.run)
    assert alone.contract == bundle.contract
    assert alone.predict(leaves).records == bundle.predict(leaves).records


@pytest.mark.usefixtures("untimed")
def test_samples_and_split_choose_the_photos(cli, trained, tmp_path):
    result = cli("export", trained.run, "--to", tmp_path / "leaf.onnx", "--samples", 5, "--split", "train", "--json")
    assert result.json["photos"] == 5
    assert result.json["compared_on"].endswith("split train")
    result = cli("export", trained.run, "--to", tmp_path, "--samples", 20, "--split", "holdout", "--json")
    assert result.json["photos"] == 20
    assert result.json["compared_on"].endswith("split all")
    assert result.json["url"] == str(tmp_path / "model.onnx")


@pytest.mark.usefixtures("elsewhere")
def test_a_lost_dataset_is_an_error_that_names_data(cli, trained, tmp_path):
    result = cli("export", trained.run, "--to", tmp_path / "leaf.onnx")
    assert result.code == Exit.INPUT
    assert f"is not at {trained.data}" in result.err
    assert "--data DATASET" in result.err
    assert not (tmp_path / "leaf.onnx").exists()


@pytest.mark.usefixtures("untimed")
def test_another_dataset_can_take_its_place(cli, trained, elsewhere, tmp_path):
    result = cli("export", trained.run, "--to", tmp_path / "leaf.onnx", "--data", elsewhere, "--samples", 2, "--json")
    assert result.code == Exit.DONE, result.err
    assert result.json["photos"] == 2


def test_a_named_dataset_that_is_not_there_is_the_error(cli, trained, tmp_path):
    result = cli("export", trained.run, "--to", tmp_path / "leaf.onnx", "--data", tmp_path / "nothing")
    assert result.code == Exit.INPUT
    assert f"no dataset at {tmp_path / 'nothing'}" in result.err


@pytest.mark.usefixtures("untimed")
def test_a_dataset_without_a_photo_is_an_input_error(cli, trained, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "empty.jpg").write_bytes(b"")
    cli("dataset", "import", tmp_path / "photos", tmp_path / "data", "--labels", "none")
    assert versions.load(str(tmp_path / "data")).usable().is_empty()
    result = cli("export", trained.run, "--to", tmp_path / "leaf.onnx", "--data", tmp_path / "data")
    assert result.code == Exit.INPUT, result.err
    assert "photo" in result.err
    assert not (tmp_path / "leaf.onnx").exists()


@pytest.mark.usefixtures("untimed")
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
    ("to", "form", "url"),
    [
        ("/models/leaf.onnx", None, "/models/leaf.onnx"),
        ("/models", None, "/models/model.onnx"),
        ("/models", "onnx-int8", "/models/model.int8.onnx"),
        ("/models", "openvino", "/models/model.xml"),
        ("/models/leaf.pt2", None, "/models/leaf.pt2"),
        ("s3://bucket/leaf.ONNX", None, "s3://bucket/leaf.ONNX"),
        ("s3://bucket/models/", None, "s3://bucket/models/model.onnx"),
    ],
)
def test_the_target_is_a_file_or_a_folder_for_it(to, form, url):
    assert target_url(to, form_of(to, form)) == url


def test_a_folder_with_a_dot_in_its_name_is_a_folder(tmp_path):
    (tmp_path / "v1.2").mkdir()
    assert target_url(str(tmp_path / "v1.2"), "onnx") == str(tmp_path / "v1.2" / "model.onnx")
    assert form_of(str(tmp_path / "v1.2"), "pt2") == "pt2"


@pytest.mark.parametrize(
    ("to", "form", "message"),
    [
        ("/models/leaf.engine", None, r"\.engine"),
        ("/models/leaf.onnx", "engine", "engine"),
        ("/models/leaf.onnx", "pt2", r"pt2 cannot be written to a \.onnx file"),
        ("/models/leaf.engine", "pt2", r"pt2 cannot be written to a \.engine file"),
    ],
)
def test_what_is_no_format_is_wrong_usage(to, form, message):
    with pytest.raises(UsageError, match=message) as error:
        form_of(to, form)
    assert "onnx" in error.value.hint or ".pt2" in error.value.hint


@pytest.mark.parametrize("to", ["model.onnx", "other.onnx", ""])
def test_nothing_is_written_into_a_bundle(cli, trained, contents, to):
    before = contents(f"{trained.run}/bundle")
    result = cli("export", trained.run, "--to", f"{trained.run}/bundle/{to}")
    assert result.code == Exit.INPUT
    assert "is the folder of a model" in result.err
    assert contents(f"{trained.run}/bundle") == before


def test_a_target_or_a_benchmark_must_be_asked_for(cli, trained, tmp_path):
    assert cli("export", trained.run).code == Exit.USAGE
    assert cli("export", trained.run, "--benchmark", "--to", tmp_path / "leaf.onnx").code == Exit.USAGE
    assert not list(tmp_path.iterdir())
