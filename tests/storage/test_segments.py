"""Rows in segments: what was written outlives a kill, and damage costs the damaged rows only."""

import contextlib
import threading
import uuid
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from plantml import storage
from plantml.errors import AlreadyExistsError, StorageError
from plantml.storage.segments import Segments, pack, unpack

ROWS = [f"row {number}\tcafé".encode() for number in range(7)]


def names(url):
    return sorted(entry.name for entry in storage.list_files(url))


def written(url, rows=ROWS, size=2):
    """A folder of segments with `rows`."""
    segments = Segments(url, rows=size)
    for row in rows:
        segments.add(row)
    segments.flush()
    return segments


def test_rows_come_back_in_the_order_in_which_they_were_added(url):
    assert list(Segments(url)) == []
    segments = Segments(url, rows=3)
    assert [segments.add(row) for row in ROWS] == [0, 0, 1, 0, 0, 2, 0]
    assert list(Segments(url)) == ROWS[:6]  # the seventh is still in memory
    assert (segments.flush(), segments.flush()) == (3, 0)
    assert list(Segments(url)) == ROWS
    assert segments.load(2) == ROWS[3:6]
    written(url, [b"more"])
    assert list(Segments(url)) == [*ROWS, b"more"]
    assert names(url) == [f"00000{number}.jsonl" for number in range(1, 5)]


def test_a_segment_is_written_when_time_has_passed_and_rows_stay_together(memory_url):
    segments = Segments(memory_url, seconds=0.0)
    assert segments.add(*ROWS[:2]) == 1
    assert segments.add(*ROWS[2:]) == 2
    assert segments.load(2) == ROWS[2:]


def test_endings_keep_the_rows_of_different_work_apart(memory_url):
    for name in ("one", "other"):
        segments = Segments(memory_url, f".{name}.jsonl", after=4)
        segments.add(name.encode())
        segments.flush()
    assert list(Segments(memory_url, ".one.jsonl")) == [b"one"]
    assert names(memory_url) == ["000005.one.jsonl", "000005.other.jsonl"]


def test_processes_that_share_a_folder_lose_nothing(url):
    each = [[b"%d %d" % (writer, row) for row in range(6)] for writer in range(3)]
    threads = [threading.Thread(target=written, args=(url, rows)) for rows in each]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = list(Segments(url))
    assert sorted(rows) == sorted(row for rows in each for row in rows)
    assert [row for row in rows if row.startswith(b"1 ")] == each[1]


def test_a_second_writer_of_a_folder_that_is_not_shared_is_told_until_it_gives_up(url):
    one, other = (Segments(url, rows=1, shared=False) for _ in range(2))
    one.add(b"one")
    for write in (lambda: other.add(b"other"), other.flush, other.flush):
        with pytest.raises(AlreadyExistsError):
            write()
    assert list(Segments(url)) == [b"one"]


def test_removing_leaves_what_others_added(url):
    segments = written(url)
    other = written(url, [b"other"])
    storage.write(f"{url}/note.txt", b"")
    segments.remove()
    assert names(url) == ["000005.jsonl", "note.txt"]
    segments.remove()
    other.remove()
    assert list(Segments(url)) == []


@pytest.mark.parametrize("damage", [
    lambda data: b"", lambda data: data[:20], lambda data: data[:-2], lambda data: b"\0\xff" * 50,
    lambda data: data.replace(b"row 2", b"row 9"), lambda data: data[: data.rindex(b"{")],
    lambda data: data.replace(b'"writer"', b'"Writer"'),
], ids=["empty", "cut", "cut at the end", "binary", "edited", "without checksum", "edited at the end"])  # fmt: skip
def test_a_damaged_segment_costs_its_rows_and_is_named_once(tmp_path, damage, caplog):
    url = str(tmp_path)
    written(url)
    file = tmp_path / "000002.jsonl"
    file.write_bytes(damage(file.read_bytes()))
    segments = Segments(url)
    assert list(segments) == ROWS[:2] + ROWS[4:]
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith(f"{file} is damaged: ")
    segments.add(*ROWS[2:4])
    segments.flush()
    assert sorted(Segments(url)) == ROWS


def test_a_segment_that_another_process_removed_is_no_error(memory_url):
    written(memory_url)
    segments = Segments(memory_url)
    storage.remove(f"{memory_url}/000002.jsonl")
    assert list(segments) == ROWS[:2] + ROWS[4:]


@settings(max_examples=60)
@given(st.binary(max_size=30), st.integers(0, 999))
def test_whatever_a_segment_is_replaced_with_no_other_row_comes_out(garbage, cut):
    url = f"memory://{uuid.uuid4().hex}"
    written(url, ROWS[:4])
    whole = storage.read(f"{url}/000001.jsonl")
    storage.write(f"{url}/000001.jsonl", whole[: cut % len(whole)] + garbage)
    assert list(Segments(url, report=lambda _: None)) in (ROWS[2:4], ROWS[:4])


@given(arrays.arrays(np.float32, st.integers(0, 9), elements=st.floats(width=16)))
def test_numbers_come_back(numbers):
    for dtype in ("<f2", "<f4"):
        np.testing.assert_array_equal(unpack(pack(numbers, dtype), dtype), numbers)
    assert "\t" not in pack(numbers, "<f4")


# --- killed at every write --------------------------------------------------------------------


def check_and_finish(url):
    """Whole segments are left, from the first row on; a repeated call adds what is missing, and nothing twice."""
    rows = list(Segments(url))
    assert rows == ROWS[: len(rows)]
    assert len(rows) % 2 == 0 or rows == ROWS
    written(url, ROWS[len(rows) :])
    assert list(Segments(url)) == ROWS
    return len(rows)


class Killed(BaseException):
    """Caught by nothing."""


@pytest.mark.parametrize("place", ["memory", "s3"])
@pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])
def test_a_kill_at_a_request_costs_one_segment(place, answered, request, monkeypatch):
    """As far as the storage can tell, the process is gone before it takes the request, or after."""
    parent, create, survivors = request.getfixturevalue(f"{place}_url"), storage.create, []
    for at in range(1, 5):
        left = at

        def killing(url, data):
            nonlocal left
            left -= 1
            if left or answered:
                create(url, data)
            if not left:
                raise Killed

        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            patch.setattr(storage, "create", killing)
            written(f"{parent}/{at}")
        survivors.append(check_and_finish(f"{parent}/{at}"))
    assert survivors == ([2, 4, 6, 7] if answered else [0, 2, 4, 6])


KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
from kills import kill_at_every_write
from test_segments import check_and_finish, written
print(kill_at_every_write(written, check_and_finish, sys.argv[1]))
"""


def test_a_process_killed_at_every_write_to_a_disk_costs_one_segment(tmp_path, run_python):
    out, err = run_python(KILLED, tmp_path, Path(__file__).parent).communicate(timeout=60)
    assert not err
    assert int(out) > 4 * 4


def test_a_full_disk_keeps_the_rows_for_the_next_attempt(memory_url, monkeypatch):
    segments = Segments(memory_url)
    segments.add(*ROWS)

    def full(*_):
        raise StorageError("Could not create", "no space")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "create", full)
        with pytest.raises(StorageError):
            segments.flush()
    segments.flush()
    assert list(Segments(memory_url)) == ROWS
