"""ONNX files in onnxruntime."""

from collections.abc import Mapping, Sequence
from typing import Any

from plantml.errors import InputError
from plantml.imaging import Pixels
from plantml.model.covariates import VALUES, Columns, network_inputs
from plantml.model.runtimes.interface import Outputs


class OnnxRuntime:
    """onnxruntime on the CPU, one thread per call: callers bring the threads.

    Attributes:
        outputs: shape of each output by its name, as the model states it: numbers, or names of dynamic sizes.
        input_shape: of `image`, likewise.

    Raises:
        InputError: the file cannot be loaded.
    """

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
            raise InputError(
                "onnxruntime cannot load the file", str(error).splitlines()[0], "Fetch or export it again."
            ) from error
        self.outputs: Mapping[str, Sequence[Any]] = {each.name: each.shape for each in self._session.get_outputs()}
        inputs = self._session.get_inputs()
        self.input_shape: Sequence[Any] = inputs[0].shape if inputs else []
        self._width = next((int(each.shape[1]) for each in inputs if each.name == VALUES), 0)

    @property
    def metadata(self) -> Mapping[str, str]:
        """The metadata of the model."""
        try:
            metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        except UnicodeDecodeError as error:
            raise InputError("The file's metadata is not text", str(error), "Export it again.") from error
        return metadata

    def run(self, batch: Pixels, columns: Columns | None = None) -> Outputs:
        """See `Runtime.run`."""
        inputs = {"image": batch, **network_inputs(columns, len(batch), self._width)}
        return dict(zip(self.outputs, self._session.run(None, inputs), strict=True))
