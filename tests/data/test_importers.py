import io
import json

import polars as pl
import pytest

from plantml import storage
from plantml.data.formats import list_source
from plantml.data.labels import Taxonomy
from plantml.data.tables import is_table, read_table
from plantml.errors import InputError, NotFoundError
from plantml.targets import Target


@pytest.fixture
def folder(tmp_path):
    """Makes empty files of the given names; listing never opens them."""

    def make(*names):
        root = tmp_path / "photos"
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        return str(root)

    return make


@pytest.fixture
def table(tmp_path):
    def make(content, name="labels.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return make


def by_name(listing):
    return {item.name: item for item in listing.items}


def labels(listing):
    return {item.name: dict(item.labels) for item in listing.items}


# --- folders ----------------------------------------------------------------------------------


def test_a_folders_name_is_the_class(folder):
    root = folder("rust/1.jpg", "rust/2.JPG", "healthy/1.png")
    listing = list_source(root)
    assert labels(listing) == {
        "healthy/1.png": {"health": "healthy", "disease": "none"},
        "rust/1.jpg": {"health": "diseased", "disease": "rust"},
        "rust/2.JPG": {"health": "diseased", "disease": "rust"},
    }
    assert [item.name for item in listing.items] == sorted(item.name for item in listing.items)
    assert {target.name: target.kind for target in listing.targets} == {"health": "class", "disease": "class"}
    assert by_name(listing)["rust/1.jpg"].url == f"{root}/rust/1.jpg"
    assert by_name(listing)["rust/1.jpg"].meta == {"class": "rust"}


@pytest.mark.parametrize(
    ("written", "split"),
    [
        ("train", "train"), ("Training", "train"), ("val", "val"), ("valid", "val"), ("validation", "val"),
        ("dev", "val"), ("test", "test"), ("TEST", "test"), ("testing", "test"),
    ],
)  # fmt: skip
def test_a_folder_that_is_called_like_a_split_is_one(written, split, folder):
    listing = list_source(folder(f"{written}/rust/1.jpg", "healthy/1.jpg"))
    assert by_name(listing)[f"{written}/rust/1.jpg"].split == split
    assert by_name(listing)[f"{written}/rust/1.jpg"].labels["disease"] == "rust"
    assert by_name(listing)["healthy/1.jpg"].split is None


def test_a_split_may_be_below_its_class(folder):
    listing = list_source(folder("rust/train/1.jpg", "healthy/test/1.jpg"))
    assert [(item.labels["disease"], item.split) for item in listing.items] == [("none", "test"), ("rust", "train")]


def test_only_the_first_folder_that_is_called_like_a_split_is_one(folder):
    listing = list_source(folder("train/test/1.jpg", "train/other/1.jpg"), rule="category")
    assert by_name(listing)["train/test/1.jpg"].split == "train"
    assert by_name(listing)["train/test/1.jpg"].labels == {"category": "test"}


def test_the_innermost_folder_is_the_class(folder):
    listing = list_source(folder("raw/color/Apple___scab/1.jpg", "raw/color/Apple___healthy/1.jpg"))
    assert labels(listing)["raw/color/Apple___scab/1.jpg"] == {
        "category": "Apple", "health": "diseased", "disease": "scab"
    }  # fmt: skip


def test_nested_folders_are_classes_where_the_rule_says_so(folder):
    listing = list_source(folder("train/tomato/rust/1.jpg", "train/tomato/healthy/1.jpg"), rule="category/disease")
    assert labels(listing)["train/tomato/rust/1.jpg"] == {
        "category": "tomato", "health": "diseased", "disease": "rust"
    }  # fmt: skip


@pytest.mark.parametrize("names", [("1.jpg", "2.jpg"), ("train/1.jpg", "test/2.jpg"), ("rust/1.jpg", "rust/2.jpg")])
def test_one_folder_alone_says_nothing_and_the_user_is_told(names, folder):
    listing = list_source(folder(*names))
    assert all(item.labels == {} for item in listing.items)
    assert listing.targets == ()
    assert any("without labels" in note for note in listing.notes)


def test_one_folder_is_a_class_where_the_rule_says_so(folder):
    listing = list_source(folder("rust/1.jpg"), rule="disease")
    assert labels(listing) == {"rust/1.jpg": {"health": "diseased", "disease": "rust"}}
    assert listing.notes == ()


def test_photos_outside_all_folders_have_no_label(folder):
    listing = list_source(folder("rust/1.jpg", "healthy/1.jpg", "loose.jpg"))
    assert labels(listing)["loose.jpg"] == {}


def test_other_files_are_passed_over_and_counted(folder):
    listing = list_source(
        folder("a/1.jpg", "b/1.jpg", "a/notes.txt", "b/Thumbs.db", "a/.hidden.jpg", ".cache/1.jpg", "a/noextension")
    )
    assert [item.name for item in listing.items] == ["a/1.jpg", "b/1.jpg"]
    assert listing.skipped == {"not an image by its name": 3, "hidden": 2}


def test_a_folder_without_photos_says_what_was_there(folder):
    with pytest.raises(InputError, match="2 other files"):
        list_source(folder("a/notes.txt", "b.csv"))


def test_a_taxonomy_is_taken_instead_of_a_rule(folder):
    taxonomy = Taxonomy({"x": {"category": "bean"}, "y": {"disease": "rust"}}, "map.yaml")
    listing = list_source(folder("x/1.jpg", "y/1.jpg"), taxonomy=taxonomy)
    assert labels(listing) == {"x/1.jpg": {"category": "bean"}, "y/1.jpg": {"disease": "rust"}}
    assert listing.rule == "map.yaml"


def test_a_folder_that_the_taxonomy_does_not_know_is_named(folder):
    with pytest.raises(InputError, match="'weeds'"):
        list_source(folder("x/1.jpg", "weeds/1.jpg"), taxonomy=Taxonomy({"x": {}}, ""))


def test_without_labels_no_class_is_kept(folder):
    listing = list_source(folder("rust/1.jpg", "healthy/1.jpg"), rule="none")
    assert all(item.labels == {} and item.meta == {} for item in listing.items)


def test_a_folder_may_be_anywhere(url):
    for name in ("rust/1.jpg", "healthy/[1].jpg"):
        storage.write(storage.join(url, name), b"")
    listing = list_source(url)
    assert [item.name for item in listing.items] == ["healthy/[1].jpg", "rust/1.jpg"]
    assert storage.exists(listing.items[0].url)


# --- tables -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.csv", "s3://b/a.CSV", "a.jsonl", "a.ndjson", "a.parquet"])
def test_lists_are_known_by_their_names(name):
    assert is_table(name)


@pytest.mark.parametrize("name", ["photos", "photos.d/", "a.txt", "a.csv/photos"])
def test_other_names_are_no_lists(name):
    assert not is_table(name)


CSV = (
    "path,label,split,group,camera\nb/2.jpg,bean_rust,valid,plant 1,phone\na/1.jpg,healthy,train,,\nc.jpg,,,plant 1,\n"
)


def test_a_list_names_photos_labels_splits_and_groups(table, tmp_path):
    listing = list_source(table(CSV))
    assert [item.name for item in listing.items] == ["a/1.jpg", "b/2.jpg", "c.jpg"]
    one, two, three = listing.items
    assert one.labels == {"health": "healthy", "disease": "none"}
    assert two.labels == {"health": "diseased", "disease": "bean_rust"}
    assert three.labels == {}
    assert (one.split, two.split, three.split) == ("train", "val", None)
    assert (one.group, two.group, three.group) == (None, "plant 1", "plant 1")
    assert two.meta == {"label": "bean_rust", "camera": "phone"}
    assert two.url == str(tmp_path / "b" / "2.jpg")
    assert any("camera" in note for note in listing.notes)


def frame_as(name, rows):
    buffer = io.BytesIO()
    if name.endswith("jsonl"):
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    frame = pl.DataFrame(rows)
    frame.write_parquet(buffer) if name.endswith("parquet") else frame.write_csv(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_all_formats_of_lists_say_the_same(name, table):
    rows = [
        {"file_name": "1.jpg", "category": "bean", "disease": "rust", "severity": 0.5, "split": "train"},
        {"file_name": "2.jpg", "category": "corn", "disease": None, "severity": None, "split": "test"},
    ]
    listing = list_source(table(frame_as(name, rows), name), targets=["severity:value:fraction"])
    assert labels(listing) == {
        "1.jpg": {"category": "bean", "health": "diseased", "disease": "rust", "severity": 0.5},
        "2.jpg": {"category": "corn"},
    }
    assert {target.name: (target.kind, target.unit) for target in listing.targets} == {
        "category": ("class", ""),
        "disease": ("class", ""),
        "severity": ("value", "fraction"),
        "health": ("class", ""),
    }
    assert [item.split for item in listing.items] == ["train", "test"]


def test_known_columns_are_targets_without_being_asked_for(table):
    listing = list_source(table("path,category,health,disease\n1.jpg,bean,stressed,rust\n"))
    assert labels(listing) == {"1.jpg": {"category": "bean", "health": "stressed", "disease": "rust"}}


def test_other_columns_are_targets_only_when_asked_for(table):
    text = "path,viability\n1.jpg,weak\n"
    assert labels(list_source(table(text))) == {"1.jpg": {}}
    listing = list_source(table(text), targets=["viability"])
    assert labels(listing) == {"1.jpg": {"viability": "weak"}}
    assert listing.targets == (Target("viability", "class"),)


@pytest.mark.parametrize(
    ("text", "wanted", "kind", "value"),
    [
        ("path,x\n1.jpg,0.5\n", "x", "value", 0.5),
        ("path,x\n1.jpg,3\n", "x:value:days", "value", 3.0),
        ("path,x\n1.jpg,3\n", "x", "class", "3"),
        ("path,x\n1.jpg,3\n", "x:class", "class", "3"),
        ("path,x\n1.jpg,01.5\n", "x", "class", "01.5"),
        ("path,x\n1.jpg,weak\n", "x", "class", "weak"),
        ("path,x\n1.jpg,curl | spots\n", "x:multilabel", "multilabel", ["curl", "spots"]),
    ],
)
def test_a_targets_kind_is_told_or_seen(text, wanted, kind, value, table):
    listing = list_source(table(text), targets=[wanted])
    assert labels(listing) == {"1.jpg": {"x": value}}
    assert listing.targets[0].kind == kind


def test_many_diseases_at_once_can_be_a_target(table):
    listing = list_source(table("path,disease\n1.jpg,rust|scab\n"), targets=["disease:multilabel"])
    assert labels(listing)["1.jpg"]["disease"] == ["rust", "scab"]


def test_lists_in_json_are_many_labels(table):
    text = '{"path":"1.jpg","x":["curl","spots"]}\n{"path":"2.jpg","x":[]}\n{"path":"3.jpg","x":null}\n'
    listing = list_source(table(text, "t.jsonl"), targets=["x"])
    assert labels(listing) == {"1.jpg": {"x": ["curl", "spots"]}, "2.jpg": {"x": []}, "3.jpg": {}}


@pytest.mark.parametrize("word", ["true", "True", "1", "1.0", "007"])
def test_a_class_may_be_called_anything(word, table):
    listing = list_source(table(f"path,label\n1.jpg,{word}\n2.jpg,other\n"), rule="viability")
    assert labels(listing)["1.jpg"] == {"viability": word}
    listing = list_source(table(f"path,label\n1.jpg,{word}\n"), rule="viability")
    assert labels(listing)["1.jpg"] == {"viability": word}


def test_truth_in_json_can_be_a_class(table):
    listing = list_source(
        table('{"path":"1.jpg","label":true}\n{"path":"2.jpg","label":false}\n', "t.jsonl"), rule="viable"
    )
    assert [len(item.labels) for item in listing.items] == [1, 1]
    assert listing.items[0].labels != listing.items[1].labels


def test_numbers_that_are_names_keep_their_zeros(table):
    listing = list_source(table("path,label,group\n0001,01,007\n0002,1,7\n"), rule="variety")
    assert [item.name for item in listing.items] == ["0001", "0002"]
    assert [item.group for item in listing.items] == ["007", "7"]
    assert [item.labels["variety"] for item in listing.items] == ["01", "1"]


def test_a_column_that_says_the_target_wins_over_a_guess_from_the_label(table):
    listing = list_source(table("path,category,label\n1.jpg,bean,0\n2.jpg,corn,1\n"))
    assert [item.labels["category"] for item in listing.items] == ["bean", "corn"]


def test_codes_with_leading_zeros_are_classes_even_beside_numbers(table):
    listing = list_source(table("path,grade\n1.jpg,01\n2.jpg,1\n3.jpg,1.0\n"), targets=["grade"])
    assert listing.targets == (Target("grade", "class"),)
    assert [item.labels["grade"] for item in listing.items] == ["01", "1", "1.0"]


@pytest.mark.parametrize("health", ["", ",health"])
def test_a_disease_that_says_nothing_is_no_label(health, table):
    listing = list_source(
        table(f"path,disease{health}\n1.jpg,n/a{health and ',weak'}\n2.jpg,rust{health and ',weak'}\n")
    )
    assert ["disease" in item.labels for item in listing.items] == [False, True]


@pytest.mark.parametrize("name", ["imported_as", "annotated_size"])
def test_a_column_called_like_one_of_plantmls_own_is_kept_beside_it(name, table):
    (item,) = list_source(table(f"path,{name}\n1.jpg,mine\n")).items
    assert item.meta == {f"{name}_": "mine"}


def test_columns_may_be_called_otherwise(table):
    text = "photo,plant,label\n1.jpg,p1,rust\n"
    listing = list_source(table(text), image_column="photo", group_column="plant")
    assert listing.items[0].name == "1.jpg"
    assert listing.items[0].group == "p1"
    assert "plant" not in listing.items[0].meta


def test_photos_may_be_named_by_their_whole_url(table):
    listing = list_source(table("url\ns3://bucket/a.jpg\n/data/b.jpg\nsub/c.jpg\n"))
    urls = {item.name: item.url for item in listing.items}
    assert urls["s3://bucket/a.jpg"] == "s3://bucket/a.jpg"
    assert urls["/data/b.jpg"] == "/data/b.jpg"
    assert urls["sub/c.jpg"].endswith("/sub/c.jpg")
    assert storage.absolute(urls["sub/c.jpg"]) == urls["sub/c.jpg"]


def test_a_list_in_an_object_store_names_photos_beside_it(s3_url):
    storage.write(storage.join(s3_url, "labels.csv"), CSV.encode())
    listing = list_source(storage.join(s3_url, "labels.csv"))
    assert listing.items[0].url == storage.join(s3_url, "a/1.jpg")


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ("", "t.csv", "empty"),
        ("camera,label\nphone,x\n", "t.csv", "camera, label"),
        ("path,label\n,\n", "t.csv", "No photos"),
        ("path,label\n1.jpg,x\n1.jpg,y\n", "t.csv", "twice"),
        ("path,split\n1.jpg,holdout\n", "t.csv", "holdout"),
        ("path,label\n1.jpg,x,y,z\n", "t.csv", "table"),
        (b"path,label\n1.jpg,gr\xfcn\n", "t.csv", "utf-8"),
        ('{"path": ', "t.jsonl", "table"),
        ("no parquet", "t.parquet", "table"),
    ],
)
def test_a_list_that_cannot_be_used_says_why(text, name, said, table):
    with pytest.raises(InputError) as caught:
        list_source(table(text, name))
    assert said in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("y", "no column 'y'"),
        ("x:number", "'number'"),
        ("x:value", "not numeric"),
        ("split", "column of that name"),
        ("Path", "lower-case"),
    ],
)
def test_a_target_that_cannot_be_is_refused(wanted, said, table):
    with pytest.raises(InputError, match=said):
        list_source(table("path,x,split\n1.jpg,weak,train\n"), targets=[wanted])


def test_a_missing_column_lists_those_that_are_there(table):
    with pytest.raises(InputError, match="path, label"):
        list_source(table("path,label\n1.jpg,x\n"), group_column="plant")


def test_a_missing_list_is_told(tmp_path):
    with pytest.raises(NotFoundError):
        read_table(str(tmp_path / "none.csv"))


# --- either -----------------------------------------------------------------------------------


def test_a_source_is_a_folder_or_a_list(folder, table):
    assert len(list_source(folder("a/1.jpg", "b/1.jpg")).items) == 2
    assert len(list_source(table(CSV)).items) == 3


def test_nothing_and_a_single_photo_are_no_sources(folder, tmp_path):
    with pytest.raises(InputError, match="nothing at"):
        list_source(str(tmp_path / "none"))
    with pytest.raises(InputError, match="neither"):
        list_source(folder("a.jpg") + "/a.jpg")


def test_a_list_without_photos_is_no_source(table):
    with pytest.raises(InputError):
        list_source(table("path,label\n"))


def test_a_taxonomy_cannot_bring_a_target_with_a_datasets_own_name(folder):
    with pytest.raises(InputError, match="column of that name"):
        list_source(folder("a/1.jpg", "b/1.jpg"), taxonomy=Taxonomy({"a": {"split": "x"}, "b": {}}, ""))
