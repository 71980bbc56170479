"""The geometry of tiles, and which of them are kept."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plantml.imaging import Tiling
from plantml.train.boxes import tiles

SIZE = 100


def photo(width, height, *boxes, split="train", image_id="x", name="photo.jpg"):
    """A row of a photo; boxes are x, y, w, h."""
    drawn = [dict(zip("xywh", box, strict=True)) | {"labels": json.dumps({"n": n})} for n, box in enumerate(boxes)]
    row = {"source": "s", "name": name, "image_id": image_id, "split": split, "width": width, "height": height}
    return row | {"boxes": drawn}


@pytest.fixture
def tiles_of(make_rows):
    """`tiles_of(*photos)`: their tiles of `SIZE` pixels as dictionaries."""
    return lambda *photos: tiles.tiles_of(make_rows(list(photos)), SIZE).to_dicts()


@st.composite
def photos_with_boxes(draw):
    width, height = draw(st.integers(SIZE + 1, 400)), draw(st.integers(30, 400))
    boxes = []
    for _ in range(draw(st.integers(1, 6))):
        x, y = draw(st.floats(0, width - 2)), draw(st.floats(0, height - 2))
        boxes.append((x, y, draw(st.floats(1, width - x)), draw(st.floats(1, height - y))))
    return photo(width, height, *boxes)


def visible(box, tile):
    """What a tile shows of a box: x, y, w, h in pixels of the tile."""
    left, top = max(box["x"], tile["left"]), max(box["y"], tile["top"])
    right = min(box["x"] + box["w"], tile["left"] + tile["width"])
    bottom = min(box["y"] + box["h"], tile["top"] + tile["height"])
    return left - tile["left"], top - tile["top"], max(0, right - left), max(0, bottom - top)


# Function-scoped fixtures here are pure functions.
@settings(max_examples=60, suppress_health_check=["function_scoped_fixture"])
@given(photos_with_boxes())
def test_boxes_follow_into_the_tiles_that_show_enough_of_them(make_rows, row):
    cut = tiles.tiles_of(make_rows([row]), SIZE).to_dicts()
    for box in row["boxes"]:
        copies = [(tile, each) for tile in cut for each in tile["boxes"] if each["labels"] == box["labels"]]
        for tile, each in copies:
            assert [each[side] for side in "xywh"] == pytest.approx(visible(box, tile), abs=1e-6)
            assert min(each["x"], each["y"]) >= 0
            assert each["x"] + each["w"] <= tile["width"] + 1e-6
            assert each["y"] + each["h"] <= tile["height"] + 1e-6
            assert each["w"] * each["h"] >= tiles.VISIBLE * box["w"] * box["h"] - 1e-6
        fits = any(
            left <= box["x"] and top <= box["y"] and box["x"] + box["w"] <= right and box["y"] + box["h"] <= bottom
            for left, top, right, bottom in Tiling(SIZE, tiles.OVERLAP).places(row["width"], row["height"])
        )
        whole = [each for _, each in copies if each["w"] >= box["w"] - 1e-6 and each["h"] >= box["h"] - 1e-6]
        assert bool(whole) == fits


def test_a_box_as_wide_as_the_overlap_is_whole_in_some_tile(tiles_of):
    width = SIZE * tiles.OVERLAP
    for x in range(0, 280, 7):
        cut = tiles_of(photo(300, 300, (x, 280 - x, width, width)))
        assert any(box["w"] == box["h"] == width for tile in cut for box in tile["boxes"])


def test_tiles_keep_split_and_photo_and_small_photos_stay_whole(tiles_of):
    large = photo(260, 100, (10, 10, 5, 5), (90, 10, 60, 5), (200, 10, 50, 5), split="val")
    cut = tiles_of(large, photo(100, 90, (1, 1, 9, 9), name="small.jpg"))
    assert [(tile["name"], tile["split"], tile["left"], tile["top"]) for tile in cut] == [
        ("photo.jpg", "val", 0, 0),
        ("photo.jpg", "val", 80, 0),
        ("photo.jpg", "val", 160, 0),
        ("small.jpg", "train", None, None),
    ]
    assert (cut[-1]["width"], cut[-1]["height"], len(cut[-1]["boxes"])) == (100, 90, 1)


def test_a_tile_that_shows_a_little_of_a_plant_is_no_example_of_none(tiles_of):
    assert [tile["left"] for tile in tiles_of(photo(180, 100, (0, 0, 90, 50)))] == [0]
    assert tiles_of(photo(400, 400, (0, 0, 400, 400))) == []


def test_there_are_as_many_empty_tiles_as_tiles_with_boxes_in_each_split(tiles_of):
    rows = [
        *(photo(500, 500, (5, 5, 9, 9), image_id=f"train {n}") for n in range(3)),
        photo(500, 500, split="val", image_id="val"),
        photo(90, 90, split="val", image_id="whole", name="whole.jpg"),
    ]
    cut = tiles_of(*rows)
    by_split = {split: [tile for tile in cut if tile["split"] == split] for split in ("train", "val")}
    assert [bool(tile["boxes"]) for tile in by_split["train"]].count(True) == 3
    assert len(by_split["train"]) == 6
    assert len({(tile["left"], tile["top"]) for tile in by_split["train"] if not tile["boxes"]}) > 1
    assert [tile["name"] for tile in by_split["val"]] == ["photo.jpg", "whole.jpg"]
    places = {(tile["image_id"], tile["left"], tile["top"]) for tile in cut}
    assert {(tile["image_id"], tile["left"], tile["top"]) for tile in tiles_of(*reversed(rows))} == places


def test_no_photos_have_no_tiles(make_rows):
    assert tiles.tiles_of(make_rows([photo(9, 9)]).clear(), SIZE).height == 0
