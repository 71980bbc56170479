"""The next number: of several writers each gets one of its own, and a kill leaves no gap and no half file."""

import json
import threading
from pathlib import Path

import pytest

from plantml import storage
from plantml.errors import AlreadyExistsError, StorageError
from plantml.storage import numbered_files


def append(url, content):
    """Create the next number; returns it."""

    def attempt():
        number = max(numbered_files.list_numbers(url, ".json"), default=0) + 1
        numbered_files.create(url, number, ".json", json.dumps(content).encode())
        return number

    return numbered_files.create_next(url, attempt)


def contents(url):
    return [json.loads(storage.read(entry.url)) for entry in numbered_files.list_numbers(url, ".json").values()]


def test_numbers_count_from_one_and_other_files_are_ignored(url):
    for name in ("7.json", "000009.json.bak", "000009.txt", "0000009.json"):
        storage.write(f"{url}/{name}", b"{}")
    assert [append(url, content) for content in "abc"] == [1, 2, 3]
    assert contents(url) == ["a", "b", "c"]
    numbered_files.create(url, 1_000_000, ".json", b"{}")
    assert list(numbered_files.list_numbers(url, ".json")) == [1, 2, 3, 1_000_000]


def test_of_two_writers_of_a_number_the_second_is_told_and_changes_nothing(url):
    numbered_files.create(url, 1, ".json", b'"one"')
    with pytest.raises(AlreadyExistsError):
        numbered_files.create(url, 1, ".json", b'"other"')
    assert contents(url) == ["one"]


def test_many_writers_at_once_lose_nothing(url):
    numbers = []

    def write(writer):
        numbers.extend(append(url, [writer, count]) for count in range(5))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 21))
    assert sorted(contents(url)) == [[writer, count] for writer in range(4) for count in range(5)]


def test_a_store_that_answered_late_does_not_make_a_writer_lose_to_itself(tmp_path, monkeypatch):
    create = storage.create

    def twice(url, data):
        create(url, data)
        raise AlreadyExistsError("as a client says that asked again")

    monkeypatch.setattr(storage, "create", twice)
    assert append(str(tmp_path), "mine") == 1
    assert contents(str(tmp_path)) == ["mine"]


def test_a_writer_that_never_wins_ends_with_an_error(memory_url, monkeypatch):
    monkeypatch.setattr(numbered_files, "_PAUSE", 0)

    def lose():
        raise AlreadyExistsError("taken")

    with pytest.raises(StorageError, match="others were faster 200 times") as caught:
        numbered_files.create_next(memory_url, lose)
    assert not isinstance(caught.value, AlreadyExistsError)
    assert "Repeat" in caught.value.hint


KILLED = """
import json, sys
sys.path.insert(0, sys.argv[2])
from kills import kill_at_every_write
from plantml import storage
from plantml.storage import numbered_files

def append(url, last=3):
    def attempt():
        number = max(numbered_files.list_numbers(url, ".json"), default=0) + 1
        if number <= last:
            numbered_files.create(url, number, ".json", json.dumps(number).encode())
        return number
    while numbered_files.create_next(url, attempt) <= last:
        pass

def check(url):
    for last in (0, 5):  # what is left, and what a repeated call makes of it
        append(url, last)
        entries = numbered_files.list_numbers(url, ".json")
        assert list(entries) == [json.loads(storage.read(entry.url)) for entry in entries.values()]
    assert list(entries) == [1, 2, 3, 4, 5]

print(kill_at_every_write(append, check, sys.argv[1]))
"""


def test_a_process_killed_at_every_write_leaves_whole_files_without_gaps(tmp_path, run_python):
    out, err = run_python(KILLED, tmp_path, Path(__file__).parent).communicate(timeout=60)
    assert not err
    assert int(out) > 3 * 4
