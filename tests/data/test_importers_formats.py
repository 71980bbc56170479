"""VOC, CVAT, Label Studio, Hugging Face; how a format is told; archives as sources."""

import io
import json
import tarfile
import zipfile

import pytest

from plantml import storage
from plantml.data.boxes import Box
from plantml.data.formats import FORMATS, list_source
from plantml.data.importing import import_source
from plantml.errors import InputError, UsageError


@pytest.fixture
def files(tmp_path):
    """`files({name: text})`: files under a folder; listing these never opens a photo."""

    def make(content, place="set"):
        for name, text in content.items():
            (tmp_path / place / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / place / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(tmp_path / place)

    return make


def by_name(listing):
    return {item.name: item for item in listing.items}


# --- Pascal VOC -------------------------------------------------------------------------------


def voc(name, objects, size=(20, 10)):
    boxes = "".join(
        f"<object><name>{label}</name>"
        + ("<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>".format(*box) if box else "")
        + "</object>"
        for label, box in objects
    )
    return (
        f"<annotation><filename>{name}</filename><size><width>{size[0]}</width><height>{size[1]}</height>"
        f"<depth>3</depth></size>{boxes}</annotation>"
    )


def test_voc(files):
    root = files({
        "Annotations/a.xml": voc("wrong.jpg", [("rust", (1, 2, 4, 6)), ("spot", (-1.5, 0, 30, 10))]),
        "Annotations/n.xml": voc("other.png", []),
        "Annotations/gone.xml": voc("gone.jpg", []),
        "JPEGImages/a.jpg": "", "JPEGImages/other.png": "", "JPEGImages/b.jpg": "",
        "ImageSets/Main/train.txt": "a\n", "ImageSets/Main/val.txt": "other\nb\n",
        "ImageSets/Main/rust_val.txt": "b 1\n",
    })  # fmt: skip
    listing = list_source(root)
    assert "Photos without an XML file, imported as photos without boxes: 1." in listing.notes
    found = by_name(listing)
    assert [(box.x, box.y, box.w, box.h, box.labels["disease"]) for box in found["JPEGImages/a.jpg"].boxes] == [
        (1, 2, 3, 4, "rust"), (-1.5, 0, 31.5, 10, "spot")
    ]  # fmt: skip
    assert found["JPEGImages/a.jpg"].size == (20, 10)
    assert found["JPEGImages/b.jpg"].boxes == found["JPEGImages/other.png"].boxes == ()
    assert found["JPEGImages/gone.jpg"].url == f"{root}/JPEGImages/gone.jpg"
    assert {name: item.split for name, item in found.items()} == {
        "JPEGImages/a.jpg": "train", "JPEGImages/b.jpg": "val", "JPEGImages/gone.jpg": None,
        "JPEGImages/other.png": "val",
    }  # fmt: skip


def test_voc_that_names_another_photo_is_told(files):
    root = files({"a.jpg": "", "b.jpg": "", "a.xml": voc("b.jpg", [("rust", (1, 2, 4, 6))]), "b.xml": voc("b.jpg", [])})
    listing = list_source(root)
    assert [len(item.boxes) for item in listing.items] == [1, 0]
    assert any("name another photo" in note for note in listing.notes)


def test_voc_beside_the_photo_and_without_a_size(files):
    root = files({"train/a.jpg": "", "train/a.xml": voc("a.jpg", [("rust", None)], (0, 0))})
    (item,) = list_source(root).items
    assert (item.labels["disease"], item.boxes, item.size, item.split) == ("rust", None, None, "train")


@pytest.mark.parametrize(
    ("xml", "said"),
    [
        ("<annotation><object>", "not XML"),
        (voc("a.jpg", [("rust", ("", 0, 1, 1))]), "without a xmin"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><annotation>&a;</annotation>', "Entities"),
    ],
)
def test_xml_that_makes_no_sense_or_does_harm_excludes_its_photo(xml, said, files):
    root = files({"a.jpg": "", "b.jpg": "", "a.xml": xml, "b.xml": voc("b.jpg", [])})
    item = by_name(list_source(root, format="voc"))["a.jpg"]
    assert item.status == "excluded"
    assert said in item.reason


# --- CVAT -------------------------------------------------------------------------------------

CVAT_LABELS = (
    "<meta><task><labels><label><name>bean</name><attributes>"
    "<attribute><name>severity</name><input_type>number</input_type></attribute>"
    "<attribute><name>grade</name><input_type>select</input_type></attribute>"
    "</attributes></label></labels></task></meta>"
)


def cvat(*images):
    """Images as (name, what is drawn, more XML attributes)."""
    listed = (
        f'<image id="{number}" name="{name}" width="20" height="10" {more}>{shapes}</image>'
        for number, (name, shapes, more) in enumerate(images)
    )
    return f"<annotations><version>1.1</version>{CVAT_LABELS}{''.join(listed)}</annotations>"


def cvat_box(sides, inside="", more=""):
    xtl, ytl, xbr, ybr = sides
    return (
        f'<box label="bean" occluded="1" z_order="0" xtl="{xtl}" ytl="{ytl}" xbr="{xbr}" ybr="{ybr}" {more}>'
        f"{inside}</box>"
    )


def attribute(name, text):
    return f'<attribute name="{name}">{text}</attribute>'


def test_cvat(files):
    attributes = attribute("severity", "0.25") + attribute("grade", "2") + attribute("Not a target", "x")
    root = files({
        "annotations.xml": cvat(
            ("a.jpg", cvat_box((1, 2, 4.5, 6), attributes) + "<points label='bean' points='1,1'/>", 'subset="Train"'),
            ("sub/b.jpg", "", 'subset="Validation"'),
            ("c.jpg", '<tag label="bean">' + attribute("viability", "weak") + "</tag>", ""),
        ),
        "images/a.jpg": "", "images/sub/b.jpg": "", "images/c.jpg": "", "images/other.jpg": "",
    })  # fmt: skip
    listing = list_source(root)
    items = by_name(listing)
    labels = {"category": "bean", "severity": 0.25, "grade": "2"}
    assert items["images/a.jpg"].boxes == (Box(1, 2, 3.5, 4, labels),)
    assert items["images/a.jpg"].size == (20, 10)
    assert items["images/sub/b.jpg"].boxes == items["images/c.jpg"].boxes == ()
    assert items["images/c.jpg"].labels == {"category": "bean", "viability": "weak"}
    assert [items[name].split for name in ("images/a.jpg", "images/sub/b.jpg", "images/c.jpg")] == [
        "train",
        "val",
        None,
    ]
    assert len(items) == 3
    assert any(note.startswith("Points, lines") for note in listing.notes)
    assert any("not named like targets" in note for note in listing.notes)


def test_cvat_shapes_are_imported_as_the_box_around_them(files):
    shapes = (
        cvat_box((0, 0, 8, 4), more='rotation="90"')
        + '<ellipse label="bean" cx="10" cy="5" rx="3" ry="1" rotation="90"/>'
        + '<polygon label="bean" points="1,1;5,2;3,7"/>'
        + '<mask label="bean" left="1" top="2" width="3" height="4" rle="0, 12"/>'
    )
    root = files({"annotations.xml": cvat(("a.jpg", shapes, "")), "a.jpg": ""})
    listing = list_source(root)
    sides = [(box.x, box.y, box.w, box.h) for box in listing.items[0].boxes]
    expected = [(2, -2, 4, 8), (9, 2, 2, 6), (1, 1, 4, 6), (1, 2, 3, 4)]
    assert sides == [pytest.approx(box, abs=1e-9) for box in expected]
    assert len(listing.notes) == 4


def test_cvat_tags_alone_say_nothing_of_boxes(files):
    root = files(
        {"annotations.xml": cvat(("a.jpg", '<tag label="bean"/>', ""), ("b.jpg", "", "")), "a.jpg": "", "b.jpg": ""}
    )
    assert [item.boxes for item in list_source(f"{root}/annotations.xml").items] == [None, None]


def test_the_photos_of_a_cvat_file_alone_are_imported(files, photo, tmp_path):
    xml = cvat(("a.jpg", cvat_box((0, 0, 1, 1)), ""))
    root = files({"annotations.xml": xml, "images/a.jpg": photo(20, 10)})
    source = f"{root}/annotations.xml"
    version = import_source(source, str(tmp_path / "dataset"), list_source(source)).version
    assert version.usable()["name"].to_list() == ["images/a.jpg"]


@pytest.mark.parametrize("side", ["", "x", "nan", "inf", "1e400"])
def test_a_cvat_box_without_numbers_excludes_its_photo(side, files):
    xml = cvat(("a.jpg", cvat_box((side, 0, 1, 1)), ""), ("b.jpg", cvat_box((0, 0, 1, 1)), ""))
    items = by_name(list_source(files({"annotations.xml": xml, "a.jpg": "", "b.jpg": ""})))
    assert items["a.jpg"].status == "excluded"
    assert "xtl" in items["a.jpg"].reason
    assert len(items["b.jpg"].boxes) == 1


@pytest.mark.parametrize(
    ("xml", "said"),
    [
        ("<annotations><image>", "not XML"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><annotations>&a;</annotations>', "Entities"),
        ("<annotations><track id='0' label='bean'/></annotations>", "tracks of a video"),
        (voc("a.jpg", []), "root is <annotation>"),
        (cvat(("a.jpg", "", ""), ("a.jpg", "", "")), "named twice"),
    ],
)
def test_a_file_for_all_photos_that_is_not_cvat_is_refused(xml, said, files):
    root = files({"annotations.xml": xml, "a.jpg": ""})
    with pytest.raises(InputError) as caught:
        list_source(f"{root}/annotations.xml", format="cvat")
    assert said in f"{caught.value} {caught.value.why}"


# --- Label Studio -----------------------------------------------------------------------------


def task(image, *results, **more):
    return {"id": 1, "data": {"image": image}, "annotations": [{"result": list(results)}], **more}


def choice(*names, control="choice"):
    return {"type": "choices", "from_name": control, "to_name": "image", "value": {"choices": list(names)}}


def rectangle(x, y, w, h, *labels, rotation=0):
    value = {"x": x, "y": y, "width": w, "height": h, "rotation": rotation, "rectanglelabels": list(labels)}
    return {"type": "rectanglelabels", "original_width": 200, "original_height": 100, "value": value}


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("/data/upload/3/0a1b2c3d-a.jpg", "images/a.jpg"),
        ("/data/local-files/?d=my%20set/images/a.jpg", "images/a.jpg"),
        ("s3://bucket/images/a.jpg", "images/a.jpg"),
        ("images/a.jpg", "images/a.jpg"),
        ("s3://bucket/z.jpg", "s3://bucket/z.jpg"),
        ("https://x.org/z.jpg", "https://x.org/z.jpg"),
    ],
)
def test_label_studio_photos_are_found(image, name, files):
    root = files({"export.json": json.dumps([task(image)]), "images/a.jpg": ""})
    (item,) = list_source(root).items
    assert item.name == name
    assert item.url == (name if "://" in name else f"{root}/{name}")


def test_label_studio(files):
    tasks = [
        task("a.jpg", choice("Tomato___rust"), rectangle(10, 20, 50, 10, "lesion")),
        task("b.jpg", choice("none", control="disease")),
        task("c.jpg", rectangle(50, 50, 10, 20, "lesion", rotation=90)),
        {"id": 4, "data": {"image": "d.jpg"}, "annotations": [], "predictions": [{"result": [choice("x")]}]},
        {"id": 5, "data": {"image": "e.jpg"}, "annotations": [{"was_cancelled": True, "result": [choice("x")]}]},
    ]
    root = files({"tasks.json": json.dumps(tasks), **{f"{name}.jpg": "" for name in "abcde"}})
    listing = list_source(root)
    found = by_name(listing)
    assert found["b.jpg"].labels == {"disease": "none", "health": "healthy"}
    assert found["b.jpg"].boxes == ()
    assert [(box.x, box.y, box.w, box.h) for box in found["a.jpg"].boxes] == [(20, 20, 100, 10)]
    assert found["a.jpg"].size == (200, 100)
    assert [(round(box.x), round(box.y), round(box.w), round(box.h)) for box in found["c.jpg"].boxes] == [
        (80, 50, 20, 20)
    ]
    assert [(found[name].labels, found[name].boxes) for name in ("d.jpg", "e.jpg")] == [({}, None)] * 2
    assert sorted(listing.notes) == [
        "Rotated rectangles imported as their bounding box: 1.",
        "Tasks with predictions alone, which are no labels until somebody submits them in Label Studio: 1.",
    ]


@pytest.mark.parametrize(
    ("table", "notes"),
    [
        ("image,disease,site\na.jpg,rust,field\n", ["labels.csv was not read", "coco", "disease of photos"]),
        ("image,plants\na.jpg,3\n", []),
        ("\0", []),
    ],
)
def test_labels_of_photos_beside_boxes_are_named(files, table, notes):
    image = {"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2]}
    coco = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "plum"}]}
    listing = list_source(files({"boxes.json": json.dumps(coco), "labels.csv": table, "a.jpg": ""}))
    assert [len(item.boxes) for item in listing.items] == [1]
    assert len(listing.notes) == bool(notes)
    assert all(words in listing.notes[0] for words in notes)


def test_several_choices_make_a_target_of_several(files):
    tasks = [task("a.jpg", choice("rust", "spot", control="disease")), task("b.jpg", choice("rust", control="disease"))]
    listing = list_source(files({"t.json": json.dumps(tasks), "a.jpg": "", "b.jpg": ""}))
    assert {target.name: target.kind for target in listing.targets}["disease"] == "multilabel"
    assert by_name(listing)["b.jpg"].labels["disease"] == ["rust"]


# --- Hugging Face -----------------------------------------------------------------------------


def test_hugging_face_folders(files):
    root = files({
        "train/metadata.csv": "file_name,label\na.jpg,rust\nsub/b.jpg,healthy\n",
        "test/metadata.csv": "file_name,label\na.jpg,spot\n",
        "train/a.jpg": "", "train/sub/b.jpg": "", "test/a.jpg": "", "test/extra.jpg": "",
    })  # fmt: skip
    listing = list_source(root)
    assert {name: (item.split, item.labels["disease"]) for name, item in by_name(listing).items()} == {
        "test/a.jpg": ("test", "spot"), "train/a.jpg": ("train", "rust"), "train/sub/b.jpg": ("train", "none")
    }  # fmt: skip
    assert by_name(listing)["train/sub/b.jpg"].url == f"{root}/train/sub/b.jpg"
    assert listing.skipped == {"named by no annotation": 1}


def test_hugging_face_objects(files):
    rows = [
        {"file_name": "a.jpg", "objects": {"bbox": [[1, 2, 3, 4]], "categories": ["rust"]}},
        {"file_name": "b.jpg", "objects": {"bbox": [], "categories": []}},
    ]
    root = files({"metadata.jsonl": "\n".join(map(json.dumps, rows)), "a.jpg": "", "b.jpg": ""})
    found = by_name(list_source(root))
    assert found["a.jpg"].boxes == (Box(1, 2, 3, 4, {"health": "diseased", "disease": "rust"}),)
    assert found["b.jpg"].boxes == ()


# --- how a format is told ---------------------------------------------------------------------

COCO = json.dumps({"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": []})


def test_several_fitting_formats_are_named(files):
    root = files({"c.json": COCO, "classes.txt": "x\n", "a.jpg": "", "a.txt": ""})
    with pytest.raises(InputError, match="several formats: it has the files of yolo and coco") as caught:
        list_source(root)
    assert "--format yolo" in caught.value.hint
    assert list_source(root, format="coco").items[0].boxes is None
    assert list_source(root, format="yolo").items[0].boxes == ()


def test_nothing_that_fits_is_told_with_what_could(files):
    with pytest.raises(InputError, match="No photos") as caught:
        list_source(files({"readme.md": "hi"}))
    assert all(name in caught.value.hint for name in FORMATS)
    with pytest.raises(UsageError, match="formats: auto"):
        list_source(files({"a.jpg": ""}), format="tfrecord")


@pytest.mark.parametrize("format_", ["coco", "voc", "cvat", "label-studio", "hf", "table", "bundle"])
def test_a_folder_of_photos_is_not_read_as_something_else(format_, files):
    with pytest.raises(InputError):
        list_source(files({"a/1.jpg": "", "b/2.jpg": ""}), format=format_)


@pytest.mark.parametrize("content", ["{}", "[]", "[1]", "no json", '{"images": []}', '[{"data": {}}]'])
def test_json_that_is_nothing_is_told(content, files):
    root = files({"x.json": content, "a.jpg": ""})
    with pytest.raises(InputError):
        list_source(f"{root}/x.json")
    for format_ in ("coco", "label-studio"):
        with pytest.raises(InputError):
            list_source(f"{root}/x.json", format=format_)


def test_other_files_beside_photos_do_not_matter(files):
    root = files(
        {"a/1.jpg": "", "a/1.json": COCO, "b/2.jpg": "", "package.json": "{}", "k.xml": "<k/>", "c.yaml": "a: 1"}
    )
    assert {item.meta["class"] for item in list_source(root).items} == {"a", "b"}


def test_a_list_beside_the_photos_is_not_passed_over_without_a_word(files):
    root = files({"a/1.jpg": "", "b/2.jpg": "", "labels.csv": "image,label\na/1.jpg,x\nb/2.jpg,y\n"})
    assert any("labels.csv" in note for note in list_source(root).notes)
    assert len(list_source(root, format="table", rule="kind").targets) == 1


@pytest.mark.parametrize("name", ["a/1.xml", "data.yaml", "labels.json"])
def test_annotations_that_cannot_be_read_are_not_passed_over_without_a_word(name, files):
    root = files({"a/1.jpg": "", "b/2.jpg": "", name: "<annotation><object>{"})
    assert any(name in note and "--format" in note for note in list_source(root).notes)


def test_the_taxonomy_and_rule_count_for_boxes_too(files):
    content = json.loads(COCO) | {
        "categories": [{"id": 3, "name": "rust"}],
        "annotations": [{"image_id": 1, "category_id": 3, "bbox": [0, 0, 1, 1]}],
    }
    root = files({"c.json": json.dumps(content), "a.jpg": ""})
    assert list_source(root, rule="none").items[0].boxes == (Box(0, 0, 1, 1, {}),)
    assert list_source(root, rule="lesion").items[0].boxes == (Box(0, 0, 1, 1, {"lesion": "rust"}),)


@pytest.mark.parametrize("content", ["[]", "{}", '{"plantml_sidecar": 2}', '{"plantml_sidecar": 1, "format": "coco"}'])
def test_a_sidecar_that_is_none_is_told(content, files):
    with pytest.raises(InputError):
        list_source(files({"plantml.json": content, "a/1.jpg": "", "b/1.jpg": ""}))


def test_an_annotation_names_nothing_outside_its_set(files, tmp_path):
    content = json.loads(COCO) | {"images": [{"id": 1, "file_name": "../../secret.jpg"}]}
    (tmp_path / "secret.jpg").write_text("")
    root = files({"in/c.json": json.dumps(content), "in/a.jpg": ""}, "set/deep")
    assert list_source(root).items[0].url.startswith(root)


# --- archives ---------------------------------------------------------------------------------


def pack(kind, content):
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as file:
            for name, data in content.items():
                file.writestr(name, data)
        return buffer.getvalue()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_is_a_source_wherever_it_lies(kind, url, photo, tmp_path):
    content = {
        "train/rust/1.jpg": photo(seed=1), "test/healthy/1.jpg": photo(seed=2),
        "__MACOSX/train/rust/1.jpg": b"", "train/.DS_Store": b"", "../evil.jpg": b"", "notes.md": b"",
    }  # fmt: skip
    source = storage.join(url, f"photos.{kind}")
    storage.write(source, pack(kind, content))
    listing = list_source(source)
    assert {item.name: item.split for item in listing.items} == {
        "test/healthy/1.jpg": "test",
        "train/rust/1.jpg": "train",
    }
    assert listing.skipped == {"hidden": 2, "unsafe name in the archive": 1, "not an image by its name": 1}
    for number, reference in enumerate((False, True)):
        done = import_source(source, str(tmp_path / f"set{number}"), listing, reference=reference)
        assert (done.added, list(done.excluded)) == (2, [])
        for path in done.version.rows["path"]:
            assert storage.read(done.version.image_url(path)) in content.values()


def test_a_list_in_an_archive_names_nothing_outside(tmp_path):
    (tmp_path / "x.zip").write_bytes(
        pack("zip", {"labels.csv": b"image,label\n/etc/hostname,x\n", "good.csv": b"image\na.jpg\n"})
    )
    (item,) = list_source(f"zip://labels.csv::{tmp_path}/x.zip").items
    assert "--allow-root /etc" in item.refusal
    assert list_source(f"zip://good.csv::{tmp_path}/x.zip").items[0].url == f"zip://a.jpg::{tmp_path}/x.zip"


@pytest.mark.parametrize("name", ["none.zip", "none.tar.gz", "none.json", "none"])
def test_nothing_there_is_told(name, tmp_path):
    with pytest.raises(InputError, match="nothing at"):
        list_source(str(tmp_path / name))


def test_the_command_takes_a_format(cli, files, photo, tmp_path):
    root = files({"c.json": COCO, "classes.txt": "x\n", "a.jpg": photo(), "a.txt": "0 .5 .5 .5 .5\n"})
    assert cli("dataset", "import", root, tmp_path / "data").code == 3
    done = cli("dataset", "import", root, tmp_path / "data", "--format", "yolo", "--json")
    assert done.code == 0, done.err
    exported = cli("dataset", "export", tmp_path / "data", tmp_path / "out", "--format", "coco", "--json")
    assert exported.json["counts"] == {"photos": 1, "boxes": 1}
    drafted = cli(
        "dataset", "import", root, tmp_path / "data", "--format", "yolo", "--draft-taxonomy", tmp_path / "map.yaml"
    )
    assert drafted.code == 0
    assert "x:" in (tmp_path / "map.yaml").read_text()
