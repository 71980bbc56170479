import ast
import pickle
from pathlib import Path

import pytest

from plantml import errors
from plantml.errors import Exit, MissingExtraError, NotFoundError, PlantmlError
from plantml.imaging import ImageError

CODES = {
    "PlantmlError": 1,
    "UsageError": 2,
    "InputError": 3,
    "NotFoundError": 3,
    "RefusedError": 3,
    "GateError": 4,
    "FailuresError": 5,
    "StorageError": 6,
    "DamagedError": 6,
    "AlreadyExistsError": 6,
    "MissingExtraError": 7,
    "StoppedError": 130,
    "TerminatedError": 143,
}
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PlantmlError)]


def test_every_kind_of_error_is_in_the_table_of_exit_codes():
    assert {kind.__name__: int(kind.exit_code) for kind in KINDS} == CODES


def test_the_exit_codes_are_those_that_are_documented():
    assert {each.name: each.value for each in Exit} == {
        "DONE": 0,
        "BUG": 1,
        "USAGE": 2,
        "INPUT": 3,
        "GATE": 4,
        "FAILURES": 5,
        "STORAGE": 6,
        "MISSING": 7,
        "INTERRUPTED": 130,
        "TERMINATED": 143,
    }


def test_an_exit_code_serves_as_a_number():
    assert Exit.STORAGE + 0 == 6
    assert isinstance(Exit.STORAGE, int)


def test_every_error_says_what_to_do_next():
    names = {kind.__name__ for kind in KINDS} - {"MissingExtraError"}  # which says how to install it
    silent = []
    for file in Path(errors.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in names:
                hints = [*node.args[2:], *(word.value for word in node.keywords if word.arg == "hint")]
                passed_on = any(isinstance(argument, ast.Starred) for argument in node.args)
                if not passed_on and not any(getattr(hint, "value", "…") for hint in hints):
                    silent.append(f"{file}:{node.lineno}")
    assert silent == []


@pytest.mark.parametrize("kind", [*KINDS, ImageError], ids=lambda kind: kind.__name__)
def test_an_error_comes_whole_out_of_a_worker_process(kind):
    error = pickle.loads(pickle.dumps(kind("what", "why", "hint")))
    assert type(error) is kind
    assert (error.what, error.why, error.hint) == ("what", "why", "hint")
    assert error.exit_code == kind.exit_code
    assert str(error) == str(kind("what", "why", "hint"))


def test_an_image_error_keeps_its_code_through_pickling():
    assert pickle.loads(pickle.dumps(ImageError("truncated", "cut short"))).code == "truncated"


def test_the_text_of_an_error_is_what_and_why():
    assert str(PlantmlError("No model", "the folder is empty", "Train one.")) == ("No model: the folder is empty")


def test_the_text_of_an_error_without_a_cause_is_what_happened():
    assert str(PlantmlError("No model")) == "No model"


def test_a_missing_extra_tells_the_install_line():
    error = MissingExtraError("Training is not installed", "torch is missing", extra="train")
    assert error.hint == "Install it: pip install 'plantml[train]'"


def test_the_install_line_of_a_missing_extra_survives_pickling():
    error = pickle.loads(pickle.dumps(MissingExtraError("Not installed", extra="heif")))
    assert error.hint == "Install it: pip install 'plantml[heif]'"


def test_a_hint_that_is_given_wins_over_the_install_line():
    assert MissingExtraError("Not installed", "", "Ask.", extra="heif").hint == "Ask."


def test_nothing_found_is_bad_input_and_not_broken_storage():
    with pytest.raises(errors.InputError):
        raise NotFoundError("Nothing found")
