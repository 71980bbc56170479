import pytest

from plantml.data.formats import list_source
from plantml.errors import InputError


@pytest.fixture
def yolo(tmp_path, photo):
    """`yolo({name: text or None})`: files; a photo of 40 x 20 where there is no text."""

    def make(files):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(photo(40, 20) if text is None else text.encode())
        return str(tmp_path)

    return make


def by_name(listing):
    return {item.name: item for item in listing.items}


def places(item):
    return [pytest.approx([box.x, box.y, box.w, box.h]) for box in item.boxes]


LINE = "5 0.5 0.5 0.25 0.5\n"
YAML = "names: {5: rust, 2: spot}\ntrain: images/train\nval: images/val\n"


@pytest.mark.parametrize(
    ("place", "label"),
    [
        ("images/a.jpg", "labels/a.txt"),
        ("images/train/a.jpg", "labels/train/a.txt"),
        ("train/images/a.jpg", "train/labels/a.txt"),
        ("a.jpg", "a.txt"),
        ("sub/a.jpg", "sub/a.txt"),
        ("a.jpg", "labels/a.txt"),
    ],
)
def test_labels_are_looked_for_where_sets_have_them(place, label, yolo):
    root = yolo({"data.yaml": "nc: 6\nnames: {5: rust}", place: None, label: LINE})
    item = by_name(list_source(root))[place]
    assert places(item) == [[15, 5, 10, 10]]
    assert item.boxes[0].labels == {"health": "diseased", "disease": "rust"}


def test_a_photo_without_a_label_file_is_a_true_negative(yolo):
    root = yolo({"data.yaml": YAML, "images/a.jpg": None, "images/b.jpg": None, "images/c.jpg": None,
                 "labels/a.txt": LINE, "labels/b.txt": ""})  # fmt: skip
    listing = list_source(root)
    assert {name: item.boxes is not None and len(item.boxes) for name, item in by_name(listing).items()} == {
        "images/a.jpg": 1, "images/b.jpg": 0, "images/c.jpg": 0
    }  # fmt: skip
    assert "Photos without a label file, imported as photos without boxes: 1." in listing.notes


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        ({"data.yaml": YAML}, {"images/train/a.jpg": "train", "images/val/b.jpg": "val"}),
        ({"data.yaml": "path: /elsewhere/set\n" + YAML}, {"images/train/a.jpg": "train", "images/val/b.jpg": "val"}),
        ({"data.yaml": "names: [x]\ntrain: ../images/val\nval: images/train"},
         {"images/train/a.jpg": "val", "images/val/b.jpg": "train"}),
        ({"data.yaml": "names: [x]\ntrain: images\nval: images"},
         {"images/train/a.jpg": "train", "images/val/b.jpg": "val"}),
        ({"data.yaml": "names: [x]\ntrain: t.txt\ntest: [images/val]", "t.txt": "./images/train/a.jpg\n"},
         {"images/train/a.jpg": "train", "images/val/b.jpg": "test"}),
        ({"classes.txt": "x\n", "labels/train/a.txt": "", "train.txt": "/old/place/images/val/b.jpg\n"},
         {"images/train/a.jpg": None, "images/val/b.jpg": "train"}),
    ],
)  # fmt: skip
def test_splits(files, splits, yolo):
    root = yolo({**files, "images/train/a.jpg": None, "images/val/b.jpg": None})
    assert {item.name: item.split for item in list_source(root).items} == splits


def test_classes_in_a_list_are_numbered_by_its_lines(yolo):
    root = yolo({"classes.txt": "first\n\nthird\n", "a.jpg": None, "a.txt": "2 .5 .5 .5 .5\n0 .5 .5 .5 .5 0.9\n"})
    (item,) = list_source(root, rule="category").items
    assert [box.labels for box in item.boxes] == [{"category": "third"}, {"category": "first"}]


def test_polygons_become_the_box_around_them(yolo):
    root = yolo({"data.yaml": YAML, "a.jpg": None, "a.txt": "2 0.1 0.2 0.5 0.2 0.3 0.8\n"})
    listing = list_source(root)
    assert places(listing.items[0]) == [[4, 4, 16, 12]]
    assert listing.notes == ("Polygons imported as their bounding box: 1.",)


def test_numbers_are_taken_as_they_are(yolo):
    root = yolo({"data.yaml": YAML, "a.jpg": None, "a.txt": "2 20 10 4 2\n"})
    assert places(list_source(root).items[0]) == [[18 * 40, 9 * 20, 4 * 40, 2 * 20]]


def test_boxes_are_in_pixels_of_the_upright_photo(yolo, photo, tmp_path):
    root = yolo({"data.yaml": YAML, "a.txt": "2 0.5 0.5 0.5 0.5\n"})
    (tmp_path / "a.jpg").write_bytes(photo(30, 60, orientation=6))
    assert places(list_source(root).items[0]) == [[7.5, 15, 15, 30]]


@pytest.mark.parametrize("line", ["2 0.5 0.5 0.5", "x 0 0 1 1", "2 nan 0 1 1", "2 .1 .2 .3 .4 .5 .6 .7"])
def test_a_line_that_makes_no_sense_excludes_its_photo(line, yolo):
    root = yolo({"data.yaml": YAML, "a.jpg": None, "b.jpg": None, "b.txt": LINE, "a.txt": f"\n{line}\n"})
    listing = list_source(root)
    item = by_name(listing)["a.jpg"]
    assert (item.status, item.boxes) == ("excluded", None)
    assert item.reason.startswith("bad-annotation: a.txt, line 2")
    assert by_name(listing)["b.jpg"].status == "ok"


def test_a_class_without_a_name_is_an_error_that_names_it(yolo):
    root = yolo({"data.yaml": YAML, "a.jpg": None, "a.txt": "0 .5 .5 .5 .5\n"})
    with pytest.raises(InputError, match="class 0 in line 1: the dataset names 2 classes: 5 rust, 2 spot"):
        list_source(root)


def test_no_names_no_set(yolo):
    with pytest.raises(InputError, match="does not name its classes"):
        list_source(yolo({"a.jpg": None, "a.txt": LINE}), format="yolo")


@pytest.mark.parametrize(("photo_", "label"), [("images/a.jpg", "labels/a.txt"), ("a.jpg", "a.txt")])
def test_labels_without_class_names_are_not_dropped_silently(photo_, label, yolo):
    root = yolo({photo_: None, label: LINE, "images/b.jpg": None, "labels/b.txt": ""})
    with pytest.raises(InputError, match="does not name its classes") as caught:
        list_source(root)
    assert "--format folder" in caught.value.hint
    assert len(list_source(root, format="folder").items) == 2


@pytest.mark.parametrize("text", ["a photo of beans", "1 2 3", ""])
def test_other_texts_beside_photos_are_no_labels(text, yolo):
    listing = list_source(yolo({"a.jpg": None, "a.txt": text}))
    assert by_name(listing)["a.jpg"].boxes is None


def test_a_photo_that_cannot_be_read_keeps_no_boxes(yolo):
    root = yolo({"data.yaml": YAML, "a.jpg": "text", "a.txt": LINE})
    listing = list_source(root)
    assert listing.items[0].boxes is None
    assert listing.notes == ("Photos with boxes that cannot be read: 1.",)


def test_its_description_alone_may_be_named(yolo):
    root = yolo({"data.yaml": YAML, "images/train/a.jpg": None, "labels/train/a.txt": LINE})
    assert len(list_source(f"{root}/data.yaml").items[0].boxes) == 1


def test_the_real_apples_say_the_same_as_coco(photos):
    folder = photos / "apple_boxes"
    yolo = {item.name.rpartition("/")[2]: item.boxes for item in list_source(str(folder), format="yolo").items}
    coco = {item.name.rpartition("/")[2]: item.boxes for item in list_source(str(folder / "instances.json")).items}
    assert yolo.keys() == coco.keys()
    for name, boxes in yolo.items():
        assert sorted([box.x, box.y, box.w, box.h] for box in boxes) == [
            pytest.approx(each, abs=1e-3) for each in sorted([box.x, box.y, box.w, box.h] for box in coco[name])
        ]
