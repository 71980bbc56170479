"""Runtimes: a batch of photos in, probabilities out."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from plantml import parsing, storage
from plantml.errors import InputError, UsageError
from plantml.model import bundle as bundles
from plantml.model import file_formats, torch_programs
from plantml.model.bundle import PROOF_KEY, Bundle
from plantml.model.contract import Contract, parse_contract
from plantml.model.runtimes.interface import NOTES, WEIGHTS_KEY, Outputs, Runtime
from plantml.model.runtimes.onnx_runtime import OnnxRuntime
from plantml.model.runtimes.openvino_runtime import OpenVinoRuntime, import_openvino, open_core
from plantml.model.runtimes.torch_runtime import ProgramRuntime, TorchRuntime
from plantml.model.runtimes.two_stage import TwoStageRuntime

__all__ = [
    "FILES", "FORM_RUNTIMES", "NOTES", "PROOF_KEY", "RUNTIMES", "WEIGHTS_KEY", "FileKind", "OnnxRuntime",
    "OpenVinoRuntime", "Outputs", "ProgramRuntime", "Runtime", "TorchRuntime", "TwoStageRuntime", "import_openvino",
    "open_core", "open_form", "open_model", "output_names", "output_shapes",
]  # fmt: skip

_AGAIN = "Export it again."


RUNTIMES: Mapping[str, Callable[[Bundle, storage.Cache | None, str], Runtime]] = {
    "onnxruntime": lambda bundle, cache, _: OnnxRuntime(bundle.read(bundles.ONNX, cache)),
    "torch": lambda bundle, cache, device: TorchRuntime(bundle, device, cache),
    "openvino": lambda bundle, cache, _: OpenVinoRuntime(bundle.read(bundles.ONNX, cache)),
}
"""Runtimes for bundles, by name. Add new ones here."""


FORM_RUNTIMES: Mapping[str, tuple[str, Callable[[bytes], Runtime]]] = {
    "int8": ("onnxruntime", OnnxRuntime),
    "bfloat16": ("openvino", lambda data: OpenVinoRuntime(data, bfloat16=True)),
}
"""What runs each form of `proven_forms`: the name of its runtime, and what opens its file."""


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
        _check_cpu(kind.runtime, device)
        return kind.read(url, *(storage.read(part) for part in kind.urls(url)))
    name = ("onnxruntime" if device == "cpu" else "torch") if runtime == "auto" else runtime
    if name not in RUNTIMES:
        raise UsageError(f"Unknown runtime {name!r}", "", f"Runtimes: auto, {', '.join(RUNTIMES)}.")
    if name != "torch":
        _check_cpu(name, device)
    bundle = bundles.find(model, cache) if isinstance(model, str) else model
    opened = RUNTIMES[name](bundle, cache, device)
    if bundle.contract.task != "tray":
        return bundle, opened
    classifier = bundle.classifier(cache)
    return bundle, TwoStageRuntime(opened, classifier, RUNTIMES[name](classifier, cache, device))


def open_form(bundle: Bundle, name: str, cache: storage.Cache | None = None) -> tuple[Bundle, Runtime]:
    """Open a model in one of the forms that its bundle holds.

    Args:
        bundle: opened in float32.
        name: of a form in `bundle.forms`.
        cache: for the files of a remote bundle.

    Raises:
        InputError: the bundle has no such form, or its file is damaged.
        UsageError: the processor cannot compute it.
        MissingExtraError: its runtime is not installed.
    """
    if name not in bundle.forms:
        raise InputError(
            f"{bundle.place} has no form {name}",
            f"it has {', '.join(['float32', *bundle.forms])}",
            f"Add it: plantml export RUN --form {name}; or use --speed auto.",
        )
    form, whole = bundle.forms[name], bundle
    data = bundle.read(form.file or bundles.ONNX, cache)
    runtime = FORM_RUNTIMES[name][1](data)
    if form.file:
        alone = _bundle(bundle.url, file_formats.onnx_metadata(bundle.url, data))
        bundle = replace(bundle, contract=alone.contract)
        assert isinstance(runtime, OnnxRuntime)
        _check_outputs(bundle.url, bundle.contract, runtime.outputs)
    opened = replace(bundle, digest=form.model, form=form)
    if form.classifier is None:
        return opened, runtime
    classifier, judge = open_form(whole.classifier(cache), name, cache)
    return (
        replace(opened, contract=opened.contract.judged_by(classifier.contract)),
        TwoStageRuntime(runtime, classifier, judge),
    )


def read_onnx(url: str, data: bytes) -> tuple[Bundle, Runtime]:
    """A single ONNX file, with the contract in its metadata."""
    bundle = _bundle(url, file_formats.onnx_metadata(url, data))
    file_formats.check_seal(url, file_formats.sums(data))
    session = OnnxRuntime(data)
    _check_outputs(url, bundle.contract, session.outputs)
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
    _check_outputs(url, bundle.contract, session.outputs)
    return bundle, session


def read_program(url: str, data: bytes) -> tuple[Bundle, Runtime]:
    """A `.pt2` archive whose tensors match its digest."""
    archive = torch_programs.unpack(url, data)
    bundle = _bundle(url, archive.notes)
    bundles.check_digest(url, bundle, archive.tensors)
    return bundle, ProgramRuntime(archive, output_names(bundle.contract), len(bundle.contract.covariates or ()))


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


def output_shapes(contract: Contract) -> dict[str, list[int]]:
    """Outputs of a model with this contract, in order: the shape of each for one photo."""
    if contract.anomaly is not None:
        rows, columns = (side // contract.anomaly.levels[0] for side in (contract.input.height, contract.input.width))
        return {"score": [], "heat_map": [rows, columns]}
    if contract.detection is None:
        targets = {f"target.{target.name}": [target.size] for target in contract.heads}
        return {**targets, "embedding": [contract.architecture.embedding], "unknown": []}
    boxes = contract.detection.boxes
    targets = {f"target.{target.name}": [boxes, target.size] for target in contract.heads}
    return {"boxes": [boxes, 4], "score": [boxes], **targets}


def output_names(contract: Contract) -> list[str]:
    """Output names of a model with this contract, in order."""
    return list(output_shapes(contract))


def _check_outputs(url: str, contract: Contract, outputs: Mapping[str, Sequence[Any]]) -> None:
    """Raise `InputError` if the outputs of a graph, shapes by name, do not match its contract."""
    for name, size in output_shapes(contract).items():
        actual = ["N", *list(outputs[name])[1:]] if name in outputs else "none"
        if actual != ["N", *size]:
            raise InputError(
                f"The outputs of {url} do not match its contract",
                f"expected {name} of shape {['N', *size]}, got {actual}",
                _AGAIN,
            )


def _bundle(url: str, notes: Mapping[str, str]) -> Bundle:
    if bundles.CONTRACT_KEY not in notes or bundles.DIGEST_KEY not in notes:
        raise InputError(
            f"{url} was not made by plantml",
            "its metadata has no contract",
            "Name a bundle, or a file that plantml export wrote.",
        )
    content = parsing.parse_json(notes[bundles.CONTRACT_KEY], f"The contract in {url}")
    return Bundle(url, parse_contract(url, content), notes[bundles.DIGEST_KEY], {})


def _check_cpu(runtime: str, device: str) -> None:
    if device != "cpu":
        raise UsageError(
            f"{runtime} runs only on the CPU, not on {device}", "", "Use --runtime torch for other devices."
        )
