"""Large photos in overlapping tiles."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantml.imaging import Tiling


@pytest.mark.parametrize(
    ("length", "size", "overlap", "starts"),
    [(100, 100, 0.2, [0]), (50, 100, 0.2, [0]), (101, 100, 0.2, [0, 1]), (180, 100, 0.2, [0, 80]),
     (260, 100, 0.2, [0, 80, 160]), (300, 100, 0.0, [0, 100, 200])],
)  # fmt: skip
def test_tiles_cover_a_side_and_overlap(length, size, overlap, starts):
    assert Tiling(size, overlap).starts(length) == starts


@given(st.integers(1, 500), st.integers(1, 500), st.integers(16, 200), st.floats(0, 0.9))
def test_tiles_cover_a_photo_stay_within_it_and_overlap_enough(width, height, size, overlap):
    tiling = Tiling(size, overlap)
    places = tiling.places(width, height)
    assert len(places) == len(set(places)) == len(tiling.starts(width)) * len(tiling.starts(height))
    for left, top, right, bottom in places:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert (right - left, bottom - top) == (min(size, width), min(size, height))
    for length in (width, height):
        starts = tiling.starts(length)
        assert (starts[0], starts[-1] + size >= length) == (0, True)
        assert all(after - before <= size * (1 - overlap) + 1 for before, after in pairwise(starts))
