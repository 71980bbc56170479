import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantml.data.manifest import SYSTEM
from plantml.errors import InputError
from plantml.targets import Target, check_name, tied, valid_combinations

DISEASE = Target("disease", "class", ("none", "rust", "scab"))
HEALTH = Target("health", "class", ("healthy", "diseased"))
SYMPTOMS = Target("symptoms", "multilabel", ("curl", "spots", "wilt"))

names = st.lists(st.text("abcdef", min_size=1, max_size=4), min_size=1, max_size=8, unique=True)


def test_classes_become_their_place_in_the_model_and_no_label_minus_one():
    encoded = DISEASE.encode(["scab", None, "none", "rust"])
    assert encoded.tolist() == [2, -1, 0, 1]
    assert encoded.dtype == np.int64


@given(names, st.data())
def test_classes_are_joined_by_name_whatever_their_order(classes, data):
    labels = data.draw(st.lists(st.sampled_from(classes)))
    shuffled = data.draw(st.permutations(classes))
    for order in (classes, shuffled):
        target = Target("t", "class", tuple(order))
        assert [order[i] for i in target.encode(labels)] == labels


def test_any_of_many_becomes_ones_and_zeros():
    encoded = SYMPTOMS.encode([["wilt", "curl"], [], None])
    assert encoded.dtype == np.float32
    assert encoded[0].tolist() == [1, 0, 1]
    assert encoded[1].tolist() == [0, 0, 0]
    assert np.isnan(encoded[2]).all()


def test_no_symptoms_differ_from_symptoms_not_looked_for():
    looked, not_looked = SYMPTOMS.encode([[], None])
    assert not np.isnan(looked).any()
    assert np.isnan(not_looked).all()


def test_values_stay_themselves_and_no_label_is_nan():
    encoded = Target("severity", "value", unit="fraction").encode([0.25, None, 1])
    assert encoded.dtype == np.float32
    assert encoded[0] == 0.25
    assert np.isnan(encoded[1])
    assert encoded[2] == 1


@pytest.mark.parametrize(("target", "labels"), [(DISEASE, ["rust", "blight"]), (SYMPTOMS, [["curl"], ["blight"]])])
def test_a_class_that_the_model_does_not_know_is_named(target, labels):
    with pytest.raises(InputError) as caught:
        target.encode(labels)
    assert "'blight'" in caught.value.what
    assert target.name in caught.value.what
    assert all(name in caught.value.why for name in target.classes)


@pytest.mark.parametrize("target", [DISEASE, SYMPTOMS, Target("severity", "value")], ids=lambda target: target.kind)
def test_no_labels_give_no_rows(target):
    assert len(target.encode([])) == 0


def test_a_target_has_as_many_outputs_as_classes_and_a_value_one():
    assert DISEASE.size == 3
    assert SYMPTOMS.size == 3
    assert Target("severity", "value", unit="fraction").size == 1


@pytest.mark.parametrize("name", ["category", "viability", "leaf_area_2", "x"])
def test_lower_case_words_name_targets(name):
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "Health", "leaf area", "2nd", "_x", "a-b", "a.b", "größe", "x" * 42])
def test_other_names_are_refused(name):
    with pytest.raises(InputError, match="lower-case"):
        check_name(name)


def test_a_name_is_not_accepted_for_its_beginning():
    with pytest.raises(InputError):
        check_name("health\n")


@pytest.mark.parametrize("name", ["split", "status", "group", "source", "decision", "image"])
def test_names_of_a_datasets_own_columns_are_refused(name):
    with pytest.raises(InputError, match="have a column"):
        check_name(name, SYSTEM)


def test_healthy_goes_with_no_disease_and_diseased_with_any():
    assert valid_combinations(HEALTH, DISEASE).tolist() == [[True, False, False], [False, True, True]]


def test_other_states_of_health_go_with_everything():
    health = Target("health", "class", ("stressed", "healthy"))
    assert valid_combinations(health, DISEASE).tolist() == [[True, True, True], [True, False, False]]


def test_combinations_follow_the_order_of_the_classes():
    disease = Target("disease", "class", ("rust", "none"))
    assert valid_combinations(HEALTH, disease).tolist() == [[False, True], [True, False]]


def test_health_and_disease_are_tied_wherever_they_stand():
    category = Target("category", "class", ("bean", "corn"))
    assert tied([DISEASE, category, HEALTH]) == (HEALTH, DISEASE)


@pytest.mark.parametrize(
    "targets",
    [
        [HEALTH],
        [DISEASE],
        [Target("health", "class", ("good", "bad")), DISEASE],
        [HEALTH, Target("disease", "class", ("rust", "scab"))],
        [HEALTH, Target("disease", "class", ("none",))],
        [HEALTH, Target("disease", "multilabel", ("none", "rust"))],
        [Target("health", "value", unit="fraction"), DISEASE],
    ],
    ids=["no disease", "no health", "own words", "no none", "none alone", "many diseases", "health a number"],
)
def test_targets_are_not_tied_without_the_words_that_tie_them(targets):
    assert tied(targets) is None
