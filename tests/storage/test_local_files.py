import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plantml import storage
from plantml.errors import InputError, PlantmlError, RefusedError, StorageError

ACTS = {
    "read": storage.read,
    "read_head": lambda url: storage.read_head(url, 1),
    "exists": storage.exists,
    "is_dir": storage.is_dir,
    "stat": storage.stat,
    "list": lambda url: list(storage.list_files(url)),
    "glob": lambda url: storage.glob(f"{url}/*"),
    "absolute": storage.absolute,
    "write": lambda url: storage.write(url, b""),
    "create": lambda url: storage.create(url, b""),
    "remove": storage.remove,
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("name", ["~nosuchuser/a.jpg", "/tmp/a\0b.jpg", "/tmp/\ud800.jpg"], ids=ascii)
def test_what_can_be_no_name_is_bad_input_whatever_is_asked(act, name):
    with pytest.raises(InputError) as caught:
        ACTS[act](name)
    assert caught.value.exit_code == 3
    str(caught.value).encode()


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000])
def test_what_is_too_long_for_a_name_is_bad_input(tmp_path, name):
    with pytest.raises(InputError):
        storage.read(f"{tmp_path}/{name}")


@settings(max_examples=100)
@given(st.sampled_from(sorted(set(ACTS) - {"list", "glob", "write", "create", "remove"})), st.text(max_size=12))
def test_no_text_is_a_bug(act, text):
    with contextlib.suppress(PlantmlError):
        ACTS[act](f"/nowhere-{text}")


def test_a_file_called_like_a_home_folder_is_reached_by_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~nosuchuser").write_bytes(b"leaf")
    assert storage.read("./~nosuchuser") == b"leaf"


@pytest.fixture
def irregular(tmp_path):
    """Files that are none, by what an error calls them."""
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "terminal.jpg").symlink_to("/dev/tty")
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(tmp_path / "socket.jpg"))
        yield {"pipe.jpg": "a named pipe", "zero.jpg": "a device", "socket.jpg": "a socket", "terminal.jpg": "a device"}


@pytest.mark.parametrize("act", ["read", "read_head"])
def test_only_regular_files_are_read(tmp_path, irregular, act):
    for name, kind in irregular.items():
        with pytest.raises(RefusedError, match=kind):
            ACTS[act](str(tmp_path / name))


def test_an_archive_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "photos.zip")
    with pytest.raises(RefusedError, match="a named pipe"):
        list(storage.list_files(storage.inside(str(tmp_path / "photos.zip"))))


def test_a_file_beyond_the_limit_is_refused_before_it_is_read(tmp_path):
    sparse = tmp_path / "sparse.jpg"
    sparse.touch()
    os.truncate(sparse, 1 << 40)
    started = time.monotonic()
    with pytest.raises(RefusedError, match="larger than 16 GiB"):
        storage.read(str(sparse))
    assert time.monotonic() - started < 10
    [(_, error)] = storage.read_many([str(sparse)], storage.MAX_PHOTO)
    assert isinstance(error, RefusedError)


def test_a_file_that_says_a_size_of_0_is_read_whole():
    assert storage.read("/proc/self/status").startswith(b"Name:")


def test_a_stream_that_is_named_is_read():
    readable, writable = os.pipe()

    def write():
        for _ in range(3):
            time.sleep(0.05)
            os.write(writable, b"leaf")
        os.close(writable)

    threading.Thread(target=write).start()
    try:
        assert storage.read(f"/dev/fd/{readable}") == b"leaf" * 3
    finally:
        os.close(readable)


def test_memory_that_is_full_is_told(tmp_path, monkeypatch):
    from plantml.storage import local_files

    def fail(*_):
        raise MemoryError

    (tmp_path / "a").touch()
    monkeypatch.setattr(local_files, "read_file", fail)
    with pytest.raises(StorageError, match="memory is full"):
        storage.read(str(tmp_path / "a"))


# --- a full disk ------------------------------------------------------------------------------

_LIMITED = """
import resource, sys
from plantml.cli.app import run
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), -1))
sys.exit(run(sys.argv[2:]))
"""


def limited(size, *arguments):
    """A command whose files may not grow beyond `size` bytes, as on a full disk."""
    command = [sys.executable, "-c", _LIMITED, str(size), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, photo, cli):
    """A dataset of two photos that hardly compress."""
    folder = tmp_path_factory.mktemp("full")
    for name in ("healthy/a.jpg", "rust/b.jpg"):
        (folder / "photos" / name).parent.mkdir(parents=True)
        (folder / "photos" / name).write_bytes(photo(200, 200, seed=len(name), quality=95))
    assert cli("dataset", "import", folder / "photos", folder / "data").code == 0
    return folder / "data"


@pytest.mark.parametrize("form", ["folder", "webdataset", "bundle"])
def test_an_export_to_a_full_disk_ends_as_trouble_of_the_storage(dataset, tmp_path, form):
    out = tmp_path / ("out.zip" if form == "bundle" else "out")
    done = limited(1000, "dataset", "export", dataset, out, "--format", form)
    assert done.returncode == 6, done.stderr
    assert "Could not write" in done.stderr
    assert "Make room" in done.stderr


def test_other_writers_end_the_same_way_on_a_full_disk(dataset, tmp_path):
    for arguments in (
        ("dataset", "synth", tmp_path / "synth", "--images", 2, "--size", 64),
        ("dataset", "import", dataset.parent / "photos", tmp_path / "data"),
    ):
        done = limited(1000, *arguments)
        assert done.returncode == 6, (arguments, done.stderr)
        assert "Make room" in done.stderr


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("… (os error 28)")], ids=type)
def test_what_fails_while_a_staged_file_is_filled_is_trouble_of_the_storage(tmp_path, error):
    with pytest.raises(StorageError, match="Could not write") as caught, storage.staged(str(tmp_path / "a")):
        raise error
    assert "Make room" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_library_that_does_not_say_that_the_disk_is_full_is_understood(tmp_path, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr("shutil.disk_usage", lambda _: full)
    with pytest.raises(StorageError, match="Could not write") as caught, storage.staged(str(tmp_path / "a")):
        raise RuntimeError("transport error")
    assert "Make room" in caught.value.hint


def test_a_fault_of_the_caller_is_none_of_the_storage(tmp_path):
    with pytest.raises(KeyError), storage.staged(str(tmp_path / "a")):
        raise KeyError("a")


_TABLE = """
import resource, sys
import polars as pl
from plantml import storage
from plantml.detect.formats import tables
from plantml.errors import StorageError
resource.setrlimit(resource.RLIMIT_FSIZE, (100, -1))
try:
    with storage.staged(sys.argv[1]) as path:
        tables.write_parquet(path, ({"a": str(n)} for n in range(10000)), {"a": pl.String})
except StorageError as error:
    print(error.hint)
"""


def test_a_table_of_polars_on_a_full_disk_is_told_as_any_other(run_python, tmp_path):
    out, err = run_python(_TABLE, tmp_path / "a.parquet").communicate(timeout=60)
    assert out.startswith("Make room"), err
