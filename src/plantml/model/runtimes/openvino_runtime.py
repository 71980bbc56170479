"""OpenVINO, without its telemetry and with the signal stack that Python had."""

import ctypes
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from plantml.errors import InputError, MissingExtraError, UsageError
from plantml.imaging import Pixels
from plantml.model.covariates import VALUES, Columns, network_inputs
from plantml.model.runtimes.interface import NOTES, Outputs

_FIRST = threading.Lock()
"""Held by the first call of this process."""


class OpenVinoRuntime:
    """OpenVINO on the CPU, one thread per call.

    Args:
        model: an `.xml` of its intermediate representation, or an ONNX file.
        weights: the `.bin` that belongs to an `.xml`.
        bfloat16: compute in bfloat16, which gives other numbers, and not the same ones on all processors; else in
            float32.

    Raises:
        InputError: OpenVINO cannot load the file.
        UsageError: the processor has no bfloat16.

    Attributes:
        outputs: shape of each output by its name; -1 is a dynamic size.
        metadata: of the model.
    """

    name = "openvino"
    _has_run = False
    """True once any runtime of this process has run."""

    def __init__(self, model: bytes, weights: bytes | None = None, *, bfloat16: bool = False) -> None:
        from plantml.settings import usable_cores

        core = open_core()
        if bfloat16 and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise UsageError(
                "This processor has no bfloat16", "OpenVINO finds neither AMX nor AVX512-BF16", "Use --speed auto."
            )
        # By default it uses bfloat16 where the processor has it, and outputs would differ between machines.
        precision, cores = "bf16" if bfloat16 else "f32", usable_cores()
        options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": cores, "NUM_STREAMS": cores}
        try:
            read = core.read_model(model) if weights is None else core.read_model(model=model, weights=weights)
            self.metadata = _openvino_notes(read)
            self._compiled = core.compile_model(read, "CPU", options)
        except RuntimeError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise InputError(
                "OpenVINO cannot load the file", lines[-1] if lines else "", "Fetch or export it again."
            ) from error
        outputs = self._compiled.outputs
        self.outputs: Mapping[str, Sequence[Any]] = {
            each.get_any_name(): _sizes(each.partial_shape) for each in outputs
        }
        names = {name: each for each in self._compiled.inputs for name in each.names}
        self._width = _sizes(names[VALUES].partial_shape)[1] if VALUES in names else 0
        self._mine = threading.local()

    def run(self, batch: Pixels, columns: Columns | None = None) -> Outputs:
        """See `Runtime.run`."""
        if OpenVinoRuntime._has_run:
            return self._run(batch, columns)
        # OpenVINO's bindings initialise static variables in their first call, for which they let go of Python's lock
        # and want it back. A second thread that comes meanwhile waits for them with that lock held, forever.
        with _FIRST:
            outputs = self._run(batch, columns)
            OpenVinoRuntime._has_run = True
        return outputs

    def _run(self, batch: Pixels, columns: Columns | None) -> Outputs:
        # A request serves one caller at a time, so every thread has its own.
        if not hasattr(self._mine, "request"):
            self._mine.request = self._compiled.create_infer_request()
        inputs = {"image": np.ascontiguousarray(batch), **network_inputs(columns, len(batch), self._width)}
        outputs = self._mine.request.infer(inputs)
        return {
            name: np.array(outputs[output]) for name, output in zip(self.outputs, self._compiled.outputs, strict=True)
        }


class _SignalStack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = (("place", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def open_core() -> Any:
    """An OpenVINO core that has loaded its CPU plugin, and left this thread's alternate signal stack as it was.

    The plugin replaces that stack, and restores the old one when core and models are closed. If two cores are not
    closed in reverse order, one restores freed memory, and the next signal is a crash.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    core = import_openvino().Core()
    if sys.platform != "linux":
        return core
    libc, before = ctypes.CDLL(None), _SignalStack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        core.get_property("CPU", "FULL_DEVICE_NAME")
    finally:
        libc.sigaltstack(ctypes.byref(before), None)
    return core


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
