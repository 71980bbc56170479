"""A bundle that runs: a batch of photos in, probabilities out, whatever computes them."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from plantml import bundle as bundles
from plantml import storage
from plantml.bundle import Bundle
from plantml.errors import InputError, MissingExtraError, UsageError
from plantml.images import Pixels

Outputs = Mapping[str, NDArray[np.float32]]
"""By output name: `target.<name>` [N, classes], `embedding` [N, D], `unknown` [N]."""


class Runtime(Protocol):
    """What every runtime can do."""

    name: str

    def run(self, batch: Pixels) -> Outputs:
        """Answers for a batch, uint8 RGB [N, H, W, 3] at the model's input size. Safe from many threads."""
        ...


class OnnxRuntime:
    """onnxruntime on the CPU, one thread a call: callers bring the threads."""

    name = "onnxruntime"

    def __init__(self, model: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no common base but Exception
            raise InputError("The file is not an ONNX model that runs here", str(error).splitlines()[0]) from error
        self._names = [output.name for output in self._session.get_outputs()]

    @property
    def outputs(self) -> Sequence[str]:
        """Names of what it gives."""
        return self._names

    @property
    def input_shape(self) -> Sequence[Any]:
        """Of `image`, as the model writes it: numbers, or names of sizes that may vary."""
        found: Sequence[Any] = self._session.get_inputs()[0].shape
        return found

    @property
    def metadata(self) -> Mapping[str, str]:
        """The model's own notes."""
        found: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        return found

    def run(self, batch: Pixels) -> Outputs:
        """See `Runtime.run`."""
        return dict(zip(self._names, self._session.run(None, {"image": batch}), strict=True))


class TorchRuntime:
    """The same network in torch, on any of its devices."""

    name = "torch"

    def __init__(self, bundle: Bundle, device: str = "cpu", cache: storage.Cache | None = None) -> None:
        try:
            import torch
            from safetensors.torch import load
        except ImportError as error:
            raise MissingExtraError("The torch runtime is not installed", str(error), extra="train") from error
        from plantml import network

        self._torch, self._device = torch, device
        weights = load(bundle.read(bundles.WEIGHTS, cache))
        deployed = network.rebuild(bundle.contract, weights)
        try:
            self._deployed = deployed.to(device)
        except (RuntimeError, AssertionError) as error:  # torch raises either for a device that is not there
            raise UsageError(f"There is no device {device!r}", str(error).splitlines()[0]) from error

    def run(self, batch: Pixels) -> Outputs:
        """See `Runtime.run`."""
        with self._torch.inference_mode():
            found = self._deployed(self._torch.from_numpy(np.ascontiguousarray(batch)).to(self._device))
        return {name: part.cpu().numpy() for name, part in zip(self._deployed.output_names, found, strict=True)}


def _open_onnx(bundle: Bundle, cache: storage.Cache | None, device: str) -> Runtime:
    _only_cpu("onnxruntime", device)
    session = OnnxRuntime(bundle.read(bundles.ONNX, cache))
    if session.metadata.get(bundles.DIGEST_KEY) != bundle.digest:
        raise InputError(
            f"{bundle.url} is put together from two models",
            f"{bundles.MODEL_JSON} and {bundles.ONNX} name different digests",
            "Restore it from where it came.",
        )
    return session


def _open_torch(bundle: Bundle, cache: storage.Cache | None, device: str) -> Runtime:
    return TorchRuntime(bundle, device, cache)


RUNTIMES: Mapping[str, Callable[[Bundle, storage.Cache | None, str], Runtime]] = {
    "onnxruntime": _open_onnx,
    "torch": _open_torch,
}
"""What can run a bundle; a new runtime is one more line here."""


def open_model(
    ref: str, *, runtime: str = "auto", device: str = "cpu", cache: storage.Cache | None = None
) -> tuple[Bundle, Runtime]:
    """A model and what runs it.

    Args:
        ref: URL of a run, a bundle, or an `.onnx` file that plantml exported.
        runtime: `auto`, or a name of `RUNTIMES`. `auto` takes torch on a GPU, onnxruntime on the CPU.
        device: `cpu`, or a device as torch names it.
        cache: where files of a remote bundle are kept.
    """
    if storage.suffix(ref) == ".onnx":
        if runtime not in {"auto", "onnxruntime"}:
            raise UsageError(f"{ref} runs in onnxruntime only", "", "Name the bundle's folder for other runtimes.")
        _only_cpu("onnxruntime", device)
        return open_onnx_file(storage.absolute(ref))
    name = ("onnxruntime" if device == "cpu" else "torch") if runtime == "auto" else runtime
    if name not in RUNTIMES:
        raise UsageError(f"Unknown runtime {name!r}", "", f"Runtimes: auto, {', '.join(RUNTIMES)}.")
    bundle = bundles.find(ref)
    return bundle, RUNTIMES[name](bundle, cache, device)


def open_onnx_file(url: str) -> tuple[Bundle, OnnxRuntime]:
    """A single file, complete in itself: the contract is in its metadata."""
    session = OnnxRuntime(storage.read(url))
    notes: Mapping[str, Any] = session.metadata
    if bundles.CONTRACT_KEY not in notes or bundles.DIGEST_KEY not in notes:
        raise InputError(f"{url} was not made by plantml", "its metadata holds no contract")
    try:
        content = json.loads(notes[bundles.CONTRACT_KEY])
    except ValueError as error:
        raise InputError(f"{url} holds a damaged contract", str(error)) from error
    return Bundle(url, bundles.parse_contract(url, content), notes[bundles.DIGEST_KEY], {}), session


def _only_cpu(runtime: str, device: str) -> None:
    if device != "cpu":
        raise UsageError(
            f"{runtime} runs on the CPU here, not on {device}", "", "Use --runtime torch for other devices."
        )
