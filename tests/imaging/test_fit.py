"""Boxes move between a photo and the input of a model as its pixels do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from plantml import imaging
from plantml.imaging import Fit

SIDES = st.integers(8, 300)
FITS = st.builds(Fit, st.integers(16, 128), st.integers(16, 128), st.sampled_from(["pad", "crop", "squash"]))


@given(FITS, SIDES, SIDES, st.lists(st.tuples(*[st.floats(0, 300)] * 4), min_size=1, max_size=4))
@settings(max_examples=200, deadline=None)
def test_a_box_comes_back_where_it_was(fit, width, height, boxes):
    placement = fit.placement(width, height)
    there = placement.to_input(np.array(boxes))
    np.testing.assert_allclose(placement.to_photo(there), boxes, atol=0.02 * max(1, 1 / placement.across))


@pytest.mark.parametrize("mode", ["pad", "crop", "squash"])
@pytest.mark.parametrize("size", [(200, 120), (120, 200), (160, 160)])
def test_a_box_lies_where_its_pixels_are(mode, size):
    photo = np.zeros((size[1], size[0], 3), np.uint8)
    box = np.array([[60.0, 50.0, 40.0, 30.0]])
    photo[50:80, 60:100] = 255
    fit = Fit(96, 64, mode)
    _, pixels = imaging.read_picture(Image.fromarray(photo), fit)
    rows, columns = np.nonzero(pixels[..., 0] > 200)
    seen = [columns.min(), rows.min(), columns.max() + 1 - columns.min(), rows.max() + 1 - rows.min()]
    np.testing.assert_allclose(fit.placement(*size).to_input(box)[0], seen, atol=1.6)


@given(FITS, SIDES, SIDES)
@settings(max_examples=100, deadline=None)
def test_the_content_of_an_input_is_all_but_its_padding(fit, width, height):
    photo = Image.new("RGB", (width, height), "white")
    _, pixels = imaging.read_picture(photo, fit)
    left, top, right, bottom = fit.content(width, height)
    assert (pixels[top:bottom, left:right] == 255).all()
    assert (pixels == 255).all(axis=2).sum() == (right - left) * (bottom - top)


@given(st.tuples(*[st.floats(-50, 400)] * 2, *[st.floats(0, 200)] * 2), SIDES, SIDES)
def test_a_crop_has_pixels_and_lies_within_the_photo(box, width, height):
    left, top, right, bottom = imaging.corners_of_crop(box, width, height)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_a_crop_shows_some_of_the_surroundings():
    assert imaging.corners_of_crop((100, 100, 50, 20), 640, 480) == (96, 96, 154, 124)
