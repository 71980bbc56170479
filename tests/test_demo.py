"""The demo's steps are commands that a user could type; what they do is tested where they are."""

import pytest

from plantml import demo
from plantml.errors import Exit, InputError


def options(arguments):
    return {word for word in arguments if word.startswith("--")}


def test_every_step_is_a_command_with_options_that_it_has(cli, tmp_path):
    for step in demo.steps(tmp_path, 60, 1):
        words = step.arguments[: 2 if step.arguments[0] == "dataset" else 1]
        page = cli(*words, "--help").out.split("Examples:")[0]
        assert all(f"{option} " in page for option in options(step.arguments)), step


def test_photos_become_a_dataset_with_splits(cli, tmp_path):
    steps = demo.steps(tmp_path / "a folder", 60, 1)
    for step in steps[:3]:
        result = cli(*step.arguments)
        assert result.code == Exit.DONE, result.err
    assert steps[3].arguments[0] == "train"


def test_new_photos_are_drawn_alike_with_another_seed(tmp_path):
    first, new = (step.arguments[3:] for step in demo.steps(tmp_path, 24, 3) if "synth" in step.arguments)
    assert [word for word, other in zip(first, new, strict=True) if word != other] == ["1"]
    assert new[first.index("1")] == "2"


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(InputError, match=r"thesis\.txt"):
        demo.run(tmp_path, 60, 1, lambda step: pytest.fail("a step ran"))


def test_a_demo_can_be_repeated(tmp_path):
    for name in ("photos", "leaves", "run", "validation", "leaf.onnx", "new", "records.jsonl.journal", "sheet.png"):
        (tmp_path / name).touch()
    assert demo.run(tmp_path, 60, 1, lambda step: 0) == 0


def test_a_step_that_fails_is_the_last_one(tmp_path):
    calls = []

    def call(step):
        calls.append(step.arguments[0])
        return 3 if step.arguments[0] == "train" else 0

    assert demo.run(tmp_path, 60, 1, call) == 3
    assert calls == ["dataset", "dataset", "dataset", "train"]
