"""The deployed network with an 8-bit backbone, as ONNX.

Static quantisation by onnxruntime: weights as int8 with a scale a channel, activations as uint8, QuantizeLinear and
DequantizeLinear around each operator, ranges from training photos. All after the judge's `cuts` stays in float: it
costs no time, and is where a small error would move a decision. How ranges are found is chosen by the score on
validation photos; where none is good enough, the layers whose quantisation moves the cuts most are left in float. Then
temperatures and thresholds are fitted anew, for a quantised model is another model.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plantml.concurrency import Progress, silent
from plantml.errors import InputError
from plantml.export import onnx as exporting
from plantml.export.int8_judges import BoxJudge, Judge, Judged, PhotoJudge, noise_of
from plantml.export.samples import Sample
from plantml.imaging import Pixels
from plantml.model import bundle as bundles
from plantml.model.contract import Contract
from plantml.model.runtimes import OnnxRuntime, output_names

METHODS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "min-max": ("MinMax", {}),
    "percentile 99.99": ("Percentile", {"percentile": 99.99}),
    "entropy": ("Entropy", {}),
}
"""Ways to find the range of an activation: onnxruntime's name and options."""

CALIBRATION = 64
"""Training photos that ranges are taken from."""

VALIDATION = 1000
"""Validation photos that choose, at most."""

SECONDS = 120.0
"""The search for layers that hurt stops after so long; ways to find ranges after the first are not begun."""

NOISE = 0.1
"""Squared error at the cuts, in parts of their square, from which layers that hurt are looked for."""

_PROBED = 8
"""Photos on which the noise of a single layer is measured."""


@dataclass(frozen=True)
class Quantised:
    """An 8-bit model.

    Attributes:
        contract: with its own calibration.
        digest: its own.
        model: ONNX bytes with both in the metadata.
        method: of `METHODS`, of the ranges.
        in_float: names of layers that were left in float.
        before: score of the network on the validation photos.
        after: score of the quantised one there.
        noise: squared error at the cuts there, in parts of their square.
    """

    contract: Contract
    digest: str
    model: bytes
    method: str
    in_float: Sequence[str]
    before: float
    after: float
    noise: float


@dataclass(frozen=True)
class _Trial:
    """One way to quantise and what came of it on the validation photos."""

    method: str
    in_float: tuple[str, ...]
    body: Any
    judged: Judged

    @property
    def rank(self) -> tuple[float, float]:
        """The larger the better: by score, then by noise."""
        return round(self.judged.score, 6), -self.judged.noise


def quantise(
    contract: Contract,
    digest: str,
    weights: bytes,
    model: bytes,
    *,
    train: Pixels,
    val: Sample,
    max_drop: float,
    seconds: float = SECONDS,
    progress: Progress = silent,
) -> Quantised:
    """An 8-bit form of a model.

    Args:
        contract: of the model.
        digest: of the model.
        weights: its safetensors.
        model: its ONNX file.
        train: photos that ranges are taken from, uint8 RGB [M, H, W, 3].
        val: labelled photos that choose and calibrate.
        max_drop: of the score; layers are left in float until half of it is kept.
        seconds: for the search.
        progress: called with (trials, trials at most).

    Raises:
        InputError: no validation photo has a label.
    """
    if not val.labels and val.boxes is None:
        raise InputError(
            f"{val.where} has no labels for what the model predicts",
            "int8 ranges are chosen by the score on labelled photos",
            "Name a labelled dataset: --data DATASET",
        )
    judge: Judge = PhotoJudge(contract, weights, val) if val.boxes is None else BoxJudge(contract, weights, model, val)
    quantiser = _Quantiser(model, train, judge)
    before = judge.judge(quantiser.plain).score
    deadline = time.monotonic() + seconds
    trials: list[_Trial] = []
    for number, method in enumerate(METHODS):
        if trials and time.monotonic() > deadline:
            break
        trials.append(_attempt(quantiser, judge, method))
        progress(number + 1, len(METHODS))
    best = max(trials, key=lambda trial: trial.rank)

    def good(trial: _Trial) -> bool:
        return before - trial.judged.score <= max_drop / 2 and trial.judged.noise <= NOISE

    if not good(best):
        hurting = quantiser.worst_first(best.method, deadline)
        for count in _doubling(len(hurting)):
            trials.append(_attempt(quantiser, judge, best.method, tuple(hurting[:count])))
            progress(len(trials), len(trials) + 1)
            if good(trials[-1]):
                break
        best = max(trials, key=lambda trial: (good(trial), trial.rank))
    return _finished(contract, digest, judge, best, before)


def _attempt(quantiser: "_Quantiser", judge: Judge, method: str, in_float: tuple[str, ...] = ()) -> _Trial:
    body = quantiser.quantised(method, exclude=in_float)
    return _Trial(method, in_float, body, judge.judge(body.SerializeToString()))


def _finished(contract: Contract, digest: str, judge: Judge, best: _Trial, before: float) -> Quantised:
    from onnx import numpy_helper

    calibrated = judge.calibrated(best.judged.predicted).model_copy(update={"derived_from": digest})
    model = _joined(best.body, judge.rest(calibrated), judge.cuts, output_names(contract))
    tensors = {tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in model.graph.initializer}
    own = bundles.digest(calibrated, tensors)
    exporting.annotate(model, exporting.notes_of(calibrated, own))
    score, noise = best.judged.score, best.judged.noise
    return Quantised(calibrated, own, exporting.serialised(model), best.method, best.in_float, before, score, noise)


def _doubling(limit: int) -> Iterator[int]:
    size = 1
    while size < limit:
        yield size
        size *= 2


class _Quantiser:
    """The part of a model from the photo to the cuts of a judge, and its 8-bit forms."""

    def __init__(self, model: bytes, photos: Pixels, judge: Judge) -> None:
        import onnx

        self._photos, self._at_once = photos, judge.at_once
        body = onnx.utils.Extractor(onnx.load_from_string(model)).extract_model(["image"], list(judge.cuts))
        self._body = _prepared(body)
        self._ranges: dict[str, Any] = {}
        self.plain: bytes = self._body.SerializeToString()

    @property
    def layers(self) -> list[str]:
        """Names of the layers that have weights."""
        return [node.name for node in self._body.graph.node if node.op_type in {"Conv", "Gemm", "MatMul"}]

    def quantised(self, method: str, *, only: Sequence[str] = (), exclude: Sequence[str] = ()) -> Any:
        """An `onnx.ModelProto` of the part in 8 bits: of these layers only, or of all but some."""
        import onnx
        from onnxruntime import quantization

        model = onnx.ModelProto()
        model.CopyFrom(self._body)
        with exporting.quiet():
            quantiser = quantization.QDQQuantizer(
                model,
                True,  # a scale for each channel of a weight
                False,  # all eight bits
                quantization.QuantType.QInt8,
                quantization.QuantType.QUInt8,
                self._range(method),
                list(only),
                list(exclude),
                _operators(),
                {},
            )
            quantiser.quantize_model()
            quantiser.model.topological_sort()
        return quantiser.model.model

    def worst_first(self, method: str, deadline: float) -> list[str]:
        """Layers by how far quantising them alone moves the cuts; those not measured in time come last."""
        photos = self._photos[:_PROBED]
        reference = OnnxRuntime(self.plain).run(photos)
        noise: dict[str, float] = dict.fromkeys(self.layers, 0.0)
        for layer in noise:
            if time.monotonic() > deadline:
                break
            body = self.quantised(method, only=[layer]).SerializeToString()
            noise[layer] = noise_of(reference, OnnxRuntime(body).run(photos))
        return sorted(noise, key=lambda layer: -noise[layer])

    def _range(self, method: str) -> Any:
        if method not in self._ranges:
            from onnxruntime import quantization

            kind, options = METHODS[method]
            with tempfile.TemporaryDirectory(prefix="plantml-int8-") as folder, exporting.quiet():
                file = Path(folder, "body.onnx")
                file.write_bytes(self.plain)
                calibrator = quantization.create_calibrator(
                    file,
                    _operators(),
                    augmented_model_path=str(Path(folder, "augmented.onnx")),
                    calibrate_method=quantization.CalibrationMethod[kind],
                    extra_options=dict(options),
                )
                for start in range(0, len(self._photos), self._at_once):
                    calibrator.collect_data(_Reader(self._photos[start : start + self._at_once]))
                self._ranges[method] = calibrator.compute_data()
        return self._ranges[method]


class _Reader:
    """Hands photos to onnxruntime's calibration, one by one."""

    def __init__(self, photos: Pixels) -> None:
        self._inputs = iter({"image": photo[None]} for photo in photos)

    def get_next(self) -> dict[str, Pixels] | None:
        """The next input, or `None` after the last."""
        return next(self._inputs, None)


def _operators() -> list[str]:
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted({*QLinearOpsRegistry, *QDQRegistry})


def _prepared(body: Any) -> Any:
    """With shapes, and with what can be folded folded."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(prefix="plantml-int8-") as folder, exporting.quiet():
        before, after = Path(folder, "before.onnx"), Path(folder, "after.onnx")
        onnx.save(body, before)
        quant_pre_process(before, after, skip_symbolic_shape=True)
        return onnx.shape_inference.infer_shapes(onnx.load(after))


def _joined(body: Any, rest: Any, cuts: Sequence[str], outputs: Sequence[str]) -> Any:
    import onnx

    # Only names inside the rest are changed: those of its inputs and outputs are the model's.
    rest = onnx.compose.add_prefix(rest, "tail/", rename_inputs=False, rename_outputs=False)
    inputs = {cut: f"tail/{cut}" for cut in cuts}
    for value in rest.graph.input:
        value.name = inputs.get(value.name, value.name)
    for node in rest.graph.node:
        node.input[:] = [inputs.get(name, name) for name in node.input]
    rest.ir_version = body.ir_version = max(rest.ir_version, body.ir_version)
    model = onnx.compose.merge_models(body, rest, io_map=list(inputs.items()))
    by_name = {output.name: output for output in (*body.graph.output, *rest.graph.output)}
    del model.graph.output[:]
    model.graph.output.extend(by_name[name] for name in outputs)
    del model.metadata_props[:]
    return model
