"""Laws of the fold, over random sequences of acts, each decided as the registry decides it."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plantml.errors import InputError, NotFoundError, StorageError
from plantml.registry import ledger
from plantml.registry.ledger import fold
from plantml.storage.event_log import Event

URL = "memory://registry/leaf"


def act(number, **content):
    return Event(number, "2026-01-01T00:00:00Z", {"by": "me", "why": "", **content})


def history(*contents):
    return [act(number, **content) for number, content in enumerate(contents, start=1)]


def added(version, digest=None):
    return (
        {"act": "begin", "version": version, "digest": digest or f"d{version}", "files": {}},
        {"act": "add", "version": version, "digest": digest or f"d{version}", "files": {}, "size": 1},
    )


def promoted(alias, version):
    return {"act": "promote", "alias": alias, "version": version, "from": 0}


@st.composite
def histories(draw):
    """Acts that may be, in an order that may be: the model of what the registry allows, written a second time."""
    contents, there, begun, removed, aliases, last = [], set(), set(), set(), {}, 0
    for _ in range(draw(st.integers(0, 40))):
        name = draw(st.sampled_from(["begin", "add", "promote", "rollback", "unalias", "remove", "collect"]))
        alias = draw(st.sampled_from(["production", "challenger"]))
        if name == "begin":
            last += 1
            begun.add(last)
            contents.append({"act": name, "version": last, "digest": f"d{last}", "files": {}})
        elif name == "add" and begun:
            number = draw(st.sampled_from(sorted(begun)))
            begun.discard(number)
            there.add(number)
            contents.append({"act": name, "version": number, "digest": f"d{number}", "files": {}, "size": 1})
        elif name == "promote" and there:
            number = draw(st.sampled_from(sorted(there)))
            if aliases.get(alias, [0])[-1] != number:
                aliases.setdefault(alias, []).append(number)
                contents.append(promoted(alias, number))
        elif name == "rollback" and alias in aliases:
            *before, now = aliases[alias]
            while before and before[-1] not in there:
                before.pop()
            if before:
                aliases[alias] = before
                contents.append({"act": name, "alias": alias, "version": before[-1], "from": now})
        elif name == "unalias" and alias in aliases:
            contents.append({"act": name, "alias": alias, "from": aliases.pop(alias)[-1]})
        elif name == "remove" and (free := there - {trail[-1] for trail in aliases.values()}):
            number = draw(st.sampled_from(sorted(free)))
            there.discard(number)
            removed.add(number)
            contents.append({"act": name, "version": number})
        elif name == "collect" and removed:
            number = draw(st.sampled_from(sorted(removed)))
            removed.discard(number)
            contents.append({"act": name, "version": number})
    return history(*contents), there, begun, removed, {name: trail[-1] for name, trail in aliases.items()}, last


@settings(max_examples=150, deadline=None)
@given(histories())
def test_the_fold_says_what_the_acts_did(made):
    events, there, begun, removed, aliases, last = made
    state = fold(URL, events)
    assert (set(state.entries), set(state.begun), set(state.removed)) == (there, begun, removed)
    assert dict(state.aliases) == aliases
    assert state.last == last
    assert set(state.aliases.values()) <= set(state.entries)  # no alias points to what is not there


@settings(max_examples=50, deadline=None)
@given(histories(), st.integers(0, 40))
def test_every_beginning_of_a_history_is_a_history_and_folding_changes_none(made, cut):
    events = made[0]
    before = json.dumps([event.as_json() for event in events])
    state = fold(URL, events[:cut])
    assert set(state.aliases.values()) <= set(state.entries)
    fold(URL, events)
    assert json.dumps([event.as_json() for event in events]) == before


def test_rollback_goes_back_again_and_again_over_what_was_removed():
    acts = [*added(1), *added(2), *added(3), promoted("production", 1), promoted("production", 2)]
    state = fold(URL, history(*acts, promoted("production", 3), {"act": "remove", "version": 2}))
    assert state.before("production") == 1
    back = {"act": "rollback", "alias": "production", "version": 1, "from": 3}
    state = fold(URL, history(*acts, promoted("production", 3), {"act": "remove", "version": 2}, back))
    assert state.aliases["production"] == 1
    assert state.before("production") is None


def test_an_act_of_a_newer_plantml_is_not_guessed():
    with pytest.raises(InputError, match="'merge'"):
        fold(URL, history(*added(1), {"act": "merge", "version": 1}))


@pytest.mark.parametrize(
    "content",
    [
        {"act": "rollback", "alias": "production", "version": 1, "from": 2},
        {"act": "add", "version": 1},
        {"version": 1},
        {"act": "promote", "alias": "production", "version": "one", "from": 0},
    ],
)
def test_what_makes_no_sense_is_told_with_its_number(content):
    with pytest.raises(StorageError, match="Event 3 is damaged"):
        fold(URL, history(*added(1), content))


def test_references_are_parsed_at_the_end_only(tmp_path):
    assert ledger.parse_reference("s3://b/models/leaf@production") == ("s3://b/models/leaf", "production")
    assert ledger.parse_reference("s3://b/models@home/leaf") == ("s3://b/models@home/leaf", None)
    assert ledger.parse_reference(f"{tmp_path}/leaf@12") == (f"{tmp_path}/leaf", "12")
    assert ledger.parse_reference("leaf@model.onnx")[1] is None
    assert ledger.parse_reference("https://host/runs/leaf@3") == ("https://host/runs/leaf@3", None)
    assert ledger.parse_reference("zip://leaf@3::photos.zip")[1] is None


def test_what_is_missing_is_told_with_what_is_there():
    state = fold(URL, history(*added(1), *added(2), promoted("production", 2), {"act": "remove", "version": 1}))
    with pytest.raises(InputError) as error:
        state.entry("challenger")
    assert "production is version 2" in error.value.why
    with pytest.raises(InputError) as error:
        state.entry(1)
    assert error.value.why == "it was removed"
    with pytest.raises(NotFoundError, match="no registered model"):
        ledger.load("memory://nowhere/leaf")


contents = st.dictionaries(
    st.sampled_from(["act", "version", "alias", "digest", "files", "size"]),
    st.sampled_from(["begin", "add", "promote", "rollback", "unalias", "remove", "collect", "production"])
    | st.none() | st.integers(-1, 2) | st.floats() | st.lists(st.integers(), max_size=1)
    | st.dictionaries(st.text(max_size=2), st.text(max_size=2), max_size=1),
)  # fmt: skip


@settings(max_examples=100)
@given(st.lists(contents, max_size=3))
def test_whatever_acts_there_are_the_ledger_holds_together_or_is_refused(acts):
    with contextlib.suppress(InputError, StorageError):
        state = fold(URL, history(*added(1), {"act": "promote", "version": 1, "alias": "production"}, *acts))
        assert all(state.current(alias) is not None for alias in state.aliases)
