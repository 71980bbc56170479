import io
import json
import random
from dataclasses import asdict

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import plantml
from plantml.data import manifest
from plantml.data.manifest import SYSTEM, Version, conform, derive_targets, fingerprint
from plantml.data.row_checks import check_paths
from plantml.data.version_files import from_parquet, to_parquet
from plantml.errors import InputError
from plantml.storage import checksums
from plantml.targets import Target

TARGETS = (
    Target("disease", "class", ("none", "rust")),
    Target("symptoms", "multilabel", ("curl", "spots", "wilt")),
    Target("severity", "value", unit="fraction"),
)
BOX = {"x": 1.0, "y": 2.0, "w": 3.0, "h": 4.0, "labels": '{"disease":"rust"}'}

boxes = st.fixed_dictionaries(
    {key: st.floats(0, 100, width=32) for key in "xywh"}
    | {"labels": st.sampled_from([None, "{}", '{"disease":"rust"}'])}
)
records = st.fixed_dictionaries(
    {
        "image_id": st.sampled_from(["aa", "bb", "cc"]),
        "disease": st.sampled_from([None, "none", "rust"]),
        "symptoms": st.none() | st.lists(st.sampled_from(["curl", "spots", "wilt"]), unique=True),
        "severity": st.none() | st.floats(0, 1),
        "boxes": st.none() | st.lists(boxes, max_size=2),
        "group": st.sampled_from([None, "p1", "p2"]),
        "split": st.sampled_from([None, "train", "val", "test"]),
        "status": st.sampled_from(["ok", "excluded"]),
    }
)


# --- the fingerprint --------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.lists(records, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_rows_and_targets_does_not_matter(make_rows, content, random):
    shuffled, targets = list(content), list(TARGETS)
    random.shuffle(shuffled)
    random.shuffle(targets)
    assert fingerprint(make_rows(content, TARGETS), TARGETS) == fingerprint(make_rows(shuffled, targets), targets)


@settings(max_examples=40)
@given(st.lists(records, min_size=1, max_size=5))
def test_source_place_and_what_training_does_not_see_do_not_matter(make_rows, content):
    elsewhere = [
        {
            **record,
            "source": f"s3://other/{number}",
            "name": f"x{number}.png",
            "path": f"/far/{number}",
            "bytes": 5,
            "reason": "whatever",
            "sharpness": 3.0,
            "meta_camera": "phone",
        }
        for number, record in enumerate(content)
    ]
    assert fingerprint(make_rows(content, TARGETS), TARGETS) == fingerprint(make_rows(elsewhere, TARGETS), TARGETS)


@settings(max_examples=60)
@given(st.lists(records, min_size=1, max_size=4), records, st.data())
def test_whatever_training_sees_matters(make_rows, content, other, data):
    place = data.draw(st.integers(0, len(content) - 1))
    key = data.draw(st.sampled_from(sorted(other)))
    changed = list(content)
    changed[place] = {**content[place], key: other[key]}
    same = fingerprint(make_rows(content, TARGETS), TARGETS) == fingerprint(make_rows(changed, TARGETS), TARGETS)
    assert same == (canonical(content) == canonical(changed))


def canonical(content):
    def one(value):
        return sorted(value, key=json.dumps) if isinstance(value, list) else value

    return sorted(json.dumps({key: one(value) for key, value in record.items()}, sort_keys=True) for record in content)


@pytest.mark.parametrize(
    "change",
    [
        {"image_id": "bb"},
        {"disease": "rust"},
        {"disease": None},
        {"symptoms": ["curl"]},
        {"symptoms": []},
        {"severity": 0.25},
        {"boxes": [{**BOX, "x": 1.5}]},
        {"boxes": [{**BOX, "labels": "{}"}]},
        {"boxes": []},
        {"group": "p2"},
        {"split": "val"},
        {"status": "excluded"},
    ],
    ids=str,
)
def test_every_single_change_shows(change, make_rows):
    record = {
        "image_id": "aa", "disease": "none", "symptoms": ["curl", "wilt"], "severity": 0.5, "boxes": [BOX],
        "group": "p1", "split": "train", "status": "ok",
    }  # fmt: skip
    before = fingerprint(make_rows([record], TARGETS), TARGETS)
    assert fingerprint(make_rows([{**record, **change}], TARGETS), TARGETS) != before


def test_copies_count(make_rows):
    once, twice = make_rows([{"image_id": "aa"}]), make_rows([{"image_id": "aa"}] * 2)
    assert fingerprint(once, ()) != fingerprint(twice, ())


def test_labels_and_boxes_of_one_photo_have_no_order(make_rows):
    other = {**BOX, "x": 50.0}
    one = make_rows([{"symptoms": ["curl", "wilt"], "boxes": [BOX, other]}], TARGETS)
    two = make_rows([{"symptoms": ["wilt", "curl"], "boxes": [other, BOX]}], TARGETS)
    assert fingerprint(one, TARGETS) == fingerprint(two, TARGETS)


def test_the_same_label_under_another_target_is_another_label(make_rows):
    health, disease = Target("health", "class", ("x",)), Target("disease", "class", ("x",))
    one = fingerprint(make_rows([{"health": "x"}], [health]), [health])
    assert one != fingerprint(make_rows([{"disease": "x"}], [disease]), [disease])


def test_a_version_that_is_read_again_has_its_fingerprint(make_rows):
    version = Version("memory://d", 1, make_rows([{"disease": "rust"}], TARGETS), TARGETS)
    commit, data = to_parquet(version, "import", {}, 0)
    assert from_parquet("memory://d", 1, data).fingerprint == commit.fingerprint == version.fingerprint
    assert len(commit.fingerprint) == 64


# --- columns ----------------------------------------------------------------------------------


def test_every_column_is_there_in_its_place_and_of_its_type():
    rows = conform(
        pl.DataFrame({"meta_b": [1], "disease": ["rust"], "name": ["a.jpg"], "meta_a": [None], "stray": [1]}), TARGETS
    )
    assert rows.columns == [*SYSTEM, "disease", "symptoms", "severity", "meta_a", "meta_b"]
    assert rows.schema["symptoms"] == pl.List(pl.String)
    assert rows.schema["severity"] == pl.Float64
    assert rows.schema["boxes"] == pl.List(manifest.BOX)
    assert rows.row(0, named=True)["meta_b"] == "1"
    assert rows.row(0, named=True)["symptoms"] is None


def test_conforming_twice_changes_nothing(make_rows):
    rows = make_rows([{"disease": "rust", "boxes": [BOX], "meta_camera": "phone"}], TARGETS)
    assert conform(rows, TARGETS).equals(rows)


def test_no_rows_have_all_columns():
    rows = manifest.empty_rows(TARGETS)
    assert rows.height == 0
    assert conform(rows, TARGETS).schema == rows.schema


def test_a_value_that_does_not_fit_its_column_is_refused():
    with pytest.raises(InputError):
        conform(pl.DataFrame({"severity": ["a lot"]}), TARGETS)


def test_new_classes_come_after_those_that_are_known(make_rows):
    rows = make_rows([{"disease": name} for name in ("scab", None, "blight", "rust")], TARGETS)
    (disease,) = derive_targets(rows, TARGETS[:1])
    assert disease.classes == ("none", "rust", "blight", "scab")


def test_new_labels_of_many_come_after_those_that_are_known(make_rows):
    rows = make_rows([{"symptoms": names} for names in (["wilt", "mold"], [], None, ["ash"])], TARGETS)
    assert derive_targets(rows, TARGETS)[1].classes == ("curl", "spots", "wilt", "ash", "mold")


def test_values_have_no_classes(make_rows):
    rows = make_rows([{"severity": 0.5}], TARGETS)
    assert derive_targets(rows, TARGETS)[2] == TARGETS[2]


# --- a version as a file ----------------------------------------------------------------------


@settings(max_examples=20)
@given(st.lists(records, max_size=5))
def test_a_version_comes_whole_out_of_its_file(make_rows, content):
    version = Version(
        "memory://d", 3, make_rows(content, TARGETS) if content else manifest.empty_rows(TARGETS), TARGETS
    )
    commit, data = to_parquet(version, "import", {"source": "x", "seed": 1, "groups": None}, 2)
    again = from_parquet("memory://d", 3, data)
    assert again.rows.equals(version.rows)
    assert again.rows.schema == version.rows.schema
    assert again.targets == TARGETS
    assert again.commit == commit
    assert again.number == 3


def test_the_commit_record_lies_in_the_file_under_our_name(make_rows):
    rows = make_rows([{"status": "ok"}, {"status": "ok"}, {"status": "excluded"}], TARGETS)
    _, data = to_parquet(Version("memory://d", 1, rows, TARGETS), "split", {"seed": 1}, 4)
    record = json.loads(pl.read_parquet_metadata(io.BytesIO(data))["plantml"])
    assert record["operation"] == "split"
    assert record["parameters"] == {"seed": 1}
    assert record["parent"] == 4
    assert record["plantml"] == plantml.__version__
    assert record["counts"] == {"excluded": 1, "ok": 2}
    assert record["time"].endswith("Z")
    assert record["targets"][0] == {"name": "disease", "kind": "class", "classes": ["none", "rust"], "unit": ""}


def whole():
    return to_parquet(Version("memory://d", 1, manifest.empty_rows(), ()), "import", {}, 0)[1]


def parquet(rows, **metadata):
    buffer = io.BytesIO()
    rows.write_parquet(buffer, metadata=metadata or None)
    return buffer.getvalue()


def edited(rows, targets=()):
    """A version whose rows somebody edited, with a checksum that fits them."""
    record = json.loads(pl.read_parquet_metadata(io.BytesIO(whole()))["plantml"])
    del record[checksums.KEY]
    record |= {"targets": [asdict(target) for target in targets], checksums.KEY: checksums.BLANK}
    return checksums.seal(parquet(rows, plantml=json.dumps(record)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not parquet",
        whole()[:-20],
        parquet(manifest.empty_rows()),
        parquet(manifest.empty_rows(), plantml="no json"),
        parquet(manifest.empty_rows(), plantml='{"operation": "import"}'),
        parquet(manifest.empty_rows(), plantml='{"unknown": 1, "targets": []}'),
    ],
    ids=["empty", "text", "cut", "no record", "broken record", "half a record", "another record"],
)
def test_a_file_that_is_no_version_is_refused(data):
    with pytest.raises(InputError, match="not a dataset version"):
        from_parquet("memory://d", 1, data)


HASH = "ab" + "0" * 62
OWN = f"images/ab/{HASH}.jpg"


@pytest.mark.parametrize(
    ("source", "name", "path"),
    [
        ("/photos", "a.jpg", OWN),
        ("/photos", "a", OWN.removesuffix(".jpg")),
        ("/photos", "a.jpg", None),
        ("/photos", "a.jpg", "/photos/a.jpg"),
        ("/photos", "..a.jpg", "/photos/..a.jpg"),
        ("/photos", "50%.jpg", "/photos/50%.jpg"),
        ("/lists/a.csv", "b/a.jpg", "/lists/b/a.jpg"),
        ("/lists/a.csv", "../b/a.jpg", "/lists/../b/a.jpg"),
        ("/lists/a.csv", "/b/a.jpg", "/b/a.jpg"),
        ("/lists/a.csv", "s3://b/a.jpg", "s3://b/a.jpg"),
        ("/set/annotations/a.json", "images/a.jpg", "/set/images/a.jpg"),
        ("/set.zip", "a.jpg", "zip://a.jpg::/set.zip"),
        ("/set.tar.gz", "b/a.jpg", "tar://set/b/a.jpg::/set.tar.gz"),
        ("zip://a.csv::/set.zip", "a.jpg", "zip://a.jpg::/set.zip"),
        ("s3://b/photos", "a.jpg", "s3://b/photos/a.jpg"),
        ("https://host/list.csv", "a.jpg", "https://host/a.jpg"),
        ("memory://b", "a.jpg", "memory://b/a.jpg"),
    ],
)
def test_a_row_names_a_file_of_the_dataset_or_of_its_source(make_rows, source, name, path):
    check_paths("d@1", make_rows([{"source": source, "name": name, "path": path}]))


@pytest.mark.parametrize(
    "path",
    ["../../x.jpg", "/etc/passwd", "etc/passwd", "file:///etc/passwd", "images/../../x.jpg", f"images/../{OWN}",
     f"images/ab/{HASH}/../../../x.jpg", f"{OWN}::file", "images/x.jpg", "", "s3://b/x.jpg", "http://169.254.169.254/x",
     "/photos/../etc/passwd", "/photosets/a.jpg", "zip://a.jpg::/etc/x.zip"],
)  # fmt: skip
def test_a_version_whose_row_names_another_file_is_refused(make_rows, path):
    rows = make_rows(
        [{"source": "/photos", "name": "good.jpg"}, {"source": "/photos", "name": "bad.jpg", "path": path}]
    )
    data = to_parquet(Version("memory://d", 1, rows, ()), "import", {}, 0)[1]
    with pytest.raises(InputError, match="outside the dataset") as error:
        from_parquet("memory://d", 1, data)
    assert "'bad.jpg'" in error.value.why


def test_a_version_without_all_columns_names_those_that_lack():
    with pytest.raises(InputError, match="phash"):
        from_parquet("memory://d", 1, edited(manifest.empty_rows().drop("phash")))


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ({"source": None}, "source"),
        ({"name": None}, "name"),
        ({"name": "00000.jpg"}, "name"),
        ({"status": None}, "status"),
        ({"status": "fine"}, "status"),
        ({"split": "training"}, "split"),
        ({"image_id": None}, "image_id"),
        ({"path": None}, "path"),
        ({"width": None}, "width"),
        ({"disease": "scab"}, "disease"),
        ({"symptoms": ["curl", "scab"]}, "symptoms"),
        ({"symptoms": ["curl", None]}, "symptoms"),
        ({"severity": float("nan")}, "severity"),
        ({"severity": float("inf")}, "severity"),
        ({"boxes": [BOX, {**BOX, "w": None}]}, "boxes"),
        ({"boxes": [{**BOX, "x": float("inf")}]}, "boxes"),
        ({"boxes": [None]}, "boxes"),
        ({"boxes": [BOX, {**BOX, "labels": "[1]"}]}, "boxes"),
        ({"boxes": [{**BOX, "labels": "{"}]}, "boxes"),
        ({"boxes": [{**BOX, "labels": '{"disease":true}'}]}, "boxes"),
    ],
    ids=str,
)
def test_an_edited_row_is_told_with_its_place_and_the_way_on(change, column, make_rows):
    rows = make_rows([{"status": "excluded", "image_id": None, "path": None}, change, {"boxes": []}], TARGETS)
    with pytest.raises(InputError) as caught:
        from_parquet("memory://d", 1, edited(rows, TARGETS))
    assert "memory://d@1" in caught.value.what
    assert f"column {column}: " in caught.value.why
    # Of a key that is there twice, the first row is named.
    assert f"row {1 if change.get('name') == '00000.jpg' else 2} " in caught.value.why
    assert "dataset restore memory://d N" in caught.value.hint


@pytest.mark.parametrize("column", ["width", "disease", "boxes"])
def test_a_column_of_another_type_is_told(column, make_rows):
    rows = make_rows([{}], TARGETS).with_columns(pl.lit(b"x").alias(column))
    with pytest.raises(InputError, match=f"column {column} holds Binary"):
        from_parquet("memory://d", 1, edited(rows, TARGETS))


def test_what_could_not_be_read_again_is_not_written(make_rows):
    rows = make_rows([{"severity": float("inf")}], TARGETS)
    with pytest.raises(InputError, match=r"row 1 \(00000.jpg\), column severity: inf"):
        to_parquet(Version("memory://d", 1, rows, TARGETS), "import", {}, 0)


@pytest.fixture(scope="module")
def small(make_rows):
    rows = make_rows([{"disease": "rust", "boxes": [BOX]}, {"symptoms": ["curl"], "severity": 0.5}], TARGETS)
    return to_parquet(Version("memory://d", 1, rows, TARGETS), "import", {"source": "x"}, 0)[1]


def test_no_bit_of_a_version_changes_unseen(small):
    chance = random.Random(0)
    # Every bit of the checksum and of its name, and some of all others.
    at = small.rindex(b'"sha256"')
    places = [*range(8 * at, 8 * (at + 78)), *(chance.randrange(8 * len(small)) for _ in range(400))]
    for place in places:
        flipped = bytearray(small)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(InputError):
            from_parquet("memory://d", 1, bytes(flipped))


@settings(max_examples=60)
@given(st.binary(max_size=40), st.integers(0, 10_000), st.integers(0, 10_000))
def test_whatever_bytes_are_no_version_end_in_one_error(small, garbage, first, last):
    first, last = sorted((first % len(small), last % len(small)))
    for data in (garbage, small[:last], small[:first] + garbage + small[last:], b"PAR1" + garbage + small[-8:]):
        if data != small:
            with pytest.raises(InputError):
                from_parquet("memory://d", 1, data)


@settings(max_examples=25)
@given(
    st.sampled_from([*SYSTEM, "disease", "symptoms", "severity"]),
    st.none() | st.integers(-9, 9) | st.floats() | st.text(max_size=5) | st.lists(st.none() | st.text(max_size=3)),
)
def test_whatever_value_is_put_into_a_column_is_read_or_refused(make_rows, column, value):
    rows = make_rows([{}, {"disease": "rust"}], TARGETS).with_columns(pl.Series(column, [value, None], strict=False))
    try:
        version = from_parquet("memory://d", 1, edited(rows, TARGETS))
    except InputError:
        return
    assert version.rows.schema == conform(rows, TARGETS).schema
    fingerprint(version.rows, version.targets)


# --- a version --------------------------------------------------------------------------------


def test_usable_rows_are_those_that_are_not_excluded(make_rows):
    rows = make_rows([{"split": "train"}, {"split": "val"}, {"split": "train", "status": "excluded"}, {"split": None}])
    version = Version("memory://d", 1, rows, ())
    assert version.usable().height == 3
    assert version.usable("train").height == 1
    assert version.usable("test").height == 0


def test_a_reference_names_exactly_this_version():
    assert Version("s3://b/d", 7, manifest.empty_rows(), ()).ref == "s3://b/d@7"


def test_a_target_is_found_by_name_and_a_missing_one_lists_the_others():
    version = Version("memory://d", 1, manifest.empty_rows(TARGETS), TARGETS)
    assert version.target("symptoms") is TARGETS[1]
    with pytest.raises(InputError, match="disease, symptoms, severity"):
        version.target("health")


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("images/ab/abc.jpg", "s3://b/d/images/ab/abc.jpg"),
        ("/data/images/a.jpg", "/data/images/a.jpg"),
        ("s3://other/a.jpg", "s3://other/a.jpg"),
    ],
)
def test_a_photo_lies_in_the_dataset_or_where_it_was_left(path, url):
    assert Version("s3://b/d", 1, manifest.empty_rows(), ()).image_url(path) == url
