"""What the search for a good 8-bit form asks of photos: how good is a form, and how is it calibrated?

An 8-bit form is a quantised part, from the photo to the `cuts`, and a rest that stays in float, from there to the
outputs. `PhotoJudge` cuts after the embedding, `BoxJudge` before the last layer of each head.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from plantml import metrics
from plantml.export import onnx as exporting
from plantml.export import proof
from plantml.export.samples import BATCH, Sample
from plantml.imaging import Pixels
from plantml.metrics import calibration
from plantml.model.contract import Contract
from plantml.model.runtimes import OnnxRuntime, Outputs, Runtime, output_names

Floats = NDArray[np.float32]

_RISK = 0.05
"""Target risk for contracts without one."""


@dataclass(frozen=True)
class Judged:
    """What came of a quantised part on the validation photos.

    Attributes:
        score: see `proof.score` and `proof.score_of_boxes`.
        noise: squared error at the cuts, in parts of their square.
        predicted: what the judge's `calibrated` takes.
    """

    score: float
    noise: float
    predicted: Any


class Judge(Protocol):
    """Judges quantised parts of one model on its validation photos."""

    @property
    def cuts(self) -> Sequence[str]:
        """Names of the values that the quantised part ends with."""
        ...

    @property
    def at_once(self) -> int:
        """Photos that ranges are taken from at a time, so that they fit into memory."""
        ...

    def judge(self, body: bytes) -> Judged:
        """How good a quantised part is, as ONNX bytes, beside the first one that is asked about."""
        ...

    def calibrated(self, predicted: Any) -> Contract:
        """The contract with the calibration, thresholds and metrics that fit these predictions."""
        ...

    def rest(self, contract: Contract) -> Any:
        """All that follows the cuts, calibrated as the contract says, as an `onnx.ModelProto`."""
        ...


class PhotoJudge:
    """Judges models of whole photos.

    Args:
        contract: of the model.
        weights: its safetensors.
        val: labelled photos.
    """

    cuts = ("embedding",)
    at_once = 64

    def __init__(self, contract: Contract, weights: bytes, val: Sample) -> None:
        from plantml.model import network

        self.contract, self.val = contract, val
        self._weights = network.read_weights(weights)
        self._reference: Floats | None = None

    def judge(self, body: bytes) -> Judged:
        """See `Judge.judge`; by the model's own temperatures, which the choice of labels hardly depends on."""
        embedding = proof.outputs(OnnxRuntime(body), self.val.batches())["embedding"]
        if self._reference is None:
            self._reference = embedding
        score = metrics.selection_score(self._reports(self._answers(self.contract, embedding)[0]))
        return Judged(score, proof.noise(self._reference, embedding), embedding)

    def calibrated(self, predicted: Floats) -> Contract:
        """See `Judge.calibrated`; from embeddings."""
        import torch

        from plantml.model import temperature

        contract, labels = self.contract, self.val.labels
        deployed = self._deployed(contract)
        with torch.inference_mode():
            logits = deployed.net.classify(torch.from_numpy(predicted), self._encoded(deployed))
        start = temperature.Scaling(contract.temperatures, contract.biases or {})
        scaling = temperature.fit(deployed, logits, labels, start)
        fitted = contract.model_copy(update={"temperatures": scaling.temperatures, "biases": scaling.biases})
        answers, unknown = self._answers(fitted, predicted)
        judged = [target for target in contract.targets if target.name in labels]
        accepted = calibration.accept_thresholds(judged, answers, labels, _risk(contract))
        thresholds = dict(contract.thresholds) | {name: threshold.score for name, threshold in accepted.items()}
        scores = metrics.headline(self._reports(answers))
        return fitted.model_copy(
            update={
                "thresholds": thresholds,
                "acceptance": dict(contract.acceptance or {}) | accepted,
                "unknown_threshold": calibration.unknown_threshold(unknown),
                "metrics": {name: round(value, 6) for name, value in scores.items()},
            }
        )

    def rest(self, contract: Contract) -> Any:
        """See `Judge.rest`."""
        import torch

        deployed = self._deployed(contract)

        class Rest(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.deployed = deployed

            def forward(
                self, embedding: torch.Tensor, values: torch.Tensor | None = None, known: torch.Tensor | None = None
            ) -> tuple[torch.Tensor, ...]:
                outputs: tuple[torch.Tensor, ...] = deployed.after_embedding(embedding, values, known)
                return outputs

        names = [name for name in output_names(contract) if name != "embedding"]
        examples = exporting.example_inputs(contract.input, len(contract.covariates or ()))
        del examples["image"]
        embedding = torch.zeros(2, contract.architecture.embedding)
        return exporting.convert(Rest().eval(), {"embedding": embedding, **examples}, names)

    def _deployed(self, contract: Contract) -> Any:
        from plantml.model import network

        return network.rebuild(contract, self._weights)

    def _encoded(self, deployed: Any) -> Any:
        """The validation photos' covariates, as a network takes them; `None` of a model without any."""
        import torch

        return None if self.val.columns is None else deployed.net.encode(torch.from_numpy(self.val.columns))

    def _answers(self, contract: Contract, embedding: Floats) -> tuple[dict[str, Floats], Floats]:
        """Outputs by target, and the unknown score."""
        import torch

        deployed = self._deployed(contract)
        with torch.inference_mode():
            inputs = torch.from_numpy(embedding)
            answers = deployed.answers(deployed.net.classify(inputs, self._encoded(deployed)))
            return {name: answer.numpy() for name, answer in answers.items()}, deployed.unknown(inputs).numpy()

    def _reports(self, answers: Mapping[str, Floats]) -> Sequence[metrics.Report]:
        return metrics.reports_of(self.contract.targets, self.val.labels, answers)


class BoxJudge:
    """Judges models that find boxes.

    Args:
        contract: of the model.
        weights: its safetensors.
        model: its ONNX file.
        val: annotated photos.
    """

    at_once = 4

    def __init__(self, contract: Contract, weights: bytes, model: bytes, val: Sample) -> None:
        from plantml.model import network

        self.contract, self.val = contract, val
        self._weights = network.read_weights(weights)
        self._heads = list(self._deployed(contract).net.heads)
        self.cuts = _inputs_of_last_layers(model, self._heads)
        self._reference: Outputs = {}

    def judge(self, body: bytes) -> Judged:
        """See `Judge.judge`; noise is that of the head with most of it, on some photos."""
        import torch

        from plantml.model.box_calibration import RawBoxes
        from plantml.model.detector import DeployedDetector

        deployed = self._deployed(self.contract)
        assert self.contract.detection is not None
        detection = self.contract.detection.model_copy(update={"slope": 1.0, "offset": 0.0})
        uncalibrated = DeployedDetector(deployed.net, detection, {})
        runtime = OnnxRuntime(body)
        first: Outputs = {}
        parts: list[tuple[Floats, Floats, dict[str, Any]]] = []
        for features in _features(runtime, self.val.pixels, self.at_once):
            first = first or features
            maps = {name: torch.from_numpy(features[cut]) for name, cut in zip(self._heads, self.cuts, strict=True)}
            with torch.inference_mode():
                decoded = uncalibrated.decode(deployed.net.maps(maps), *self.val.pixels.shape[1:3])
            parts.append((decoded[0].numpy(), decoded[1].numpy(), decoded[2]))
        self._reference = self._reference or first
        boxes, scores = (np.concatenate([part[at] for part in parts]) for at in (0, 1))
        logits = {target.name: torch.cat([part[2][target.name] for part in parts]) for target in deployed.net.targets}
        with torch.inference_mode():
            answers = deployed.answers({name: each.flatten(0, 1) for name, each in logits.items()})
        outputs = {f"target.{name}": each.numpy().reshape(*scores.shape, -1) for name, each in answers.items()}
        assert self.val.boxes is not None
        score = proof.score_of_boxes(self.contract, self.val.boxes, outputs | {"boxes": boxes, "score": scores})
        return Judged(score, noise_of(self._reference, first), RawBoxes(boxes, scores, logits, detection))

    def calibrated(self, predicted: Any) -> Contract:
        """See `Judge.calibrated`; from predicted boxes."""
        from plantml.model import box_calibration

        assert self.contract.detection is not None
        assert self.val.boxes is not None
        net = self._deployed(self.contract).net
        matched = box_calibration.match(predicted, self.val.boxes.sides, self.val.boxes.labels, net.targets)
        tile = self.contract.detection.tile
        fitted = box_calibration.calibrate(net, matched, risk=_risk(self.contract), tile=tile)
        return self.contract.model_copy(update=fitted.of_contract)

    def rest(self, contract: Contract) -> Any:
        """See `Judge.rest`."""
        import torch

        deployed, names = self._deployed(contract), self._heads
        height, width = contract.input.height, contract.input.width

        class Rest(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.deployed = deployed

            def forward(self, *features: torch.Tensor) -> tuple[torch.Tensor, ...]:
                outputs: tuple[torch.Tensor, ...] = deployed.finished(
                    deployed.net.maps(dict(zip(names, features, strict=True))), height, width
                )
                return outputs

        shapes = {cut: tuple(features.shape[1:]) for cut, features in self._reference.items()}
        examples = {cut: torch.zeros(2, *shapes[cut]) for cut in self.cuts}
        return exporting.convert(Rest().eval(), examples, output_names(contract))

    def _deployed(self, contract: Contract) -> Any:
        from plantml.model import detector

        return detector.rebuild(contract, self._weights)


def noise_of(reference: Outputs, candidate: Outputs) -> float:
    """The largest `proof.noise` of any output."""
    return max(proof.noise(reference[name], candidate[name]) for name in reference)


def _features(runtime: Runtime, pixels: Pixels, size: int = BATCH) -> Iterator[Outputs]:
    for start in range(0, len(pixels), size):
        yield runtime.run(pixels[start : start + size])


def _inputs_of_last_layers(model: bytes, heads: Sequence[str]) -> list[str]:
    """The value that the last convolution of each head reads, by the name of its weights."""
    import onnx

    by_weights = {
        node.input[1]: node.input[0] for node in onnx.load_from_string(model).graph.node if node.op_type == "Conv"
    }
    return [by_weights[f"net.heads.{name}.2.weight"] for name in heads]


def _risk(contract: Contract) -> float:
    return contract.target_risk if contract.target_risk is not None else _RISK
