import csv
import hashlib
import io
import json
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from plantml import storage
from plantml.data import exporting, manifest, versions
from plantml.data.boxes import Box
from plantml.data.exporters import naming, webdataset
from plantml.data.exporting import export_dataset
from plantml.data.formats import list_source
from plantml.data.importers import sidecar
from plantml.data.importing import import_source
from plantml.data.manifest import Version
from plantml.errors import InputError, StorageError, UsageError
from plantml.targets import Target

SIZE = (40, 30)
TARGETS = (
    Target("category", "class", ("Tomato", "bean")),
    Target("health", "class", ("healthy", "diseased")),
    Target("disease", "class", ("none", "rust")),
    Target("symptoms", "multilabel", ("curl", "spots")),
    Target("severity", "value", unit="fraction"),
)
ROUND = ("folder", "csv", "parquet", "coco", "yolo", "voc", "cvat", "label-studio", "croissant")


@pytest.fixture(scope="session")
def pictures(photo):
    """Bytes of a few small pictures."""
    return [photo(*SIZE, seed=seed) for seed in range(6)]


@pytest.fixture
def dataset(tmp_path, pictures, make_rows):
    """`dataset(records, targets)`: a version whose rows have real photos; its reference."""

    def make(records, targets=TARGETS, place="dataset"):
        root = tmp_path / place
        full = []
        for number, record in enumerate(records):
            data = pictures[number % len(pictures)] + b"%d" % number  # JPEG readers stop at its end
            image_id = hashlib.sha256(data).hexdigest()
            path = f"images/{image_id[:2]}/{image_id}.jpg"
            storage.write(str(root / path), data)
            drawn = record.get("boxes")
            rows = None if drawn is None else [box.as_row() for box in drawn]
            size = {"width": SIZE[0], "height": SIZE[1], "bytes": len(data)}
            full.append({"image_id": image_id, "path": path, **size, **record, "boxes": rows})
        rows = make_rows(full, targets)
        classes = manifest.derive_targets(rows, targets)
        return versions.commit(Version(str(root), 0, rows, classes), "import", {}, 0).ref

    return make


def box(x=1.0, y=2.0, w=3.5, h=4.25, **labels):
    return Box(x, y, w, h, labels)


LABELS = {"category": "Tomato", "health": "diseased", "disease": "rust"}
RECORDS = [
    {"name": "a/1.jpg", "split": "train", "group": "p1", **LABELS, "symptoms": ["curl"], "severity": 0.25,
     "boxes": [box(**LABELS), box(30, 20, 20, 5, category="bean", severity=0.5)]},
    {"name": "b/1.jpg", "split": "val", "group": "p2", "health": "healthy", "disease": "none", "symptoms": [],
     "boxes": []},
    {"name": "c/2.jpg", "split": "test", "category": "bean", "symptoms": ["curl", "spots"], "boxes": None},
    {"name": "c/3.jpg", "split": None, "boxes": [box()]},
    {"name": "c/4.jpg", "split": "train", "status": "excluded", "reason": "blurred", **LABELS},
]  # fmt: skip


def truth(version):
    """What an import must give back: by hash of the photo."""
    found = {}
    for row in version.usable().iter_rows(named=True):
        labels = {target.name: row[target.name] for target in version.targets if row[target.name] is not None}
        drawn = None if row["boxes"] is None else [json.dumps(each, sort_keys=True) for each in row["boxes"]]
        found[row["image_id"]] = (labels, drawn, row["split"], row["group"])
    return found


def given_back(listing):
    found = {}
    for item in listing.items:
        identity = hashlib.sha256(storage.read(item.url)).hexdigest()
        drawn = None if item.boxes is None else [json.dumps(each.as_row(), sort_keys=True) for each in item.boxes]
        found[identity] = (dict(item.labels), drawn, item.split, item.group)
    return found


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for identity, (labels, drawn, split, group) in wanted.items():
        assert found[identity][0] == labels
        assert found[identity][2:] == (split, group)
        assert (found[identity][1] is None) == (drawn is None)
        for a, b in zip(found[identity][1] or (), drawn or (), strict=True):
            one, other = json.loads(a), json.loads(b)
            assert one["labels"] == other["labels"]
            assert [one[side] for side in "xywh"] == pytest.approx([other[side] for side in "xywh"], abs=1e-6)


@pytest.mark.parametrize("format_", ROUND)
def test_what_is_exported_comes_back(format_, dataset, tmp_path):
    ref = dataset(RECORDS)
    done = export_dataset(ref, str(tmp_path / "out"), format=format_)
    assert done.counts["photos"] == 4
    listing = list_source(str(tmp_path / "out"))
    version = versions.load(ref)
    assert_same(given_back(listing), truth(version))
    assert {target.name: (target.kind, target.unit) for target in listing.targets} == {
        target.name: (target.kind, target.unit) for target in TARGETS
    }


@pytest.mark.parametrize("format_", ["folder", "csv", "parquet", "coco", "cvat", "label-studio"])
def test_a_set_without_boxes_comes_back(format_, dataset, tmp_path):
    ref = dataset([{**record, "boxes": None} for record in RECORDS])
    export_dataset(ref, str(tmp_path / "out"), format=format_)
    assert_same(given_back(list_source(str(tmp_path / "out"))), truth(versions.load(ref)))


@pytest.mark.parametrize("format_", ["coco", "yolo"])
def test_an_export_comes_back_from_a_zip_and_a_tar(format_, dataset, tmp_path):
    ref = dataset(RECORDS)
    export_dataset(ref, str(tmp_path / "out"), format=format_)
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as file, tarfile.open(tmp_path / "out.tgz", "w:gz") as tar:
        tar.add(tmp_path / "out", "packed as a folder")
        for each in (tmp_path / "out").rglob("*"):
            file.write(each, each.relative_to(tmp_path / "out"))
    for name in ("out.zip", "out.tgz"):
        assert_same(given_back(list_source(str(tmp_path / name))), truth(versions.load(ref)))


names = st.text(st.sampled_from("abXY z/._-|'\"<&é\\:"), min_size=1, max_size=8)
labels = names.map(str.strip).filter(bool)
"""As an import leaves them."""

drawn = st.none() | st.lists(
    st.builds(
        Box,
        *[st.floats(-5, 50, allow_nan=False, width=32)] * 4,
        st.fixed_dictionaries({}, optional={"category": labels, "disease": labels, "severity": st.floats(0, 1)}),
    ),
    max_size=3,
)
records = st.lists(
    st.fixed_dictionaries(
        {"split": st.sampled_from([None, "train", "val", "test"]), "group": st.none() | names, "boxes": drawn},
        optional={
            "name": names,
            "category": labels,
            "disease": labels,
            "health": st.sampled_from(["healthy", "diseased"]),
            "symptoms": st.lists(labels, max_size=2, unique=True),
            "severity": st.floats(0, 1),
        },
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("format_", ROUND)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=records, seed=st.integers(0, 10**9))
def test_anything_comes_back(format_, content, seed, dataset, tmp_path):
    place = f"{format_}-{seed}-{hashlib.sha256(repr(content).encode()).hexdigest()[:8]}"
    for number, record in enumerate(content):
        record["source"] = f"s{number}"  # names may repeat
    if (tmp_path / place).exists() or (format_ in {"yolo", "voc"} and not any(record["boxes"] for record in content)):
        return
    ref = dataset(content, place=place)
    out = str(tmp_path / f"{place}-out")
    export_dataset(ref, out, format=format_)
    assert_same(given_back(list_source(out)), truth(versions.load(ref)))


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from("ab"), names), min_size=1, max_size=8, unique=True))
def test_file_names_are_unlike_and_plain(pairs):
    found = naming.file_names([{"source": source, "name": name, "format": "JPEG"} for source, name in pairs])
    assert len({name.rpartition(".")[0].casefold() for name in found}) == len(pairs)
    assert all(storage.suffix(name) == ".jpg" and name[0] != "." and not set(name) & set('/\\:"<>|') for name in found)


def test_file_names_are_kept_where_nothing_is_in_their_way():
    rows = [("s", "x/leaf.JPG"), ("s", "a/1.jpg"), ("s", "b/1.png"), ("s", "0007"), ("t", "a/1.jpg")]
    found = naming.file_names([{"source": source, "name": name, "format": "PNG"} for source, name in rows])
    assert found == ["leaf.JPG", "1-a__1.jpg", "b__1.png", "0007.png", "2-a__1.jpg"]


# --- what each format looks like --------------------------------------------------------------


def tree(folder):
    return sorted(str(each.relative_to(folder)) for each in Path(folder).rglob("*") if each.is_file())


def test_folders(dataset, tmp_path):
    export_dataset(dataset(RECORDS), str(tmp_path / "out"), format="folder")
    assert tree(tmp_path / "out") == [
        "plantml.json", "test/bean/2.jpg", "train/Tomato___rust/a__1.jpg", "unlabelled/3.jpg", "val/healthy/b__1.jpg",
    ]  # fmt: skip


def test_csv_is_read_by_anybody(dataset, tmp_path):
    export_dataset(dataset(RECORDS), str(tmp_path / "out"), format="csv")
    rows = list(csv.DictReader((tmp_path / "out" / "labels.csv").open()))
    by_name = {row["image"]: row for row in rows}
    assert by_name["images/a__1.jpg"]["symptoms"] == "curl"
    assert by_name["images/2.jpg"]["symptoms"] == "curl|spots"
    assert by_name["images/a__1.jpg"]["severity"] == "0.25"


def test_parquet_keeps_types(dataset, tmp_path):
    export_dataset(dataset(RECORDS), str(tmp_path / "out"), format="parquet")
    table = pl.read_parquet(tmp_path / "out" / "labels.parquet")
    assert table.schema["symptoms"] == pl.List(pl.String)
    assert table.schema["severity"] == pl.Float64


def test_coco_has_a_file_a_split(dataset, tmp_path):
    export_dataset(dataset(RECORDS), str(tmp_path / "out"), format="coco")
    found = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    names = {each["id"]: each["name"] for each in found["categories"]}
    assert [(names[each["category_id"]], each["bbox"]) for each in found["annotations"]] == [
        ("Tomato___rust", [1.0, 2.0, 3.5, 4.25]), ("bean", [30.0, 20.0, 20.0, 5.0]),
    ]  # fmt: skip
    assert (tmp_path / "out/images/train" / found["images"][0]["file_name"]).is_file()


def test_yolo_is_normalised(dataset, tmp_path):
    export_dataset(dataset(RECORDS), str(tmp_path / "out"), format="yolo")
    line = (tmp_path / "out/labels/train/a__1.txt").read_text().splitlines()[0].split()
    assert [float(value) for value in line[1:]] == pytest.approx([2.75 / 40, 4.125 / 30, 3.5 / 40, 4.25 / 30])
    assert (tmp_path / "out/labels/val/b__1.txt").read_text() == ""
    assert not (tmp_path / "out/labels/test/2.txt").exists()


def test_voc_lists_its_splits(dataset, tmp_path):
    export_dataset(dataset(RECORDS), str(tmp_path / "out"), format="voc")
    assert (tmp_path / "out/ImageSets/Main/train.txt").read_text() == "a__1\n"
    assert "<xmax>50</xmax>" in (tmp_path / "out/Annotations/a__1.xml").read_text()


def test_cvat_has_labels_as_names_and_attributes(dataset, tmp_path):
    boxes = [box(category="tomato", viability="weak", height_mm=31.0), box(category="bean", viability="__dead")]
    export_dataset(dataset([{"boxes": boxes, "split": "val"}]), str(tmp_path / "out"), format="cvat")
    (image,) = ET.parse(tmp_path / "out/annotations.xml").getroot().findall("image")
    assert image.get("subset") == "val"
    drawn = image.findall("box")
    assert [each.get("label") for each in drawn] == ["tomato", "bean"]
    assert [drawn[0].get(side) for side in ("xtl", "ytl", "xbr", "ybr")] == ["1", "2", "4.5", "6.25"]
    assert {each.get("name"): each.text for each in drawn[0]} == {"viability": "weak", "height_mm": "31"}
    labels = {each["name"]: each["attributes"] for each in json.loads((tmp_path / "out/labels.json").read_text())}
    assert {each["name"]: (each["input_type"], each["values"]) for each in labels["bean"]} == {
        "viability": ("select", ["__undefined__", "__dead", "weak"]), "height_mm": ("number", ["0", "31", "1"]),
    }  # fmt: skip


def test_cvat_needs_no_sidecar_for_boxes_with_attributes(dataset, tmp_path):
    boxes = [box(category="tomato", viability="weak", height_mm=31.5), box(category="bean"), box(category="tomato")]
    export_dataset(dataset([{"boxes": boxes}, {"boxes": []}], ()), str(tmp_path / "out"), format="cvat")
    (tmp_path / "out" / sidecar.FILE).unlink()
    listed = [item.boxes for item in list_source(str(tmp_path / "out")).items]
    assert sorted(listed, key=len) == [(), tuple(boxes)]


def test_label_studio_gets_predictions_to_correct(dataset, tmp_path):
    export_dataset(dataset(RECORDS), str(tmp_path / "out"), format="label-studio")
    tasks = json.loads((tmp_path / "out/tasks.json").read_text())
    task = next(each for each in tasks if each["data"]["image"].endswith("train/a__1.jpg"))
    kinds = Counter(each["type"] for each in task["predictions"][0]["result"])
    assert kinds == {"choices": 4, "rectanglelabels": 2}
    assert '<Choice value="Tomato"' in (tmp_path / "out/interface.xml").read_text()


def test_shards_are_bounded_and_hold_all(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(webdataset, "SHARD_BYTES", 4000)
    export_dataset(
        dataset([{"split": "train", **LABELS} for _ in range(6)]), str(tmp_path / "out"), format="webdataset"
    )
    index = json.loads((tmp_path / "out/index.json").read_text())
    assert len(index["shardlist"]) > 1
    assert sum(shard["nsamples"] for shard in index["shardlist"]) == 6
    for shard in index["shardlist"]:
        with tarfile.open(tmp_path / "out" / shard["url"]) as tar:
            inside = tar.getnames()
            assert len(inside) == 2 * shard["nsamples"]
            record = json.loads(tar.extractfile(inside[1]).read())
            photo = tar.extractfile(inside[0]).read()
            assert record["labels"] == LABELS
            assert record["image_id"] == hashlib.sha256(photo).hexdigest()


def test_crops_are_cut_from_the_upright_photo_and_stay_together(tmp_path, photo, upright, write_photos):
    picture = photo(60, 40, format="PNG", seed=3)
    turned = photo(60, 40, orientation=6, seed=3, quality=98)
    for name, data in (("plain", picture), ("turned", turned)):
        Path(tmp_path, "in/images").mkdir(parents=True, exist_ok=True)
        Path(tmp_path, "in/images", f"{name}.{'png' if name == 'plain' else 'jpg'}").write_bytes(data)
    places = [(1, [0, 0, 20, 10]), (2, [0, 0, 20, 10]), (1, [50, 30, 30, 30]), (1, [99, 99, 5, 5])]
    content = {
        "images": [{"id": 1, "file_name": "plain.png"}, {"id": 2, "file_name": "turned.jpg"}],
        "categories": [{"id": 7, "name": "Tomato___rust"}],
        "annotations": [
            {"id": n, "image_id": i, "category_id": 7, "bbox": box}
            for n, (i, box) in enumerate(places)
        ],
    }  # fmt: skip
    Path(tmp_path, "in/boxes.json").write_text(json.dumps(content))
    source = str(tmp_path / "in")
    done = import_source(source, str(tmp_path / "set"), list_source(source))
    exported = export_dataset(done.version.ref, str(tmp_path / "out"), format="crops")
    assert exported.counts == {"photos": 2, "crops": 3}
    assert "1." in exported.notes[0]
    listing = list_source(str(tmp_path / "out"))
    assert [item.labels["disease"] for item in listing.items] == ["rust"] * 3
    assert Counter(item.group for item in listing.items) == {"images/plain.png": 2, "images/turned.jpg": 1}
    for item in listing.items:
        crop = Image.open(io.BytesIO(storage.read(item.url)))
        if item.name.endswith("_001.jpg"):
            assert crop.size == (20, 10)
            wanted = upright(60, 40, 3).crop((0, 0, 20, 10)).resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
            assert crop.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0)) == pytest.approx(wanted, abs=8)
        else:
            assert crop.size == (10, 10)


def test_croissant_names_every_file_and_its_hash(dataset, tmp_path):
    export_dataset(dataset(RECORDS), str(tmp_path / "out"), format="croissant")
    content = json.loads((tmp_path / "out/metadata.json").read_text())
    for each in content["distribution"]:
        data = (tmp_path / "out" / each["contentUrl"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == each["sha256"]
    sets = {each["@id"]: each for each in content["recordSet"]}
    assert sets["splits"]["dataType"] == "cr:Split"
    header = (tmp_path / "out/labels.csv").read_text().splitlines()[0].split(",")
    assert {each["source"]["extract"]["column"] for each in sets["photos"]["field"]} == set(header)


# --- bundles ----------------------------------------------------------------------------------


def test_a_bundle_lists_every_row_as_it_was(dataset, tmp_path):
    ref = dataset([*RECORDS, {"name": "gone.jpg", "path": None, "image_id": None, "status": "excluded", "reason": "x"}])
    export_dataset(ref, str(tmp_path / "set.zip"), format="bundle")
    listing = list_source(str(tmp_path / "set.zip"))
    by_name = {item.name: item for item in listing.items}
    version = versions.load(ref)
    assert listing.targets == version.targets
    for row in version.rows.iter_rows(named=True):
        item = by_name[row["name"]]
        assert (item.status, item.reason or None, item.split, item.group) == (
            row["status"], row["reason"], row["split"], row["group"]
        )  # fmt: skip
        assert dict(item.labels) == {t.name: row[t.name] for t in TARGETS if row[t.name] is not None}
        if row["path"]:
            assert hashlib.sha256(storage.read(item.url)).hexdigest() == row["image_id"]


def test_a_bundle_becomes_the_same_dataset(cli, tmp_path, write_photos):
    source = write_photos(tmp_path / "photos", ["train/a/1.jpg", "train/b/1.jpg", "test/a/2.png"])
    (source / "train/a/broken.jpg").write_bytes(b"no photo")
    (source / "train/a/empty.jpg").write_bytes(b"")
    assert cli("dataset", "import", source, tmp_path / "one", "--reference").code == 0
    first = cli("dataset", "export", tmp_path / "one", tmp_path / "set.zip", "--format", "bundle", "--json")
    assert first.code == 0, first.err
    second = cli("dataset", "import", tmp_path / "set.zip", tmp_path / "two", "--json")
    assert second.code == 0, second.err
    assert second.json["fingerprint"] == first.json["fingerprint"]
    assert versions.load(str(tmp_path / "two")).usable()["path"].str.starts_with("images/").all()
    again = cli("dataset", "export", tmp_path / "two", tmp_path / "again.zip", "--format", "bundle")
    assert again.code == 0


def test_a_bundle_is_the_same_bytes_each_time(dataset, tmp_path):
    ref = dataset(RECORDS)
    for name in ("a.zip", "b.zip"):
        export_dataset(ref, str(tmp_path / name), format="bundle")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


# --- places -----------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", exporting.NAMES)
def test_any_place_can_be_written(format_, dataset, memory_url):
    ref = dataset(RECORDS)
    out = storage.join(memory_url, "out.zip" if format_ == "bundle" else "out")
    export_dataset(ref, out, format=format_)
    if format_ not in {"webdataset", "crops", "bundle"}:
        assert_same(given_back(list_source(out)), truth(versions.load(ref)))


@pytest.mark.parametrize("format_", ["coco", "webdataset", "bundle"])
def test_an_object_store_can_be_written(format_, dataset, s3_url):
    ref = dataset(RECORDS)
    out = storage.join(s3_url, "out.zip" if format_ == "bundle" else "out")
    export_dataset(ref, out, format=format_)
    if format_ == "coco":
        assert_same(given_back(list_source(out)), truth(versions.load(ref)))
    if format_ == "bundle":
        assert len(given_back(list_source(out))) == len(RECORDS)
    with pytest.raises(InputError):
        export_dataset(ref, out, format=format_)


@pytest.mark.parametrize("format_", ["coco", "yolo", "voc", "cvat", "label-studio"])
def test_the_real_apples_come_back(format_, photos, tmp_path):
    source = str(photos / "apple_boxes")
    done = import_source(source, str(tmp_path / "set"), list_source(source, format="yolo"), reference=True)
    exported = export_dataset(done.version.ref, str(tmp_path / "out"), format=format_)
    assert exported.counts == {"photos": 137, "boxes": 1239}
    assert_same(given_back(list_source(str(tmp_path / "out"))), truth(done.version))


@pytest.mark.parametrize("format_", ["folder", "parquet", "coco"])
def test_the_real_beans_come_back(format_, photos, tmp_path):
    source = str(photos / "bean")
    done = import_source(source, str(tmp_path / "set"), list_source(source), reference=True)
    export_dataset(done.version.ref, str(tmp_path / "out"), format=format_)
    assert_same(given_back(list_source(str(tmp_path / "out"))), truth(done.version))


def test_a_split_alone(dataset, tmp_path):
    done = export_dataset(dataset(RECORDS), str(tmp_path / "out"), format="folder", splits=["train"])
    assert done.counts["photos"] == 1


def test_what_is_there_is_never_written_over(dataset, tmp_path):
    ref = dataset(RECORDS)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        export_dataset(ref, str(tmp_path / "out"), format="coco")
    (tmp_path / "set.zip").write_text("mine")
    with pytest.raises(InputError):
        export_dataset(ref, str(tmp_path / "set.zip"), format="bundle")
    assert tree(tmp_path / "out") == ["mine.txt"]


@pytest.mark.parametrize("format_", ["folder", "coco", "yolo", "csv"])
def test_an_export_that_was_cut_off_is_not_taken_for_a_whole_one(format_, dataset, tmp_path):
    ref = dataset(RECORDS)
    gone = versions.load(ref).usable()["path"][1]
    Path(versions.load(ref).image_url(gone)).unlink()
    with pytest.raises(InputError, match="no longer at"):
        export_dataset(ref, str(tmp_path / "out"), format=format_)
    assert (tmp_path / "out" / sidecar.INCOMPLETE).exists()
    with pytest.raises(InputError, match="unfinished"):
        list_source(str(tmp_path / "out"))


def test_a_photo_that_changed_is_not_exported(dataset, tmp_path):
    ref = dataset(RECORDS)
    storage.write(versions.load(ref).image_url(versions.load(ref).usable()["path"][0]), b"other")
    with pytest.raises(StorageError, match="SHA-256"):
        export_dataset(ref, str(tmp_path / "out"), format="folder")


@pytest.mark.parametrize(
    ("out", "given", "said", "kind"),
    [
        ("out", {"format": "doc"}, "formats: folder", UsageError),
        ("out", {"format": "folder", "splits": ["holdout"]}, "splits: train", UsageError),
        ("out", {"format": "bundle"}, "zip file", InputError),
        ("out.zip", {"format": "coco"}, "like an archive", InputError),
        ("dataset/out", {"format": "coco"}, "are nested", InputError),
        ("photos/out", {"format": "coco"}, "never written to", InputError),
    ],
)
def test_what_makes_no_sense_is_refused(out, given, said, kind, dataset, tmp_path):
    ref = dataset([{**record, "source": str(tmp_path / "photos")} for record in RECORDS])
    with pytest.raises(kind, match=said):
        export_dataset(ref, str(tmp_path / out), **given)
    assert not (tmp_path / out).exists()


@pytest.mark.parametrize("format_", ["yolo", "voc", "crops"])
def test_boxes_are_asked_for_where_a_format_is_nothing_without(format_, dataset, tmp_path):
    with pytest.raises(InputError, match="no boxes"):
        export_dataset(dataset([LABELS]), str(tmp_path / "out"), format=format_)


def test_an_edit_of_the_export_counts(dataset, tmp_path):
    """The sidecar says only what the format cannot: a photo that is moved to another class has that class."""
    export_dataset(dataset(RECORDS), str(tmp_path / "out"), format="folder")
    (tmp_path / "out/val/rust").mkdir()
    (tmp_path / "out/val/healthy/b__1.jpg").rename(tmp_path / "out/val/rust/b__1.jpg")
    item = next(each for each in list_source(str(tmp_path / "out")).items if each.name == "val/rust/b__1.jpg")
    assert item.labels["disease"] == "rust"


def test_labels_that_are_not_wanted_do_not_come_from_the_sidecar_either(dataset, tmp_path):
    export_dataset(dataset(RECORDS), str(tmp_path / "out"), format="yolo")
    listing = list_source(str(tmp_path / "out"), rule="none")
    assert listing.targets == ()
    assert all(item.labels == {} for item in listing.items)
    assert {item.group for item in listing.items} == {"p1", "p2", None}


def test_manifest_columns_of_the_future_do_not_matter_to_bundles():
    from plantml.data.importers import bundle

    assert set(bundle._NEEDED) <= set(manifest.SYSTEM)
