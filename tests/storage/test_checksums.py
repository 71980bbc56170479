import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plantml.errors import InputError, StorageError
from plantml.storage import checksums

values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
records = st.dictionaries(st.text(max_size=6).filter(lambda key: key != "sha256"), values, max_size=4)


def flipped(data, place):
    changed = bytearray(data)
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


@settings(max_examples=40)
@given(records, st.sampled_from([None, 2]))
def test_a_record_comes_back(record, indent):
    data = checksums.to_json(record, indent=indent)
    assert checksums.is_intact(data)
    assert checksums.from_json(data, "x") == record


@pytest.mark.parametrize("indent", [None, 2])
def test_no_bit_of_a_record_changes_unseen(indent):
    data = checksums.to_json({"act": "promote", "evidence": {"sha256": "ab" * 32}, "version": 1}, indent=indent)
    for place in range(8 * len(data)):
        with pytest.raises(InputError, match="damaged"):
            checksums.from_json(flipped(data, place), "x")


@pytest.mark.parametrize("line", ["{%s}", "%s"])
def test_no_bit_of_a_sealed_text_changes_unseen(line):
    data = checksums.seal_text(b"first\nsecond\n", line)
    assert checksums.is_intact(data)
    assert not any(checksums.is_intact(flipped(data, place)) for place in range(8 * len(data)))


@settings(max_examples=100)
@given(st.binary(max_size=50), st.data())
def test_whatever_bytes_are_no_record_end_in_the_error_that_was_asked_for(garbage, data):
    whole = checksums.to_json({"a": [1, 2], "b": {"c": None}})
    cut = data.draw(st.integers(0, len(whole) - 2))
    for text in (garbage, whole[:cut], whole[:cut] + garbage):
        with contextlib.suppress(StorageError):
            assert checksums.from_json(text, "x", error=StorageError) == json.loads(text)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"null", b"\xff", b"[" * 9000, b'{"a": 1', b'{"sha256": "ab", "a": 1}', b'{"a": 1}']
)
def test_what_is_no_record_is_damaged(text):
    with pytest.raises(InputError, match="x is damaged"):
        checksums.from_json(text, "x")
