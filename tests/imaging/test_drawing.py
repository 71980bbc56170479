import io

import numpy as np
import pytest
from PIL import Image

from plantml.imaging.drawing import DrawnBox, draw_boxes, grid

GREEN = "#00ff00"


def drawn(*boxes, size=(200, 200), **options):
    photo = Image.new("RGB", size, "black")
    draw_boxes(photo, boxes, **options)
    return np.asarray(photo)


def test_a_small_box_has_a_thin_line_and_its_middle_stays_visible():
    small, large = drawn(DrawnBox(100, 100, 10, 10, GREEN)), drawn(DrawnBox(20, 20, 160, 160, GREEN))
    assert small[105, 98:105].any(axis=1).sum() == 1
    assert large[100, 15:30].any(axis=1).sum() == 2
    assert not small[105, 105].any()


@pytest.mark.parametrize(("words", "is_drawn"), [("rust", True), ("a name that is much wider than the box", False)])
def test_words_are_drawn_where_they_fit(words, is_drawn):
    above = drawn(DrawnBox(60, 60, 50, 50, GREEN, words))[40:59]
    assert above.any() == is_drawn


def test_words_do_not_cover_those_of_a_more_important_box():
    one, two = (DrawnBox(60, 60 + shift, 50, 50, GREEN, words) for shift, words in ((4, "weak"), (0, "rust")))
    alone = drawn(two)
    assert (drawn(one, two)[40:58] == alone[40:58]).all()


def test_a_dashed_box_has_gaps_at_any_size():
    for side in (12, 150):
        top = drawn(DrawnBox(20, 20, side, side, GREEN, dashed=True))[20, 20 : 20 + side].any(axis=1)
        assert 0.3 < top.mean() < 0.8


def test_pictures_of_different_sizes_share_a_grid_without_overlap():
    pictures = [Image.new("RGB", size, "red") for size in ((20, 10), (20, 10), (10, 20), (20, 10), (20, 15))]
    sheet = np.asarray(Image.open(io.BytesIO(grid(pictures))))
    assert (sheet == (255, 0, 0)).all(axis=2).sum() == sum(picture.width * picture.height for picture in pictures)
    assert sheet.shape[:2] == (20 + 15 + 3 * 6, 4 * 20 + 5 * 6)
