"""Calibration of the scores of boxes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from plantml.model.box_calibration import platt, rescaled


def test_scores_become_the_share_of_right_boxes():
    random = np.random.default_rng(0)
    scores = random.uniform(0.02, 0.98, 4000).astype(np.float32)
    truth = 1 / (1 + np.exp(-(2 * np.log(scores / (1 - scores)) - 1)))
    right = random.random(4000) < truth
    slope, offset = platt(scores, right)
    np.testing.assert_allclose([slope, offset], [2, -1], atol=0.2)
    np.testing.assert_allclose(rescaled(scores, slope, offset), truth, atol=0.05)


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), max_size=20))
@settings(max_examples=50, deadline=None)
def test_the_order_of_scores_stays(pairs):
    scores = np.array([score for score, _ in pairs], np.float32)
    slope, offset = platt(scores, np.array([right for _, right in pairs], bool))
    assert slope > 0
    ordered = rescaled(np.sort(scores), slope, offset)
    assert (np.diff(ordered) >= 0).all()
    assert ((ordered >= 0) & (ordered <= 1)).all()
