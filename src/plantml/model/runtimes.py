"""Runtimes: a batch of photos in, probabilities out."""

import ctypes
import hashlib
import io
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from plantml import parsing, storage
from plantml.errors import InputError, MissingExtraError, UsageError
from plantml.imaging import Pixels
from plantml.model import bundle as bundles
from plantml.model import file_formats, torch_programs
from plantml.model.bundle import Bundle, Contract

PROOF_KEY, WEIGHTS_KEY = "plantml_proof", "plantml_weights"
"""Further keys of an exported file's metadata: the proof of equality, and the SHA-256 of a `.bin`."""

NOTES = (bundles.CONTRACT_KEY, bundles.DIGEST_KEY, PROOF_KEY, WEIGHTS_KEY)

_AGAIN = "Export it again."

Outputs = Mapping[str, NDArray[np.float32]]
"""By output name: `target.<name>` [N, classes], `embedding` [N, D], `unknown` [N]."""


class Runtime(Protocol):
    """The interface of every runtime."""

    name: str

    def run(self, batch: Pixels) -> Outputs:
        """Outputs for a batch, uint8 RGB [N, H, W, 3] at the model's input size. Thread-safe."""
        ...


class OnnxRuntime:
    """onnxruntime on the CPU, one thread per call: callers bring the threads."""

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
            raise InputError("onnxruntime cannot load the file", str(error).splitlines()[0]) from error
        self._names = [output.name for output in self._session.get_outputs()]

    @property
    def outputs(self) -> Sequence[str]:
        """Names of the outputs."""
        return self._names

    @property
    def output_shapes(self) -> Sequence[Sequence[Any]]:
        """Shapes of the outputs, as the model states them."""
        return [output.shape for output in self._session.get_outputs()]

    @property
    def input_shape(self) -> Sequence[Any]:
        """Shape of `image`, as the model states it: numbers, or names of dynamic sizes."""
        inputs = self._session.get_inputs()
        shape: Sequence[Any] = inputs[0].shape if inputs else []
        return shape

    @property
    def metadata(self) -> Mapping[str, str]:
        """The metadata of the model."""
        try:
            metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        except UnicodeDecodeError as error:
            raise InputError("The file's metadata is not text", str(error), _AGAIN) from error
        return metadata

    def run(self, batch: Pixels) -> Outputs:
        """See `Runtime.run`."""
        return dict(zip(self._names, self._session.run(None, {"image": batch}), strict=True))


class TorchRuntime:
    """The same network in torch, on any of its devices."""

    name = "torch"

    def __init__(self, bundle: Bundle, device: str = "cpu", cache: storage.Cache | None = None) -> None:
        try:
            import torch

            from plantml.model import network
        except ImportError as error:
            raise MissingExtraError("The torch runtime is not installed", str(error), extra="train") from error
        self._torch, self._device = torch, device
        weights = network.read_weights(bundle.read(bundles.WEIGHTS, cache))
        deployed = network.rebuild(bundle.contract, weights)
        try:
            self._deployed = deployed.to(device)
        except (RuntimeError, AssertionError) as error:  # torch raises either for a device that is not there
            raise UsageError(f"Device {device!r} is not available", str(error).splitlines()[0]) from error

    def run(self, batch: Pixels) -> Outputs:
        """See `Runtime.run`."""
        with self._torch.inference_mode():
            outputs = self._deployed(self._torch.from_numpy(np.ascontiguousarray(batch)).to(self._device))
        return {name: part.cpu().numpy() for name, part in zip(self._deployed.output_names, outputs, strict=True)}


class ProgramRuntime:
    """A `.pt2` archive of `torch.export`, on the CPU. What an archive may hold: see `programs`."""

    name = "torch.export"

    def __init__(self, archive: torch_programs.Archive, outputs: Sequence[str]) -> None:
        try:
            import torch
        except ImportError as error:
            raise MissingExtraError("A .pt2 file needs torch", str(error), extra="train") from error
        self._torch, self._names = torch, list(outputs)
        try:
            self._module = torch.export.load(io.BytesIO(archive.clean)).module()
        except Exception as error:  # a schema of another version fails in many ways
            why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            raise InputError(
                "This version of torch cannot load the .pt2 file", why, "Export it again with this version of torch."
            ) from error

    def run(self, batch: Pixels) -> Outputs:
        """See `Runtime.run`."""
        with self._torch.inference_mode():
            outputs = self._module(self._torch.from_numpy(np.ascontiguousarray(batch)))
        return {name: part.numpy() for name, part in zip(self._names, outputs, strict=True)}


class OpenVinoRuntime:
    """OpenVINO on the CPU in float32, one thread per call.

    Args:
        model: an `.xml` of its intermediate representation, or an ONNX file.
        weights: the `.bin` that belongs to an `.xml`.
    """

    name = "openvino"

    def __init__(self, model: bytes, weights: bytes | None = None) -> None:
        from plantml.settings import usable_cores

        openvino = import_openvino()
        core = openvino.Core()
        # By default it uses bfloat16 where the processor has it, and outputs would differ between machines.
        cores = usable_cores()
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": cores, "NUM_STREAMS": cores}
        try:
            read = core.read_model(model) if weights is None else core.read_model(model=model, weights=weights)
            self.metadata = _openvino_notes(read)
            with _own_signal_stack():
                self._compiled = core.compile_model(read, "CPU", options)
        except RuntimeError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise InputError("OpenVINO cannot load the file", lines[-1] if lines else "") from error
        self._names = [output.get_any_name() for output in self._compiled.outputs]
        self._mine = threading.local()

    @property
    def outputs(self) -> Sequence[str]:
        """Names of the outputs."""
        return self._names

    @property
    def output_shapes(self) -> Sequence[Sequence[Any]]:
        """Shapes of the outputs; -1 is a dynamic size."""
        return [_sizes(output.partial_shape) for output in self._compiled.outputs]

    def run(self, batch: Pixels) -> Outputs:
        """See `Runtime.run`."""
        # A request serves one caller at a time, so every thread has its own.
        if not hasattr(self._mine, "request"):
            self._mine.request = self._compiled.create_infer_request()
        outputs = self._mine.request.infer({"image": np.ascontiguousarray(batch)})
        return {
            name: np.array(outputs[output]) for name, output in zip(self._names, self._compiled.outputs, strict=True)
        }


class _SignalStack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = (("place", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def _own_signal_stack() -> Iterator[None]:
    """Restore this thread's alternate signal stack.

    OpenVINO's compiler replaces it, and restores the old one when the model is closed. If two models are not closed in
    reverse order, one restores freed memory, and the next Ctrl-C crashes.
    """
    if sys.platform != "linux":
        yield
        return
    libc, before = ctypes.CDLL(None), _SignalStack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        libc.sigaltstack(ctypes.byref(before), None)


def import_openvino() -> Any:
    """The `openvino` package, imported without its telemetry.

    Raises:
        MissingExtraError: it is not installed.
    """
    with _without("openvino_telemetry"):
        try:
            import openvino
        except ImportError as error:
            raise MissingExtraError("OpenVINO is not installed", str(error), extra="openvino") from error
    return openvino


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Makes `import module` fail. OpenVINO sends an event on import unless its telemetry package is missing."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # what makes an import fail
    try:
        yield
    finally:
        if sys.modules.get(module) is None:
            sys.modules.pop(module, None)


def _sizes(shape: Any) -> list[int]:
    return [size.get_length() if size.is_static else -1 for size in shape]


def _openvino_notes(model: Any) -> Mapping[str, str]:
    return {key: model.get_rt_info([key]).value for key in NOTES if model.has_rt_info([key])}


def _open_onnx(bundle: Bundle, cache: storage.Cache | None, device: str) -> Runtime:
    _only_cpu("onnxruntime", device)
    return OnnxRuntime(bundle.read(bundles.ONNX, cache))


def _open_openvino(bundle: Bundle, cache: storage.Cache | None, device: str) -> Runtime:
    _only_cpu("openvino", device)
    return OpenVinoRuntime(bundle.read(bundles.ONNX, cache))


def _open_torch(bundle: Bundle, cache: storage.Cache | None, device: str) -> Runtime:
    return TorchRuntime(bundle, device, cache)


RUNTIMES: Mapping[str, Callable[[Bundle, storage.Cache | None, str], Runtime]] = {
    "onnxruntime": _open_onnx,
    "torch": _open_torch,
    "openvino": _open_openvino,
}
"""Runtimes for bundles, by name. Add new ones here."""


def open_model(
    model: str | Bundle, *, runtime: str = "auto", device: str = "cpu", cache: storage.Cache | None = None
) -> tuple[Bundle, Runtime]:
    """Open a model in a runtime.

    Args:
        model: a bundle; or URL of a run, a bundle, or a file that plantml exported.
        runtime: `auto`, or a name of `RUNTIMES`. `auto` takes torch on a GPU, onnxruntime on the CPU.
        device: `cpu`, or a torch device such as `cuda:0`.
        cache: for the files of a remote bundle.
    """
    if isinstance(model, str) and (extension := storage.suffix(model)) in FILES:
        kind, url = FILES[extension], storage.absolute(model)
        if runtime not in {"auto", kind.runtime}:
            raise UsageError(
                f"{model} runs only in {kind.runtime}", "", "For another runtime, name the bundle's folder."
            )
        _only_cpu(kind.runtime, device)
        return kind.read(url, *(storage.read(part) for part in kind.urls(url)))
    name = ("onnxruntime" if device == "cpu" else "torch") if runtime == "auto" else runtime
    if name not in RUNTIMES:
        raise UsageError(f"Unknown runtime {name!r}", "", f"Runtimes: auto, {', '.join(RUNTIMES)}.")
    bundle = bundles.find(model, cache) if isinstance(model, str) else model
    return bundle, RUNTIMES[name](bundle, cache, device)


def read_onnx(url: str, data: bytes) -> tuple[Bundle, Runtime]:
    """A single ONNX file, with the contract in its metadata."""
    bundle = _bundle(url, file_formats.onnx_metadata(url, data))
    file_formats.check_seal(url, file_formats.sums(data))
    session = OnnxRuntime(data)
    _check_outputs(url, bundle.contract, session.outputs, session.output_shapes)
    return bundle, session


def read_openvino(url: str, model: bytes, weights: bytes) -> tuple[Bundle, Runtime]:
    """An `.xml`, with the contract in its metadata, and its `.bin`."""
    file_formats.check_seal(url, file_formats.sums(model))
    session = OpenVinoRuntime(model, weights)
    bundle = _bundle(url, session.metadata)
    if session.metadata.get(WEIGHTS_KEY) != hashlib.sha256(weights).hexdigest():
        raise InputError(
            f"{url} and its .bin do not belong together", "the SHA-256 of the .bin is not the one in the .xml", _AGAIN
        )
    _check_outputs(url, bundle.contract, session.outputs, session.output_shapes)
    return bundle, session


def read_program(url: str, data: bytes) -> tuple[Bundle, Runtime]:
    """A `.pt2` archive whose tensors match its digest."""
    archive = torch_programs.unpack(url, data)
    bundle = _bundle(url, archive.notes)
    bundles.check_digest(url, bundle, archive.tensors)
    return bundle, ProgramRuntime(archive, output_names(bundle.contract))


@dataclass(frozen=True)
class FileKind:
    """A kind of exported model file.

    Attributes:
        runtime: that runs it.
        extensions: of the named file, and of the files beside it.
        read: takes the URL, for messages, and the bytes of each file; returns a bundle and its runtime.
            Raises `InputError` for a file that is damaged or not written by plantml.
    """

    runtime: str
    extensions: tuple[str, ...]
    read: Callable[..., tuple[Bundle, Runtime]]

    def urls(self, url: str) -> list[str]:
        """Of all its files."""
        folder, name = storage.split(url)
        stem = name[: -len(self.extensions[0])]
        return [url, *(storage.join(folder, stem + extension) for extension in self.extensions[1:])]


FILES: Mapping[str, FileKind] = {
    ".onnx": FileKind("onnxruntime", (".onnx",), read_onnx),
    ".xml": FileKind("openvino", (".xml", ".bin"), read_openvino),
    ".pt2": FileKind("torch.export", (".pt2",), read_program),
}
"""Kinds of exported model files, by extension."""


def output_names(contract: Contract) -> list[str]:
    """Output names of a model with this contract, in order."""
    return [*(f"target.{target.name}" for target in contract.targets), "embedding", "unknown"]


def _check_outputs(url: str, contract: Contract, names: Sequence[str], shapes: Sequence[Sequence[Any]]) -> None:
    """Raise `InputError` if the outputs of a graph do not match its contract.

    Args:
        url: for the message.
        contract: that is in its metadata.
        names: of its outputs.
        shapes: of the outputs; anything but a number is a dynamic size.
    """
    sizes: dict[str, list[int]] = {f"target.{target.name}": [target.size] for target in contract.targets}
    sizes |= {"embedding": [contract.architecture.embedding], "unknown": []}
    actual = {name: list(shape[1:]) for name, shape in zip(names, shapes, strict=True)}
    for name, size in sizes.items():
        if actual.get(name) != size:
            raise InputError(
                f"The outputs of {url} do not match its contract",
                f"expected {name} of shape {['N', *size]}, got {['N', *actual[name]] if name in actual else 'none'}",
                _AGAIN,
            )


def _bundle(url: str, notes: Mapping[str, str]) -> Bundle:
    if bundles.CONTRACT_KEY not in notes or bundles.DIGEST_KEY not in notes:
        raise InputError(f"{url} was not made by plantml", "its metadata has no contract")
    content = parsing.parse_json(notes[bundles.CONTRACT_KEY], f"The contract in {url}")
    return Bundle(url, bundles.parse_contract(url, content), notes[bundles.DIGEST_KEY], {})


def _only_cpu(runtime: str, device: str) -> None:
    if device != "cpu":
        raise UsageError(
            f"{runtime} runs only on the CPU, not on {device}", "", "Use --runtime torch for other devices."
        )
