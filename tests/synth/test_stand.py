import json
from itertools import pairwise

import numpy as np
import pytest

from plantml.data import versions
from plantml.data.boxes import from_rows
from plantml.data.formats import list_source
from plantml.data.importing import import_source
from plantml.synth import DEFAULT_CLASSES, SynthSpec, render_stand, write
from plantml.synth.spec import parse_class, stand_of

WIDTH, HEIGHT = 240, 180


@pytest.fixture(scope="module")
def trays():
    spec = SynthSpec(images=6, size=WIDTH, layout="tray", seed=4)
    return [render_stand(spec, index) for index in range(6)]


@pytest.fixture(scope="module")
def rows():
    spec = SynthSpec(images=6, size=WIDTH, layout="row", seed=4)
    return [render_stand(spec, index) for index in range(6)]


@pytest.fixture(scope="module", params=["tray", "row"])
def photos(request):
    return request.getfixturevalue({"tray": "trays", "row": "rows"}[request.param])


def is_missing(box):
    return box.labels["viability"] == "missing"


@pytest.mark.parametrize("layout", ["tray", "row"])
def test_a_photo_is_a_function_of_seed_and_index(layout):
    one, same, other = (
        render_stand(SynthSpec(images=images, size=64, layout=layout, seed=seed), 4)
        for images, seed in ((5, 3), (99, 3), (5, 4))
    )
    assert np.array_equal(one.pixels, same.pixels)
    assert (one.boxes, one.stand, one.quality) == (same.boxes, same.stand, same.quality)
    assert not np.array_equal(one.pixels, other.pixels)


def test_every_plant_has_a_box_around_its_visible_pixels(photos):
    for photo in photos:
        assert photo.pixels.shape == (HEIGHT, WIDTH, 3)
        plants = {number for number, box in enumerate(photo.boxes, 1) if not is_missing(box)}
        assert set(np.unique(photo.plants)) - {0} == plants
        for number in plants:
            rows, cols = np.nonzero(photo.plants == number)
            box = photo.boxes[number - 1]
            assert (box.x, box.y) == (cols.min(), rows.min())
            assert (box.x + box.w - 1, box.y + box.h - 1) == (cols.max(), rows.max())


def test_an_empty_cell_has_a_box_inside_the_photo_and_hardly_any_plant(trays):
    cells = [(photo, box) for photo in trays for box in photo.boxes if is_missing(box)]
    assert cells
    for photo, box in cells:
        assert box.labels == {"viability": "missing"}
        assert box.x >= 0
        assert box.y >= 0
        assert box.x + box.w <= WIDTH
        assert box.y + box.h <= HEIGHT
        inside = photo.plants[box.y : box.y + box.h, box.x : box.x + box.w]
        middle = inside[box.h // 3 : -(box.h // 3), box.w // 3 : -(box.w // 3)]
        assert middle.size
        assert (middle > 0).mean() < 0.5


def test_every_cell_is_a_plant_or_missing(trays):
    for photo in trays:
        assert 12 <= len(photo.boxes) <= 48
        assert len(photo.boxes) in {rows * cols for rows in range(3, 7) for cols in range(4, 9)}


def test_labels_are_consistent(photos):
    boxes = [box.labels for photo in photos for box in photo.boxes if not is_missing(box)]
    assert {labels["viability"] for labels in boxes} == {"viable", "weak"}
    assert {labels["health"] for labels in boxes} == {"healthy", "diseased"}
    known = {(each.category, each.health, each.disease) for each in map(parse_class, DEFAULT_CLASSES)}
    for labels in boxes:
        assert (labels["category"], labels["health"], labels["disease"]) in known
        assert (labels["severity"] == 0) == (labels["health"] == "healthy")


def test_a_gap_in_a_row_has_no_box(rows):
    assert not any(is_missing(box) for photo in rows for box in photo.boxes)
    assert len({len(photo.boxes) for photo in rows}) > 2


def test_weak_plants_are_small(trays):
    areas = {"viable": [], "weak": []}
    for photo in trays:
        for number, box in enumerate(photo.boxes, 1):
            if not is_missing(box) and box.labels["health"] == "healthy":
                areas[box.labels["viability"]].append(np.mean(photo.plants == number) * len(photo.boxes))
    assert np.mean(areas["weak"]) < 0.5 * np.mean(areas["viable"])


def test_photos_of_a_tray_show_the_same_plants_from_elsewhere(trays):
    spec = SynthSpec(images=6, size=WIDTH, layout="tray", seed=4)
    names = [stand_of(spec, index).stand for index in range(6)]
    assert sorted(names.count(name) for name in dict.fromkeys(names)) == [1, 2, 3]
    assert [photo.stand for photo in trays] == names
    for one, other in pairwise(trays):
        if one.stand == other.stand:
            assert [{**box.labels, "severity": 0, "viability": 0} for box in one.boxes] == [
                {**box.labels, "severity": 0, "viability": 0} for box in other.boxes
            ]
            assert one.boxes != other.boxes


def test_a_large_photo_has_its_boxes_where_its_plants_are():
    photo = render_stand(SynthSpec(images=1, size=1100, height=300, layout="tray"), 0)
    assert photo.pixels.shape == (300, 1100, 3)
    for number, box in enumerate(photo.boxes, 1):
        if not is_missing(box):
            inside = photo.plants[box.y : box.y + box.h, box.x : box.x + box.w] == number
            assert inside.sum() == (photo.plants == number).sum()


def test_an_import_gives_the_same_boxes(tmp_path):
    spec = SynthSpec(images=3, size=96, layout="tray", seed=2)
    out, dataset = str(tmp_path / "out"), str(tmp_path / "dataset")
    write(spec, out, workers=1)
    listing = list_source(out)
    import_source(out, dataset, listing)
    assert not listing.notes
    rows = {row["name"]: from_rows(row["boxes"]) for row in versions.load(dataset).rows.iter_rows(named=True)}
    photos = [render_stand(spec, index) for index in range(3)]
    assert rows == {f"images/{photo.stand}/photo-{index:07d}.jpg": photo.boxes for index, photo in enumerate(photos)}


def test_the_commands_that_are_named_next_group_the_photos(cli, tmp_path):
    out, dataset = tmp_path / "out", tmp_path / "dataset"
    drawn = cli("dataset", "synth", out, "--layout", "row", "--images", 6, "--size", 64)
    group = r"row-\d+"
    assert f"dataset import {out} DATASET" in drawn.out
    assert f"--group-by '{group}'" in drawn.out
    assert cli("dataset", "import", out, dataset).code == 0
    assert cli("dataset", "split", dataset, "--group-by", group).code == 0
    assert versions.load(str(dataset)).rows["group"].n_unique() == 3


def test_attributes_are_what_cvat_writes(tmp_path):
    write(SynthSpec(images=1, size=96, layout="tray"), str(tmp_path), workers=1)
    coco = json.loads((tmp_path / "boxes.json").read_text())
    assert {kind["supercategory"] for kind in coco["categories"]} == {"plant"}
    for note in coco["annotations"]:
        if note["attributes"]["viability"] == "missing":
            assert "category_id" not in note
        else:
            assert set(note["attributes"]) == {"health", "disease", "viability", "severity"}
