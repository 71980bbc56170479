"""Objects in overlapping tiles are found once, wherever they are."""

import io
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.detect.conftest import DETECTOR, Spots

from plantml.imaging import Fit, Tiling
from plantml.model.box_merging import View, merge
from plantml.model.bundle import Bundle
from plantml.model.tiled_pipeline import build_pipeline

WIDTH, HEIGHT = 200, 100
LEFT, RIGHT, WHOLE = (0, 0, 120, 100), (80, 0, 200, 100), (0, 0, 200, 100)


def box(x, y, w, h, score=0.9, **more):
    return {"x": x, "y": y, "w": w, "h": h, "score": score, "targets": {}, "decision": "accept", **more}


def merged(*views):
    boxes = merge([View(area, (2, 2), boxes) for area, boxes in views], WIDTH, HEIGHT)
    return [tuple(each[side] for side in "xywh") for each in boxes]


def test_what_two_tiles_see_counts_once_by_its_best_box():
    assert merged((LEFT, [box(90, 10, 20, 20, 0.6)]), (RIGHT, [box(91, 10, 20, 21, 0.8)])) == [(91, 10, 20, 21)]


def test_a_cut_box_gives_way_to_the_whole_one_whatever_their_scores():
    assert merged((LEFT, [box(100, 10, 20, 30, 0.99)]), (RIGHT, [box(100, 10, 60, 30, 0.5)])) == [(100, 10, 60, 30)]
    assert merged((LEFT, [box(110, 10, 10, 30)]), (WHOLE, [box(108, 8, 80, 34, 0.5)])) == [(108, 8, 80, 34)]


def test_pieces_that_no_view_shows_whole_are_joined():
    views = (LEFT, [box(20, 10, 100, 30, 0.7)]), (RIGHT, [box(80, 11, 60, 30, 0.8)])
    assert merged(*views) == [(20, 10, 120, 31)]
    assert merge([View(area, (2, 2), boxes) for area, boxes in views], WIDTH, HEIGHT)[0]["score"] == 0.8


def test_a_piece_alone_is_an_object():
    assert merged((LEFT, [box(100, 10, 20, 30)]), (RIGHT, [])) == [(100, 10, 20, 30)]


def test_boxes_of_one_view_are_never_merged():
    assert len(merged((LEFT, [box(10, 10, 30, 30), box(12, 10, 30, 30)]), (RIGHT, []))) == 2


def test_the_edge_of_the_photo_cuts_nothing():
    assert merged((LEFT, [box(0, 0, 30, 30, 0.5)]), (WHOLE, [box(0, 0, 31, 31, 0.9)])) == [(0, 0, 31, 31)]
    assert merged((LEFT, [box(0, 0, 30, 30, 0.9)]), (WHOLE, [box(0, 0, 31, 31, 0.5)])) == [(0, 0, 30, 30)]


def test_a_small_object_in_front_of_a_large_one_stays():
    boxes = merged((LEFT, [box(40, 40, 12, 12)]), (WHOLE, [box(10, 10, 150, 80)]))
    assert sorted(boxes) == [(10, 10, 150, 80), (40, 40, 12, 12)]


def test_without_boxes_there_are_none():
    assert merged((LEFT, []), (RIGHT, []), (WHOLE, [])) == []
    assert merge([], WIDTH, HEIGHT) == []


views = st.tuples(*(
    st.lists(
        st.tuples(*(st.integers(low, high) for low, high in ((0, 80), (0, 60), (4, 60), (4, 60))),
                  st.sampled_from([0.1, 0.3, 0.6, 0.9])),
        max_size=6,
    )
    for _ in range(3)
))  # fmt: skip


@given(views=views)
def test_weak_boxes_change_nothing_of_those_that_count(views):
    areas = LEFT, RIGHT, WHOLE

    def merged(least):
        placed = [
            View(area, (2, 2), [box(area[0] + x, y, w, h, score) for x, y, w, h, score in boxes if score >= least])
            for area, boxes in zip(areas, views, strict=True)
        ]
        return merge(placed, WIDTH, HEIGHT, 0.5)

    assert [each for each in merged(0.0) if each["score"] >= 0.5] == merged(0.5)


def test_a_weak_box_of_an_object_that_is_found_does_not_count_again():
    views = [View(LEFT, (2, 2), [box(100, 10, 20, 30, 0.9)]), View(RIGHT, (2, 2), [box(100, 10, 60, 30, 0.2)])]
    assert [each["score"] for each in merge(views, WIDTH, HEIGHT, 0.5)] == [0.9]


# --- through the pipeline ---------------------------------------------------------------------


def detect(picture, tile, overlap, batch=4, contract=DETECTOR):
    bundle = Bundle("spots", contract, "d" * 64, {})
    pipeline = build_pipeline(bundle, Spots(boxes=32), tile=tile, overlap=overlap, threads=1, batch=batch)
    file = io.BytesIO()
    picture.save(file, "PNG")
    (prediction,) = pipeline.predict_bytes([("a.png", file.getvalue())])
    return prediction.record


spot = st.tuples(
    st.integers(0, 180), st.integers(0, 180), st.integers(6, 150), st.integers(6, 150), st.sampled_from(["red", "blue"])
)


def clash(one, other, gap=12):
    return all(
        one[side] < other[side] + other[side + 2] + gap and other[side] < one[side] + one[side + 2] + gap
        for side in (0, 1)
    )


@settings(max_examples=60)
@example(size=(200, 64), spots=[(10, 10, 160, 40, "red")], overlap=0.2)  # longer than two tiles
@example(size=(180, 180), spots=[(60, 60, 20, 20, "red")], overlap=0.3)  # in the corner of four tiles
@given(
    size=st.tuples(st.integers(40, 200), st.integers(40, 200)),
    spots=st.lists(spot, max_size=5),
    overlap=st.sampled_from([0.2, 0.35, 0.5]),
)
def test_objects_anywhere_are_found_once(size, spots, overlap):
    spots = [each for each in spots if each[0] + each[2] <= size[0] and each[1] + each[3] <= size[1]]
    assume(not any(clash(one, other) for number, one in enumerate(spots) for other in spots[:number]))
    picture = Image.new("RGB", size, "black")
    for x, y, w, h, colour in spots:
        picture.paste(colour, (x, y, x + w, y + h))
    record = detect(picture, 64, overlap)
    found = sorted([each["x"], each["y"], each["w"], each["h"]] for each in record.boxes)
    assert len(found) == len(spots)
    scale = max(1, max(size) / 64)  # pixels of the photo per pixel of the model's input
    for one, other in zip(found, sorted(map(list, (each[:4] for each in spots))), strict=True):
        assert np.abs(np.subtract(one, other)).max() <= 2.5 * scale
    wanted = {name: sum(each[4] == colour for each in spots) for name, colour in (("apple", "red"), ("plum", "blue"))}
    assert record.counts == {"boxes": len(spots), "fruit": wanted}


def test_small_objects_are_found_only_in_tiles():
    picture = Image.new("RGB", (1000, 800), "black")
    for place in (5, 60, 500, 702):  # lost among the pixels of the whole photo
        picture.paste("red", (place, place, place + 4, place + 4))
    assert not detect(picture, 2000, 0.2).boxes
    assert len(detect(picture, 64, 0.2).boxes) == 4


def test_a_model_trained_on_tiles_looks_at_them_unless_told_otherwise():
    picture = Image.new("RGB", (1000, 800), "black")
    picture.paste("red", (500, 500, 504, 504))
    tile = DETECTOR.detection.model_copy(update={"tile": 64})
    on_tiles = DETECTOR.model_copy(update={"detection": tile})
    assert len(detect(picture, None, 0.2, contract=on_tiles).boxes) == 1
    assert not detect(picture, 0, 0.2, contract=on_tiles).boxes
    assert not detect(picture, 2000, 0.2, contract=on_tiles).boxes
    assert not detect(picture, None, 0.2).boxes


def test_a_picture_is_cut_like_its_file():
    contract = DETECTOR.model_copy(update={"detection": DETECTOR.detection.model_copy(update={"tile": 64})})
    pipeline = build_pipeline(Bundle("spots", contract, "d" * 64, {}), Spots(boxes=32))
    picture = Image.new("RGB", (300, 200), "black")
    picture.paste("red", (200, 100, 204, 104))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    file = io.BytesIO()
    picture.save(file, "PNG", exif=exif)
    (of_bytes,) = pipeline.predict_bytes([("", file.getvalue())])
    (of_picture,) = pipeline.predict_pictures([Image.open(file)])
    assert [(each["x"], each["y"]) for each in of_picture.boxes] == [(96, 200)]
    assert replace(of_picture.record, image_id=of_bytes.record.image_id) == of_bytes.record
    too_thin, grey = pipeline.predict_pictures([Image.new("RGB", (2000, 1)), Image.new("L", (70, 70))])
    assert "too-thin" in too_thin.failure
    assert not grey.boxes


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_tiles_are_batched_and_the_batch_changes_nothing(batch):
    picture = Image.new("RGB", (300, 300), "black")
    picture.paste("blue", (50, 50, 90, 80))
    assert detect(picture, 64, 0.2, batch) == detect(picture, 64, 0.2)


class Blind:
    """Finds nothing, and costs nothing."""

    name = "blind"

    def run(self, batch, columns=None):
        shapes = {"boxes": (16, 4), "score": (16,), "target.fruit": (16, 2)}
        return {name: np.zeros((len(batch), *shape), np.float32) for name, shape in shapes.items()}


def test_the_pixels_of_a_photo_of_20_megapixels_are_never_all_in_arrays():
    contract = DETECTOR.model_copy(update={"input": Fit(320, 320)})
    pipeline = build_pipeline(
        Bundle("blind", contract, "d" * 64, {}), Blind(), threads=1, batch=4, tile=640, overlap=0.2
    )
    buffer = io.BytesIO()
    Image.new("RGB", (5472, 3648), "green").save(buffer, "JPEG")
    assert len(Tiling(640, 0.2).places(5472, 3648)) == 77
    pipeline.predict_bytes([("warm.jpg", buffer.getvalue())])
    tracemalloc.start()
    (prediction,) = pipeline.predict_bytes([("field.jpg", buffer.getvalue())])
    peak = tracemalloc.get_traced_memory()[1]  # numpy's arrays are traced; the decoded photo is Pillow's
    tracemalloc.stop()
    assert prediction.failure is None
    assert peak < 4 * 4 * 320 * 320 * 3  # the tiles of a batch, those they are stacked from, and room for as many


def test_each_thread_takes_one_large_photo_at_a_time(tmp_path):
    bundle = Bundle("spots", DETECTOR, "d" * 64, {})
    Image.new("RGB", (100, 100)).save(tmp_path / "a.png")
    photos = [(str(tmp_path / "a.png"), None)] * 3
    assert [len(part) for part in build_pipeline(bundle, Spots(), tile=64).run_chunks(photos)] == [1, 1, 1]
    assert [len(part) for part in build_pipeline(bundle, Spots()).run_chunks(photos)] == [3]


def test_a_photo_of_one_tile_is_seen_once():
    assert Tiling(64, 0.2).places(64, 40) == [(0, 0, 64, 40)]
    picture = Image.new("RGB", (64, 40), "black")
    picture.paste("red", (50, 5, 60, 15))
    assert len(detect(picture, 64, 0.2).boxes) == 1
