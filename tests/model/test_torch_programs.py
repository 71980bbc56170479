import contextlib
import io
import json
import pickle
import zipfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plantml.errors import InputError
from plantml.model import torch_programs


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(3, 2)
        self.register_buffer("shown", torch.arange(3.0), persistent=False)

    def forward(self, image):
        return self.head(image.float().mean(dim=(1, 2)) + self.shown).softmax(dim=1)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def packed(net):
    example = torch.zeros((2, 8, 8, 3), dtype=torch.uint8)
    program = torch.export.export(net, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},))
    return torch_programs.pack(program, {"plantml": "notes"})


def members(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def archive(parts):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        for name, body in parts.items():
            out.writestr(name, body)
    return buffer.getvalue()


def changed(packed, name, work):
    parts = members(packed)
    key = next(result for result in parts if result.endswith(name))
    return archive(parts | {key: work(parts[key])})


def edited(packed, work, name=torch_programs.MODEL, *, sealed=True):
    def edit(body):
        content = json.loads(body)
        work(content)
        return json.dumps(content).encode()

    data = changed(packed, name, edit)
    return torch_programs.annotated(data, {}) if sealed else data


# --- what is ours -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 7])
def test_what_was_packed_answers_as_it_did(net, packed, size):
    module = torch.export.load(io.BytesIO(torch_programs.unpack("leaf.pt2", packed).clean)).module()
    batch = torch.randint(0, 256, (size, 8, 8, 3), dtype=torch.uint8)
    assert torch.equal(module(batch), net(batch))


def test_notes_and_tensors_are_read_without_torch(net, packed):
    result = torch_programs.unpack("leaf.pt2", torch_programs.annotated(packed, {"more": "text", "plantml": "other"}))
    assert result.notes == {"plantml": "other", "more": "text"}
    assert result.tensors.keys() == {"head.weight", "head.bias"}
    assert result.tensors["head.weight"] == net.head.weight.detach().numpy().tobytes()


def test_nothing_of_ours_is_a_pickle_or_names_a_place(packed):
    parts = members(packed)
    assert parts[f"archive/{torch_programs.EXAMPLE}"] == b""
    assert not any(b"test_programs.py" in body for body in parts.values())
    for config in (torch_programs.WEIGHTS, torch_programs.CONSTANTS):
        assert b'"use_pickle": true' not in parts[f"archive/{config}"]


def test_an_edited_graph_is_noticed(packed):
    def swapped(content):
        outputs = content["graph_module"]["graph"]["nodes"]
        outputs[0], outputs[1] = outputs[1], outputs[0]

    assert torch_programs.annotated(packed, {}) == packed
    with pytest.raises(InputError, match="changed after plantml wrote it"):
        torch_programs.unpack("leaf.pt2", archive(members(edited(packed, swapped, sealed=False))))
    unsealed = {name: body for name, body in members(packed).items() if "seal" not in name}
    with pytest.raises(InputError, match="not made by plantml"):
        torch_programs.unpack("leaf.pt2", archive(unsealed))


# --- what is not ------------------------------------------------------------------------------


class Bomb:
    """What runs code where it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def node(content):
    return content["graph_module"]["graph"]["nodes"][0]


def calls(target):
    return lambda content: node(content).update(target=target)


def size(text):
    def work(content):
        value = next(iter(content["graph_module"]["graph"]["tensor_values"].values()))
        value["sizes"] = [{"as_expr": {"expr_str": text, "hint": None}}]

    return work


def says(text):
    return lambda content: node(content)["inputs"].append({"name": "x", "arg": {"as_string": text}, "kind": 1})


def constraint(content):
    content["range_constraints"]["__import__('os').abort()"] = {"min_val": 1, "max_val": 2}


def tree(content):
    content["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = '[1, {"type": "os.system"}]'


@pytest.mark.parametrize(
    "work",
    [
        calls("torch.os.system"),
        calls("torch.load"),
        calls("torch.ops.aten.from_file.default"),
        calls("torch.ops.higher_order.cond"),
        calls("torch.ops.aten.add.Tensor;"),
        size("__import__('os').system('true')"),
        size("().__class__.__base__"),
        says("/etc/passwd"),
        constraint,
        tree,
    ],
)
def test_a_graph_that_could_run_code_is_refused(packed, work):
    with pytest.raises(InputError, match="content that plantml never exports") as error:
        torch_programs.unpack("leaf.pt2", edited(packed, work))
    assert "not loaded" in error.value.hint


def test_pickles_are_refused_and_never_loaded(packed, tmp_path):
    bomb = pickle.dumps(Bomb(tmp_path / "ran"))
    with pytest.raises(InputError, match="pickled example"):
        torch_programs.unpack("leaf.pt2", changed(packed, torch_programs.EXAMPLE, lambda _: bomb))
    first = "head.weight"

    def marked(content):
        content["config"][first]["use_pickle"] = True

    def elsewhere(content):
        content["config"][first]["path_name"] = "custom_obj_0"

    for work in (marked, elsewhere):
        with pytest.raises(InputError, match="not a plain tensor"):
            torch_programs.unpack("leaf.pt2", edited(packed, work, torch_programs.WEIGHTS))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["archive/data/aotinductor/model/x.so", "other/models/model.json", "archive/../x"])
def test_files_that_ours_do_not_have_are_refused(packed, name):
    with pytest.raises(InputError, match="content that plantml never exports"):
        torch_programs.unpack("leaf.pt2", archive(members(packed) | {name: b""}))


def test_guards_and_traces_do_not_reach_torch(packed):
    def work(content):
        content["guards_code"] = ["__import__('os').abort()"]
        node(content)["metadata"] = {"stack_trace": "x", "nn_module_stack": "y"}

    clean = torch_programs.unpack("leaf.pt2", edited(packed, work)).clean
    content = json.loads(next(body for name, body in members(clean).items() if name.endswith(torch_programs.MODEL)))
    assert content["guards_code"] == []
    assert node(content)["metadata"] == {}


@pytest.mark.parametrize("data", [b"", b"no archive", b"PK\x03\x04" * 9])
def test_bytes_that_are_no_archive_are_refused(data):
    with pytest.raises(InputError, match="not a complete"):
        torch_programs.unpack("leaf.pt2", data)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_half_an_archive_is_refused(packed, share):
    with pytest.raises(InputError, match="not a complete"):
        torch_programs.unpack("leaf.pt2", packed[: int(len(packed) * share)])


def test_a_flipped_bit_is_noticed(packed):
    where = packed.index(members(packed)["archive/data/weights/weight_0"])
    data = bytearray(packed)
    data[where] ^= 1
    with pytest.raises(InputError, match="not a complete"):
        torch_programs.unpack("leaf.pt2", bytes(data))


@pytest.mark.parametrize("data", [archive({}), archive({"archive/models/model.json": b"[" * 100_000})])
def test_an_archive_that_holds_nothing_or_too_much_is_refused(data):
    with pytest.raises(InputError):
        torch_programs.unpack("leaf.pt2", data)


@pytest.mark.parametrize("text", ["1" * 200 + "!", "1" * 200 + "()" * 50 + "!"])
def test_a_long_text_is_looked_at_once(packed, text):
    with pytest.raises(InputError, match="content that plantml never exports"):
        torch_programs.unpack("leaf.pt2", edited(packed, size(text)))


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_bytes_changed_by_chance_are_noticed(packed, data):
    """The bodies of the parts have checksums; what is left is the zip's own directory, most of it at the end."""
    spoilt = bytearray(packed)
    many = data.draw(st.integers(1, 4))
    for place in data.draw(st.lists(st.integers(1, 1500), min_size=many, max_size=many)):
        spoilt[-place] = data.draw(st.integers(0, 255))
    try:
        result = torch_programs.unpack("leaf.pt2", bytes(spoilt))
    except InputError:
        return
    assert result == torch_programs.unpack("leaf.pt2", packed)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(data=st.data(), value=json_values)
@settings(max_examples=25, deadline=None)
def test_any_value_in_the_place_of_another_is_refused_or_read(packed, data, value):
    """A sealed archive whose graph or configuration is not what a graph is."""
    name = data.draw(st.sampled_from([torch_programs.MODEL, torch_programs.WEIGHTS, torch_programs.CONSTANTS]))

    def work(content):
        for _ in range(data.draw(st.integers(0, 5))):
            nested = [key for key, part in content.items() if isinstance(part, dict) and part]
            if not nested:
                break
            content = content[data.draw(st.sampled_from(nested))]
        if content:
            content[data.draw(st.sampled_from(sorted(content)))] = value

    with contextlib.suppress(InputError):
        torch_programs.unpack("leaf.pt2", edited(packed, work, name))
