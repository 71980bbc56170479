"""The deployed network in OpenVINO's intermediate representation: an `.xml` and the `.bin` beside it."""

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plantml.model.file_formats import NO_SEAL, SEAL_KEY, seal
from plantml.model.runtimes import WEIGHTS_KEY, import_openvino


def to_openvino(model: bytes, notes: Mapping[str, str]) -> tuple[bytes, bytes]:
    """An ONNX file as the bytes of an `.xml` and its `.bin`, in float32.

    Args:
        model: the ONNX file.
        notes: metadata, which become entries of the `.xml`'s `rt_info`; the SHA-256 of the `.bin` and the seal of the
            `.xml` are added.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    return _saved(import_openvino(), model, None, notes)


def annotated(model: bytes, weights: bytes, notes: Mapping[str, str]) -> bytes:
    """The `.xml` with further notes; its `.bin` stays as it is."""
    described, same = _saved(import_openvino(), model, weights, notes)
    assert same == weights
    return described


def _saved(openvino: Any, model: bytes, weights: bytes | None, notes: Mapping[str, str]) -> tuple[bytes, bytes]:
    core = openvino.Core()
    read = core.read_model(model) if weights is None else core.read_model(model=model, weights=weights)
    with tempfile.TemporaryDirectory(prefix="plantml-openvino-") as folder:
        file, beside = Path(folder, "model.xml"), Path(folder, "model.bin")
        # The weights are known only when they are written, and the note about them stands in the other file.
        openvino.save_model(read, file, compress_to_fp16=False)
        content = beside.read_bytes()
        own = {WEIGHTS_KEY: hashlib.sha256(content).hexdigest(), SEAL_KEY: NO_SEAL}
        for key, value in {**notes, **own}.items():
            read.set_rt_info(value, [key])
        openvino.save_model(read, file, compress_to_fp16=False)
        return seal(file.read_bytes()), content
