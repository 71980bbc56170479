import json
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plantml.errors import InputError, StorageError
from plantml.storage.event_log import Events


def test_events_are_numbered_and_read_in_order_everywhere(url):
    log = Events(url)
    assert list(log.read()) == []
    for number in range(1, 4):
        event = log.append(lambda events: {"said": len(events)})
        assert (event.number, event.content) == (number, {"said": number - 1})
    assert [event.content["said"] for event in Events(url).read()] == [0, 1, 2]
    assert all(event.time.endswith("Z") for event in log.read())


def test_what_wants_nothing_writes_nothing_and_errors_pass(tmp_path):
    log = Events(str(tmp_path))

    def refuse(_):
        raise InputError("no")

    assert log.append(lambda _: None) is None
    with pytest.raises(InputError):
        log.append(refuse)
    assert list(tmp_path.iterdir()) == []


def test_who_loses_a_number_decides_again_by_what_is_true_then(url):
    log, other = Events(url), Events(url)
    seen = []

    def decide(events):
        seen.append(len(events))
        if len(seen) == 1:
            other.append(lambda _: {"by": "the other"})
        return {"by": "me"}

    assert log.append(decide).number == 2
    assert seen == [0, 1]
    assert [event.content["by"] for event in Events(url).read()] == ["the other", "me"]


def test_whether_there_is_more_is_asked_cheaply(url):
    log = Events(url)
    assert log.grown()  # nothing was read yet
    log.read()
    assert not log.grown()
    Events(url).append(lambda _: {})
    assert log.grown()
    log.read()
    assert not log.grown()


def test_a_folder_that_was_replaced_is_read_anew(tmp_path):
    log = Events(str(tmp_path / "a"))
    for said in (1, 2):
        log.append(lambda _, said=said: {"said": said})
    log.read()
    for file in sorted((tmp_path / "a").iterdir()):
        file.unlink()
    Events(str(tmp_path / "a")).append(lambda _: {"said": 3})
    assert [event.content["said"] for event in log.read()] == [3]


def test_a_gap_and_a_damaged_event_are_told(tmp_path):
    log = Events(str(tmp_path))
    for _ in range(3):
        log.append(lambda _: {})
    (tmp_path / "000002.json").write_text(json.dumps({"no": "time"}))
    with pytest.raises(StorageError, match="damaged"):
        Events(str(tmp_path)).read()
    (tmp_path / "000002.json").unlink()
    with pytest.raises(StorageError) as error:
        Events(str(tmp_path)).read()
    assert "event 2 is missing" in error.value.why


def test_files_that_are_no_events_are_passed_over(tmp_path):
    Events(str(tmp_path)).append(lambda _: {})
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / ".000002.json.abc.part").write_text("")
    assert len(Events(str(tmp_path)).read()) == 1


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=30), st.integers(0, 200), st.booleans())
def test_whatever_an_event_is_replaced_with_ends_in_one_error(tmp_path, garbage, cut, at_end):
    folder = tmp_path / uuid.uuid4().hex
    for _ in range(2):
        Events(str(folder)).append(lambda _: {"act": "x", "list": [1, {"a": None}]})
    file = folder / "000001.json"
    whole = file.read_bytes()
    changed = whole[: cut % len(whole)] + (garbage if at_end else b"")
    file.write_bytes(changed)
    with pytest.raises(StorageError, match=r"000001\.json is damaged") as error:
        Events(str(folder)).read()
    assert "backup" in error.value.hint


@pytest.mark.parametrize(
    "text", ["[" * 9000, "", "[]", '{"time": 1}', '{"time": "noon"}', '{"time": "2026-01-01T00:00:00Z"']
)
def test_what_is_no_event_is_told_by_its_file(tmp_path, text):
    (tmp_path / "000001.json").write_text(text)
    with pytest.raises(StorageError, match=r"000001\.json is damaged"):
        Events(str(tmp_path)).read()


def test_an_event_without_a_checksum_is_damaged(tmp_path):
    (tmp_path / "000001.json").write_text('{"id": "x", "time": "2026-01-01T00:00:00Z", "act": "begin"}')
    with pytest.raises(StorageError, match="is damaged"):
        Events(str(tmp_path)).read()
