"""Rows that have columns and labels alone: kept in versions, and left alone by what is about photos."""

import hashlib
import json
from collections import Counter

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plantml import storage
from plantml.data import summary, versions
from plantml.data.exporting import export_dataset
from plantml.data.folds import of_fold
from plantml.data.formats import list_source
from plantml.data.importers.table import RowNames
from plantml.data.importing import import_source
from plantml.data.manifest import NO_PHOTO, Version
from plantml.data.row_checks import first_fault
from plantml.data.splits import split_dataset
from plantml.data.tables import read_table
from plantml.errors import Exit, InputError
from plantml.targets import Target

DISEASE = Target("disease", "class", ("none", "rust"))
BARE = {"status": NO_PHOTO, "image_id": None, "path": None, "format": None, "bytes": None, "width": None,
        "height": None}  # fmt: skip


@pytest.fixture
def bring(tmp_path):
    """`bring(table)`: import the text of a table, whose photos lie beside it, into `tmp_path / "set"`."""

    def make(text, name="log.csv", place="set"):
        (tmp_path / name).write_text(text)
        source = str(tmp_path / name)
        return import_source(source, str(tmp_path / place), list_source(source))

    return make


def bare_rows(done):
    return done.version.without_photo()


# --- import -----------------------------------------------------------------------------------


def test_a_row_without_a_photo_keeps_its_labels_and_columns(bring, write_photos, tmp_path):
    write_photos(tmp_path, ["a.jpg"])
    done = bring("image,disease,group,split,humidity\na.jpg,rust,p1,train,80\n,none,p2,val,40\n")
    assert (done.listed, done.added, done.known, done.usable) == (1, 1, 0, 1)
    assert (done.without_photo, done.added_without_photo, done.copies, done.excluded) == (1, 1, 0, [])
    (row,) = bare_rows(done).iter_rows(named=True)
    assert (row["disease"], row["health"], row["group"], row["split"]) == ("none", "healthy", "p2", "val")
    assert row["meta_humidity"] == "40"
    assert (row["image_id"], row["path"], row["reason"]) == (None, None, None)
    assert done.version.usable()["name"].to_list() == ["a.jpg"]
    assert done.version.usable("val").is_empty()
    assert done.version.commit.counts == {"ok": 1, "no-photo": 1}


def test_the_same_table_again_adds_nothing_and_a_longer_one_only_what_is_new(bring):
    first = "image,disease,humidity\n,none,40\n,none,40\n,rust,90\n"
    one, two, three = bring(first), bring(first), bring(first + ",none,40\n,rust,95\n")
    assert (one.without_photo, one.added_without_photo, one.listed) == (3, 3, 0)  # two equal rows are two
    assert not two.changed
    assert (two.without_photo, two.added_without_photo) == (3, 0)
    assert (three.without_photo, three.added_without_photo) == (5, 2)
    assert set(bare_rows(one)["name"]) < set(bare_rows(three)["name"])
    assert one.version.fingerprint != three.version.fingerprint


def test_names_are_those_of_a_column_of_ids_or_do_not_depend_on_the_order_of_rows_and_columns(bring):
    by_id = bring("image,ID,disease\n,7,none\n,7,rust\n,12,none\n", place="ids")
    assert bare_rows(by_id)["name"].to_list() == ["no-photo/12", "no-photo/7", "no-photo/7#2"]
    one = bring("image,disease,humidity\n,none,40\n,rust,90\n", place="one")
    other = bring("humidity,image,disease,wind\n90,,rust,\n40,,none,\n", place="other")
    assert bare_rows(one)["name"].to_list() == bare_rows(other)["name"].to_list()
    assert one.version.fingerprint == other.version.fingerprint


def test_a_row_that_is_called_like_a_numbered_one_gets_another_number() -> None:
    names = RowNames(["id", "temperature"], "image")
    found = [names.of({"id": name, "temperature": 1}) for name in ("7", "7", "7#2", "7")]
    assert found == ["no-photo/7", "no-photo/7#2", "no-photo/7#2#2", "no-photo/7#3"]


def test_a_corrected_label_of_a_row_with_an_id_is_noticed_and_not_taken(bring):
    bring("image,id,disease\n,7,none\n")
    done = bring("image,id,disease\n,7,rust\n")
    assert done.relabelled == ["no-photo/7"]
    assert bare_rows(done)["disease"].to_list() == ["none"]


@pytest.mark.parametrize("empty", ["", "  ", None])
def test_an_empty_cell_is_empty_in_every_kind_of_table(bring, empty, tmp_path):
    done = bring(json.dumps({"image": empty, "disease": "rust"}) + "\n", "log.jsonl")
    assert bare_rows(done).height == 1
    table = tmp_path / "log.parquet"
    pl.DataFrame({"image": pl.Series([empty], dtype=pl.String), "disease": ["rust"]}).write_parquet(table)
    assert [item.status for item in list_source(str(table)).items] == [NO_PHOTO]


def test_a_row_that_says_nothing_is_left_out_and_counted(bring):
    done = bring("image,disease,split\n,rust,train\n,,train\n,,\n")
    assert done.without_photo == 1
    assert "Rows that are empty but for their split or group: 2; they are left out." in done.notes


def test_a_row_with_a_label_that_is_not_allowed_is_excluded_like_a_photo(bring):
    done = bring('image,id,disease\n,7,"a\tb"\n')
    assert [name for name, _ in done.excluded] == ["no-photo/7"]
    assert bare_rows(done).is_empty()
    mended = bring("image,id,disease\n,7,rust\n")
    assert mended.mended == ["no-photo/7"]
    assert bare_rows(mended)["disease"].to_list() == ["rust"]
    assert (mended.without_photo, mended.added_without_photo) == (1, 0)


def test_a_row_without_a_photo_has_nothing_of_one(make_rows):
    assert first_fault(make_rows([{"disease": "rust", **BARE}], [DISEASE]), [DISEASE]) == ""
    for name, value in (("image_id", "a" * 64), ("width", 3), ("boxes", [])):
        fault = first_fault(make_rows([{**BARE, name: value}], [DISEASE]), [DISEASE])
        assert f"column {name}" in fault
        assert "not allowed in a row without a photo" in fault


def test_the_command_counts_them_and_says_what_is_next(cli, tmp_path, write_photos):
    write_photos(tmp_path, ["a.jpg", "b.jpg"])
    (tmp_path / "photos.csv").write_text("image,disease,split\na.jpg,rust,train\nb.jpg,none,val\n")
    (tmp_path / "log.csv").write_text("image,disease\n,rust\n,none\n")
    assert cli("dataset", "import", tmp_path / "photos.csv", tmp_path / "set").code == Exit.DONE
    result = cli("dataset", "import", tmp_path / "log.csv", tmp_path / "set")
    assert result.code == Exit.DONE, result.err
    assert "0 of 0 photos added" in result.out
    assert "Rows without a photo: 2 added, 0 already present" in result.out
    assert "dataset split" in result.out
    assert "--keep" in result.out
    assert "2 rows without a photo: none 2" in cli("dataset", "info", tmp_path / "set").out
    split = cli("dataset", "split", tmp_path / "set", "--keep")
    assert split.code == Exit.DONE, split.err
    assert "Rows without a photo: train 2" in split.out
    assert "plantml train" in split.out
    checked = cli("dataset", "check", tmp_path / "set", "--only", "files,duplicates")
    assert "Rows without a photo, not checked: 2." in checked.out
    exported = cli("dataset", "export", tmp_path / "set", tmp_path / "out", "--format", "coco")
    assert "Rows without a photo, left out: 2. The formats csv, parquet and bundle keep them." in exported.out
    exported = cli("dataset", "export", tmp_path / "set", tmp_path / "table", "--format", "csv")
    assert "2 photos, 4 rows" in exported.out
    assert "left out" not in exported.out


# --- what becomes of them ---------------------------------------------------------------------


@pytest.fixture
def dataset(tmp_path, make_rows):
    """`dataset(photos, bare)`: records of photos and of rows without one, as a version; returns its reference."""

    def make(photos, bare, place="set"):
        rows = [*photos, *({"name": f"no-photo/{at}", **record, **BARE} for at, record in enumerate(bare))]
        table = make_rows(rows, [DISEASE])
        return versions.commit(Version(str(tmp_path / place), 0, table, (DISEASE,)), "import", {}, 0).ref

    return make


def test_they_are_counted_apart(dataset):
    ref = dataset(
        [{"disease": "rust", "split": "train"}], [{"split": "train"}, {"split": "train"}, {"disease": "none"}]
    )
    counts = summary.info(ref)
    assert (counts.rows, counts.usable, counts.distinct) == (4, 1, 1)
    assert counts.without_photo == {"train": 2, "none": 1}
    assert counts.excluded == {}
    assert counts.classes["disease"] == {"none": {}, "rust": {"train": 1}}


def by_name(version):
    return dict(version.without_photo().select("name", "split").iter_rows())


def test_a_split_takes_them_where_their_group_is_and_else_to_train(dataset):
    photos = [{"disease": name, "group": f"p{at}"} for at, name in enumerate(["rust", "none"] * 10)]
    bare = [{"group": f"p{at}", "disease": "rust"} for at in range(20)] + [{"group": "other"}, {}]
    ref = dataset(photos, bare)
    done = split_dataset(ref.partition("@")[0], near=False)
    where = dict(done.version.usable().select("group", "split").iter_rows())
    found = by_name(done.version)
    assert [found[f"no-photo/{at}"] for at in range(20)] == [where[f"p{at}"] for at in range(20)]
    assert found["no-photo/20"] == found["no-photo/21"] == "train"
    counts = done.report.without_photo
    assert sum(counts.values()) == 22
    assert counts["train"] == sum(split == "train" for split in where.values()) + 2
    assert sum(done.report.counts.values()) == 20


def test_with_keep_a_row_follows_its_group_even_out_of_train_and_else_stays(dataset):
    photos = [{"disease": "rust", "split": "train"}, {"disease": "none", "split": "val"},
              {"disease": "none", "split": "test", "group": "p1"}]  # fmt: skip
    bare = [{"group": "p1", "split": "train"}, {"split": "val"}, {}]
    ref = dataset(photos, bare)
    done = split_dataset(ref.partition("@")[0], keep=True, near=False)
    assert by_name(done.version) == {"no-photo/0": "test", "no-photo/1": "val", "no-photo/2": "train"}


def test_rows_of_a_plant_that_is_left_out_for_the_test_set_do_not_teach(dataset):
    photos = [{"disease": "rust", "split": "train"}, {"disease": "none", "split": "val"},
              {"disease": "none", "split": "test", "group": "p1"}, {"disease": "none", "group": "p1"}]  # fmt: skip
    done = split_dataset(dataset(photos, [{"group": "p1"}]).partition("@")[0], keep=True, near=False)
    assert done.report.left_out == {"group-of-test": 1}
    assert by_name(done.version) == {"no-photo/0": "test"}


def test_a_pattern_of_names_is_about_photos(dataset):
    photos = [{"name": f"p{at}_1.jpg", "disease": name} for at, name in enumerate(["rust", "none"] * 5)]
    done = split_dataset(dataset(photos, [{"disease": "rust"}]).partition("@")[0], group_by=r"\d", near=False)
    assert done.version.without_photo()["group"].to_list() == [None]


def test_in_a_fold_they_follow_their_group(dataset):
    photos = [{"disease": name, "group": f"p{at}", "split": "val" if at % 4 == 0 else "train"}
              for at, name in enumerate(["rust", "none"] * 6)]  # fmt: skip
    photos.append({"disease": "rust", "group": "tested", "split": "test"})
    bare = [{"group": f"p{at}", "split": photos[at]["split"]} for at in range(12)]
    ref = dataset(photos, [*bare, {"group": "tested", "split": "test"}, {"split": "train"}])
    for number in (1, 2, 3):
        fold = of_fold(versions.load(ref), number, 3, 0)
        where = dict(fold.usable().select("group", "split").iter_rows())
        found = by_name(fold)
        assert [found[f"no-photo/{at}"] for at in range(12)] == [where[f"p{at}"] for at in range(12)]
        assert (found["no-photo/12"], found["no-photo/13"]) == ("test", "train")
        assert "val" in found.values()


def test_formats_of_photos_leave_them_out_and_say_so(dataset, tmp_path, write_photos, bring):
    write_photos(tmp_path, ["a.jpg"])
    done = bring("image,disease,split,humidity\na.jpg,rust,train,80\n,none,train,40\n,none,val,41\n")
    exported = export_dataset(done.version.url, str(tmp_path / "shards"), format="webdataset")
    assert exported.counts["photos"] == 1
    assert exported.notes == ["Rows without a photo, left out: 2. The formats csv, parquet and bundle keep them."]
    croissant = export_dataset(done.version.url, str(tmp_path / "croissant"), format="croissant")
    assert croissant.notes[-1].startswith("Rows without a photo, left out: 2.")
    assert [item.status for item in list_source(str(tmp_path / "croissant")).items] == ["ok"]
    train = export_dataset(done.version.url, str(tmp_path / "yolo"), format="folder", splits=["train"])
    assert train.notes[-1].startswith("Rows without a photo, left out: 1.")
    with pytest.raises(InputError, match="nothing to export"):
        export_dataset(dataset([], [{"disease": "rust"}], "alone"), str(tmp_path / "out"), format="folder")


@pytest.mark.parametrize("format_", ["csv", "parquet"])
def test_a_table_holds_rows_without_a_photo_and_columns(format_, bring, tmp_path, write_photos):
    write_photos(tmp_path, ["a.jpg"])
    done = bring("image,disease,split,humidity,id\na.jpg,rust,train,80,\n,none,train,40,7\n,,val,41,\n")
    exported = export_dataset(done.version.url, str(tmp_path / "out"), format=format_)
    assert (exported.counts, exported.notes) == ({"photos": 1, "rows": 3}, [])
    table = read_table(str(tmp_path / "out" / f"labels.{format_}"))
    assert table["image"].to_list() == ["images/a.jpg", None, None]
    assert table["humidity"].to_list() == ["80", "41", "40"]
    again = import_source(exported.out, str(tmp_path / "again"), list_source(exported.out))
    assert again.version.without_photo()["name"].to_list()[-1] == "no-photo/7"
    assert content_of(again.version) == content_of(done.version)
    val = export_dataset(done.version.url, str(tmp_path / "val"), format=format_, splits=["val"])
    assert val.counts == {"photos": 0, "rows": 1}
    assert [item.status for item in list_source(val.out).items] == [NO_PHOTO]


def content_of(version):
    """What an import of an exported table gives back: rows by all but names and places; an empty text is none."""
    names = [target.name for target in version.targets]
    metas = sorted(name for name in version.rows.columns if name.startswith("meta_"))
    rows = version.rows.select("image_id", "status", "group", "split", *names, *metas)
    rows = rows.with_columns(pl.col(metas).replace({"": None}) if metas else [])
    return Counter(repr({key: value for key, value in row.items() if value is not None})
                   for row in rows.iter_rows(named=True))  # fmt: skip


cells = st.sampled_from(["", "1", "2.5", "a b", "é|,'\""])
logs = st.lists(
    st.fixed_dictionaries(
        {"photo": st.booleans(), "disease": st.sampled_from(["", "none", "rust"]), "humidity": cells,
         "group": st.sampled_from(["", "p1", "p2"]), "split": st.sampled_from(["", "train", "val", "test"]),
         "id": st.sampled_from(["", "7", "8"])}
    ),
    min_size=1,
    max_size=6,
)  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(log=logs)
def test_any_log_comes_back_from_a_bundle(log, tmp_path_factory, photo):
    """Import, export as a bundle, and import again: the same rows, with and without a photo."""
    home = tmp_path_factory.mktemp("log")
    rows = []
    for at, record in enumerate(log):
        if has_photo := record.pop("photo"):
            (home / f"{at}.jpg").write_bytes(photo(24, 24, seed=at))
        rows.append({"image": f"{at}.jpg" if has_photo else "", **record})
    said = [row for row in rows if row["image"] or row["disease"] or row["humidity"] or row["id"]]
    pl.DataFrame(rows).write_csv(home / "log.csv")
    source, one = str(home / "log.csv"), str(home / "one")
    if not said:
        with pytest.raises(InputError, match="No photos in"):
            list_source(source)
        return
    done = import_source(source, one, list_source(source))
    assert (done.listed, done.without_photo) == (sum(bool(row["image"]) for row in said), len(said) - done.listed)
    export_dataset(one, str(home / "one.zip"), format="bundle")
    again = import_source(str(home / "one.zip"), str(home / "two"), list_source(str(home / "one.zip")))
    assert again.version.fingerprint == done.version.fingerprint
    assert (again.listed, again.without_photo) == (done.listed, done.without_photo)
    before, after = (version.without_photo().drop("source") for version in (done.version, again.version))
    assert after.select(before.columns).equals(before)
    assert not import_source(source, one, list_source(source)).changed


texts = st.sampled_from(["", "1", "2.50", "a b", " é|,'\"", "two\nlines", "NA"])
labelled = st.lists(
    st.fixed_dictionaries(
        {"photo": st.booleans(), "group": st.sampled_from([None, "p1", " p2 "]),
         "split": st.sampled_from([None, "train", "test"])},
        optional={"disease": st.sampled_from(["none", "rust"]), "severity": st.floats(-1e9, 1e9),
                  "symptoms": st.lists(st.sampled_from(["curl", "a|b"]), max_size=2, unique=True),
                  "meta_group": texts, "meta_meta_group": texts, "meta_label": texts, "meta_disease": texts,
                  "meta_id": st.sampled_from(["", "7", " é|,'\""]), "meta_width": texts},
    ),
    min_size=1,
    max_size=5,
)  # fmt: skip


@pytest.mark.parametrize("format_", ["csv", "parquet"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=labelled)
def test_any_rows_come_back_from_a_table(format_, records, tmp_path_factory, photo, make_rows):
    """Whatever their columns are called, and whatever cells cannot say."""
    home = tmp_path_factory.mktemp("table")
    targets = [DISEASE, Target("severity", "value"), Target("symptoms", "multilabel", ("a|b", "curl"))]
    rows = []
    for at, record in enumerate(records):
        if record.pop("photo"):
            data, path = photo(24, 24, seed=at), str(home / "photos" / f"{at}.jpg")
            storage.write(path, data)
            record |= {"name": f"{at}.jpg", "path": path, "image_id": hashlib.sha256(data).hexdigest()}
        elif any(value for name, value in record.items() if name not in {"split", "group"}):
            record |= {"name": f"no-photo/{at}", **BARE}
        else:  # it says nothing
            continue
        rows.append({"source": str(home / "photos"), **record})
    if not rows:
        return
    table = make_rows(rows, targets)
    version = versions.commit(Version(str(home / "one"), 0, table, tuple(targets)), "import", {}, 0)
    out = str(home / "out")
    export_dataset(version.ref, out, format=format_)
    again = import_source(out, str(home / "two"), list_source(out)).version
    assert content_of(again) == content_of(version)
    assert again.targets == version.targets


def test_metadata_of_a_hugging_face_folder_may_have_such_rows_too(tmp_path, write_photos):
    write_photos(tmp_path / "train", ["a.jpg"])
    lines = [{"file_name": "a.jpg", "disease": "rust"}, {"file_name": None, "disease": "none", "humidity": 40}]
    (tmp_path / "train" / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    items = list_source(str(tmp_path)).items
    assert [(item.name, item.status) for item in items[1:]] == [("train/a.jpg", "ok")]
    assert (items[0].status, items[0].split, items[0].labels["disease"]) == (NO_PHOTO, "train", "none")
    assert items[0].meta == {"humidity": "40"}
