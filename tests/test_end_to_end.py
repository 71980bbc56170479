"""The whole way, by the commands that a user would type: on disk, on an object store, on real photos."""

import json
from pathlib import Path

import polars as pl
import pytest

import plantml
from plantml import storage
from plantml.data import versions
from plantml.errors import Exit

TRAIN = ("--size", 48, "--epochs", 1, "--set", "backbone=test_efficientnet", "--set", "pretrained=false")


def records(url: str) -> list[dict]:
    return [json.loads(line) for line in storage.read(url).splitlines()]


def answers(found: list[dict]) -> list[tuple]:
    """What was said, without the places and the model's name, in which the dataset's URL counts."""
    return [(storage.basename(one["image"]), one["image_id"], one["targets"], one["decision"]) for one in found]


def whole_way(cli, source: str, place: str) -> dict[str, str]:
    """Import, split, train, validate, export and detect under one URL."""
    at = {name: storage.join(place, name) for name in ("data", "run", "validation", "leaf.onnx", "records.jsonl")}
    for line in (
        ("dataset", "import", source, at["data"]),
        ("dataset", "split", at["data"]),
        ("train", at["data"], "--out", at["run"], *TRAIN),
        ("validate", at["data"], "--model", at["run"], "--out", at["validation"]),
        ("export", at["run"], "--to", at["leaf.onnx"], "--samples", 8),
        ("detect", source, "--model", at["leaf.onnx"], "--out", at["records.jsonl"]),
    ):
        result = cli(*line)
        assert result.code == Exit.DONE, (line, result.err)
    return at


def test_an_object_store_gives_what_a_disk_gives(cli, trained, tmp_path, s3_url, contents) -> None:
    before = contents(trained.photos)
    here = whole_way(cli, trained.photos, str(tmp_path))
    source = storage.join(s3_url, "photos")
    for entry in storage.list_files(trained.photos):
        storage.write(storage.join(source, entry.name), storage.read(entry.url))
    listed = list(storage.list_files(source))
    there = whole_way(cli, source, storage.join(s3_url, "work"))

    assert versions.load(here["data"]).fingerprint == versions.load(there["data"]).fingerprint
    assert answers(records(here["records.jsonl"])) == answers(records(there["records.jsonl"]))
    one, other = (json.loads(storage.read(storage.join(at["validation"], "metrics.json"))) for at in (here, there))
    assert one["scores"] == other["scores"]
    assert list(storage.list_files(source)) == listed
    assert contents(trained.photos) == before


def test_parquet_and_csv_come_from_the_same_records(cli, trained, tmp_path) -> None:
    for name in ("records.jsonl", "records.csv", "records.parquet"):
        assert cli("detect", trained.photos, "--model", trained.run, "--out", tmp_path / name).code == Exit.DONE
    lines = records(str(tmp_path / "records.jsonl"))
    for table in (pl.read_csv(tmp_path / "records.csv"), pl.read_parquet(tmp_path / "records.parquet")):
        assert table["image"].to_list() == [line["image"] for line in lines]
        assert table["category"].to_list() == [line["targets"]["category"]["label"] for line in lines]
        assert table["severity"].to_list() == [line["targets"]["severity"]["value"] for line in lines]


def test_every_odd_file_gets_a_record(cli, photos, trained, tmp_path) -> None:
    out = tmp_path / "records.jsonl"
    result = cli("detect", photos / "odd", photos / "hires", "--model", trained.run, "--out", out)
    assert result.code == Exit.FAILURES
    found = records(str(out))
    failed = [Path(one["image"]).name for one in found if one["failure"]]
    assert len(found) == 23
    assert failed == [
        "NIR_SV_0_z2500_h2_g0_e65_4859_0.png",
        "NIR_TV_0_z300_h1_g0_e15000_v500_93059.png",
        "VIS_SV_0_z1_h1_g0_e82_999999.jpeg",
    ]
    assert all(one["targets"]["category"]["label"] for one in found if not one["failure"])


def test_the_python_interface_says_what_the_command_says(cli, trained, tmp_path) -> None:
    out = tmp_path / "records.jsonl"
    cli("detect", trained.photos, "--model", trained.run, "--out", out)
    written = records(str(out))
    assert plantml.load(trained.run).predict([one["image"] for one in written]).records == written


@pytest.mark.slow
def test_bean_with_default_settings(cli, photos, tmp_path) -> None:
    """The accuracy that is promised, and the same label and score from validate, detect, onnx and torch."""
    data, run = tmp_path / "bean", tmp_path / "run"
    assert cli("dataset", "import", photos / "bean", data).code == Exit.DONE
    trained = cli("train", data, "--out", run, "--json")
    assert trained.code == Exit.DONE, trained.err

    gate = ("--min", "disease.accuracy=0.9", "--out", tmp_path / "validation")
    validated = cli("validate", data, "--model", run, *gate)
    assert validated.code == Exit.DONE, validated.err
    assert cli("detect", photos / "bean" / "test", "--model", run, "--out", tmp_path / "r.jsonl").code == Exit.DONE
    said = {one["image_id"]: one["targets"]["disease"] for one in records(str(tmp_path / "r.jsonl"))}
    table = pl.read_parquet(tmp_path / "validation" / "predictions.parquet")
    assert len(said) == table.height == 72
    for row in table.iter_rows(named=True):
        answer = said[row["image_id"]]
        assert row["disease_predicted"] == answer["label"]
        assert round(row[f"disease[{answer['label']}]"], 6) == pytest.approx(answer["score"], abs=1e-6)

    exported = cli("export", run, "--to", tmp_path / "leaf.onnx", "--json")
    assert exported.json["photos"] == 72
    assert exported.json["agreement"] == 1.0
