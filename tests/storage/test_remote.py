import logging
import signal
import time

import pytest

from plantml import storage
from plantml.errors import RefusedError, StorageError
from plantml.storage import remote


@pytest.fixture
def impatient(monkeypatch):
    """Limits that a test can wait for."""
    monkeypatch.setattr(remote, "HTTP_SECONDS", 0.5)
    monkeypatch.setattr(remote, "_FIRST_PAUSE", 0.01)


@pytest.mark.parametrize("name", ["drip.jpg", "silent.jpg"])
def test_an_answer_that_never_ends_is_given_up(bad_server, impatient, name):
    started = time.monotonic()
    with pytest.raises(StorageError, match="no end after") as caught:
        storage.read(f"{bad_server}/{name}")
    assert caught.value.exit_code == 6
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert time.monotonic() - started < 20


def test_an_answer_without_end_is_refused_at_the_limit(bad_server):
    with pytest.raises(RefusedError, match="larger than"):
        storage.read(f"{bad_server}/endless.jpg", 1 << 20)


def test_one_bad_answer_among_many_costs_the_others_nothing(bad_server, impatient):
    urls = [f"{bad_server}/{name}.jpg" for name in ("photo", "drip", "endless")]
    answers = dict(storage.read_many(urls, 1 << 20))
    assert answers[urls[0]] == b"leaf"
    assert isinstance(answers[urls[1]].__cause__, TimeoutError)
    assert isinstance(answers[urls[2]], RefusedError)


def test_an_archive_that_never_ends_is_refused_at_the_limit(bad_server, monkeypatch):
    monkeypatch.setattr("plantml.storage.reading._MAX_FETCHED", 1 << 20)
    with pytest.raises(RefusedError, match="larger than"):
        list(storage.list_files(storage.inside(f"{bad_server}/endless.zip")))


def test_a_page_of_a_listing_that_never_ends_is_refused(bad_server):
    with pytest.raises(RefusedError, match="larger than"):
        list(storage.list_files(f"{bad_server}/endless"))


def test_new_attempts_are_announced_in_one_line_each(bad_server, monkeypatch, caplog):
    monkeypatch.setattr(remote, "_FIRST_PAUSE", 0.01)
    with caplog.at_level(logging.WARNING, "plantml"), pytest.raises(StorageError):
        storage.read(f"{bad_server}/busy.jpg")
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition("): ")[0].rpartition(" (")[2] for line in lines] == ["2 of 4", "3 of 4", "4 of 4"]
    assert all(line.startswith(f"Retrying {bad_server}/busy.jpg in 0.0 s") and "503" in line for line in lines)


def test_what_a_bad_server_refuses_for_good_is_not_asked_again(bad_server, caplog):
    with pytest.raises(StorageError, match="418"):
        storage.read(f"{bad_server}/forbidden.jpg")
    assert not caplog.records


@pytest.mark.parametrize("quiet", [False, True])
def test_a_command_says_that_it_tries_again_unless_quiet(cli, bad_server, monkeypatch, tmp_path, quiet):
    monkeypatch.setattr(remote, "_FIRST_PAUSE", 0.01)
    result = cli("dataset", "import", f"{bad_server}/busy.csv", tmp_path / "data", *(["--quiet"] if quiet else []))
    assert result.code == 6, result.err
    assert ("Retrying" in result.err) is not quiet
    assert "stamina" not in result.err


_WAITING = """
import sys
from plantml import storage
from plantml.cli.app import run
from plantml.concurrency import Stop, in_threads, terminable

def wait(kind, bad_server):
    if kind == "read":
        storage.read(f"{bad_server}/silent.jpg")
    elif kind == "threads":
        list(in_threads(storage.read, [f"{bad_server}/drip.jpg"] * 8, 2))
    elif kind == "many":
        list(storage.read_many([f"{bad_server}/silent.jpg"] * 3 + [f"{bad_server}/drip.jpg"]))
    elif kind == "list":
        list(storage.list_files(f"{bad_server}/silent"))
    elif kind == "archive":
        list(storage.list_files(storage.inside(f"{bad_server}/drip.tar")))
    elif kind == "pause":
        from plantml.storage import remote
        remote._FIRST_PAUSE = remote._LONGEST_PAUSE = 30
        storage.read(f"{bad_server}/busy.jpg")

print("ready", flush=True)
try:
    with (Stop() if sys.argv[2] == "Stop" else terminable()):
        wait(sys.argv[1], sys.argv[3])
except BaseException as error:
    print(type(error).__name__, flush=True)
"""


@pytest.mark.parametrize("how", ["Stop", "terminable"])
@pytest.mark.parametrize("kind", ["read", "threads", "many", "list", "archive", "pause"])
def test_a_signal_ends_every_wait(run_python, bad_server, kind, how):
    number = signal.SIGTERM if how == "Stop" else signal.SIGINT
    process = run_python(_WAITING, kind, how, bad_server)
    assert process.stdout.readline() == "ready\n"
    time.sleep(1.0)
    process.send_signal(number)
    sent = time.monotonic()
    out, err = process.communicate(timeout=30)
    assert out.strip() == ("TerminatedError" if how == "Stop" else "KeyboardInterrupt"), err
    assert time.monotonic() - sent < 15  # on a busy machine; without the signal it takes a minute or more


def test_a_signal_ends_the_wait_for_a_bucket(run_python, bad_server):
    code = _WAITING.replace('kind == "read"', 'kind == "bucket"').replace(
        'f"{bad_server}/silent.jpg"', '"s3://silent.x/a"'
    )
    keys = "import os; os.environ.update(AWS_ACCESS_KEY_ID='a', AWS_SECRET_ACCESS_KEY='b', AWS_ENDPOINT_URL={!r})\n"
    process = run_python(keys.format(bad_server) + code, "bucket", "Stop", bad_server)
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    out, err = process.communicate(timeout=30)
    assert out.strip() == "TerminatedError", err
    assert time.monotonic() - sent < 15


def test_a_wait_without_a_signal_is_no_business_of_earlier_signals(run_python):
    code = """
import signal, time
from plantml import concurrency
with concurrency.Stop():
    signal.raise_signal(signal.SIGTERM)
concurrency.heed("waiting", time.monotonic() - 100)
print("went on")
"""
    out, err = run_python(code).communicate(timeout=60)
    assert out == "went on\n", err


def test_what_takes_long_on_a_filesystem_without_coroutines_can_be_given_up(monkeypatch):
    class Slow:
        def cat_file(self, _path):
            time.sleep(5)

    monkeypatch.setattr("fsspec.core.url_to_fs", lambda url: (Slow(), url))
    monkeypatch.setattr(remote, "OTHER_SECONDS", 0.2)
    with pytest.raises(StorageError, match="no end after"):
        storage.read("slow://a")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_command_that_waits_for_a_server_ends_with_the_code_of_the_signal(
    run_python, bad_server, tmp_path, number, code
):
    script = "import sys; from plantml.cli.app import run; print('ready', flush=True); sys.exit(run(sys.argv[1:]))"
    process = run_python(script, "dataset", "import", f"{bad_server}/drip.csv", tmp_path / "data")
    assert process.stdout.readline() == "ready\n"
    time.sleep(2)
    process.send_signal(number)
    sent = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert time.monotonic() - sent < 15  # on a busy machine; without the signal it takes a minute or more
