import io

import numpy as np
import pytest
from PIL import Image

from plantml.reporting import charts
from plantml.validate.robustness import CHANGES, changes

PHOTOS = [(name, name, {}) for name in ("none", "rust", "blight")] * 6


@pytest.fixture(scope="module")
def leaf(upright):
    return np.asarray(upright(224, 224, 3))


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_mild_then_strong_and_always_the_same(name, leaf):
    made = changes()
    mild, strong = made[f"{name}:mild"](leaf), made[f"{name}:strong"](leaf)
    for changed in (mild, strong):
        assert (changed.shape, changed.dtype) == (leaf.shape, np.uint8)
    distances = [float(((changed.astype(float) - leaf) ** 2).mean()) for changed in (mild, strong)]
    assert 0 < distances[0] < distances[1]
    assert np.array_equal(made[f"{name}:mild"](leaf), mild)


def test_blur_and_light_are_what_they_are_called(leaf):
    made = changes()
    assert made["darker:strong"](leaf).mean() == pytest.approx(leaf.mean() * 0.4, rel=0.02)
    edges = [np.abs(np.diff(each.astype(float), axis=0)).mean() for each in (leaf, made["blur:mild"](leaf))]
    assert edges[1] < 0.7 * edges[0]


def test_scores_by_change(paint, painted, judged):
    result = judged(paint(PHOTOS), painted(), robustness=True).robustness
    assert (result.photos, result.score) == (18, "macro_f1")
    assert set(result.scores) == set(CHANGES)
    assert all(scores[0] == 1.0 for scores in result.scores.values())
    # The model looks at colours, which light and blur leave in their order.
    assert result.scores["darker"] == [1.0, 1.0, 1.0]
    assert result.strengths["blur"] == ("deviation 1 px", "deviation 3 px")


def test_a_model_that_needs_light_loses_it(paint, painted, judged):
    pipeline = painted()
    bright = pipeline.runtime.run
    pipeline.runtime.run = lambda batch: bright(batch if batch.mean() > 60 else 0 * batch)
    scores = judged(paint(PHOTOS), pipeline, robustness=True).robustness.scores["darker"]
    assert scores[1] == 1.0
    assert scores[2] < 0.6


def test_it_goes_on_where_it_was_and_takes_a_sample(paint, painted, judged):
    data, pipeline = paint(PHOTOS), painted()
    first = judged(data, pipeline, robustness=True, robustness_photos=6)
    seen = pipeline.runtime.seen
    assert first.robustness.photos == 6
    assert seen == 18 + 6 * len(changes())
    again = judged(data, pipeline, robustness=True, robustness_photos=6)
    assert pipeline.runtime.seen == seen
    assert again.robustness == first.robustness


def test_the_curve_is_drawn():
    data = charts.robustness("macro_f1", {"blur": [0.9, 0.8, 0.5], "r$": [0.9, 0.9, -0.2]})
    assert Image.open(io.BytesIO(data)).width > 400
