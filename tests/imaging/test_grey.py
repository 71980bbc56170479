"""Grey levels, measured in two ways: the compiled kernel and Pillow with numpy give the same numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from plantml.imaging import grey

SIDE = st.integers(1, 300)

kernel = pytest.mark.skipif(grey._kernel is None, reason="the kernel was not built: there was no C compiler")


def picture_of(width, height, seed, *, extremes=False):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(np.where(pixels > 127, 255, 0).astype(np.uint8) if extremes else pixels)


def with_pillow(picture, side):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grey, "_kernel", None)
        return grey.measure(picture, side)


def assert_equal(left, right):
    for name in ("small", "histogram"):
        assert np.array_equal(getattr(left, name), getattr(right, name)), name
    for name in ("sharpness", "colours", "border"):
        assert getattr(left, name) == getattr(right, name), name


@kernel
@given(SIDE, SIDE, st.integers(0, 99), st.booleans(), st.sampled_from([64, 256]))
def test_the_kernel_equals_pillow(width, height, seed, extremes, side):
    picture = picture_of(width, height, seed, extremes=extremes)
    assert_equal(grey.measure(picture, side), with_pillow(picture, side))


@kernel
@pytest.mark.parametrize("size", [(256, 1), (1, 256), (256, 256), (2000, 1500), (2300, 2100), (9000, 3)])
def test_the_kernel_equals_pillow_at_sizes_of_photos(size):
    picture = picture_of(*size, seed=1)
    for side in (256, 9000):
        assert_equal(grey.measure(picture, side), with_pillow(picture, side))


@pytest.mark.parametrize("size", [(256, 256), (300, 200), (1, 500)])
def test_the_small_picture_is_that_of_pillow_with_its_gap(size):
    picture = picture_of(*size, seed=2).convert("L")
    small = picture.resize((32, 32), Image.Resampling.BILINEAR, reducing_gap=2.0)
    assert np.array_equal(grey.small_grey(picture), np.asarray(small))


@kernel
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pixels": bytes(8 * 8 * 4 - 1)}, "RGBX"),
        ({"width": 0}, "size"),
        ({"bands": 3}, "size"),
        ({"across": 0}, "size"),
        ({"columns": np.array([0, 8], np.int32)}, "grid"),
        ({"rows": np.array([-1, 0], np.int32)}, "grid"),
        ({"rows": np.array([0], np.int32)}, "rows"),
        ({"histogram": np.zeros(255, np.int64)}, "histogram"),
        ({"small": np.empty((32, 31), np.float32)}, "small"),
    ],
)
def test_the_kernel_refuses_what_would_leave_the_memory(change, reason):
    grid = np.array([0, 7], np.int32)
    call = {"pixels": bytes(8 * 8 * 4), "width": 8, "height": 8, "bands": 4, "across": 2, "down": 2}
    call |= {"vertical_first": False, "columns": grid, "rows": grid}
    call |= {"histogram": np.zeros(256, np.int64), "small": np.empty((32, 32), np.float32)}
    grey._kernel.measure(*call.values())
    with pytest.raises(ValueError, match=reason):
        grey._kernel.measure(*(call | change).values())
