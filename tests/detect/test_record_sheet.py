import io
import os

import pytest
from PIL import Image

from plantml.detect import record_sheet

COLOURS = {"accept": (46, 125, 50), "review": (239, 108, 0), "unknown": (106, 27, 154), None: (198, 40, 40)}
TILE, GAP = 200, 8


@pytest.fixture
def leaf(tmp_path):
    """A photo of one blue."""
    Image.new("RGB", (60, 30), (10, 20, 200)).save(tmp_path / "leaf.png")
    return str(tmp_path / "leaf.png")


def record(image, decision="accept", label="tomato"):
    if decision is None:
        return {"image": image, "targets": None, "decision": None, "failure": "not-found: gone"}
    targets = {
        "category": {"label": label, "score": 0.9, "top": [[label, 0.9]]},
        "symptoms": {"labels": []},
        "severity": {"value": 0.25, "unit": "fraction"},
    }
    return {"image": image, "targets": targets, "decision": decision, "failure": None}


def drawn(records, **options):
    image = Image.open(io.BytesIO(record_sheet.draw(records, **options)))
    assert image.format == "PNG"
    return image.convert("RGB")


def corner(number):
    return GAP + number * (TILE + GAP), GAP


def test_each_photo_has_a_bar_in_the_colour_of_its_decision(leaf):
    image = drawn([record(leaf, decision) for decision in COLOURS])
    for number, colour in enumerate(COLOURS.values()):
        left, top = corner(number)
        assert image.getpixel((left + 100, top + TILE + 2)) == colour
        blue = (10, 20, 200)
        # The photo is in the middle of its tile and keeps its size.
        assert image.getpixel((left + 100, top + 100)) == blue
        assert image.getpixel((left + 100, top + 80)) == (255, 255, 255)


def test_a_photo_that_cannot_be_shown_is_crossed_out(tmp_path):
    (tmp_path / "text.jpg").write_bytes(b"text")
    image = drawn([record(str(tmp_path / "gone.jpg"), None), record(str(tmp_path / "text.jpg"), None)])
    for number in (0, 1):
        left, top = corner(number)
        assert image.getpixel((left + 100, top + 100)) == COLOURS[None]
        assert image.getpixel((left + 100, top + 20)) == (238, 238, 238)


def test_six_photos_a_row(leaf):
    sizes = [drawn([record(leaf)] * count).size for count in (1, 2, 6, 7)]
    widths, heights = zip(*sizes, strict=True)
    assert widths == tuple(count * (TILE + GAP) + GAP for count in (1, 2, 6, 6))
    assert heights[0] == heights[1] == heights[2]
    assert heights[3] == 2 * heights[2] - GAP


def test_only_the_first_ones_are_drawn_and_only_they_are_taken(leaf):
    records = iter([record(leaf)] * 10)
    assert drawn(records, limit=3).size == drawn([record(leaf)] * 3).size
    assert len(list(records)) == 7


def test_labels_are_written_and_long_ones_stay_under_their_photo(leaf):
    plain = drawn([record(leaf, label="rust"), record(leaf)])
    other = drawn([record(leaf, label="blight"), record(leaf)])
    long = drawn([record(leaf, label="a very long label " * 9), record(leaf)])
    left, top = corner(1)
    under_the_second = (left, top + TILE, plain.width, plain.height)
    under_the_first = (0, top + TILE, left, plain.height)
    assert plain.crop(under_the_first).tobytes() != other.crop(under_the_first).tobytes()
    assert plain.crop(under_the_second).tobytes() == long.crop(under_the_second).tobytes()


def test_no_records_and_odd_names_are_drawn(tmp_path):
    assert drawn([]).width
    assert drawn([record(str(tmp_path / os.fsdecode(b"caf\xe9.jpg")), None), record("", None)]).width
