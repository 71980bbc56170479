"""One resize, in two implementations: the compiled kernel and Pillow give the same pixels to the last bit."""

import threading

import numpy as np
import PIL
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from plantml.imaging import resize

SIDE = st.integers(1, 60)

kernel = pytest.mark.skipif(resize._kernel is None, reason="the kernel was not built: there was no C compiler")


def with_pillow(picture, size, box=None):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resize, "_kernel", None)
        return resize.resized(picture, size, box)


def picture_of(width, height, seed, *, extremes=False):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(np.where(pixels > 127, 255, 0).astype(np.uint8) if extremes else pixels)


@st.composite
def cases(draw):
    picture = picture_of(draw(SIDE), draw(SIDE), draw(st.integers(0, 99)), extremes=draw(st.booleans()))
    box = None
    if draw(st.booleans()):
        left, top = draw(st.floats(0, 0.8)) * picture.width, draw(st.floats(0, 0.8)) * picture.height
        right = left + draw(st.floats(0.1, 1)) * (picture.width - left)
        bottom = top + draw(st.floats(0.1, 1)) * (picture.height - top)
        box = (left, top, min(right, picture.width), min(bottom, picture.height))
    return picture, (draw(SIDE), draw(SIDE)), box


@kernel
@given(cases())
def test_the_kernel_equals_pillow(case):
    assert np.array_equal(resize.resized(*case), with_pillow(*case))


@given(cases())
def test_the_order_of_the_two_steps_is_that_of_pillow_13(case):
    if int(PIL.__version__.partition(".")[0]) < 13:
        pytest.skip("an older Pillow has another order")
    picture, size, box = case
    assert np.array_equal(resize.resized(*case), np.asarray(picture.resize(size, Image.Resampling.BICUBIC, box)))


@kernel
@pytest.mark.parametrize("size", [(500, 500), (1023, 769), (300, 2000), (2000, 300), (2300, 2100)])
def test_the_kernel_equals_pillow_at_sizes_of_photos(size):
    picture = picture_of(*size, seed=1)
    for target in [(224, 224), (224, 131), (640, 640), (97, 224)]:
        assert np.array_equal(resize.resized(picture, target), with_pillow(picture, target))


@kernel
def test_the_kernel_equals_pillow_without_wide_instructions(monkeypatch):
    """A picture that is narrower than a group of taps goes through plain C, as everything does on other processors."""
    for width in (1, 2, 3):
        picture = picture_of(width, 40, seed=2)
        assert np.array_equal(resize.resized(picture, (5, 9)), with_pillow(picture, (5, 9)))


def test_it_writes_into_a_part_of_an_array_and_leaves_the_rest():
    canvas = np.full((12, 20, 3), 7, np.uint8)
    picture = picture_of(30, 40, seed=3)
    resize.resize_into(picture, canvas[2:10, 3:9])
    assert np.array_equal(canvas[2:10, 3:9], resize.resized(picture, (6, 8)))
    canvas[2:10, 3:9] = 7
    assert (canvas == 7).all()


@kernel
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"box": (0, 0, 9, 8)}, "box"),
        ({"box": (-1, 0, 8, 8)}, "box"),
        ({"box": (0, 4, 8, 4)}, "box"),
        ({"box": (0, 0, float("nan"), 8)}, "box"),
        ({"pixels": bytes(8 * 8 * 4 - 1)}, "RGBX"),
        ({"width": 0}, "box"),
        ({"out": np.empty((4, 4, 4), np.uint8)}, "output"),
        ({"out": np.empty((4, 4, 3), np.uint8)[:, ::-1]}, "output"),
        ({"out": np.empty((4, 8, 3), np.uint8)[:, ::2]}, "output"),
        ({"out": np.empty((4, 4, 3), np.uint16)}, "output"),
        ({"out": np.empty((0, 4, 3), np.uint8)}, "output"),
    ],
)
def test_the_kernel_refuses_what_would_leave_the_memory(change, reason):
    call = {"pixels": bytes(8 * 8 * 4), "width": 8, "height": 8, "box": (0, 0, 8, 8), "vertical_first": False}
    call |= {"out": np.empty((4, 4, 3), np.uint8)}
    resize._kernel.resize_into(*call.values())
    with pytest.raises(ValueError, match=reason):
        resize._kernel.resize_into(*(call | change).values())


@kernel
def test_other_threads_run_meanwhile():
    picture, counted = picture_of(1900, 1900, seed=4), []
    ending = threading.Event()

    def count():
        while not ending.wait(0.0005):
            counted.append(1)

    counter = threading.Thread(target=count)
    counter.start()
    for _ in range(8):
        resize.resized(picture, (700, 700))
    ending.set()
    counter.join()
    assert len(counted) > 4
