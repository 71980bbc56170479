import os
import time
from pathlib import Path

import pytest

from plantml.data import care, versions


@pytest.fixture
def dataset(tmp_path, write_photos, cli):
    source = write_photos(tmp_path / "photos", [f"{name}/{n}.jpg" for name in ("none", "rust") for n in range(4)])
    url = str(tmp_path / "dataset")
    assert cli("dataset", "import", source, url, "--labels", "disease").code == 0
    return url


def images(url):
    return sorted(Path(url, "images").rglob("*.jpg"))


def test_a_sound_dataset_is_sound(dataset, cli):
    found = care.verify(dataset)
    assert (found.sound, found.files) == (True, 8)
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


def test_only_old_files_that_no_version_names_go(dataset, cli, contents):
    loose = Path(dataset, "images", "00", "0" * 64 + ".jpg")
    loose.parent.mkdir(exist_ok=True)
    loose.write_bytes(b"left behind")
    derived = Path(dataset, "derived", "x", "1.parquet")
    derived.parent.mkdir(parents=True)
    derived.write_bytes(b"made again")
    assert care.collect(dataset).images == []  # too young: an import may be under way
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
    assert care.verify(dataset).sound
    assert cli("dataset", "gc", f"{dataset}@1").code == 3


def test_files_of_old_versions_are_kept(dataset):
    rows = versions.load(dataset).rows
    versions.change(dataset, "drop", {}, lambda version: (version.rows.head(1), version.targets))
    for file in images(dataset):
        os.utime(file, (time.time() - 200_000,) * 2)
    care.collect(dataset)
    assert len(images(dataset)) == rows.height


def test_care_works_in_any_storage(dataset, url):
    from plantml.data import editing

    editing.merge(url, dataset)
    assert care.verify(url).sound
    assert care.collect(url, min_age=0).images == []
