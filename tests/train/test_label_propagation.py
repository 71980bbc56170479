"""Labels spread to photos that look alike, and only where they agree."""

import numpy as np
import pytest

from plantml.targets import Target
from plantml.train.label_propagation import propagate

DISEASE = Target("disease", "class", ("none", "rust"))
SIGNS = Target("signs", "multilabel", ("spots", "holes"))
HEIGHT = Target("height", "value", unit="cm")


@pytest.fixture(scope="module")
def clouds():
    """Embeddings of two kinds of photos, 60 and 20, and the kind of each."""
    random = np.random.default_rng(0)
    kinds = np.repeat([0, 1], [60, 20])
    centres = random.normal(size=(2, 16))
    return (centres[kinds] + 0.3 * random.normal(size=(80, 16))).astype(np.float32), kinds


def seeds(kinds, values, missing):
    """Labels of the first photo of each kind alone."""
    labels = np.stack([missing] * len(kinds)) if np.ndim(missing) else np.full(len(kinds), missing)
    for kind, value in enumerate(values):
        labels[np.flatnonzero(kinds == kind)[0]] = value
    return labels


def test_one_label_of_each_kind_is_enough(clouds) -> None:
    embeddings, kinds = clouds
    labels = propagate([DISEASE], embeddings, {"disease": seeds(kinds, [0, 1], -1)}, 0.6)["disease"]
    assert (labels == kinds).all()


def test_labels_that_are_there_stay(clouds) -> None:
    embeddings, kinds = clouds
    wrong = seeds(kinds, [0, 1], -1)
    wrong[5] = 1
    assert propagate([DISEASE], embeddings, {"disease": wrong}, 0.0)["disease"][5] == 1


def test_what_lies_between_the_kinds_gets_no_label(clouds) -> None:
    embeddings, kinds = clouds
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    between = np.concatenate([embeddings, [unit[kinds == 0].mean(axis=0) + unit[kinds == 1].mean(axis=0)]])
    labels = {"disease": np.append(seeds(kinds, [0, 1], -1), -1)}
    shares = [propagate([DISEASE], between.astype(np.float32), labels, threshold) for threshold in (0.0, 0.99)]
    assert shares[0]["disease"][-1] >= 0
    assert shares[1]["disease"][-1] == -1


def test_a_photo_that_nothing_resembles_gets_no_label() -> None:
    embeddings = np.eye(12, dtype=np.float32)  # all at right angles
    labels = {"disease": np.array([0, 1, *[-1] * 10])}
    assert (propagate([DISEASE], embeddings, labels, 0.6)["disease"][2:] == -1).all()


def test_several_labels_spread_together_and_values_do_not(clouds) -> None:
    embeddings, kinds = clouds
    truth = np.array([[1, 0], [1, 1]], np.float32)
    labels = {"signs": seeds(kinds, truth, [np.nan, np.nan]), "height": seeds(kinds, [3.0, 4.0], np.nan)}
    spread = propagate([SIGNS, HEIGHT], embeddings, labels, 0.6)
    assert (spread["signs"][:, 1] == kinds).all()
    assert np.array_equal(spread["height"], labels["height"], equal_nan=True)


def test_the_order_of_photos_does_not_matter(clouds) -> None:
    embeddings, kinds = clouds
    labels, order = seeds(kinds, [0, 1], -1), np.random.default_rng(1).permutation(80)
    here = propagate([DISEASE], embeddings, {"disease": labels}, 0.6)["disease"]
    there = propagate([DISEASE], embeddings[order], {"disease": labels[order]}, 0.6)["disease"]
    assert np.array_equal(here[order], there)
