"""The sides of the machine's ceiling: decoders with a resize, and forms of the network, each alone on every core."""

import io
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image

from bench.side import Rounds
from plantml import imaging, storage
from plantml.imaging import Fit
from plantml.model import bundle as bundles
from plantml.model.pipeline import BATCH
from plantml.settings import usable_cores

FIT = Fit(224, 224)
_CALLS = 8
"""Batches that each core computes in a round."""


def pixels(rounds: Rounds, *, folder: str, decoder: str, photos: int) -> None:
    """Bytes in memory to uint8 pixels at the size of the input, on every core."""
    decode = DECODERS[decoder]()
    data = [storage.read(entry.url) for entry in islice(storage.list_files(folder), photos)]
    with ThreadPoolExecutor(usable_cores()) as pool:
        rounds.run(lambda: sum(1 for _ in pool.map(decode, data)))


def network(rounds: Rounds, *, form: str, model: str, int8: str) -> None:
    """Random batches in memory to the outputs of the network, on every core."""
    FORMS[form](rounds, int8 if form.endswith("int8") else f"{model}/{bundles.ONNX}")


def _scaled(width: int, height: int) -> tuple[int, int]:
    return FIT.scaled(width, height)


def _plantml() -> Callable[[bytes], object]:
    return lambda data: imaging.decode(data, FIT)


def _pillow() -> Callable[[bytes], object]:
    def decode(data: bytes) -> object:
        with Image.open(io.BytesIO(data)) as image:
            size = _scaled(*image.size)
            image.draft("RGB", (2 * size[0], 2 * size[1]))
            return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))

    return decode


def _torchvision() -> Callable[[bytes], object]:
    """torchvision v2 on uint8, as its documentation recommends it."""
    import torch
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms.v2 import functional

    torch.set_num_threads(1)
    cubic = functional.InterpolationMode.BICUBIC

    def decode(data: bytes) -> object:
        image = decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
        width, height = _scaled(image.shape[2], image.shape[1])
        return functional.resize(image, [height, width], cubic, antialias=True)

    return decode


def _simplejpeg() -> Callable[[bytes], object]:
    """libjpeg-turbo with its fast transforms, scaled as far as Pillow would, then the resize of torch on uint8."""
    import simplejpeg
    import torch

    torch.set_num_threads(1)

    def decode(data: bytes) -> object:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        across, down = _scaled(width, height)
        image = simplejpeg.decode_jpeg(
            data, "RGB", fastdct=True, fastupsample=True, min_height=2 * down, min_width=2 * across, min_factor=1
        )
        tensor = torch.from_numpy(image).permute(2, 0, 1)[None]
        return torch.nn.functional.interpolate(tensor, (down, across), mode="bicubic", antialias=True)

    return decode


DECODERS: Mapping[str, Callable[[], Callable[[bytes], object]]] = {
    "plantml": _plantml,
    "Pillow": _pillow,
    "torchvision": _torchvision,
    "simplejpeg and torch": _simplejpeg,
}
"""Bytes of a photo to pixels; the module that a name begins with must be installed."""


def _onnxruntime(rounds: Rounds, file: str) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    batch = _batch()

    def call(_: int) -> int:
        for _ in range(_CALLS):
            session.run(None, {"image": batch})
        return _CALLS * BATCH

    with ThreadPoolExecutor(usable_cores()) as pool:
        rounds.run(lambda: sum(pool.map(call, range(usable_cores()))))


def _openvino(precision: str) -> Callable[[Rounds, str], None]:
    def compute(rounds: Rounds, file: str) -> None:
        import openvino

        hints: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": precision, "NUM_STREAMS": usable_cores(),
            "INFERENCE_NUM_THREADS": usable_cores(),
        }  # fmt: skip
        queue = openvino.AsyncInferQueue(openvino.Core().compile_model(file, "CPU", hints), usable_cores())
        batch = _batch()

        def work() -> int:
            for _ in range(_CALLS * usable_cores()):
                queue.start_async({"image": batch})
            queue.wait_all()
            return _CALLS * usable_cores() * BATCH

        rounds.run(work)

    return compute


def _batch() -> imaging.Pixels:
    return np.random.default_rng(0).integers(0, 256, (BATCH, FIT.height, FIT.width, 3), np.uint8)


FORMS: Mapping[str, Callable[[Rounds, str], None]] = {
    "onnxruntime float32": _onnxruntime,
    "onnxruntime int8": _onnxruntime,
    "openvino float32": _openvino("f32"),
    "openvino bfloat16": _openvino("bf16"),
}
"""Forms of the network, likewise."""
