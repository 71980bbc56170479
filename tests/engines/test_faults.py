"""Whatever dies, and wherever the files are: the output is that of one process."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from plantml import storage
from plantml.data import versions
from plantml.errors import Exit

pytestmark = pytest.mark.slow

PHOTOS, LARGE = 600, 160


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


def workers(process, out, cluster=None):
    """Process numbers of the workers of a command, or of the Ray cluster that it uses."""
    parents, lines = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            lines[int(folder.name)] = (folder / "cmdline").read_bytes()

    def descends(number):
        return number in {process.pid, cluster} or (number in parents and descends(parents[number]))

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
def engine(request, monkeypatch):
    """Name of an engine."""
    if request.param == "slurm":
        request.getfixturevalue("slurm")
    if request.param == "ray":
        pytest.importorskip("ray", reason="Ray is not installed: pip install 'plantml[ray]'")
        monkeypatch.setenv("RAY_ADDRESS", "local")  # and not a cluster that others have started here
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


@pytest.fixture(scope="module")
def large(upright, tmp_path_factory):
    """A folder of different photos, large enough that a command can be killed in the middle, and a crop of one."""
    folder = tmp_path_factory.mktemp("large")
    for number in range(LARGE):
        upright(400, 300, number).resize((2000, 1500)).save(folder / f"{number:03d}.jpg", quality=90)
    with Image.open(folder / "007.jpg") as picture:
        picture.crop((250, 250, 1700, 1300)).save(folder / "crop.jpg", quality=90)
    return folder


@pytest.fixture(scope="module")
def large_dataset(cli, large, tmp_path_factory):
    """A dataset of these photos."""
    dataset = tmp_path_factory.mktemp("dataset") / "data"
    assert cli("dataset", "import", large, dataset, "--quiet").code == 0
    return dataset


def copied(folder, url):
    """Copy a folder into storage."""
    for file in filter(Path.is_file, folder.rglob("*")):
        storage.write(storage.join(url, str(file.relative_to(folder))), file.read_bytes())


def derived(url):
    """Number of segments that parts of a command on a dataset have written."""
    with contextlib.suppress(Exception):
        return sum(entry.name.endswith(".jsonl") for entry in storage.list_files(storage.join(url, "derived")))
    return 0


@pytest.mark.parametrize("engine", ["local:2", "ray"], indirect=True)
@pytest.mark.parametrize("command", ["import", "check"])
def test_a_dataset_is_the_same_whatever_is_killed(cli, large, large_dataset, out, engine, command, request):
    """A worker is killed, then the command; repeated, it ends as if nothing had happened."""
    cluster = request.getfixturevalue("ray_cluster") if engine == "ray" else None
    url = storage.join(storage.split(out)[0], "data")
    if command == "check":
        copied(large_dataset, url)
        line = ["dataset", "check", url, "--only", "crops", "--json"]
        expected = cli(*line).json["findings"]
        assert expected
    else:
        line = ["dataset", "import", large, url, "--json"]
    words = [sys.executable, "-m", "plantml", *map(str, line), "--on", engine]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        wait_for(lambda: derived(url))
        os.kill(max(wait_for(lambda: workers(process, url, cluster))), signal.SIGKILL)
        before = derived(url)
        wait_for(lambda: derived(url) > before)
    finally:
        process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    repeated = subprocess.run(words, capture_output=True, check=False)
    assert repeated.returncode == 0, repeated.stderr.decode()
    if command == "check":
        assert json.loads(repeated.stdout)["findings"] == expected
    else:
        assert versions.load(url).fingerprint == versions.load(str(large_dataset)).fingerprint
    assert derived(url) == 0
