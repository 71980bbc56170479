"""The valid combinations of classes in the training labels."""

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


def combinations_of(*rows, targets=THREE):
    labels = {target.name: target.encode([row[at] for row in rows]) for at, target in enumerate(targets)}
    return training_combinations(targets, labels)


def test_each_combination_is_listed_once():
    combinations = combinations_of(
        ("tomato", "diseased", "rust"), ("bean", "healthy", "none"), ("tomato", "diseased", "rust")
    )
    assert combinations.targets == ("category", "health", "disease")
    assert combinations.seen == (("bean", "healthy", "none"), ("tomato", "diseased", "rust"))


def test_a_missing_label_counts_for_every_valid_class():
    combinations = combinations_of(("tomato", None, "rust"), ("bean", "healthy", None), (None, None, None))
    assert combinations.seen == (("bean", "healthy", "none"), ("tomato", "diseased", "rust"))


def test_contradicting_labels_are_left_out():
    combinations = combinations_of(("bean", "healthy", "rust"), ("bean", "healthy", "none"))
    assert combinations.seen == (("bean", "healthy", "none"),)
    with pytest.raises(InputError, match="is valid") as error:
        combinations_of(("bean", "healthy", "rust"))
    assert "combinations=any" in error.value.hint


def test_one_target_has_no_combinations_and_values_are_ignored():
    severity = Target("severity", "value")
    assert combinations_of(("bean", 0.3), targets=(CATEGORY, severity)) is None
    combinations = combinations_of(("bean", 0.3, "rust"), targets=(CATEGORY, severity, DISEASE))
    assert combinations.targets == ("category", "disease")
    assert combinations.seen == (("bean", "rust"),)


@given(
    st.lists(
        st.sampled_from(list(itertools.product(*((*target.classes, None) for target in THREE)))),
        min_size=1,
        max_size=12,
    )
)
def test_every_valid_photo_is_covered(rows):
    try:
        combinations = combinations_of(*rows, ("bean", "healthy", "none"))
    except InputError:
        pytest.fail("a healthy bean is valid")
    for row in rows:
        if None not in row and (row[1] == "healthy") == (row[2] == "none"):
            assert row in combinations.seen
    assert all((health == "healthy") == (disease == "none") for _, health, disease in combinations.seen)
    assert len(set(combinations.seen)) == len(combinations.seen)


def test_labels_are_arrays_of_class_numbers():
    labels = {"category": np.array([0, -1]), "health": np.array([1, 0]), "disease": np.array([1, 2])}
    assert training_combinations(THREE, labels).seen == (
        ("bean", "diseased", "rust"),
        ("bean", "healthy", "none"),
        ("tomato", "diseased", "rust"),
    )
