"""Which combinations of classes training shows."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantml.errors import InputError
from plantml.targets import Target
from plantml.train.packaging import training_combinations

CATEGORY = Target("category", "class", ("bean", "tomato"))
HEALTH = Target("health", "class", ("diseased", "healthy"))
DISEASE = Target("disease", "class", ("blight", "none", "rust"))
THREE = (CATEGORY, HEALTH, DISEASE)


def seen(*rows, targets=THREE):
    labels = {target.name: target.encode([row[at] for row in rows]) for at, target in enumerate(targets)}
    return training_combinations(targets, labels)


def test_seen_is_what_photos_show_once_each():
    found = seen(("tomato", "diseased", "rust"), ("bean", "healthy", "none"), ("tomato", "diseased", "rust"))
    assert found.targets == ("category", "health", "disease")
    assert found.seen == (("bean", "healthy", "none"), ("tomato", "diseased", "rust"))


def test_a_photo_without_a_label_shows_every_class_of_it_that_can_be_true():
    found = seen(("tomato", None, "rust"), ("bean", "healthy", None), (None, None, None))
    assert found.seen == (("bean", "healthy", "none"), ("tomato", "diseased", "rust"))


def test_a_contradiction_in_the_labels_does_not_become_an_answer():
    found = seen(("bean", "healthy", "rust"), ("bean", "healthy", "none"))
    assert found.seen == (("bean", "healthy", "none"),)
    with pytest.raises(InputError, match="can be true") as error:
        seen(("bean", "healthy", "rust"))
    assert "combinations=any" in error.value.hint


def test_one_target_has_no_combinations_and_others_take_no_part():
    severity = Target("severity", "value")
    assert seen(("bean", 0.3), targets=(CATEGORY, severity)) is None
    found = seen(("bean", 0.3, "rust"), targets=(CATEGORY, severity, DISEASE))
    assert found.targets == ("category", "disease")
    assert found.seen == (("bean", "rust"),)


@given(
    st.lists(
        st.sampled_from(list(itertools.product(*((*target.classes, None) for target in THREE)))),
        min_size=1,
        max_size=12,
    )
)
def test_every_photo_that_can_be_true_is_covered(rows):
    try:
        found = seen(*rows, ("bean", "healthy", "none"))
    except InputError:
        pytest.fail("a healthy bean can be true")
    for row in rows:
        if None not in row and (row[1] == "healthy") == (row[2] == "none"):
            assert row in found.seen
    assert all((health == "healthy") == (disease == "none") for _, health, disease in found.seen)
    assert len(set(found.seen)) == len(found.seen)


def test_labels_are_arrays_of_class_numbers():
    labels = {"category": np.array([0, -1]), "health": np.array([1, 0]), "disease": np.array([1, 2])}
    assert training_combinations(THREE, labels).seen == (
        ("bean", "diseased", "rust"),
        ("bean", "healthy", "none"),
        ("tomato", "diseased", "rust"),
    )
