import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantml.errors import UsageError
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
    with pytest.raises(UsageError, match="is no gate") as error:
        gates.parse("min", ["macro_f1=0.5", text])
    assert "--min disease.macro_f1=0.85" in error.value.hint


@given(st.floats(0, 1), st.floats(0, 1))
def test_min_is_at_least_and_max_is_at_most(value, bound):
    low, high = (Gate("macro_f1", kind, bound, value) for kind in ("min", "max"))
    assert low.passed == (value >= bound)
    assert high.passed == (value <= bound)


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
    assert str(judged[1]) == "FAILED  disease.recall[rust] = 0.6000, wanted >= 0.61"
    assert str(judged[2]) == "passed  severity.mae = 0.1000, wanted <= 0.1"


def test_a_name_without_a_number_suggests_near_ones():
    with pytest.raises(UsageError, match=r"'disease\.makro_f1'") as error:
        gates.judge([("min", "disease.makro_f1", 0.5)], SCORES)
    assert "disease.macro_f1" in error.value.hint


def test_a_name_like_none_lists_the_headline():
    with pytest.raises(UsageError) as error:
        gates.judge([("min", "zzzzzzzz", 0.5)], SCORES)
    assert "macro_f1, disease.macro_f1, severity.mae" in error.value.hint
    assert "[" not in error.value.hint
