import contextlib
import json
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plantml import storage
from plantml.detect import journal as journals
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
    first = Journal.open(f"{url}/records.jsonl", ASKED)
    note(first, LEAVES[2], LEAVES[0])
    first.add(LEAVES[1], line(LEAVES[1]))  # never flushed: a kill takes it
    again = Journal.open(f"{url}/records.jsonl", ASKED)
    assert [leaf in again for leaf in LEAVES] == [True, False, True, False]
    note(again, LEAVES[3])
    assert list(again.lines(LEAVES)) == [line(LEAVES[number]) for number in (0, 2, 3)]
    assert list(Journal.open(f"{url}/records.jsonl", ASKED).lines(LEAVES)) == list(again.lines(LEAVES))


def test_what_a_killed_process_was_writing_is_no_segment(tmp_path):
    out = str(tmp_path / "records.jsonl")
    note(Journal.open(out, ASKED), LEAVES[0])
    (tmp_path / "records.jsonl.journal" / ".000002.jsonl.abcdef.part").write_bytes(b"half a line")
    again = Journal.open(out, ASKED)
    assert LEAVES[0] in again
    assert LEAVES[1] not in again


def test_of_two_writers_one_is_told_and_nothing_is_lost(url):
    one, other = (Journal.open(f"{url}/records.jsonl", ASKED) for _ in range(2))
    note(one, LEAVES[0])
    with pytest.raises(InputError, match="written by another run") as error:
        note(other, LEAVES[1])
    assert "--out" in error.value.hint
    assert list(Journal.open(f"{url}/records.jsonl", ASKED).lines(LEAVES)) == [line(LEAVES[0])]


@pytest.mark.parametrize(("asked", "named"), [
    ({"model": "other", "top_k": 5}, "model was 'digest' and is 'other'"),
    ({"model": "digest", "top_k": 1}, "top_k was 5 and is 1"),
    ({"model": "digest"}, "top_k was 5 and is None"),
])  # fmt: skip
def test_another_question_is_refused(out, asked, named):
    note(Journal.open(out, ASKED), LEAVES[0])
    with pytest.raises(InputError, match=named) as error:
        Journal.open(out, asked)
    assert "--fresh" in error.value.hint
    assert LEAVES[0] in Journal.open(out, ASKED)


def test_fresh_forgets_everything(out):
    note(Journal.open(out, ASKED), *LEAVES)
    other = Journal.open(out, {"model": "other"}, fresh=True)
    assert not list(other.lines(LEAVES))
    note(other, LEAVES[1])
    assert segments(out) == ["000001.jsonl"]
    assert list(Journal.open(out, {"model": "other"}).lines(LEAVES)) == [line(LEAVES[1])]


@pytest.mark.parametrize("removed", [1, 2])
def test_a_fresh_start_that_was_killed_mixes_no_two_models(out, monkeypatch, removed):
    journal = Journal.open(out, ASKED)
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
            Journal.open(out, {"model": "other"}, fresh=True)
    try:
        rest = list(Journal.open(out, {"model": "other"}).lines(LEAVES))
    except InputError:
        rest = []
    assert not rest


def test_failed_images_are_looked_at_again_only_when_asked(out):
    first = Journal.open(out, ASKED)
    note(first, LEAVES[0])
    note(first, LEAVES[1], failure="unreachable: no network")
    assert LEAVES[1] in Journal.open(out, ASKED)
    again = Journal.open(out, ASKED, retry_failed=True)
    assert [leaf in again for leaf in LEAVES[:2]] == [True, False]
    note(again, LEAVES[1])
    later = Journal.open(out, ASKED, retry_failed=True)
    assert list(later.lines(LEAVES)) == [line(LEAVES[0]), line(LEAVES[1])]


def test_a_changed_file_is_another_source(out):
    note(Journal.open(out, ASKED), LEAVES[0])
    changed = Source(LEAVES[0].url, "another stamp")
    again = Journal.open(out, ASKED)
    assert changed not in again
    again.add(changed, line(changed, width=7))
    again.flush()
    assert list(again.lines([changed])) == [line(changed, width=7)]
    assert list(again.lines([LEAVES[0]])) == [line(LEAVES[0])]


def test_a_segment_is_written_every_so_many_rows(out, monkeypatch):
    monkeypatch.setattr(journals, "SEGMENT_ROWS", 2)
    journal = Journal.open(out, ASKED)
    written = []
    for leaf in LEAVES[:3]:
        journal.add(leaf, line(leaf))
        written.append(segments(out))
    assert written == [[], ["000001.jsonl"], ["000001.jsonl"]]
    journal.flush()
    journal.flush()
    assert segments(out) == ["000001.jsonl", "000002.jsonl"]


def test_a_segment_is_written_when_time_has_passed(out, monkeypatch):
    monkeypatch.setattr(journals, "SEGMENT_SECONDS", -1.0)
    journal = Journal.open(out, ASKED)
    for leaf in LEAVES:
        journal.add(leaf, line(leaf))
    assert len(segments(out)) == len(LEAVES)


def test_many_segments_are_read_in_any_order(out):
    journal = Journal.open(out, ASKED)
    leaves = [Source(f"{number}.jpg", "1") for number in range(30)]
    for leaf in leaves:
        note(journal, leaf)
    mixed = leaves[::2] + leaves[1::2]
    assert list(Journal.open(out, ASKED).lines(mixed)) == [line(leaf) for leaf in mixed]


@pytest.mark.parametrize(
    "name", ["tab\there.jpg", "two\nlines.jpg", "caf\udce9.jpg", "Blätter/葉.jpg", "a\u2028b\x85.jpg"]
)
def test_odd_names_come_back(tmp_path, name):
    odd, out = Source(name, "1"), str(tmp_path / "records.jsonl")
    note(Journal.open(out, ASKED), odd, LEAVES[0])
    again = Journal.open(out, ASKED)
    assert list(again.lines([odd, LEAVES[0]])) == [line(odd), line(LEAVES[0])]


runs = st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 99)), max_size=4), max_size=5)


@given(runs)
@settings(max_examples=40, deadline=None)
def test_the_last_word_on_each_image_counts(written):
    out = f"memory://{uuid.uuid4().hex}/records.jsonl"
    widths = {}
    for run in written:
        journal = Journal.open(out, ASKED)
        for number, width in run:
            journal.add(LEAVES[number], line(LEAVES[number], width=width))
            widths[number] = width
        journal.flush()
        assert list(journal.lines(LEAVES)) == [line(LEAVES[number], width=widths[number]) for number in sorted(widths)]
    again = Journal.open(out, ASKED)
    assert [leaf in again for leaf in LEAVES] == [number in widths for number in range(4)]
    assert list(again.lines(LEAVES)) == [line(LEAVES[number], width=widths[number]) for number in sorted(widths)]


# --- damage -----------------------------------------------------------------------------------


@pytest.fixture
def three(tmp_path):
    """The output of a journal of three segments, and the folder of the journal."""
    out = str(tmp_path / "records.jsonl")
    journal = Journal.open(out, ASKED)
    for leaf in LEAVES[:3]:
        note(journal, leaf)
    return out, tmp_path / "records.jsonl.journal"


@pytest.mark.parametrize("damage", [
    lambda data: b"", lambda data: data[:20], lambda data: data[:-2], lambda data: b"\0\xff" * 50,
    lambda data: data.replace(b"null", b'"no"'), lambda data: data.splitlines()[0] + b"\n", lambda data: b"[]\t{}\n",
], ids=["empty", "cut", "cut at the end", "binary", "edited", "without checksum", "another row"])  # fmt: skip
def test_a_damaged_segment_costs_its_images_a_second_look_and_nothing_else(three, damage):
    out, folder = three
    file = folder / "000002.jsonl"
    file.write_bytes(damage(file.read_bytes()))
    again = Journal.open(out, ASKED)
    assert [leaf in again for leaf in LEAVES] == [True, False, True, False]
    assert len(again.damaged) == 1
    assert "000002.jsonl is damaged" in again.damaged[0]
    assert [source.url for source in again] == [LEAVES[0].url, LEAVES[2].url]
    note(again, LEAVES[1])
    assert list(Journal.open(out, ASKED).lines(LEAVES)) == [line(leaf) for leaf in LEAVES[:3]]


def test_a_segment_that_is_gone_costs_its_images_a_second_look(three):
    out, folder = three
    (folder / "000002.jsonl").unlink()
    again = Journal.open(out, ASKED)
    assert [leaf in again for leaf in LEAVES] == [True, False, True, False]
    assert [source.url for source in again] == [LEAVES[0].url, LEAVES[2].url]


def test_foreign_files_are_passed_over_and_left_alone(three):
    out, folder = three
    names = ("desktop.ini", "Thumbs.db", ".DS_Store", "000004.jsonl.bak", "note.jsonl", "old/000009.jsonl")
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\0\xff")
    again = Journal.open(out, ASKED)
    assert list(again.lines(LEAVES)) == [line(leaf) for leaf in LEAVES[:3]]
    assert not again.damaged
    Journal.open(out, ASKED, fresh=True)
    assert all((folder / name).exists() for name in names)


@pytest.mark.parametrize("content", [None, b"", b"\0\xff", b"[]", b"{}", b'{"model"', b"[" * 9000])
def test_without_its_head_a_journal_is_not_mixed_with_and_fresh_goes_on(three, content):
    out, folder = three
    head = folder / "000000.json"
    head.unlink()
    if content is not None:
        head.write_bytes(content)
    with pytest.raises(InputError) as error:
        Journal.open(out, ASKED)
    assert "--fresh" in error.value.hint
    assert LEAVES[0] not in Journal.open(out, ASKED, fresh=True)


def test_a_journal_of_before_checksums_goes_on(tmp_path):
    out, folder = str(tmp_path / "records.jsonl"), tmp_path / "records.jsonl.journal"
    folder.mkdir()
    (folder / "000000.json").write_text(json.dumps(ASKED))
    for number, leaf in enumerate(LEAVES[:2], start=1):
        (folder / f"{number:06d}.jsonl").write_text(f"{json.dumps([leaf.url, leaf.stamp])}\t{line(leaf)}\n")
    (folder / "000003.jsonl").write_text("[1]\t{}\n")
    journal = Journal.open(out, ASKED)
    assert len(journal.damaged) == 1
    note(journal, LEAVES[2])
    assert list(Journal.open(out, ASKED).lines(LEAVES)) == [line(leaf) for leaf in LEAVES[:3]]


@settings(max_examples=60)
@given(st.sampled_from(["000000.json", "000001.jsonl", "000002.jsonl"]), st.binary(max_size=30), st.integers(0, 999))
def test_whatever_a_file_of_a_journal_is_replaced_with_no_other_record_comes_out(name, garbage, cut):
    out = f"memory://{uuid.uuid4().hex}/records.jsonl"
    journal = Journal.open(out, ASKED)
    for leaf in LEAVES[:2]:
        note(journal, leaf)
    url = f"{out}.journal/{name}"
    whole = storage.read(url)
    storage.write(url, whole[: cut % len(whole)] + garbage)
    lines = None
    with contextlib.suppress(InputError):
        lines = set(Journal.open(out, ASKED).lines(LEAVES))
    assert (name == "000000.json") if lines is None else lines <= {line(leaf) for leaf in LEAVES[:2]}
