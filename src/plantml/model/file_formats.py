"""Metadata, seals and tensors of model files, read with the standard library alone.

No byte is trusted: the result is the content of the file, or an `InputError` that names it.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plantml import parsing
from plantml.errors import InputError

if TYPE_CHECKING:
    from plantml.storage.byte_ranges import Ranges

SEAL_KEY = "plantml_seal"
"""In the metadata of a file: the SHA-256 of its own bytes."""

NO_SEAL = "0" * 64
"""Placeholder for the digits of a seal while it is computed."""

_BEFORE_SEAL = (
    f"{SEAL_KEY}\x12\x40".encode(),  # of protobuf: a second field, of 64 bytes
    f'<{SEAL_KEY} value="'.encode(),  # of OpenVINO's .xml
)
_BLOCK = 1 << 16
_CUT_OFF = "it ends in the middle of a field"


# --- seals ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sums:
    """SHA-256 sums of a file, in hex.

    Attributes:
        sha256: of all bytes.
        seal: of all bytes with `NO_SEAL` in the place of the seal; `None` where the file has no such place.
        stated: the seal in the file.
    """

    sha256: str
    seal: str | None = None
    stated: str = ""


def sums(data: bytes, *, sealed: bool = True) -> Sums:
    """Both sums of a file's bytes, in one pass over most of them.

    Args:
        data: the bytes.
        sealed: look for a seal, which takes time in a large file that has none.
    """
    place = _seal_place(data) if sealed else None
    if place is None:
        return Sums(hashlib.sha256(data).hexdigest())
    view = memoryview(data)
    whole = hashlib.sha256(view[:place])
    unsealed = whole.copy()
    whole.update(view[place:])
    unsealed.update(NO_SEAL.encode())
    unsealed.update(view[place + 64 :])
    return Sums(whole.hexdigest(), unsealed.hexdigest(), view[place : place + 64].tobytes().decode("latin-1"))


def seal(data: bytes) -> bytes:
    """A file that names the SHA-256 of its own bytes, taken with `NO_SEAL` in the place of its 64 digits.

    Args:
        data: with `SEAL_KEY` in its metadata, whatever its value of 64 digits; else it comes back as it is.
    """
    place, digits = _seal_place(data), sums(data).seal
    if place is None or digits is None:
        return data
    return data[:place] + digits.encode() + data[place + 64 :]


def check_seal(url: str, file_sums: Sums) -> None:
    """Raise `InputError` unless the bytes of a file are exactly those that plantml wrote."""
    again = "Export it again, or restore it."
    if file_sums.seal is None:
        what = f"{url} was not made by plantml, or changed since"
        raise InputError(what, f"its metadata has no {SEAL_KEY}", again)
    if file_sums.seal != file_sums.stated:
        why = "its SHA-256 is not the one in its metadata"
        raise InputError(f"{url} was changed after plantml wrote it", why, again)


def _seal_place(data: bytes) -> int | None:
    for before in _BEFORE_SEAL:
        place = data.rfind(before)
        if place >= 0:
            place += len(before)
            return place if place + 64 <= len(data) else None
    return None


# --- safetensors ------------------------------------------------------------------------------


def tensors(url: str, data: bytes) -> dict[str, memoryview]:
    """The bytes of each tensor of a safetensors file, by name.

    Format: https://huggingface.co/docs/safetensors (the header's length as 8 bytes, the header as JSON, the data).

    Raises:
        InputError: it is no such file.
    """
    begin = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or begin > len(data):
        raise InputError(f"{url} is not a safetensors file", "it ends inside its header", "Fetch or export it again.")
    header = parsing.parse_json_object(data[8:begin], f"The header of {url}")
    body = memoryview(data)[begin:]
    try:
        places = {name: part["data_offsets"] for name, part in header.items() if name != "__metadata__"}
        return {name: _span(body, *offsets) for name, offsets in places.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{url} is not a safetensors file", f"{type(error).__name__}: {error}", "Fetch or export it again."
        ) from error


def _span(body: memoryview, first: object, last: object) -> memoryview:
    if type(first) is not int or type(last) is not int or not 0 <= first <= last <= len(body):
        raise ValueError(f"a tensor from byte {first} to {last} of {len(body)}")
    return body[first:last]


# --- ONNX -------------------------------------------------------------------------------------


def onnx_metadata(url: str, file: "Ranges | bytes") -> dict[str, str]:
    """The metadata of an ONNX file; the graph is skipped.

    Formats: https://protobuf.dev/programming-guides/encoding, and `ModelProto.metadata_props` of
    https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.

    Args:
        url: for messages.
        file: its bytes, or a reader of byte ranges.

    Raises:
        InputError: it is not an ONNX file, or a key is duplicated.
    """
    try:
        entries = [entry for number, entry in _fields(_Blocks(file), only=14) if number == 14]
        pairs = [dict(_fields(_Blocks(entry))) for entry in entries]
        notes = {pair.get(1, b"").decode(): pair.get(2, b"").decode() for pair in pairs}
    except ValueError as error:
        raise InputError(f"{url} is not a complete ONNX file", str(error), "Fetch or export it again.") from error
    if len(notes) < len(entries):
        raise InputError(f"{url} is not a file of plantml", "its metadata has a duplicate key", "Export it again.")
    return notes


class _Blocks:
    """Ranges of a file, read in blocks and from front to back."""

    def __init__(self, file: "Ranges | bytes") -> None:
        self._file = file
        self.size = len(file) if isinstance(file, bytes) else file.size
        self._start, self._block = 0, b""

    def read(self, start: int, length: int) -> bytes:
        """`length` bytes from `start`. Raises `ValueError` if there are fewer."""
        if start + length > self.size:
            raise ValueError(_CUT_OFF)
        if isinstance(self._file, bytes):
            return self._file[start : start + length]
        if not self._start <= start <= start + length <= self._start + len(self._block):
            self._start, self._block = start, self._file.read(start, max(length, _BLOCK))
        return self._block[start - self._start : start - self._start + length]


def _fields(blocks: _Blocks, only: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each field of a protobuf message; with `only`, empty bytes for all others."""
    at = 0
    while at < blocks.size:
        tag, at = _varint(blocks, at)
        match tag & 7:
            case 0:
                _, at = _varint(blocks, at)
                continue
            case 1 | 5 as kind:
                length = 8 if kind == 1 else 4
            case 2:
                length, at = _varint(blocks, at)
            case kind:
                raise ValueError(f"a field of kind {kind} at byte {at}")
        if at + length > blocks.size:
            raise ValueError(_CUT_OFF)
        yield tag >> 3, blocks.read(at, length) if only in {None, tag >> 3} else b""
        at += length


def _varint(blocks: _Blocks, at: int) -> tuple[int, int]:
    """A varint, and the offset after it."""
    number = 0
    for place in range(10):
        byte = blocks.read(at + place, 1)[0]
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number, at + place + 1
    raise ValueError(f"an unterminated number at byte {at}")
