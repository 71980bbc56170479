"""The deployed network as ONNX: one file that needs onnxruntime and nothing of ours."""

import contextlib
import inspect
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from plantml.about import __version__
from plantml.imaging import Fit
from plantml.model import bundle as bundles
from plantml.model.contract import Contract
from plantml.model.covariates import KNOWN, VALUES
from plantml.model.file_formats import NO_SEAL, SEAL_KEY, seal

OPSET = 18


def to_onnx(contract: Contract, weights: bytes, digest: str) -> bytes:
    """The network of a contract and its safetensors weights as ONNX bytes.

    Input `image`: uint8 [N, H, W, 3] at the contract's input size; with covariates, `covariates.VALUES` and
    `covariates.KNOWN`, too. Outputs: see `runtimes.output_names`. The contract and the digest are in the metadata.
    """
    from plantml.model import detector, network  # know torch, without which other formats can be read

    deployed = detector.rebuild(contract, network.read_weights(weights))
    examples = example_inputs(contract.input, len(contract.covariates or ()))
    model = convert(deployed, examples, deployed.output_names)
    annotate(model, notes_of(contract, digest))
    return serialised(model)


def example_inputs(fit: Fit, covariates: int = 0) -> dict[str, Any]:
    """Tensors of two photos, and of their covariates where there are any, by the name of the input."""
    import torch

    examples = {"image": torch.zeros((2, fit.height, fit.width, 3), dtype=torch.uint8)}
    if covariates:
        examples |= {name: torch.zeros((2, covariates)) for name in (VALUES, KNOWN)}
    return examples


def notes_of(contract: Contract, digest: str) -> dict[str, str]:
    """The metadata of every exported file."""
    return {bundles.CONTRACT_KEY: contract.canonical().decode(), bundles.DIGEST_KEY: digest}


def trace(module: Any, fit: Fit, outputs: list[str], notes: Mapping[str, str]) -> bytes:
    """A torch module with photos as input, as ONNX bytes.

    Args:
        module: its one input is uint8 [N, H, W, 3], at the size of `fit`.
        fit: whose height and width are fixed in the graph; N stays free.
        outputs: names for what the module returns, in order.
        notes: metadata of the file.
    """
    model = convert(module, example_inputs(fit), outputs)
    annotate(model, notes)
    return serialised(model)


def convert(module: Any, examples: Mapping[str, Any], outputs: list[str]) -> Any:
    """A torch module as an `onnx.ModelProto`; the first axis of its inputs may have any length from 1 to 4096.

    Args:
        module: in evaluation mode; afterwards without gradients, and with no operation in place.
        examples: a tensor of two rows for each input, in their order, by the name for it.
        outputs: names for what the module returns, in order.
    """
    import torch

    # The exporter spends a third of its time on turning operations in place into others, and on gradients.
    module.requires_grad_(requires_grad=False)
    for part in module.modules():
        if hasattr(part, "inplace"):
            part.inplace = False
    batch = {0: torch.export.Dim("batch", min=1, max=4096)}
    # A module that takes its inputs as `*args` has one argument.
    takes_args = any(each.kind is each.VAR_POSITIONAL for each in inspect.signature(module.forward).parameters.values())
    dynamic = ((batch,) * len(examples),) if takes_args else (batch,) * len(examples)
    with quiet():
        program = torch.onnx.export(
            module,
            tuple(examples.values()),
            input_names=list(examples),
            output_names=outputs,
            dynamic_shapes=dynamic,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # it is, with dynamo=True
    model = program.model_proto
    for part in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]  # they name files of the machine that exports
    return model


def annotate(model: Any, notes: Mapping[str, str]) -> None:
    """Write these notes into the metadata of an `onnx.ModelProto`, and that we made it."""
    model.producer_name = "plantml"
    model.producer_version = __version__
    known = {entry.key: entry for entry in model.metadata_props}
    for key, value in notes.items():
        entry = known.get(key) or model.metadata_props.add()
        entry.key, entry.value = key, value


def annotated(data: bytes, notes: Mapping[str, str]) -> bytes:
    """An ONNX file with these notes in its metadata."""
    import onnx

    model = onnx.load_from_string(data)
    annotate(model, notes)
    return serialised(model)


def serialised(model: Any) -> bytes:
    """The bytes of an `onnx.ModelProto` that is valid, sealed: a later change of them is noticed."""
    import onnx

    onnx.checker.check_model(model)
    annotate(model, {SEAL_KEY: NO_SEAL})
    return seal(model.SerializeToString())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppresses the output and the warnings of exporters."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            Path(os.devnull).open("w") as nowhere,
            contextlib.redirect_stdout(nowhere),
            warnings.catch_warnings(action="ignore"),
        ):
            yield
    finally:
        logging.disable(level)
