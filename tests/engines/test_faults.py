"""Whatever dies, and wherever the files are: the output is that of one process."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plantml import storage
from plantml.errors import Exit

pytestmark = pytest.mark.slow

PHOTOS = 600


@pytest.fixture(scope="module")
def photos(trained, tmp_path_factory):
    """A folder of so many photos that a command can be killed in the middle."""
    folder = tmp_path_factory.mktemp("many")
    originals = sorted(path for path in Path(trained.photos).rglob("*") if path.is_file())
    for number in range(PHOTOS):
        original = originals[number % len(originals)]
        shutil.copy(original, folder / f"{number:04d}{original.suffix}")
    return folder


@pytest.fixture(scope="module")
def whole(cli, trained, photos, tmp_path_factory):
    """What one process writes."""
    out = tmp_path_factory.mktemp("whole") / "records.jsonl"
    assert cli("detect", photos, "--model", trained.run, "--out", out, "--tta").code == 0
    return out.read_bytes()


@pytest.fixture(params=["disk", "s3"])
def out(request, tmp_path):
    """URL of an output."""
    folder = str(tmp_path) if request.param == "disk" else request.getfixturevalue("s3_url")
    return storage.join(folder, "records.jsonl")


@pytest.fixture
def start(trained, photos, out):
    """`start()`: the detection on an engine, as a process."""
    processes = []

    def begin(engine="local:2"):
        words = ["detect", photos, "--model", trained.run, "--out", out, "--tta", "--on", engine]
        processes.append(
            subprocess.Popen([sys.executable, "-m", "plantml", *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        )
        return processes[-1]

    yield begin
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def workers(process, out):
    """Process numbers of the workers of a command."""
    parents, lines = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            lines[int(folder.name)] = (folder / "cmdline").read_bytes()

    def descends(number):
        return number == process.pid or (number in parents and descends(parents[number]))

    def does_parts(number):
        line = lines[number]
        is_ours = b"plantml.engines.worker" in line and out.encode() in line  # also those that a cluster started
        return is_ours or (line.startswith(b"ray::_do") and descends(number))

    return [number for number in parents if number in lines and does_parts(number)]


def segments(out):
    """Number of segments in the journal."""
    with contextlib.suppress(Exception):
        return sum(entry.name.endswith(".jsonl") for entry in storage.list_files(f"{out}.journal"))
    return 0


def wait_for(condition, seconds=300):
    """The first true answer of a condition."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return answer


@pytest.fixture(params=["local:2", "ray", "slurm"])
def engine(request):
    """Name of an engine."""
    if request.param == "slurm":
        request.getfixturevalue("slurm")
    if request.param == "ray":
        pytest.importorskip("ray", reason="Ray is not installed: pip install 'plantml[ray]'")
    return request.param


def test_killed_workers_are_replaced(start, out, whole, engine):
    process = start(engine)
    for done in (1, 3):
        wait_for(lambda done=done: segments(out) >= done)
        os.kill(max(wait_for(lambda: workers(process, out))), signal.SIGKILL)  # the last one has just begun
    _, err = process.communicate()
    assert process.returncode == 0, err.decode()
    assert b"is started again" in err
    assert storage.read(out) == whole


def test_a_killed_command_leaves_no_worker_and_resumes(start, out, whole, cli, trained, photos, engine):
    process = start(engine)
    wait_for(lambda: segments(out) >= 2)
    left = workers(process, out)
    assert left
    process.kill()
    process.wait()
    if engine != "slurm":  # its arrays go on; the same command ends them
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left), 30)
    line = ("detect", photos, "--model", trained.run, "--out", out, "--tta", "--on", engine, "--json")
    result = cli(*line)
    assert result.code == 0, result.err
    assert 0 < result.json["resumed"] < PHOTOS
    assert storage.read(out) == whole
    assert not [entry for entry in storage.list_files(f"{out}.journal") if entry.name.startswith("parts/")]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, Exit.INTERRUPTED), (signal.SIGTERM, Exit.TERMINATED)])
def test_a_signal_saves_what_parts_have_done(start, out, whole, engine, number, code):
    process = start(engine)
    wait_for(lambda: segments(out) >= 1)
    time.sleep(0.5)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == code, err.decode()
    assert b"Repeat the same command to resume" in err
    assert workers(process, out) == []
    process = start(engine)
    _, err = process.communicate()
    assert process.returncode == 0, err.decode()
    assert storage.read(out) == whole
