"""Archives of `torch.export` (`.pt2`), written and read without a pickle.

`torch.export.load` may run code: it unpickles tensors, constants and example inputs that an archive marks so, loads
compiled libraries, evaluates symbolic expressions and guards as Python, and calls whatever function of torch a node
names. So an archive is first read here as what it is, a zip of JSON and raw numbers, and refused if it holds anything
that ours do not. What torch then loads is a new archive, made of nothing but the parts that were looked at. One of its
notes is the SHA-256 of all its other parts: the graph is not in the digest, and an edited one is noticed by that.
"""

import hashlib
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from plantml import parsing
from plantml.errors import InputError
from plantml.model.file_formats import SEAL_KEY, Sums, check_seal

MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
EXAMPLE = "data/sample_inputs/model.pt"
EXTRA = "extra/"
_RAW = {WEIGHTS: "data/weights/", CONSTANTS: "data/constants/"}
_ABOUT = frozenset({"archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id"})
_LIMIT = 8 << 30
"""Bytes that an archive may hold unpacked."""

_OPERATOR = re.compile(
    r"torch\.ops\.aten\.(?!from_file)\w+\.\w+|_operator\.(getitem|add|sub|mul|floordiv|neg|eq|ge|le)"
)
_SYMBOL = re.compile(r"[su]\d+")
_SIZE = re.compile(
    r"((Symbol|Integer|Mul|Add|FloorDiv|Mod|Max|Min|True|positive|integer|nonnegative)\b|'[su]\d+'|\d|[-(),= ])*"
)
_WORD = re.compile(r"[a-z_]{0,24}")
_TREE = re.compile(r'(builtins\.(tuple|list|dict)|type|context|children_spec|null|\d|[\[\]{}:", \\])*')
_TEXTS = {"as_string": _WORD, "expr_str": _SIZE, "in_spec": _TREE, "out_spec": _TREE}
_TENSOR = re.compile(r"(weight|tensor)_\d+")
_SEAL = EXTRA + SEAL_KEY
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    LookupError,
    TypeError,
    AttributeError,
    ValueError,
    ArithmeticError,
    EOFError,
    RuntimeError,  # an encrypted member, what is nested too deep, and what is packed in an unknown way
)
"""What bytes that are no archive of ours raise where they are read."""


@dataclass(frozen=True)
class Archive:
    """An archive that was looked at.

    Attributes:
        notes: its extra files, without the seal.
        tensors: raw bytes of the weights by their names in the network.
        clean: the same archive with nothing in it but what was looked at; safe for `torch.export.load`.
    """

    notes: Mapping[str, str]
    tensors: Mapping[str, bytes]
    clean: bytes


def pack(program: Any, notes: Mapping[str, str]) -> bytes:
    """A `torch.export.ExportedProgram` and notes as the bytes of an archive, without example inputs and traces."""
    import torch

    program.example_inputs = None
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names files of the machine that exported
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files=dict(notes))
    return annotated(buffer.getvalue(), {})


def annotated(data: bytes, notes: Mapping[str, str]) -> bytes:
    """An archive of ours with more notes, sealed."""
    members = _members(data) | {EXTRA + key: value.encode() for key, value in notes.items()}
    return _zipped(members | {_SEAL: _seal(members).encode()})


def unpack(url: str, data: bytes) -> Archive:
    """Look at an archive.

    Raises:
        InputError: it is damaged, or holds what `pack` does not write.
    """
    try:
        members = _members(data)
        program = parsing.parse_json_object(members[MODEL], MODEL)
        _check_graph(program)
        tensors: dict[str, bytes] = {}
        for name, folder in _RAW.items():
            parts = {
                tensor: members[folder + _checked_path(tensor, entry)]
                for tensor, entry in parsing.parse_json_object(members[name], name)["config"].items()
            }
            tensors |= parts if name == WEIGHTS else {}
        notes = {name.removeprefix(EXTRA): body.decode() for name, body in members.items() if name.startswith(EXTRA)}
        stated = notes.pop(SEAL_KEY, "")
        clean = _clean(members, program)
    except _Foreign as error:
        raise InputError(
            f"{url} has content that plantml never exports",
            str(error),
            "It was not loaded, because that could run code.",
        ) from error
    except (*_BROKEN, InputError) as error:
        why = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        raise InputError(f"{url} is not a complete .pt2 file", why, "Export it again.") from error
    check_seal(url, Sums("", _seal(members) if stated else None, stated))
    return Archive(notes, tensors, clean)


def _seal(members: Mapping[str, bytes]) -> str:
    """SHA-256 of the names and bytes of all members but the seal."""
    sha256 = hashlib.sha256()
    for name in sorted(members.keys() - {_SEAL}):
        sha256.update(f"{name}\0{len(members[name])}\0".encode())
        sha256.update(members[name])
    return sha256.hexdigest()


class _Foreign(Exception):  # noqa: N818 - says what an archive is
    """Something that ours do not hold."""


def _members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = archive.infolist()
        if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
            raise _Foreign("a compressed file")
        if sum(info.file_size for info in infos) > _LIMIT:
            raise _Foreign("it would unpack to more than 8 GiB")
        root, members = infos[0].filename.partition("/")[0] + "/", {}
        for info in infos:
            name = info.filename.removeprefix(root)
            known = name in {*_ABOUT, *_RAW, MODEL, EXAMPLE} or name.startswith((EXTRA, *_RAW.values()))
            if not info.filename.startswith(root) or not known or name in members:
                raise _Foreign(f"the file {info.filename!r}")
            members[name] = archive.read(info)
    if members[EXAMPLE]:
        raise _Foreign("pickled example inputs")
    return members


def _checked_path(tensor: str, entry: Mapping[str, Any]) -> str:
    path: str = entry["path_name"]
    if entry["use_pickle"] is not False or not _TENSOR.fullmatch(path):
        raise _Foreign(f"{tensor} is not a plain tensor")
    return path


def _check_graph(program: Mapping[str, Any]) -> None:
    graph = program["graph_module"]["graph"]
    for node in graph["nodes"]:
        if not _OPERATOR.fullmatch(node["target"]):
            raise _Foreign(f"a call of {node['target']!r}")
    for symbol in program["range_constraints"]:
        if not _SYMBOL.fullmatch(symbol):
            raise _Foreign(f"the expression {symbol!r}")
    for key, text in _texts(program["graph_module"]):
        if not _TEXTS[key].fullmatch(text):
            raise _Foreign(f"the text {text!r}")
    if graph["custom_obj_values"] or program["graph_module"]["treespec_namedtuple_fields"]:
        raise _Foreign("custom objects")


def _texts(part: Any) -> Iterator[tuple[str, str]]:
    if isinstance(part, dict):
        for key, value in part.items():
            if key in _TEXTS and value is not None:
                yield key, value
            else:
                yield from _texts(value)
    elif isinstance(part, list):
        for value in part:
            yield from _texts(value)


def _clean(members: Mapping[str, bytes], program: dict[str, Any]) -> bytes:
    for node in program["graph_module"]["graph"]["nodes"]:
        node["metadata"] = {}
    program["guards_code"] = []
    return _zipped({**members, MODEL: json.dumps(program).encode()})


def _zipped(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, body in members.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), body)  # which has no clock in it
    return buffer.getvalue()
