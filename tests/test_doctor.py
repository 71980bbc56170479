"""What `plantml doctor` finds, on this machine and on one where something is wrong."""

import json
import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace

import pytest

from plantml import doctor, storage
from plantml.doctor import Level, diagnose
from plantml.errors import Exit
from plantml.settings import Machine


@pytest.fixture
def without_torch(monkeypatch):
    """As where `[train]` is not installed: nothing waits for torch."""
    monkeypatch.setattr(doctor, "find_spec", lambda _: None)


def found(diagnosis, name):
    return next(finding for finding in diagnosis.findings if finding.name == name)


def test_a_machine_where_all_is_well_has_no_problem():
    diagnosis = diagnose()
    assert not [finding for finding in diagnosis.findings if finding.level is Level.PROBLEM]
    assert all(finding.text for finding in diagnosis.findings)
    assert "torch " in found(diagnosis, "[train]").text
    assert "CPUExecutionProvider" in found(diagnosis, "onnxruntime").text
    assert diagnosis.unusable == ()


def install(monkeypatch, *installed: str) -> None:
    """Have only these distributions installed."""

    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return "2.10"

    monkeypatch.setattr(doctor.metadata, "version", version)


def test_what_needs_doing_says_how(without_torch, monkeypatch):
    install(monkeypatch)
    monkeypatch.setattr(doctor, "_memory", lambda: (2**30, True))
    monkeypatch.setattr(doctor.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(doctor, "_instructions", lambda: ["AMX"])
    monkeypatch.setattr(doctor.resize, "_kernel", None)
    monkeypatch.setattr(doctor.grey, "_kernel", None)
    diagnosis = diagnose()
    assert found(diagnosis, "packages").level is Level.PROBLEM
    assert "pip install 'plantml[heif]'" in found(diagnosis, "[heif]").text
    assert found(diagnosis, "[heif]").level is Level.OK  # an optional part is no trouble
    assert found(diagnosis, "memory").level is found(diagnosis, "instructions").level is Level.WARNING
    assert found(diagnosis, "resizing of photos").level is Level.WARNING
    assert found(diagnosis, "measures of photos").level is Level.WARNING
    assert all(finding.fix for finding in diagnosis.findings if finding.level is not Level.OK)


def test_half_an_extra_is_a_warning(monkeypatch):
    install(monkeypatch, "torch")
    finding = doctor._packages("train", ["torch", "timm"])
    assert (finding.level, finding.fix) == (Level.WARNING, "pip install 'plantml[train]'")
    assert "timm" in finding.text


def test_requirements_are_read_by_extra():
    lines = [
        "numpy<3,>=2.2",
        "torch<3; extra == 'train'",
        'pillow-heif>=1; extra == "heif"',
        "plantml[train]; extra == 'all'",
    ]
    assert doctor._requirements(lines) == {"": ["numpy"], "train": ["torch"], "heif": ["pillow-heif"]}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("processor: 0\nflags\t\t: fpu avx2 avx512f amx_tile\n", ["AVX2", "AVX-512", "AMX"]),
        ("processor: 0\nFeatures\t: fp asimd asimddp\n", ["NEON", "dotprod"]),
        ("processor: 0\n", []),
    ],
)
def test_instructions_are_those_of_the_processor(monkeypatch, text, names):
    monkeypatch.setattr(doctor.Path, "read_text", lambda *_, **__: text)
    assert doctor._instructions() == names


@pytest.mark.parametrize(
    ("code", "level", "names"),
    [
        ('print(\'{"gpus": ["H100"], "cuda": "13.0"}\')', Level.OK, "H100"),
        ('print(\'{"gpus": [], "cuda": null}\')', Level.OK, "none"),
        ("raise ImportError('libcudart.so.13 is missing')", Level.PROBLEM, "libcudart"),
        ("import time; time.sleep(60)", Level.PROBLEM, "did not load"),
    ],
)
def test_a_torch_that_does_not_work_is_found(monkeypatch, code, level, names):
    monkeypatch.setattr(doctor, "_GPU", code)
    monkeypatch.setattr(doctor, "_GPU_SECONDS", 0.2 if "sleep" in code else 60)
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    finding = doctor._gpu()
    assert finding.level is level
    assert names in finding.text


@pytest.mark.parametrize(
    ("name", "value", "level", "names"),
    [
        ("PLANTML_THREADS", "3", Level.OK, "3"),
        ("PLANTML_TRAIN__LR", "0.1", Level.OK, "0.1"),
        ("PLANTML_EXPORT__SAMPLES", "9", Level.OK, "9"),
        ("PLANTML_CACHE_DIRR", "/x", Level.WARNING, "PLANTML_CACHE_DIR"),
        ("PLANTML_NONSENSE", "1", Level.WARNING, "PLANTML_OFFLINE"),
    ],
)
def test_settings_of_the_environment_are_shown_and_checked(without_torch, monkeypatch, name, value, level, names):
    monkeypatch.setenv(name, value)
    finding = found(diagnose(), name)
    assert finding.level is level
    assert names in finding.text + finding.fix


def test_a_setting_that_cannot_be_is_a_problem_and_not_the_end(without_torch, monkeypatch):
    monkeypatch.setenv("PLANTML_THREADS", "many")
    finding = found(diagnose(), "environment")
    assert finding.level is Level.PROBLEM
    assert "PLANTML_THREADS" in finding.text


def test_a_cache_that_cannot_be_used_or_filled_is_found(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("no folder")
    (finding,) = doctor._cache(Machine(cache_dir=file / "cache"), "default")
    assert finding.level is Level.PROBLEM
    _, size = doctor._cache(Machine(cache_dir=tmp_path / "cache", cache_limit=2**60), "default")
    assert size.level is Level.WARNING
    assert "PLANTML_CACHE_LIMIT=" in size.fix
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=5))
    _, size = doctor._cache(Machine(cache_dir=tmp_path / "cache"), "default")
    assert "Make room" in size.fix


def test_no_secret_is_shown(without_torch, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "my-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "my-secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    text = str(diagnose())
    assert "from AWS_ACCESS_KEY_ID" in text
    assert "my-" not in text


def test_a_place_is_read_and_written_as_datasets_need_it(without_torch, url):
    storage.write(storage.join(url, "other", "a.jpg"), b"photo")
    url = storage.join(url, "place")
    before = diagnose([url])
    assert found(before, url).level is Level.WARNING
    storage.write(storage.join(url, "a.jpg"), b"photo")
    assert found(diagnose([url]), url).text == "can be listed"
    assert "a file" in found(diagnose([storage.join(url, "a.jpg")]), storage.join(url, "a.jpg")).text
    finding = found(diagnose([url], write=True), url)
    assert finding.level is Level.OK
    assert finding.text.endswith("can be written, by one writer at a time")
    assert [entry.name for entry in storage.list_files(url)] == ["a.jpg"]


def test_a_place_that_lets_two_writers_win_is_a_problem(without_torch, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "create", storage.write)
    diagnosis = diagnose([str(tmp_path)], write=True)
    assert "two writers" in found(diagnosis, str(tmp_path)).text
    assert diagnosis.unusable == (str(tmp_path),)
    assert list(tmp_path.iterdir()) == []


def test_a_bucket_that_is_not_there_is_a_problem(without_torch, s3):
    url = "s3://no-such-bucket/leaves"
    s3()
    finding = found(diagnose([url]), url)
    assert finding.level is Level.PROBLEM
    assert finding.fix


def test_the_command_ends_with_the_code_of_a_gate_where_a_place_cannot_be_used(cli, without_torch, tmp_path):
    assert cli("doctor", tmp_path, "--quiet").code == Exit.DONE
    result = cli("doctor", "nonsense://x", tmp_path, "--json")
    assert result.code == Exit.GATE
    assert result.json["plantml_result"] == 1
    assert result.json["problems"] == 1
    assert [finding["fix"] != "" for finding in result.json["findings"] if finding["level"] == "problem"] == [True]
    assert "nonsense://x" in result.err


def test_it_opens_no_socket_and_imports_no_torch(tmp_path):
    code = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise AssertionError('a socket was opened')\n"
        "socket.socket.connect = socket.socket.connect_ex = refuse\n"
        "socket.getaddrinfo = socket.create_connection = refuse\n"
        "from plantml.cli.app import run\n"
        "code = run(['doctor', '--json'])\n"
        "assert not {'torch', 'polars', 's3fs', 'cv2'} & set(sys.modules)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["command"] == "doctor"
