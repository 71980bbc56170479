import numpy as np
import pytest
from tests.contracts import make_contract

from plantml.errors import GateError
from plantml.export import proof
from plantml.targets import Target

CONTRACT = make_contract(
    Target("disease", "class", ("none", "rust")),
    Target("symptoms", "multilabel", ("spots",)),
    Target("weight", "value", unit="g"),
    unknown_threshold=0.3,
)
BATCHES = [np.zeros((2, 8, 8, 3), np.uint8), np.zeros((1, 8, 8, 3), np.uint8)]
ANSWERS = {
    "target.disease": [0.6, 0.4],
    "target.symptoms": [0.5],
    "target.weight": [1.0],
    "embedding": [1.0],
    "unknown": 0.3,
}


class Says:
    """A runtime that says the same of every photo; an answer of `None` is not given."""

    name = "parrot"

    def __init__(self, **changes):
        outputs = {name if name in ANSWERS else f"target.{name}": answer for name, answer in changes.items()}
        self.answers = {name: answer for name, answer in (ANSWERS | outputs).items() if answer is not None}

    def run(self, batch, columns=None):
        return {name: np.array([answer] * len(batch), np.float32) for name, answer in self.answers.items()}


def compared(reference=None, **changes):
    return proof.compare(CONTRACT, answers_of(reference or Says()), answers_of(Says(**changes)))


def answers_of(runtime):
    return proof.outputs(runtime, BATCHES)


# --- the comparison ---------------------------------------------------------------------------


def test_the_same_answers_are_the_same_model():
    result = compared()
    assert (result.photos, result.agreement, result.difference) == (3, 1.0, 0.0)
    assert proof.require(result, "model.onnx") is result


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"disease": [0.4, 0.6]}, 0.2),
        ({"symptoms": [0.49]}, 0.01),
        ({"unknown": 0.31}, 0.01),
        ({"disease": [0.61, 0.39]}, 0.01),
        ({"weight": [1.01]}, 0.01),
    ],
)
def test_any_other_number_is_another_model(changes, difference):
    result = compared(**changes)
    assert result.difference == pytest.approx(difference, rel=1e-4)
    assert not result.holds
    with pytest.raises(GateError, match="is not the same model"):
        proof.require(result, "model.onnx")


def test_another_label_counts_even_where_the_numbers_are_near():
    level = Says(disease=[0.5, 0.49999])
    result = compared(level, disease=[0.49999, 0.5])
    assert result.difference < proof.MAX_DIFFERENCE
    assert result.agreement == 0
    assert not result.holds


def test_agreement_is_a_share_of_photos():
    class Wavering(Says):
        def run(self, batch, columns=None):
            return Says(disease=[0.4, 0.6]).run(batch) if len(batch) == 1 else super().run(batch)

    assert proof.compare(CONTRACT, answers_of(Says()), answers_of(Wavering())).agreement == pytest.approx(2 / 3)


def test_rounding_is_allowed():
    assert compared(disease=[0.60005, 0.39995]).holds
    assert not compared(disease=[0.6002, 0.3998]).holds


def test_rounding_of_values_is_measured_by_their_size():
    heavy = Says(weight=[5000.0])
    assert compared(heavy, weight=[5000.002]).holds
    assert not compared(heavy, weight=[5005.0]).holds


@pytest.mark.parametrize(
    "changes",
    [{"disease": [np.nan, np.nan]}, {"disease": [0.6, np.nan]}, {"weight": [np.nan]}, {"unknown": np.nan}],
)
def test_what_is_not_a_number_is_never_the_same(changes):
    assert not compared(**changes).holds
    assert not compared(Says(**changes), **changes).holds


@pytest.mark.parametrize(
    "changes", [{"disease": None}, {"disease": [1.0]}, {"weight": None}, {"unknown": None}, {"embedding": None}]
)
def test_an_output_that_is_not_there_is_another_model(changes):
    with pytest.raises(GateError, match="no output"):
        compared(**changes)


def test_no_photos_prove_nothing():
    assert not proof.compare(CONTRACT, {}, {}).holds


# --- decisions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "decisions"), [({"unknown": 0.29}, 1.0), ({"unknown": 0.31}, 0.0), ({"unknown": 0.30005}, 1.0)]
)
def test_another_decision_counts_unless_rounding_explains_it(answer, decisions):
    assert compared(**answer).decisions == decisions


def test_a_form_with_thresholds_of_its_own_is_judged_by_them():
    strict = CONTRACT.model_copy(update={"thresholds": {"disease": 0.9}})
    same = answers_of(Says())
    assert proof.compare(CONTRACT, same, same, served=strict).decisions == 0.0
    assert proof.compare(strict, same, same, served=strict).decisions == 1.0
    assert not proof.compare(CONTRACT, same, same, served=strict).holds


# --- the score --------------------------------------------------------------------------------

LABELS = {"disease": np.array([0] * 30 + [1] * 30), "weight": np.full(60, np.nan, np.float32)}
TARGET = CONTRACT.targets[0]


def answers(right):
    """Answers of which these are right: `unknown` and probabilities of the disease."""
    probabilities = np.eye(2, dtype=np.float32)[np.where(right, LABELS["disease"], 1 - LABELS["disease"])]
    return {"target.disease": probabilities, "unknown": np.zeros(60, np.float32)}


def test_the_change_of_the_score_is_that_of_macro_f1():
    right, fewer = np.ones(60, bool), np.arange(60) % 10 != 0
    result = proof.change([TARGET], LABELS, answers(right), answers(fewer))
    assert result.photos == 60
    assert result.before == 1.0
    assert result.after == pytest.approx(0.9)
    assert result.low < result.change < result.high < 0


def test_equal_models_change_nothing_and_groups_widen_the_interval():
    rng = np.random.default_rng(0)
    one, other = rng.random(60) < 0.8, rng.random(60) < 0.8
    same = proof.change([TARGET], LABELS, answers(one), answers(one))
    assert (same.change, same.low, same.high) == (0, 0, 0)
    groups = np.repeat(np.arange(6), 10)  # photos of one plant err alike
    errors = np.isin(groups, [0, 4])
    alone = proof.change([TARGET], LABELS, answers(np.ones(60, bool)), answers(~errors))
    grouped = proof.change([TARGET], LABELS, answers(np.ones(60, bool)), answers(~errors), groups)
    assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)
    assert proof.change([TARGET], LABELS, answers(one), answers(other)).low < 0


def test_photos_of_one_plant_give_no_interval_and_no_invalid_json():
    fewer = answers(np.arange(60) % 10 != 0)
    change = proof.change([TARGET], LABELS, answers(np.ones(60, bool)), fewer, np.zeros(60, int))
    assert (change.low, change.high, change.interval) == (None, None, "")
    reason = proof.Proof(60, 0.9, 0.9, 1.0, 0.0, change).costs_too_much(0.0)
    assert "0.9000 instead of 1.0000; the allowed drop is 0" in reason


def test_the_point_estimate_decides_what_may_be_lost():
    fewer = answers(np.arange(60) % 10 != 0)
    result = proof.Proof(60, 0.9, 0.9, 1.0, 0.0, proof.change([TARGET], LABELS, answers(np.ones(60, bool)), fewer))
    assert not result.costs_too_much(0.11)
    assert "0.9000 instead of 1.0000" in result.costs_too_much(0.09)
    assert "no labels" in proof.Proof(60, 1.0, 1.0, 0.0).costs_too_much(1.0)
    assert "squared error" in proof.Proof(60, 1.0, 1.0, 1.0, 0.4, result.change).costs_too_much(1.0)
    assert "not a number" in proof.Proof(60, 1.0, 1.0, np.inf, 0.0, result.change).costs_too_much(1.0)
