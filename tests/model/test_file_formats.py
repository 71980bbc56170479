import hashlib
import json
import zipfile

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save

from plantml import storage
from plantml.errors import InputError
from plantml.model import file_formats


def small_model(notes, size=3):
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [size])
    same = helper.make_tensor_value_info("same", TensorProto.FLOAT, [size])
    weights = numpy_helper.from_array(np.arange(size, dtype=np.float32), "weights")
    graph = helper.make_graph(
        [helper.make_node("Add", ["image", "weights"], ["same"])], "g", [image], [same], [weights]
    )
    model = helper.make_model(graph, producer_name="a test", opset_imports=[helper.make_opsetid("", 18)])
    helper.set_model_props(model, notes)
    return model.SerializeToString()


NOTES = {"plantml": '{"a": 1}', "grün": "", file_formats.SEAL_KEY: file_formats.NO_SEAL}
MODEL = small_model(NOTES)
WEIGHTS = save({"head": np.arange(6, dtype=np.float32).reshape(2, 3), "bank": np.arange(3, dtype=np.uint8)})


# --- ONNX -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [3, 100_000])
def test_metadata_of_an_onnx_file_are_read_in_parts_or_whole(tmp_path, size):
    data = small_model(NOTES, size)
    file = tmp_path / "model.onnx"
    file.write_bytes(data)
    assert file_formats.onnx_metadata("here", data) == NOTES
    assert file_formats.onnx_metadata("here", storage.ranges(str(file))) == NOTES


def test_the_graph_is_not_read():
    data = small_model(NOTES, 1_000_000)

    class Counted:
        size, seen = len(data), 0

        def read(self, start, length):
            self.seen += len(data[start : start + length])
            return data[start : start + length]

    file = Counted()
    assert file_formats.onnx_metadata("here", file) == NOTES
    assert file.seen < len(data) / 10


def test_a_thing_that_is_named_twice_is_refused():
    model = onnx.load_from_string(MODEL)
    model.metadata_props.add(key="plantml", value="another")
    with pytest.raises(InputError, match="duplicate key"):
        file_formats.onnx_metadata("leaf.onnx", model.SerializeToString())


def named_or_read(name, read):
    """True if `read()` gives something, or an error that names the file."""
    try:
        read()
    except InputError as error:
        return name in str(error)
    return True


damage = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4)


def damaged(data, places, length):
    spoilt = bytearray(data[:length])
    for place, value in places:
        if spoilt:
            spoilt[place % len(spoilt)] = value
    return bytes(spoilt)


@given(damage, st.integers(0, len(MODEL)))
@settings(max_examples=200, deadline=None)
def test_whatever_an_onnx_file_holds_is_read_or_named(places, length):
    data = damaged(MODEL, places, length)
    assert named_or_read("leaf.onnx", lambda: file_formats.onnx_metadata("leaf.onnx", data))


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_named(data):
    assert named_or_read("leaf", lambda: file_formats.onnx_metadata("leaf", data))
    assert named_or_read("leaf", lambda: file_formats.tensors("leaf", data))
    assert file_formats.sums(data) == file_formats.Sums(hashlib.sha256(data).hexdigest())


# --- seals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [MODEL, f'<rt_info><{file_formats.SEAL_KEY} value="{file_formats.NO_SEAL}" /></rt_info>'.encode()]
)
def test_every_changed_byte_breaks_the_seal(data):
    sealed = file_formats.seal(data)
    assert sealed != data
    assert file_formats.seal(sealed) == sealed
    file_formats.check_seal("leaf", file_formats.sums(sealed))
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(InputError, match=r"leaf was (changed|not made)"):
            file_formats.check_seal("leaf", file_formats.sums(bytes(changed)))


def test_what_has_no_seal_stays_and_is_refused():
    assert file_formats.seal(b"no model") == b"no model"
    with pytest.raises(InputError, match="not made by plantml, or changed since"):
        file_formats.check_seal("leaf", file_formats.sums(b"no model"))


# --- safetensors ------------------------------------------------------------------------------


def test_tensors_are_their_bytes():
    result = file_formats.tensors("leaf", WEIGHTS)
    assert {name: bytes(data) for name, data in result.items()} == {
        "head": np.arange(6, dtype=np.float32).tobytes(),
        "bank": bytes(range(3)),
    }


def with_header(header):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(10)


@pytest.mark.parametrize("offsets", [[0, 11], [-1, 3], [5, 3], [0], [0, "3"], [0, True], None, {}, [0, 1, 2], [0, 2.0]])
def test_tensors_that_lie_elsewhere_are_refused(offsets):
    with pytest.raises(InputError, match="leaf is not a safetensors file"):
        file_formats.tensors("leaf", with_header({"head": {"data_offsets": offsets}}))


@pytest.mark.parametrize("header", [[], None, 3, {"head": None}, {"head": {}}, {"head": [0, 3]}])
def test_headers_that_are_none_are_refused(header):
    with pytest.raises(InputError, match="leaf"):
        file_formats.tensors("leaf", with_header(header))


@given(damage, st.integers(0, len(WEIGHTS)))
@settings(max_examples=100, deadline=None)
def test_whatever_weights_hold_is_read_or_named(places, length):
    from plantml.model import network

    data = damaged(WEIGHTS, places, length)
    assert named_or_read("model.safetensors", lambda: file_formats.tensors("model.safetensors", data))
    assert named_or_read("model.safetensors", lambda: network.read_weights(data))


def test_ranges_are_the_same_bytes_everywhere(url, tmp_path):
    place = storage.join(url, "model.onnx")
    storage.write(place, MODEL)
    pack = tmp_path / "x.zip"
    with zipfile.ZipFile(pack, "w") as file:
        file.writestr("model.onnx", MODEL)
    for each in (place, f"zip://model.onnx::{pack}"):
        ranges = storage.ranges(each)
        assert ranges.size == len(MODEL)
        assert ranges.read(5, 9) == MODEL[5:14]
        assert ranges.read(len(MODEL) - 3, 100) == MODEL[-3:]
        assert file_formats.onnx_metadata(each, ranges) == NOTES
