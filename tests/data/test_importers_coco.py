import json

import pytest

from plantml.data.boxes import Box
from plantml.data.formats import list_source
from plantml.errors import InputError

CATEGORIES = [{"id": 40, "name": "Tomato___healthy"}, {"id": 7, "name": "Tomato___rust"}]


@pytest.fixture
def coco(tmp_path):
    """`coco(file, images, annotations)`: a COCO file, and empty photos; listing never opens them."""

    def make(file, images, annotations=(), photos=None, **more):
        content = {
            "images": [{"id": number, "width": 20, "height": 10, **image} for number, image in enumerate(images)],
            "annotations": [{"id": number, **each} for number, each in enumerate(annotations)],
            "categories": CATEGORIES,
            **more,
        }
        for name, text in [(file, json.dumps(content)), *((photo, "") for photo in photos or ())]:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return str(tmp_path)

    return make


def by_name(listing):
    return {item.name: item for item in listing.items}


RUST = {"category": "Tomato", "health": "diseased", "disease": "rust"}


def test_categories_are_looked_up_by_id(coco):
    root = coco(
        "instances.json",
        [{"file_name": "a.jpg"}, {"file_name": "b.jpg"}],
        [{"image_id": 0, "category_id": 7, "bbox": [1, 2, 3, 4]},
         {"image_id": 0, "category_id": 40, "bbox": [-5, 0, 99, 1.5]}],
        ["a.jpg", "b.jpg", "c.jpg"],
    )  # fmt: skip
    listing = list_source(root)
    healthy = {"category": "Tomato", "health": "healthy", "disease": "none"}
    assert by_name(listing)["a.jpg"].boxes == (Box(1, 2, 3, 4, RUST), Box(-5, 0, 99, 1.5, healthy))
    assert by_name(listing)["b.jpg"].boxes == ()
    assert by_name(listing)["a.jpg"].size == (20, 10)
    assert by_name(listing)["a.jpg"].labels == {}
    assert listing.targets == ()
    assert listing.classes == ("Tomato___healthy", "Tomato___rust")
    assert listing.skipped == {"named by no annotation": 1}


def test_a_crowd_is_no_plant(coco):
    annotations = [{"image_id": 0, "category_id": 7, "bbox": [1, 2, 3, 4]},
                   {"image_id": 0, "category_id": 7, "bbox": [0, 0, 20, 10], "iscrowd": 1}]  # fmt: skip
    listing = list_source(coco("instances.json", [{"file_name": "a.jpg"}], annotations, ["a.jpg"]))
    assert by_name(listing)["a.jpg"].boxes == (Box(1, 2, 3, 4, RUST),)
    assert any("Crowd regions" in note and note.endswith(": 1.") for note in listing.notes)


def test_attributes_of_a_box_are_its_labels(coco):
    own = {"occluded": True, "rotation": 12.5, "track_id": 3}
    root = coco(
        "instances.json",
        [{"file_name": "a.jpg"}],
        [{"image_id": 0, "category_id": 7, "bbox": [1, 2, 3, 4],
          "attributes": {**own, "viability": "weak", "severity": 0.25, "disease": "early rust", "note": ""}},
         {"image_id": 0, "bbox": [1, 2, 3, 4], "attributes": {"viability": "missing"}},
         {"image_id": 0, "bbox": [1, 2, 3, 4], "attributes": {"Leaf count": 3, "split": "x", "wet": True, "n": None}}],
        ["a.jpg"],
    )  # fmt: skip
    listing = list_source(root)
    assert [box.labels for box in by_name(listing)["a.jpg"].boxes] == [
        {**RUST, "disease": "early rust", "viability": "weak", "severity": 0.25},
        {"viability": "missing"},
        {},
    ]
    assert listing.notes == ("Attributes of boxes that are not named like targets, or neither text nor number: 3.",)


@pytest.mark.parametrize("attributes", ["[1]", '"x"', '{"severity": 1e999}'])
def test_other_attributes_do_not_stop_an_import(coco, tmp_path, attributes):
    root = coco("c.json", [{"file_name": "a.jpg"}], [{"image_id": 0, "bbox": [1, 2, 3, 4]}], ["a.jpg"])
    text = (tmp_path / "c.json").read_text()
    (tmp_path / "c.json").write_text(text.replace('"bbox"', f'"attributes": {attributes}, "bbox"'))
    assert by_name(list_source(root))["a.jpg"].boxes == (Box(1, 2, 3, 4),)


def test_an_annotation_without_a_box_labels_the_photo(coco):
    root = coco(
        "c.json",
        [{"file_name": "a.jpg"}, {"file_name": "b.jpg"}],
        [{"image_id": 0, "category_id": 7}],
        ["a.jpg", "b.jpg"],
    )
    listing = list_source(root)
    assert by_name(listing)["a.jpg"].labels == RUST
    assert by_name(listing)["a.jpg"].boxes is None
    assert by_name(listing)["b.jpg"].labels == {}
    assert [target.name for target in listing.targets] == ["category", "health", "disease"]


def test_two_classes_of_one_photo_make_the_target_one_of_several(coco):
    names = [{"id": 1, "name": "rust"}, {"id": 2, "name": "blight"}]
    both = [{"image_id": 0, "category_id": 1}, {"image_id": 0, "category_id": 2}, {"image_id": 1, "category_id": 1}]
    root = coco("c.json", [{"file_name": "a.jpg"}, {"file_name": "b.jpg"}], both, ["a.jpg", "b.jpg"], categories=names)
    listing = list_source(root)
    assert {target.name: target.kind for target in listing.targets} == {"health": "class", "disease": "multilabel"}
    assert by_name(listing)["a.jpg"].labels == {"health": "diseased", "disease": ["rust", "blight"]}
    assert by_name(listing)["b.jpg"].labels == {"health": "diseased", "disease": ["rust"]}


def test_without_annotations_nobody_has_looked(coco):
    root = coco("image_info_test.json", [{"file_name": "a.jpg"}], photos=["a.jpg"], annotations=())
    (item,) = list_source(root).items
    assert (item.boxes, item.labels, item.split) == (None, {}, "test")


def test_a_polygon_without_a_box_becomes_the_box_around_it(coco):
    polygon = {"image_id": 0, "category_id": 7, "segmentation": [[1, 1, 4, 2, 3, 9]]}
    listing = list_source(coco("c.json", [{"file_name": "a.jpg"}], [polygon], ["a.jpg"]))
    assert listing.items[0].boxes == (Box(1, 1, 3, 8, RUST),)
    assert listing.notes == ("Polygons imported as their bounding box: 1.",)


@pytest.mark.parametrize(
    ("file", "said", "photo", "split"),
    [
        ("instances.json", "a.jpg", "a.jpg", None),
        ("instances.json", "images/a.jpg", "images/a.jpg", None),
        ("instances.json", "a.jpg", "images/a.jpg", None),
        ("annotations/instances_train.json", "a.jpg", "images/a.jpg", "train"),
        ("annotations/instances_val2017.json", "a.jpg", "val2017/a.jpg", "val"),
        ("annotations/instances_test.json", "a.jpg", "images/test/a.jpg", "test"),
        ("valid/_annotations.coco.json", "a.jpg", "valid/a.jpg", "val"),
        ("annotations/x.json", "C:\\photos\\a.jpg", "somewhere/else/a.jpg", None),
        ("annotations/x.json", "../images/a.jpg", "images/a.jpg", None),
        ("annotations/instances_train.json", "sub/a.jpg", "images/train/sub/a.jpg", "train"),
    ],
)
def test_photos_are_looked_for_where_sets_have_them(file, said, photo, split, coco):
    root = coco(file, [{"file_name": said}], photos=[photo])
    (item,) = list_source(root).items
    assert (item.name, item.url, item.split) == (photo, f"{root}/{photo}", split)


@pytest.mark.parametrize("photo", ["annotations/a.jpg", "images/a.jpg", "images/train/a.jpg", "train2017/a.jpg"])
def test_a_single_file_finds_its_photos_too(photo, coco, tmp_path):
    root = coco("annotations/instances_train2017.json", [{"file_name": "a.jpg"}], photos=[photo])
    (item,) = list_source(f"{root}/annotations/instances_train2017.json").items
    assert (item.url, item.split) == (f"{root}/{photo}", "train")


@pytest.mark.parametrize("source", ["set/annotations/x.json", "set/annotations"])
def test_photos_are_looked_for_under_the_folder_above(source, coco):
    names = [{"file_name": "a.jpg"}, {"file_name": "sub/b.jpg"}, {"file_name": "c.jpg"}]
    photos = ["set/data/images/a.jpg", "set/data/sub/b.jpg", "set/data/other/b.jpg"]
    root = coco("set/annotations/x.json", names, photos=photos)
    listing = list_source(f"{root}/{source}")
    urls = {item.url for item in listing.items}
    assert {f"{root}/{photo}" for photo in photos[:2]} < urls
    assert f"{root}/{photos[2]}" not in urls
    assert "Photos found by their names in ../data/images: 1." in listing.notes


def test_many_folders_of_photos_are_counted_together(coco):
    names = [{"file_name": f"{name}.jpg"} for name in "abcd"]
    root = coco("annotations/x.json", names, photos=[f"field/{name}/{name}.jpg" for name in "abcd"])
    (note,) = list_source(f"{root}/annotations/x.json").notes
    assert note == "Photos found by their names in 4 folders, such as ../field/a: 4."


@pytest.mark.parametrize("source", ["annotations/x.json", "annotations", ""])
def test_a_name_that_may_be_one_of_two_photos_is_no_guess(source, coco):
    root = coco("annotations/x.json", [{"file_name": "a.jpg"}], photos=["one/deep/a.jpg", "two/deep/a.jpg"])
    (item,) = list_source(f"{root}/{source}").items
    assert item.status == "excluded"
    assert item.reason.startswith("ambiguous: a.jpg may be ")
    assert "one/deep/a.jpg" in item.reason


def test_a_file_a_split(coco):
    coco("annotations/instances_train.json", [{"file_name": "a.jpg"}], photos=["train/a.jpg"])
    root = coco("annotations/instances_val.json", [{"file_name": "a.jpg"}], photos=["val/a.jpg"])
    assert {item.name: item.split for item in list_source(root).items} == {"train/a.jpg": "train", "val/a.jpg": "val"}


@pytest.mark.parametrize(
    ("images", "annotations", "said"),
    [
        (["a.jpg"], [{"image_id": 0, "category_id": 8, "bbox": [1, 2, 3, 4]}], "does not define category 8"),
        (["a.jpg"], [{"image_id": 0, "category_id": 7, "bbox": [1, 2, 3]}], "four"),
        (["a.jpg"], [{"image_id": 0, "category_id": 7, "bbox": [1, 2, 3, "x"]}], "could not convert"),
        (["a.jpg", "a.jpg"], [], "named twice"),
    ],
)
def test_what_makes_no_sense_is_told(images, annotations, said, coco):
    root = coco("c.json", [{"file_name": name} for name in images], annotations, ["a.jpg"])
    with pytest.raises(InputError, match=said):
        list_source(root)


def test_the_real_apples(photos):
    listing = list_source(str(photos / "apple_boxes/instances.json"))
    assert len(listing.items) == 137
    assert sum(len(item.boxes) for item in listing.items) == 1239
    assert all(box.labels == {"category": "apple"} for item in listing.items for box in item.boxes)
    assert any(item.boxes == () for item in listing.items)
    wrong = list_source(str(photos / "apple_boxes/instances_centre_as_topleft.json"))
    assert any(box.x + box.w > item.size[0] for item in wrong.items for box in item.boxes)
