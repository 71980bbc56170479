import contextlib
import json
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plantml import storage
from plantml.detect.journal import Journal
from plantml.detect.sources import Source
from plantml.errors import InputError, StorageError

ASKED = {"model": "digest", "top_k": 5}
LEAVES = [Source(f"photos/{number}.jpg", f"{number}-1") for number in range(4)]


def line(source, failure=None, **more):
    return json.dumps({"image": source.url, "failure": failure, **more}, ensure_ascii=False)


def note(journal, *sources, failure=None):
    for source in sources:
        journal.add(source, line(source, failure))
    journal.flush()


def segments(out):
    return [entry.name for entry in storage.list_files(f"{out}.journal") if entry.name.endswith(".jsonl")]


@pytest.fixture
def out(memory_url):
    return f"{memory_url}/records.jsonl"


def test_what_was_flushed_is_there_for_the_next_run(url):
    first = Journal(f"{url}/records.jsonl", ASKED)
    note(first, LEAVES[2], LEAVES[0])
    first.add(LEAVES[1], line(LEAVES[1]))  # never flushed: a kill takes it
    again = Journal(f"{url}/records.jsonl", ASKED)
    assert [leaf in again for leaf in LEAVES] == [True, False, True, False]
    note(again, LEAVES[3])
    assert list(again.lines(LEAVES)) == [line(LEAVES[number]) for number in (0, 2, 3)]
    assert list(Journal(f"{url}/records.jsonl", ASKED).lines(LEAVES)) == list(again.lines(LEAVES))


def test_of_two_writers_one_is_told_and_nothing_is_lost(url):
    one, other = (Journal(f"{url}/records.jsonl", ASKED) for _ in range(2))
    note(one, LEAVES[0])
    with pytest.raises(InputError, match="written by another run") as error:
        note(other, LEAVES[1])
    assert "--out" in error.value.hint
    assert list(Journal(f"{url}/records.jsonl", ASKED).lines(LEAVES)) == [line(LEAVES[0])]


@pytest.mark.parametrize(("asked", "named"), [
    ({"model": "other", "top_k": 5}, "model was 'digest' and is 'other'"),
    ({"model": "digest", "top_k": 1}, "top_k was 5 and is 1"),
    ({"model": "digest"}, "top_k was 5 and is None"),
])  # fmt: skip
def test_another_question_is_refused(out, asked, named):
    note(Journal(out, ASKED), LEAVES[0])
    with pytest.raises(InputError, match=named) as error:
        Journal(out, asked)
    assert "--fresh" in error.value.hint
    assert LEAVES[0] in Journal(out, ASKED)


def test_fresh_forgets_everything(out):
    note(Journal(out, ASKED), *LEAVES)
    other = Journal(out, {"model": "other"}, fresh=True)
    assert not list(other.lines(LEAVES))
    note(other, LEAVES[1])
    assert segments(out) == ["000001.jsonl"]
    assert list(Journal(out, {"model": "other"}).lines(LEAVES)) == [line(LEAVES[1])]


@pytest.mark.parametrize("removed", [1, 2])
def test_a_fresh_start_that_was_killed_mixes_no_two_models(out, monkeypatch, removed):
    journal = Journal(out, ASKED)
    note(journal, LEAVES[0])
    note(journal, LEAVES[1])
    left, remove = removed, storage.remove

    def killed(url):
        nonlocal left
        if not left:
            raise StorageError("Killed")
        left -= 1
        remove(url)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "remove", killed)
        with pytest.raises(StorageError):
            Journal(out, {"model": "other"}, fresh=True)
    try:
        rest = list(Journal(out, {"model": "other"}).lines(LEAVES))
    except InputError:
        rest = []
    assert not rest


def test_failed_images_are_looked_at_again_only_when_asked(out):
    first = Journal(out, ASKED)
    note(first, LEAVES[0])
    note(first, LEAVES[1], failure="unreachable: no network")
    assert LEAVES[1] in Journal(out, ASKED)
    again = Journal(out, ASKED, retry_failed=True)
    assert [leaf in again for leaf in LEAVES[:2]] == [True, False]
    note(again, LEAVES[1])
    later = Journal(out, ASKED, retry_failed=True)
    assert list(later.lines(LEAVES)) == [line(LEAVES[0]), line(LEAVES[1])]


def test_a_changed_file_is_another_source(out):
    note(Journal(out, ASKED), LEAVES[0])
    changed = Source(LEAVES[0].url, "another stamp")
    again = Journal(out, ASKED)
    assert changed not in again
    again.add(changed, line(changed, width=7))
    again.flush()
    assert list(again.lines([changed])) == [line(changed, width=7)]
    assert list(again.lines([LEAVES[0]])) == [line(LEAVES[0])]


def test_many_segments_are_read_in_any_order(out):
    journal = Journal(out, ASKED)
    leaves = [Source(f"{number}.jpg", "1") for number in range(30)]
    for leaf in leaves:
        note(journal, leaf)
    mixed = leaves[::2] + leaves[1::2]
    assert list(Journal(out, ASKED).lines(mixed)) == [line(leaf) for leaf in mixed]


@pytest.mark.parametrize(
    "name", ["tab\there.jpg", "two\nlines.jpg", "caf\udce9.jpg", "Blätter/葉.jpg", "a\u2028b\x85.jpg"]
)
def test_odd_names_come_back(tmp_path, name):
    odd, out = Source(name, "1"), str(tmp_path / "records.jsonl")
    note(Journal(out, ASKED), odd, LEAVES[0])
    again = Journal(out, ASKED)
    assert list(again.lines([odd, LEAVES[0]])) == [line(odd), line(LEAVES[0])]


runs = st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 99)), max_size=4), max_size=5)


@given(runs)
@settings(max_examples=40, deadline=None)
def test_the_last_word_on_each_image_counts(written):
    out = f"memory://{uuid.uuid4().hex}/records.jsonl"
    widths = {}
    for run in written:
        journal = Journal(out, ASKED)
        for number, width in run:
            journal.add(LEAVES[number], line(LEAVES[number], width=width))
            widths[number] = width
        journal.flush()
        assert list(journal.lines(LEAVES)) == [line(LEAVES[number], width=widths[number]) for number in sorted(widths)]
    again = Journal(out, ASKED)
    assert [leaf in again for leaf in LEAVES] == [number in widths for number in range(4)]
    assert list(again.lines(LEAVES)) == [line(LEAVES[number], width=widths[number]) for number in sorted(widths)]


# --- damage -----------------------------------------------------------------------------------


@pytest.fixture
def three(tmp_path):
    """The output of a journal of three segments, and the folder of the journal."""
    out = str(tmp_path / "records.jsonl")
    journal = Journal(out, ASKED)
    for leaf in LEAVES[:3]:
        note(journal, leaf)
    return out, tmp_path / "records.jsonl.journal"


@pytest.mark.parametrize("content", [None, b"", b"[]\t{}\n"], ids=["gone", "empty", "without checksum"])
def test_a_damaged_segment_costs_its_images_a_second_look_and_nothing_else(three, content):
    out, folder = three
    (folder / "000002.jsonl").unlink()
    if content is not None:
        (folder / "000002.jsonl").write_bytes(content)
    again = Journal(out, ASKED)
    assert len(again.damaged) == (content is not None)
    assert all("000002.jsonl is damaged" in sentence for sentence in again.damaged)
    assert [leaf in again for leaf in LEAVES] == [True, False, True, False]
    assert [source.url for source in again] == [LEAVES[0].url, LEAVES[2].url]
    note(again, LEAVES[1])
    assert list(Journal(out, ASKED).lines(LEAVES)) == [line(leaf) for leaf in LEAVES[:3]]


def test_foreign_files_are_passed_over_and_left_alone(three):
    out, folder = three
    names = ("desktop.ini", "Thumbs.db", ".DS_Store", "000004.jsonl.bak", "note.jsonl", "old/000009.jsonl")
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\0\xff")
    again = Journal(out, ASKED)
    assert list(again.lines(LEAVES)) == [line(leaf) for leaf in LEAVES[:3]]
    assert not again.damaged
    Journal(out, ASKED, fresh=True)
    assert all((folder / name).exists() for name in names)


@pytest.mark.parametrize("content", [None, b"", b"\0\xff", b"[]", b"{}", b'{"model"', b"[" * 9000])
def test_without_its_head_a_journal_is_not_mixed_with_and_fresh_goes_on(three, content):
    out, folder = three
    head = folder / "000000.json"
    head.unlink()
    if content is not None:
        head.write_bytes(content)
    with pytest.raises(InputError) as error:
        Journal(out, ASKED)
    assert "--fresh" in error.value.hint
    assert LEAVES[0] not in Journal(out, ASKED, fresh=True)


@settings(max_examples=60)
@given(st.sampled_from(["000000.json", "000001.jsonl", "000002.jsonl"]), st.binary(max_size=30), st.integers(0, 999))
def test_whatever_a_file_of_a_journal_is_replaced_with_no_other_record_comes_out(name, garbage, cut):
    out = f"memory://{uuid.uuid4().hex}/records.jsonl"
    journal = Journal(out, ASKED)
    for leaf in LEAVES[:2]:
        note(journal, leaf)
    url = f"{out}.journal/{name}"
    whole = storage.read(url)
    storage.write(url, whole[: cut % len(whole)] + garbage)
    lines = None
    with contextlib.suppress(InputError):
        lines = set(Journal(out, ASKED).lines(LEAVES))
    assert (name == "000000.json") if lines is None else lines <= {line(leaf) for leaf in LEAVES[:2]}


def test_new_rows_are_above_the_mark_even_if_the_last_segment_is_gone(three):
    out, folder = three
    Journal(out, ASKED).mark()
    Journal(out, ASKED).mark()
    assert sorted(file.name for file in folder.glob("*.written")) == ["000003.written"]
    (folder / "000003.jsonl").unlink()
    again = Journal(out, ASKED)
    note(again, LEAVES[3])
    assert [row.record for row in again.rows(LEAVES, after=again.published)] == [line(LEAVES[3])]
    again.mark()
    assert (again.published, Journal(out, ASKED).published) == (4, 4)


def test_a_journal_of_an_earlier_version_goes_on(three):
    """Its marks have numbers of their own between those of the segments."""
    out, folder = three
    (folder / "000004.written").touch()
    journal = Journal(out, ASKED)
    note(journal, LEAVES[3])
    assert [row.segment for row in journal.rows(LEAVES)] == [1, 2, 3, 5]
    assert [row.segment for row in journal.rows(LEAVES, after=journal.published)] == [5]
