import numpy as np

from plantml.validate.occlusion import GRID, occlusion, overlay


class SeesCorner:
    """Is sure of class 1 as far as the upper left corner is bright."""

    name = "corner"

    def __init__(self):
        self.batches = []

    def run(self, batch, columns=None):
        self.batches.append(len(batch))
        bright = batch[:, :40, :60].astype(np.float32).mean(axis=(1, 2, 3)) / 255
        return {"target.disease": np.stack([1 - bright, bright], axis=1)}


def test_the_answer_rests_on_what_the_model_looks_at():
    runtime, pixels = SeesCorner(), np.full((120, 120, 3), 250, np.uint8)
    fall = occlusion(runtime, pixels, "disease", 1, batch=50)
    assert fall.shape == (GRID, GRID)
    assert fall[:3, :5].min() > 0.04
    assert np.abs(fall[6:, 8:]).max() < 1e-6
    assert runtime.batches == [1, 50, 50, 44]
    assert pixels.min() == 250  # copies were covered, not the photo


def test_what_speaks_against_the_answer_is_negative():
    fall = occlusion(SeesCorner(), np.full((120, 120, 3), 250, np.uint8), "disease", 0)
    assert fall.min() < -0.05


def test_the_overlay_is_red_where_it_matters_and_grey_elsewhere():
    fall = np.zeros((GRID, GRID), np.float32)
    fall[:4, :4] = 0.5
    picture = overlay(np.full((60, 120, 3), 100, np.uint8), fall, 200)
    assert picture.size == (200, 100)
    levels = np.asarray(picture).astype(int)
    assert levels[10, 20, 0] - levels[10, 20, 2] > 80
    assert np.ptp(levels[80, 180]) < 20


def test_nothing_that_matters_leaves_the_photo_grey():
    levels = np.asarray(overlay(np.full((60, 60, 3), 100, np.uint8), np.zeros((4, 4)), 60))
    assert np.ptp(levels.astype(int), axis=2).max() < 20
