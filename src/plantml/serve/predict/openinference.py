"""Requests and responses of the Open Inference Protocol v2, in JSON and with its binary extension.

See https://github.com/kserve/open-inference-protocol. A body in binary is a JSON header, as long as
`Inference-Header-Content-Length` says, and then the tensors that the header announces, one after the other.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from plantml.imaging import Pixels
from plantml.model.contract import Contract
from plantml.model.runtimes import Outputs, output_shapes
from plantml.serve.web.problems import RequestError, reasons

HEADER = "Inference-Header-Content-Length"
INPUT = "image"
_HINT = "GET /v2/models/NAME describes the input and the outputs."


class RequestedTensor(BaseModel):
    """An input or output that a request names."""

    name: str
    parameters: dict[str, Any] = {}


class InputTensor(RequestedTensor):
    """An input with its values: nested or flat in `data`, or after the header."""

    shape: list[int] = Field(max_length=8)
    datatype: str
    data: list[Any] | None = None


class InferenceRequest(BaseModel):
    """The JSON of a request."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"inputs": [{"name": INPUT, "shape": [1, 1, 1, 3], "datatype": "UINT8", "data": [[[[12, 99, 7]]]]}]}
            ]
        }
    )

    id: str | None = None
    parameters: dict[str, Any] = {}
    inputs: list[InputTensor]
    outputs: list[RequestedTensor] | None = None


class TensorMetadata(BaseModel):
    """Name, type and shape of an input or output; -1 stands for any number of photos."""

    name: str
    datatype: str
    shape: list[int]


class OutputTensor(TensorMetadata):
    """An output with its values, flat."""

    data: list[float]


class InferenceAnswer(BaseModel):
    """The JSON of a response."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


@dataclass(frozen=True)
class Inference:
    """What a request asks for.

    Attributes:
        photos: uint8 [N, H, W, 3].
        wanted: by output, true if it is sent in binary.
        id: of the request.
    """

    photos: Pixels
    wanted: Mapping[str, bool]
    id: str | None


def describe_input(contract: Contract) -> TensorMetadata:
    """The input of a model."""
    return TensorMetadata(name=INPUT, datatype="UINT8", shape=[-1, contract.input.height, contract.input.width, 3])


def describe_outputs(contract: Contract, *, is_whole: bool) -> list[TensorMetadata]:
    """The outputs of a model as a caller sees it.

    Args:
        contract: with the visible targets only.
        is_whole: true if these are all. An embedding tells of hidden ones, too.
    """
    return [
        TensorMetadata(name=name, datatype="FP32", shape=[-1, *shape])
        for name, shape in output_shapes(contract).items()
        if is_whole or name != "embedding"
    ]


def parse(
    body: bytes, header: str | None, expected: TensorMetadata, outputs: Sequence[TensorMetadata], most: int
) -> Inference:
    """What a request asks for.

    Args:
        body: as it came.
        header: value of `HEADER`, if the body is binary.
        expected: the model's input.
        outputs: that the caller may have.
        most: photos.

    Raises:
        RequestError: 400, it is malformed, or not for this model; 413, it has too many photos.
    """
    text, tail = body, b""
    if header is not None:
        if not header.isdecimal() or len(header) > 20 or not 0 < int(header) <= len(body):
            raise _malformed(f"{HEADER} is not the length of a header in the body")
        text, tail = body[: int(header)], body[int(header) :]
    try:
        request = InferenceRequest.model_validate_json(text)
    except ValidationError as error:
        raise _malformed(reasons(error.errors()[:1])) from error
    known = [output.name for output in outputs]
    wanted = request.outputs if request.outputs is not None else [RequestedTensor(name=name) for name in known]
    if strange := [each.name for each in wanted if each.name not in known]:
        raise _malformed(f"there is no output {strange[0]!r:.80}, but {', '.join(known)}")
    default = request.parameters.get("binary_data_output", False)
    in_binary = {each.name: bool(each.parameters.get("binary_data", default)) for each in wanted}
    return Inference(_pixels(request.inputs, tail, expected, most), in_binary, request.id)


def answer(inference: Inference, rows: Sequence[Outputs], name: str, version: str) -> tuple[bytes, int | None]:
    """The body of a response, and the length of its JSON header; `None` if all of it is JSON.

    Args:
        inference: what was asked for.
        rows: outputs of each photo.
        name: of the model.
        version: of the model.
    """
    tensors, parts = [], []
    for output, in_binary in inference.wanted.items():
        values = np.stack([row[output] for row in rows]).astype("<f4")
        tensor: dict[str, Any] = {"name": output, "datatype": "FP32", "shape": list(values.shape)}
        if in_binary:
            parts.append(values.tobytes())
            tensor["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            tensor["data"] = values.ravel().tolist()
        tensors.append(tensor)
    content: dict[str, Any] = {"model_name": name, "model_version": version, "outputs": tensors}
    if inference.id is not None:
        content["id"] = inference.id
    header = json.dumps(content).encode()
    return (b"".join([header, *parts]), len(header)) if parts else (header, None)


def _pixels(inputs: Sequence[InputTensor], tail: bytes, expected: TensorMetadata, most: int) -> Pixels:
    if len(inputs) != 1 or inputs[0].name != INPUT or inputs[0].datatype != "UINT8":
        raise _malformed(f"it needs one input, {INPUT}, of the datatype UINT8")
    (tensor,) = inputs
    if len(tensor.shape) != 4 or tensor.shape[1:] != expected.shape[1:] or tensor.shape[0] < 1:
        raise _malformed(f"the shape of {INPUT} is {tensor.shape}, not N, {', '.join(map(str, expected.shape[1:]))}")
    if tensor.shape[0] > most:
        raise RequestError(413, "Too many photos", f"{tensor.shape[0]} of at most {most}", "Send several requests.")
    size = tensor.parameters.get("binary_data_size")
    pixels: NDArray[Any]
    if size is not None:
        if size != len(tail) or size != math.prod(tensor.shape):
            raise _malformed(f"binary_data_size is not the size of {INPUT}, or of what follows the header")
        pixels = np.frombuffer(tail, np.uint8)
    else:
        try:
            pixels = np.asarray(tensor.data)
        except ValueError as error:
            raise _malformed("data is not a tensor") from error
        is_whole = pixels.dtype.kind in "iu" and pixels.size == math.prod(tensor.shape)
        if not is_whole or pixels.min() < 0 or pixels.max() > 255:
            raise _malformed(f"data is not the {math.prod(tensor.shape)} numbers from 0 to 255 of its shape")
    return pixels.astype(np.uint8).reshape(tensor.shape)


def _malformed(why: str) -> RequestError:
    return RequestError(400, "The request is malformed", why, _HINT)
