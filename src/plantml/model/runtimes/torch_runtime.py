"""The network in torch, and archives of `torch.export`."""

import io
from collections.abc import Sequence

import numpy as np

from plantml import storage
from plantml.errors import InputError, MissingExtraError, UsageError
from plantml.imaging import Pixels
from plantml.model import bundle as bundles
from plantml.model import torch_programs
from plantml.model.bundle import Bundle
from plantml.model.covariates import Columns, network_inputs
from plantml.model.runtimes.interface import Outputs


class TorchRuntime:
    """The same network in torch, on any of its devices."""

    name = "torch"

    def __init__(self, bundle: Bundle, device: str = "cpu", cache: storage.Cache | None = None) -> None:
        try:
            import torch

            from plantml.model import detector, network
        except ImportError as error:
            raise MissingExtraError("The torch runtime is not installed", str(error), extra="train") from error
        self._torch, self._device = torch, device
        weights = network.read_weights(bundle.read(bundles.WEIGHTS, cache))
        deployed = detector.rebuild(bundle.contract, weights)
        self._width = len(bundle.contract.covariates or ())
        try:
            self._deployed = deployed.to(device)
        except (RuntimeError, AssertionError) as error:  # torch raises either for a device that is not there
            raise UsageError(
                f"Device {device!r} is not available",
                str(error).splitlines()[0],
                "Choose another --device, such as cpu.",
            ) from error

    def run(self, batch: Pixels, columns: Columns | None = None) -> Outputs:
        """See `Runtime.run`."""
        arrays = (np.ascontiguousarray(batch), *network_inputs(columns, len(batch), self._width).values())
        with self._torch.inference_mode():
            outputs = self._deployed(*(self._torch.from_numpy(array).to(self._device) for array in arrays))
        return {name: part.cpu().numpy() for name, part in zip(self._deployed.output_names, outputs, strict=True)}


class ProgramRuntime:
    """A `.pt2` archive of `torch.export`, on the CPU. What an archive may hold: see `torch_programs`."""

    name = "torch.export"

    def __init__(self, archive: torch_programs.Archive, outputs: Sequence[str], covariates: int = 0) -> None:
        try:
            import torch
        except ImportError as error:
            raise MissingExtraError("A .pt2 file needs torch", str(error), extra="train") from error
        self._torch, self._names, self._width = torch, list(outputs), covariates
        try:
            self._module = torch.export.load(io.BytesIO(archive.clean)).module()
        except Exception as error:  # a schema of another version fails in many ways
            why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            raise InputError(
                "This version of torch cannot load the .pt2 file", why, "Export it again with this version of torch."
            ) from error

    def run(self, batch: Pixels, columns: Columns | None = None) -> Outputs:
        """See `Runtime.run`."""
        arrays = (np.ascontiguousarray(batch), *network_inputs(columns, len(batch), self._width).values())
        with self._torch.inference_mode():
            outputs = self._module(*map(self._torch.from_numpy, arrays))
        return {name: part.numpy() for name, part in zip(self._names, outputs, strict=True)}
