"""Export formats of a model: how each is built, and how metadata is added."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from plantml import storage
from plantml.concurrency import Progress, silent
from plantml.errors import InputError
from plantml.export import int8, openvino, samples
from plantml.export.config import ExportConfig
from plantml.export.onnx import annotated, notes_of
from plantml.export.pt2 import to_pt2
from plantml.model import bundle as bundles
from plantml.model import torch_programs
from plantml.model.bundle import Bundle
from plantml.model.runtimes import FILES, FileKind, OpenVinoRuntime, Runtime, open_core

Files = Sequence[bytes]
"""The bytes of a form's files, in the order of `FileKind.extensions`."""


@dataclass(frozen=True)
class Source:
    """The input of an export.

    Attributes:
        bundle: the model.
        config: the settings.
        cache: for what is remote.
        progress: called with (steps done, steps).
    """

    bundle: Bundle
    config: ExportConfig
    cache: storage.Cache | None = None
    progress: Progress = silent

    def read(self, name: str) -> bytes:
        """A file of the bundle."""
        return self.bundle.read(name, self.cache)


@dataclass(frozen=True)
class Made:
    """An exported form of a model, not yet verified.

    Attributes:
        files: see `Files`.
        settings: how it was made, as JSON types.
    """

    files: Files
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Form:
    """One way to export.

    Attributes:
        file: name in a folder.
        make: the files from a source.
        annotate: the same files with further notes in their metadata.
        exact: the predictions must be equal; another form may lose up to `max_drop` of the score.
        opener: opens the files, if not as others with the same extension are opened.
    """

    file: str
    make: Callable[[Source], Made]
    annotate: Callable[[Files, Mapping[str, str]], Files]
    exact: bool = True
    opener: Callable[[Files], tuple[Bundle, Runtime]] | None = None

    def open(self, files: Files) -> tuple[Bundle, Runtime]:
        """Open its files. Raises `InputError` if they are damaged."""
        return self.opener(files) if self.opener else self.kind.read(self.file, *files)

    @property
    def extension(self) -> str:
        """Of the file that is named."""
        return storage.suffix(self.file)

    @property
    def kind(self) -> FileKind:
        """What runs it."""
        return FILES[self.extension]


def _onnx(source: Source) -> Made:
    return Made([source.read(bundles.ONNX)])


def _int8(source: Source) -> Made:
    contract = source.bundle.contract
    if contract.anomaly is not None:
        raise InputError(
            f"{source.bundle.place} cannot be quantised",
            "a model of anomalies compares distances of its features, which 8 bits would change",
            "Export it as onnx or openvino, which are exact.",
        )
    version = samples.version_of(source.bundle, source.config.data)
    train = samples.of_split(version, contract, "train", int8.CALIBRATION, source.cache)
    val = samples.of_split(version, contract, "val", int8.VALIDATION, source.cache)
    quantised = int8.quantise(
        contract,
        source.bundle.digest,
        source.read(bundles.WEIGHTS),
        source.read(bundles.ONNX),
        train=train.pixels,
        val=val,
        max_drop=source.config.max_drop,
        progress=source.progress,
    )
    settings = {
        "method": quantised.method,
        "calibrated_on": f"{len(train.pixels)} photos of {train.where}",
        "chosen_on": f"{len(val.pixels)} photos of {val.where}",
        "score_before": round(quantised.before, 6),
        "score_after": round(quantised.after, 6),
        "noise": round(quantised.noise, 6),
        "in_float": list(quantised.in_float),
    }
    return Made([quantised.model], settings)


def _openvino(source: Source) -> Made:
    bundle = source.bundle
    return Made(openvino.to_openvino(source.read(bundles.ONNX), notes_of(bundle.contract, bundle.digest)))


def _pt2(source: Source) -> Made:
    bundle = source.bundle
    return Made([to_pt2(bundle.contract, source.read(bundles.WEIGHTS), bundle.digest)])


def _bfloat16(source: Source) -> Made:
    core = open_core()
    settings = {"processor": core.get_property("CPU", "FULL_DEVICE_NAME"), "openvino": metadata.version("openvino")}
    return Made([source.read(bundles.ONNX)], settings)


def _open_bfloat16(files: Files) -> tuple[Bundle, Runtime]:
    bundle, _ = FILES[".onnx"].read(bundles.ONNX, files[0])
    return bundle, OpenVinoRuntime(files[0], bfloat16=True)


def _annotate_onnx(files: Files, notes: Mapping[str, str]) -> Files:
    return [annotated(files[0], notes)]


def _annotate_pt2(files: Files, notes: Mapping[str, str]) -> Files:
    return [torch_programs.annotated(files[0], notes)]


def _annotate_openvino(files: Files, notes: Mapping[str, str]) -> Files:
    return [openvino.annotated(files[0], files[1], notes), files[1]]


FORMS: Mapping[str, Form] = {
    "onnx": Form("model.onnx", _onnx, _annotate_onnx),
    "onnx-int8": Form("model.int8.onnx", _int8, _annotate_onnx, exact=False),
    "openvino": Form("model.xml", _openvino, _annotate_openvino),
    "pt2": Form("model.pt2", _pt2, _annotate_pt2),
}
"""Values of `--format`. Add new forms here."""

FORMS_IN_BUNDLES: Mapping[str, Form] = {
    "int8": FORMS["onnx-int8"],
    "bfloat16": Form("model.onnx", _bfloat16, _annotate_onnx, exact=False, opener=_open_bfloat16),
}
"""Values of `--form`: forms that a bundle may hold beside float32, see `model.proven_forms`."""
