import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantml.errors import UsageError
from plantml.metrics import Interval
from plantml.validate import gates
from plantml.validate.gates import Gate

SCORES = {"macro_f1": 0.8, "disease.macro_f1": 0.7, "disease.recall[rust]": 0.6, "severity.mae": 0.1}


@pytest.mark.parametrize(
    ("text", "name", "bound"),
    [
        ("macro_f1=0.85", "macro_f1", 0.85),
        (" disease.recall[late blight]=0.9", "disease.recall[late blight]", 0.9),
        ("severity.r2=-0.5", "severity.r2", -0.5),
        ("severity.mse=1e-3", "severity.mse", 0.001),
        ("macro_f1=1", "macro_f1", 1.0),
    ],
)
def test_a_gate_is_a_name_and_a_number(text, name, bound):
    assert gates.parse("min", [text]) == [("min", name, bound)]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_can_be_a_bound(bound):
    assert gates.parse("max", [f"severity.mae={bound!r}"]) == [("max", "severity.mae", bound)]


@pytest.mark.parametrize(
    "text", ["", "macro_f1", "macro_f1=", "=0.9", "macro_f1=high", "macro_f1=nan", "macro_f1=e", "a=1=2"]
)
def test_what_is_no_gate_is_refused_with_an_example(text):
    with pytest.raises(UsageError, match="is not a gate") as error:
        gates.parse("min", ["macro_f1=0.5", text])
    assert "--min disease.macro_f1=0.85" in error.value.hint


@given(st.floats(0, 1), st.floats(0, 1))
def test_min_is_at_least_and_max_is_at_most(value, bound):
    low, high = (Gate("macro_f1", kind, bound, value) for kind in ("min", "max"))
    assert low.passed == (value >= bound - 1e-9)
    assert high.passed == (value <= bound + 1e-9)


def test_each_gate_is_judged_by_its_own_number():
    wanted = [
        *gates.parse("min", ["macro_f1=0.8", "disease.recall[rust]=0.61"]),
        *gates.parse("max", ["severity.mae=0.1"]),
    ]
    judged = gates.judge(wanted, SCORES)
    assert [(gate.name, gate.value, gate.passed) for gate in judged] == [
        ("macro_f1", 0.8, True),
        ("disease.recall[rust]", 0.6, False),
        ("severity.mae", 0.1, True),
    ]
    assert str(judged[1]) == "FAILED  disease.recall[rust] = 0.6000, required >= 0.61"
    assert str(judged[2]) == "passed  severity.mae = 0.1000, required <= 0.1"


def test_a_name_without_a_number_suggests_near_ones():
    with pytest.raises(UsageError, match=r"'disease\.makro_f1'") as error:
        gates.judge([("min", "disease.makro_f1", 0.5)], SCORES)
    assert "disease.macro_f1" in error.value.hint


def test_a_name_like_none_lists_the_headline():
    with pytest.raises(UsageError) as error:
        gates.judge([("min", "zzzzzzzz", 0.5)], SCORES)
    assert "macro_f1, disease.macro_f1, severity.mae" in error.value.hint
    assert "[" not in error.value.hint


# --- intervals, short names, drops ------------------------------------------------------------


def test_each_gate_shows_its_interval():
    (gate,) = gates.judge([("min", "macro_f1", 0.85)], SCORES, {"macro_f1": Interval(0.75, 0.86)})
    assert str(gate) == "FAILED  macro_f1 = 0.8000 [0.7500, 0.8600], required >= 0.85"
    assert json.loads(json.dumps(gate.as_json())) == {
        "name": "macro_f1",
        "min": 0.85,
        "value": 0.8,
        "passed": False,
        "interval": [0.75, 0.86],
    }


def test_a_short_name_stands_for_every_target():
    scores = {"disease.ece": 0.02, "health.ece": 0.06, "macro_f1": 1.0, "disease.macro_f1": 0.5}
    judged = gates.judge([("max", "ece", 0.05)], scores)
    assert [(gate.name, gate.passed) for gate in judged] == [("disease.ece", True), ("health.ece", False)]
    assert [gate.name for gate in gates.judge([("min", "macro_f1", 0.9)], scores)] == ["macro_f1"]


@given(st.floats(-1, 1), st.floats(0, 1))
def test_the_point_decides_a_drop_and_the_interval_only_tells(value, bound):
    wide = Gate("disease.macro_f1", "max_drop", bound, value, Interval(-1, 1.5), 12)
    narrow = Gate("disease.macro_f1", "max_drop", bound, value, Interval(value, value), 12)
    assert wide.passed == narrow.passed == (value <= bound + 1e-9)
    assert narrow.resolvable
    assert not wide.resolvable
    assert "not resolvable with 12 photos" in str(wide)
    assert not Gate("disease.macro_f1", "max_drop", bound, value, None, 12).resolvable


def test_a_drop_of_exactly_the_bound_passes():
    assert Gate("disease.f1[rust]", "max_drop", 0.3, 0.8 - 0.5).passed  # 0.30000000000000004
