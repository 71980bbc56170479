"""The command line as a contract: exit codes, streams, JSON envelopes, help."""

import errno
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from plantml.cli import app
from plantml.curate import check
from plantml.data import exporting
from plantml.data import formats as import_formats
from plantml.detect import writers
from plantml.errors import Exit
from plantml.export import forms
from plantml.model import runtimes
from plantml.retrain import pipelines


def commands(command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The words of every command, without groups that do nothing themselves."""
    inner = getattr(command, "commands", None)
    own = [path] if inner is None or command.own is not None else []
    return own + [line for name in inner or () for line in commands(inner[name], (*path, name))]


COMMANDS = commands(typer.main.get_command(app.build()))
PHRASES = re.compile(
    r"a call of the model|(?:one|1) (?:record|row|line|file|folder|photo|image) an? \w+|of every random choice"
    r"|put (?:findings )?right|the whole way|so many|from which on|goes on|that no one took|proven equal|two looks"
    r"|still end with|are others now"
)
ESCAPE = "\x1b["


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_shows_examples_that_the_command_understands(cli, command) -> None:
    page = cli(*command, "--help").out
    examples = re.findall(r"^\s+(?:.*\| )?(plantml .*)$", page.split("Examples:")[1], flags=re.MULTILINE)
    assert examples
    for example in examples:
        for option in re.findall(r"(?<= )--[a-z-]+", example):
            assert option in page.split("Examples:")[0], example


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_is_plain_english(cli, command) -> None:
    text = " ".join(cli(*command, "--help").out.split())
    assert PHRASES.findall(text) == []


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("dataset import", import_formats.FORMATS),
        ("dataset export", exporting.FORMATS),
        ("dataset check", check.CHECKS),
        ("detect", [*writers.FORMATS, *runtimes.RUNTIMES]),
        ("validate", runtimes.RUNTIMES),
        ("export", forms.FORMS),
        ("pipeline export", pipelines.FORMS),
    ],
)
def test_help_names_every_choice_there_is(cli, line, names) -> None:
    # The command line writes them out: it starts without importing the tables.
    page = re.sub(r"-\s+", "-", cli(*line.split(), "--help").out)  # lines may break within a name
    assert [name for name in names if not re.search(rf"\b{re.escape(name)}\b", page)] == []


def test_the_list_of_commands_matches_their_help_pages(cli) -> None:
    for name, summary in app.COMMANDS.items():
        assert summary in " ".join(cli(name, "--help").out.split())


def test_a_group_that_does_something_itself_takes_every_other_line(cli) -> None:
    assert ("serve",) in COMMANDS
    assert ("serve", "users", "add") in COMMANDS
    assert "REGISTRY" in cli("serve", "--help").out
    assert "NAME" in cli("serve", "users", "add", "--help").out
    assert cli("serve", "--port", "70000", "users").code == Exit.USAGE


def test_a_flag_that_does_not_fit_is_named_as_typed(cli) -> None:
    result = cli("train", "d", "--batch-size", "0")
    assert result.code == Exit.USAGE
    assert "The value of --batch-size does not fit" in result.err


def test_version(cli) -> None:
    result = cli("--version")
    assert result.code == Exit.DONE
    assert re.fullmatch(r"plantml \d+\.\d+\.\d+\n", result.out)


@pytest.mark.parametrize(
    ("arguments", "code", "names"),
    [
        (("nonsense",), Exit.USAGE, "nonsense"),
        (("train",), Exit.USAGE, "DATASET"),
        (("detect", "x.jpg"), Exit.USAGE, "--model"),
        (("detect", "x.jpg", "--modle", "m"), Exit.USAGE, "--model"),
        (("detect", "x.jpg", "--batch", "many"), Exit.USAGE, "--batch"),
        (("dataset", "split", "d", "--ratios", "3"), Exit.USAGE, "0.7/0.15/0.15"),
        (("dataset", "info", "no/such/dataset"), Exit.INPUT, "plantml dataset import"),
        (("dataset", "import", "no/such/photos", "d"), Exit.INPUT, "no/such/photos"),
        (("validate", "d", "--model", "no/such/run"), Exit.INPUT, "no/such/run"),
        (("train", "d", "--set", "epocs=3"), Exit.INPUT, "epochs"),
        (("detect", "x.jpg", "--model", "no/such/run"), Exit.INPUT, "no/such/run"),
    ],
)
def test_an_error_has_its_code_and_says_what_to_do(cli, arguments, code, names) -> None:
    result = cli(*arguments)
    assert result.code == code
    assert result.out == ""
    assert names in result.err
    assert "Next:" in result.err or "Error:" in result.err
    assert "Traceback" not in result.err


def test_an_error_is_a_json_document_too(cli) -> None:
    result = cli("dataset", "info", "no/such/dataset", "--json")
    assert result.code == Exit.INPUT
    assert result.json["plantml_result"] == 1
    assert result.json["error"]["exit_code"] == Exit.INPUT
    assert result.json["error"]["hint"]


def test_debug_shows_the_traceback(cli) -> None:
    assert "Traceback" in cli("dataset", "info", "no/such/dataset", "--debug").err


def test_a_bug_is_told_as_a_bug(cli, monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by accident")

    monkeypatch.setattr(app, "build", broken)
    result = cli("dataset", "info", "x")
    assert result.code == Exit.BUG
    assert "by accident" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("error", "code", "names"),
    [
        (MemoryError(), Exit.STORAGE, "Out of memory"),
        (OSError(errno.ENOSPC, "No space left on device"), Exit.STORAGE, "Make room"),
        (OSError(errno.EMFILE, "Too many open files", "x.jpg"), Exit.STORAGE, "ulimit -n"),
        (OSError(errno.EIO, "Input/output error"), Exit.STORAGE, "--debug"),
        (RuntimeError("can't start new thread"), Exit.STORAGE, "ulimit -u"),
        (RecursionError("maximum recursion depth exceeded"), Exit.INPUT, "nested"),
        (UnicodeEncodeError("utf-8", "caf\udce9.jpg", 3, 4, "surrogates not allowed"), Exit.INPUT, "Rename"),
        (RuntimeError("by accident"), Exit.BUG, "--debug"),
        (OSError("without a number of the system"), Exit.BUG, "--debug"),
        (UnicodeEncodeError("ascii", "café", 3, 4, "ordinal not in range(128)"), Exit.BUG, "--debug"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_the_machine_refuses_is_no_bug(cli, monkeypatch, error, code, names) -> None:
    def refused(*_: object) -> None:
        raise error

    monkeypatch.setattr(app, "build", refused)
    result = cli("dataset", "info", "x", "--json")
    assert result.code == code
    assert names in result.err
    assert ("plantml has a bug" in result.err) == (code == Exit.BUG)
    if code != Exit.BUG:
        assert result.json["error"]["exit_code"] == code


@pytest.mark.parametrize("group", [(), ("dataset",), ("models",)])
def test_a_group_alone_shows_its_help_with_the_code_of_wrong_usage(cli, group) -> None:
    # Typer and click end with 2 where a command line names no command; the page is a result, and no error.
    result = cli(*group)
    assert result.code == Exit.USAGE
    assert result.out == cli(*group, "--help").out
    assert result.out.startswith(f"Usage: {' '.join(('plantml', *group))} ")
    assert result.err == ""


def test_a_missing_extra_names_the_install_line(cli, monkeypatch, trained, tmp_path) -> None:
    monkeypatch.setattr("plantml.extras.find_spec", lambda name: None)
    result = cli("train", trained.data, "--out", tmp_path / "run")
    assert result.code == Exit.MISSING
    assert "pip install 'plantml[train]'" in result.err


def test_every_result_has_a_json_envelope(cli, trained, tmp_path) -> None:
    data = tmp_path / "data"
    lines = [
        ("dataset", "import", trained.photos, data),
        ("dataset", "split", data),
        ("dataset", "info", data),
        ("dataset", "log", data),
        ("dataset", "diff", f"{data}@1", f"{data}@2"),
        ("dataset", "tag", data, "first"),
        ("dataset", "synth", tmp_path / "synth", "--images", 3, "--size", 64),
        ("train", trained.data, "--out", trained.run, "--size", 64, "--epochs", 2, "--seed", 1),
        ("validate", trained.data, "--model", trained.run),
        ("export", trained.run, "--to", tmp_path / "m.onnx", "--samples", 4),
        ("detect", trained.photos, "--model", trained.run, "--out", tmp_path / "records.jsonl"),
    ]
    for line in lines:
        result = cli(*line, "--json")
        assert result.code == Exit.DONE, result.err
        assert result.json["plantml_result"] == 1
        assert result.json["command"] == " ".join(str(word) for word in line[: 2 if line[0] == "dataset" else 1])


def test_a_failed_gate_prints_one_document(cli, trained) -> None:
    result = cli("validate", trained.data, "--model", trained.run, "--min", "macro_f1=1.1", "--json")
    assert result.code == Exit.GATE
    assert result.json["gates"][0]["passed"] is False
    assert "macro_f1" in result.err


def test_stdout_holds_results_only_and_no_escape_codes(cli, trained) -> None:
    result = cli("dataset", "info", trained.data)
    assert result.code == Exit.DONE
    assert result.err == ""
    assert ESCAPE not in result.out


def test_quiet_says_nothing_but_the_result(cli, trained, tmp_path) -> None:
    arguments = ("detect", trained.photos, "--model", trained.run, "--out", tmp_path / "records.jsonl")
    assert cli(*arguments, "--quiet").err == ""
    assert "onnxruntime" in cli(*arguments, "--verbose").err


def test_print_config_shows_values_and_where_they_came_from(cli, tmp_path, monkeypatch) -> None:
    file = tmp_path / "train.yaml"
    file.write_text("epochs: 3\nlr: 0.1\nsize: 96\n")
    monkeypatch.setenv("PLANTML_TRAIN__LR", "0.2")
    monkeypatch.setenv("PLANTML_TRAIN__SIZE", "128")
    result = cli(
        "train", "d", "--config", file, "--set", "size=160", "--epochs", 9, "--print-config"
    )  # fmt: skip
    lines = result.out.splitlines()
    assert "epochs = 9  # flag" in lines
    assert "size = 160  # --set size=160" in lines
    assert "lr = 0.2  # environment" in lines
    assert "seed = 0  # default" in lines


def test_dry_run_shows_the_plan_and_writes_nothing(cli, trained, tmp_path, monkeypatch) -> None:
    from plantml.train.plan_inputs import Speed
    from plantml.train.planning import throughput

    monkeypatch.setattr(throughput, "measure", lambda *_: Speed(step=0.1, embed=0.01, decode=0.01))
    result = cli("train", trained.data, "--out", tmp_path / "run", "--dry-run", "--json")
    assert result.json["plan"]["epochs"] > 0
    assert not (tmp_path / "run").exists()


def test_dry_run_tells_that_a_budget_cannot_be_kept(cli, trained, tmp_path, monkeypatch) -> None:
    from plantml.train.plan_inputs import Speed
    from plantml.train.planning import throughput

    monkeypatch.setattr(throughput, "measure", lambda *_: Speed(step=0.1, embed=0.01, decode=0.01))
    result = cli("train", trained.data, "--out", tmp_path / "run", "--dry-run", "--budget", "5s")
    assert result.code == 0
    assert "all epochs take seconds" in result.out
    assert "The budget of 5 seconds cannot be kept" in result.out
    assert not (tmp_path / "run").exists()


def run_in_terminal(*arguments: str, env: dict[str, str]) -> str:
    """What a command writes to a pseudo-terminal."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "plantml", *arguments], stdout=child, stderr=child, env=os.environ | env
    )
    os.close(child)
    text = b""
    try:
        while chunk := os.read(parent, 65536):
            text += chunk
    except OSError:  # Linux ends a pseudo-terminal with an error
        pass
    process.wait()
    os.close(parent)
    return text.decode()


def test_colour_on_a_terminal_and_none_with_no_color(trained) -> None:
    clean = dict.fromkeys(("NO_COLOR", "CI"), "")
    assert ESCAPE in run_in_terminal("dataset", "info", trained.data, env={**clean, "TERM": "xterm-256color"})
    plain = run_in_terminal("dataset", "info", trained.data, env={"TERM": "xterm-256color", "NO_COLOR": "1"})
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", plain)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, Exit.INTERRUPTED), (signal.SIGTERM, Exit.TERMINATED)])
def test_signals_end_any_command_with_their_code(tmp_path: Path, sent, code) -> None:
    command = [sys.executable, "-m", "plantml", "dataset", "synth", str(tmp_path / "photos"), "--images", "4000"]
    # A shell that runs the tests in its background lets them, and what they start, ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    while not list(tmp_path.glob("photos/images/*/*.jpg")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err


def end_of(arguments: str, redirected: str) -> tuple[int, str]:
    """Exit code and stderr of a command whose streams a shell leads elsewhere."""
    line = f"{sys.executable} -m plantml {arguments} {redirected}; exit ${{PIPESTATUS[0]}}"
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, env=buffered)
    return done.returncode, done.stderr


@pytest.mark.parametrize("arguments", ["dataset info {data} --json", "--help", "nonsense 2>&1"])
def test_a_reader_that_leaves_early_is_no_error(trained, arguments) -> None:
    assert end_of(arguments.format(data=trained.data), "| true") == (128 + signal.SIGPIPE, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
@pytest.mark.parametrize("arguments", ["dataset info {data} --json", "--help"])
def test_a_full_disk_under_stdout_is_trouble_of_the_storage(trained, arguments) -> None:
    code, err = end_of(arguments.format(data=trained.data), ">/dev/full")
    assert code == Exit.STORAGE
    assert err.startswith("Error: Could not write to standard output.\n")
    assert "Traceback" not in err
    assert "Exception ignored" not in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
@pytest.mark.parametrize(
    ("arguments", "redirected", "code"),
    [("nonsense", "2>/dev/full", Exit.STORAGE), ("--version", ">&- 2>&- <&-", Exit.DONE)],
)
def test_streams_that_take_nothing_do_not_look_like_a_bug(arguments, redirected, code) -> None:
    assert end_of(arguments, redirected) == (code, "")


def test_json_documents_end_with_a_newline(cli, trained) -> None:
    out = cli("dataset", "log", trained.data, "--json").out
    assert out.endswith("}\n")
    json.loads(out)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_an_option_takes_no_number_that_is_none(cli, tmp_path, value) -> None:
    done = cli("train", f"{tmp_path}/none", f"--target-risk={value}")
    assert done.code == Exit.USAGE
    assert "--target-risk" in done.err


def test_what_a_user_gets_wrong_in_the_first_hour_says_what_to_do_next(cli, tmp_path, write_photos):
    photos = write_photos(tmp_path / "photos", ["rust/a.jpg", "healthy/b.jpg"])
    tables = {
        "empty.csv": "image,disease\n",
        "split.csv": "image,disease,split\nrust/a.jpg,rust,holdout\n",
        "text.csv": "image,severity\nrust/a.jpg,much\n",
    }
    for name, text in tables.items():
        (photos / name).write_text(text)
    (photos / "list.yaml").write_text("- epochs\n")
    data = tmp_path / "data"
    assert cli("dataset", "import", photos, data).code == Exit.DONE
    for arguments in [
        ("dataset", "import", photos / "empty.csv", tmp_path / "out"),
        ("dataset", "import", photos / "split.csv", tmp_path / "out"),
        ("dataset", "import", photos / "text.csv", tmp_path / "out", "--target", "severity:value"),
        ("dataset", "tag", data, "3"),
        ("dataset", "rename-class", data, "disease", "mildew", "rust"),
        ("dataset", "subset", data, tmp_path / "out", "--where", 'disease == "mildew"'),
        ("detect", photos, "--model", data, "--batch", 0),
        ("detect", photos, "--model", data, "--config", photos / "list.yaml"),
    ]:
        result = cli(*arguments)
        assert result.code in {Exit.USAGE, Exit.INPUT}, arguments
        assert "Next: " in result.err, result.err
