"""Changes by hand: each a new version, nothing lost."""

import json
from pathlib import Path

import polars as pl
import pytest

from plantml.data import editing, versions
from plantml.data.boxes import Box
from plantml.data.importers import ImportListing, Item
from plantml.data.manifest import Version
from plantml.errors import InputError, UsageError
from plantml.targets import Target

DISEASE = (Target("disease", "class", ("none", "rust")),)


def listing(*items):
    return ImportListing(tuple(items), DISEASE, "", {})


@pytest.fixture
def leaves(make_rows, tmp_path):
    """URL of a dataset of four rows whose photos are not there, one of them set aside."""
    url = str(tmp_path / "leaves")
    rows = make_rows(
        [
            {"name": "a/1.jpg", "disease": "rust"},
            {"name": "a/2.jpg", "disease": "none"},
            {"name": "b/2.jpg", "disease": "none"},
            {"name": "b/3.jpg", "disease": "none", "status": "excluded", "reason": "review conflicting-labels: x"},
        ],
        DISEASE,
    )  # fmt: skip
    versions.change(url, "make", {}, lambda _: (rows, DISEASE, None))
    return url


def labels_of(url):
    return dict(versions.load(url).rows.select("name", "disease").iter_rows())


# --- relabel ----------------------------------------------------------------------------------


def test_a_list_corrects_what_it_names_and_nothing_else(leaves):
    done = editing.relabel(leaves, listing(Item("a/1.jpg", "", {"disease": "none"}), Item("3.jpg", "", {}))).report
    assert (done.listed, done.relabelled, done.back_in_use) == (2, 1, 1)
    assert labels_of(leaves) == {"a/1.jpg": "none", "a/2.jpg": "none", "b/2.jpg": "none", "b/3.jpg": "none"}
    rows = versions.load(leaves).rows
    assert rows["status"].to_list() == ["ok"] * 4
    assert rows["reason"].null_count() == 4
    assert labels_of(f"{leaves}@1")["a/1.jpg"] == "rust"


@pytest.mark.parametrize(
    ("item", "match"),
    [
        (Item("a/9.jpg", "", {"disease": "none"}), "matches no photo"),
        (Item("2.jpg", "", {"disease": "none"}), "matches 2 photos"),
        (Item("a/1.jpg", "", {"disease": "rusty"}), "'rusty'"),
        (Item("a/1.jpg", "", {"mood": "good"}), "no target 'mood'"),
    ],
)
def test_what_the_dataset_does_not_know_is_refused_by_name(item, match, leaves):
    with pytest.raises(InputError, match=match):
        editing.relabel(leaves, listing(item))
    assert versions.numbers(leaves) == [1]


def test_a_class_that_no_box_has_yet_is_named(make_rows, tmp_path):
    rows = make_rows([{"boxes": [Box(0, 0, 4, 4, {"health": "healthy"}).as_row()]}])
    version = versions.commit(Version(str(tmp_path / "trays"), 1, rows, ()), "import", {}, 0)
    drawn = listing(Item("00000.jpg", "", boxes=[Box(0, 0, 4, 4, {"health": "healty", "severity": 0.5})]))
    with pytest.raises(InputError, match="health 'healty' of 00000") as error:
        editing.check_known(version, drawn, new_classes=False)
    assert "'healthy'" in error.value.hint
    editing.check_known(version, drawn, new_classes=True)


def test_new_classes_are_taken_if_they_are_meant(leaves):
    editing.relabel(leaves, listing(Item("a/1.jpg", "", {"disease": "scab"})), new_classes=True)
    assert versions.load(leaves).target("disease").classes == ("none", "rust", "scab")


def test_corrections_come_from_a_table(leaves, tmp_path, cli):
    file = tmp_path / "corrections.csv"
    file.write_text("image,disease\na/1.jpg,none\na/2.jpg,\n")
    done = cli("dataset", "relabel", leaves, file, "--json")
    assert (done.code, done.json["relabelled"]) == (0, 1), done.err
    assert labels_of(leaves)["a/1.jpg"] == "none"


# --- rename-class -----------------------------------------------------------------------------


def test_a_class_is_renamed_in_labels_and_boxes(make_rows, tmp_path):
    url = str(tmp_path / "boxes")
    one = [{"x": 1, "y": 1, "w": 2, "h": 2, "labels": '{"disease":"rust"}'}]
    rows = make_rows([{"disease": "rust", "boxes": one}, {"disease": "none", "boxes": []}, {"boxes": None}], DISEASE)
    versions.change(url, "make", {}, lambda _: (rows, DISEASE, None))
    committed = editing.rename_class(url, "disease", "rust", "brown rust")
    found = committed.version
    assert (committed.report, found.target("disease").classes) == (1, ("none", "brown rust"))
    assert found.rows["disease"].to_list() == ["brown rust", "none", None]
    assert json.loads(found.rows["boxes"][0][0]["labels"]) == {"disease": "brown rust"}
    assert found.rows["boxes"][2] is None


def test_a_value_of_a_box_is_no_class(make_rows, tmp_path):
    url = str(tmp_path / "boxes")
    one = [{"x": 1, "y": 1, "w": 2, "h": 2, "labels": '{"disease":"rust","severity":0.5}'}]
    rows = make_rows([{"disease": "rust", "boxes": one}], DISEASE)
    versions.change(url, "make", {}, lambda _: (rows, DISEASE, None))
    with pytest.raises(InputError):
        editing.rename_class(url, "severity", "0.5", "high")
    renamed = editing.rename_class(url, "disease", "rust", "brown rust").version.rows["boxes"][0][0]["labels"]
    assert json.loads(renamed) == {"disease": "brown rust", "severity": 0.5}


def test_renaming_to_a_class_that_is_there_joins_the_two(leaves):
    committed = editing.rename_class(leaves, "disease", "rust", "none")
    assert committed.version.target("disease").classes == ("none",)
    assert set(labels_of(leaves).values()) == {"none"}


def test_a_class_that_is_not_there_is_named(leaves):
    with pytest.raises(InputError, match="'scab'"):
        editing.rename_class(leaves, "disease", "scab", "rust")


def test_labels_of_many_are_renamed_once_each(make_rows, tmp_path):
    url, targets = str(tmp_path / "many"), (Target("symptoms", "multilabel", ("curl", "spot", "spots")),)
    rows = make_rows([{"symptoms": ["spot", "spots"]}, {"symptoms": ["curl"]}, {"symptoms": []}], targets)
    versions.change(url, "make", {}, lambda _: (rows, targets, None))
    committed = editing.rename_class(url, "symptoms", "spot", "spots")
    assert committed.report == 1
    assert committed.version.rows["symptoms"].to_list() == [["spots"], ["curl"], []]


# --- restore, subset, merge -------------------------------------------------------------------


def test_an_older_version_comes_back_as_a_new_one(leaves):
    before = versions.load(leaves)
    editing.rename_class(leaves, "disease", "rust", "none")
    after = editing.restore(leaves, 1).version
    assert (after.number, after.fingerprint) == (3, before.fingerprint)
    assert not editing.restore(leaves, 3).changed


@pytest.fixture
def real(tmp_path, write_photos, cli):
    """URL of a dataset with photos of its own."""
    source = write_photos(tmp_path / "photos", [f"{name}/{n}.jpg" for name in ("none", "rust") for n in range(4)])
    url = str(tmp_path / "real")
    assert cli("dataset", "import", source, url, "--labels", "disease").code == 0
    assert cli("dataset", "split", url).code == 0
    return url


def files(url):
    return sorted(path.name for path in Path(url, "images").rglob("*.jpg"))


def test_a_subset_is_a_dataset_of_its_own(real, tmp_path):
    out = str(tmp_path / "part")
    done = editing.subset(real, out, 'disease == "rust"').report
    assert (done.added, done.copied, len(files(out))) == (4, 4, 4)
    part, whole = versions.load(out).rows, versions.load(real).rows
    assert part["split"].to_list() == whole.filter(pl.col("disease") == "rust")["split"].to_list()
    with pytest.raises(InputError, match="already"):
        editing.subset(real, out, 'disease == "rust"')
    with pytest.raises(InputError, match="No row"):
        editing.subset(real, str(tmp_path / "other"), 'disease == "scab"')


def test_two_datasets_become_one(real, tmp_path):
    halves = [str(tmp_path / name) for name in ("one", "two")]
    for half, name in zip(halves, ("none", "rust"), strict=True):
        editing.subset(real, half, f'disease == "{name}"')
    done = editing.merge(halves[0], halves[1], splits=True).report
    assert (done.added, done.known, done.copied) == (4, 0, 4)
    assert versions.load(halves[0]).fingerprint == versions.load(real).fingerprint
    again = editing.merge(halves[0], halves[1])
    assert (again.report.added, again.report.known, again.report.copied, again.changed) == (0, 4, 0, False)


def test_photos_that_are_merged_wait_for_a_split(real, tmp_path):
    half = str(tmp_path / "half")
    editing.subset(real, half, 'disease == "rust"')
    fresh = str(tmp_path / "fresh")
    editing.merge(fresh, half)
    assert versions.load(fresh).rows["split"].null_count() == 4


def test_a_merge_tells_what_differs_and_leaves_it(real, tmp_path):
    copy = str(tmp_path / "copy")
    editing.merge(copy, real)
    editing.rename_class(copy, "disease", "rust", "brown")
    done = editing.merge(copy, real).report
    assert len(done.conflicts) == 4
    assert versions.load(copy).rows["disease"].unique().sort().to_list() == ["brown", "none"]


@pytest.mark.parametrize("kind", ["memory_url", "s3_url"])
def test_merging_goes_to_any_storage(kind, real, request):
    url = request.getfixturevalue(kind)
    editing.merge(url, real, splits=True)
    assert versions.load(url).fingerprint == versions.load(real).fingerprint


def test_conditions_that_are_none_are_refused(real, tmp_path):
    for condition in ("disease =", "__import__('os')", "disease.x", "colour == 1", "disease == 1 + 1"):
        with pytest.raises(UsageError, match="where"):
            editing.subset(real, str(tmp_path / "x"), condition)


def test_a_disease_is_not_renamed_to_none_while_the_health_says_diseased(tmp_path, make_rows):
    targets = (Target("health", "class", ("diseased",)), Target("disease", "class", ("rust",)))
    rows = make_rows([{"health": "diseased", "disease": "rust"}], targets)
    versions.change(str(tmp_path), "import", {}, lambda _: (rows, targets, None))
    with pytest.raises(InputError, match="healthy plant"):
        editing.rename_class(str(tmp_path), "disease", "rust", "none")
