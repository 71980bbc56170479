import json
import os
import time
from pathlib import Path

import polars as pl
import pytest

from plantml.data import maintenance, versions


@pytest.fixture
def dataset(tmp_path, write_photos, cli):
    source = write_photos(tmp_path / "photos", [f"{name}/{n}.jpg" for name in ("none", "rust") for n in range(4)])
    url = str(tmp_path / "dataset")
    assert cli("dataset", "import", source, url, "--labels", "disease").code == 0
    return url


def images(url):
    return sorted(Path(url, "images").rglob("*.jpg"))


def test_a_sound_dataset_is_sound(dataset, cli):
    found = maintenance.verify(dataset)
    assert (found.sound, found.files) == (True, 9)  # photos and the version
    assert cli("dataset", "verify", dataset).code == 0


def test_missing_and_damaged_files_are_named(dataset, cli):
    gone, rotten = images(dataset)[:2]
    gone.unlink()
    data = bytearray(rotten.read_bytes())
    data[len(data) // 2] ^= 1
    rotten.write_bytes(data)
    done = cli("dataset", "verify", dataset, "--json")
    assert done.code == 4
    assert [Path(path).name for path in done.json["missing"]] == [gone.name]
    assert [Path(path).name for path in done.json["damaged"]] == [rotten.name]


def flip(file, place):
    data = bytearray(file.read_bytes())
    data[place // 8 % len(data)] ^= 1 << place % 8
    file.write_bytes(data)


@pytest.mark.parametrize("place", [40, 8 * 3000, -8 * 300, -8 * 20])
def test_a_flipped_bit_of_any_version_is_told_and_the_way_on_works(dataset, place, cli):
    cli("dataset", "rename-class", dataset, "disease", "rust", "rot")
    versions.tag(f"{dataset}@1", "first")
    old, new = sorted(Path(dataset, "versions").iterdir())
    flip(old, place)
    done = cli("dataset", "verify", dataset, "--json")
    assert (done.code, done.json["damaged"]) == (4, ["versions/000001.parquet"])
    assert cli("dataset", "verify", f"{dataset}@2").code == 0
    flip(old, place)
    flip(new, place)
    assert cli("dataset", "verify", dataset, "--json").json["damaged"] == ["versions/000002.parquet"]
    assert cli("dataset", "info", dataset).code == 3
    entries = cli("dataset", "log", dataset, "--json").json["versions"]
    assert [(entry["version"], bool(entry["damage"])) for entry in entries] == [(2, True), (1, False)]
    assert cli("dataset", "log", dataset).code == 0
    assert cli("dataset", "restore", dataset, "1").code == 0
    assert versions.load(dataset).number == 3
    assert cli("dataset", "split", dataset).code == 0


@pytest.mark.parametrize("file", ["versions/000002.parquet", "tags/000001.json"])
def test_a_pipe_in_the_place_of_a_file_is_damage(dataset, file, cli):
    Path(dataset, file).parent.mkdir(exist_ok=True)
    os.mkfifo(Path(dataset, file))
    done = cli("dataset", "verify", dataset, "--json")
    assert (done.code, done.json["damaged"]) == (4, [file])
    if file.startswith("versions"):
        assert "damaged" in cli("dataset", "log", dataset).out


def test_files_without_a_checksum_are_damaged(dataset, cli):
    file, version = Path(dataset, "versions", "000001.parquet"), versions.load(dataset)
    record = json.loads(pl.read_parquet_metadata(file)["plantml"])
    del record["sha256"]
    version.rows.write_parquet(file, metadata={"plantml": json.dumps(record)})
    Path(dataset, "tags").mkdir()
    Path(dataset, "tags", "000001.json").write_text('{"name": "best", "version": 1, "time": ""}')
    done = cli("dataset", "verify", dataset, "--json")
    assert (done.code, done.json["damaged"]) == (4, ["versions/000001.parquet", "tags/000001.json"])
    assert cli("dataset", "info", dataset).code == 3


@pytest.mark.parametrize("content", ["", "[1]", "{}", '{"name": 1, "version": 1}', "[" * 9000, "\0ÿ", '{"name": "a"'])
def test_a_damaged_tag_is_told_by_its_file(dataset, content, cli):
    versions.tag(dataset, "best")
    Path(dataset, "tags", "000001.json").write_bytes(content.encode("latin-1"))
    for command in (("info", f"{dataset}@best"), ("log", dataset)):
        done = cli("dataset", *command)
        assert (done.code, "000001.json is damaged" in done.err, "dataset tag" in done.err) == (3, True, True)
    assert cli("dataset", "verify", dataset, "--json").json["damaged"] == ["tags/000001.json"]
    assert cli("dataset", "split", dataset).code == 0


@pytest.mark.parametrize("at", ["99", "0", "best", "9" * 5000])
def test_the_log_of_a_version_that_is_not_there_is_refused(dataset, at, cli):
    assert cli("dataset", "log", f"{dataset}@{at}").code == 3


def test_the_log_ends_with_the_version_that_is_named(dataset, cli):
    for old, new in (("rust", "rot"), ("rot", "mold")):
        cli("dataset", "rename-class", dataset, "disease", old, new)
    versions.tag(f"{dataset}@2", "best")
    for at, numbers in (("@2", [2, 1]), ("@best", [2, 1]), ("", [3, 2, 1])):
        entries = cli("dataset", "log", f"{dataset}{at}", "--json").json["versions"]
        assert [entry["version"] for entry in entries] == numbers


def test_only_old_files_that_no_version_names_go(dataset, cli, contents):
    loose = Path(dataset, "images", "00", "0" * 64 + ".jpg")
    loose.parent.mkdir(exist_ok=True)
    loose.write_bytes(b"left behind")
    derived = Path(dataset, "derived", "x", "1.parquet")
    derived.parent.mkdir(parents=True)
    derived.write_bytes(b"made again")
    assert maintenance.collect(dataset).images == []  # too young: an import may be under way
    for file in (loose, derived):
        os.utime(file, (time.time() - 200_000,) * 2)
    before = contents(dataset)
    assert cli("dataset", "gc", dataset, "--dry-run", "--json").json["images"] == [f"00/{loose.name}"]
    assert contents(dataset) == before
    assert cli("dataset", "gc", dataset, "--json").json["bytes"] == len(b"left behind")
    assert not loose.exists()
    assert derived.exists()
    cli("dataset", "gc", dataset, "--derived")
    assert not derived.exists()
    assert maintenance.verify(dataset).sound
    assert cli("dataset", "gc", f"{dataset}@1").code == 3


def test_files_of_old_versions_are_kept(dataset):
    rows = versions.load(dataset).rows
    versions.change(dataset, "drop", {}, lambda version: (version.rows.head(1), version.targets, None))
    for file in images(dataset):
        os.utime(file, (time.time() - 200_000,) * 2)
    maintenance.collect(dataset)
    assert len(images(dataset)) == rows.height


def test_care_works_in_any_storage(dataset, url):
    from plantml.data import editing

    editing.merge(url, dataset)
    assert maintenance.verify(url).sound
    assert maintenance.collect(url, min_age=0).images == []
