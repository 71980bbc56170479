"""From a trained network to a bundle: calibrate, describe, export, and prove the export equal."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from plantml import bundle as bundles
from plantml import metrics
from plantml.bundle import Contract, Origin
from plantml.export import proof
from plantml.export.onnx import to_onnx
from plantml.export.proof import Proof
from plantml.images import Pixels
from plantml.metrics import Report
from plantml.network import Deployed, PlantNet
from plantml.runtime import OnnxRuntime, Outputs
from plantml.train import calibrate, prepare
from plantml.train.card import model_card
from plantml.train.data import Photos
from plantml.train.recipe import Plan

_BATCH = 32


@dataclass(frozen=True)
class Finished:
    """A bundle's content, ready to be published.

    Attributes:
        contract: what the model promises.
        digest: its name.
        reports: on the validation split, calibrated.
        proof: that the ONNX file is the same model.
        files: bytes by name, all but `model.json`.
        model_json: the bytes of `model.json`.
    """

    contract: Contract
    digest: str
    reports: list[Report]
    proof: Proof
    files: Mapping[str, bytes]
    model_json: bytes


class _InMemory:
    """The network that was just trained, as a runtime."""

    name = "torch"

    def __init__(self, deployed: Deployed) -> None:
        self._deployed = deployed

    def run(self, batch: Pixels) -> Outputs:
        """See `runtime.Runtime.run`."""
        with torch.inference_mode():
            found = self._deployed(torch.from_numpy(batch))
        return {name: part.numpy() for name, part in zip(self._deployed.output_names, found, strict=True)}


def finish(net: PlantNet, plan: Plan, bank: Pixels, val: Photos) -> Finished:
    """Make the bundle of a trained network.

    Args:
        net: in evaluation mode, on the CPU.
        plan: how it was trained.
        bank: training photos as detection sees them, uint8 [M, H, W, 3].
        val: the validation photos.

    Raises:
        GateError: the ONNX file does not give the network's answers.
    """
    pixels = val.pixels[val.rows]
    labels = {name: torch.as_tensor(found[val.rows]) for name, found in val.labels.items()}
    with torch.inference_mode():
        embeddings = _embed(net, pixels)
        logits = net.classify(embeddings)
        reference = _embed(net, bank)
        temperatures = {
            target.name: calibrate.temperature(target, logits[target.name], labels[target.name])
            for target in plan.targets
            if target.kind != "value"
        }
        deployed = Deployed(net, temperatures, reference).eval()
        answers = deployed.answers(logits)
        unknown = deployed.unknown(embeddings)
    reports = _reports(plan, labels, answers)
    contract = Contract(
        targets=plan.targets,
        input=plan.input,
        architecture=prepare.architecture(plan, net.backbone).model_copy(update={"bank": len(bank)}),
        temperatures=temperatures,
        thresholds=calibrate.accept_thresholds(plan.targets, answers, labels, plan.target_risk),
        unknown_threshold=calibrate.unknown_threshold(unknown),
        dataset=Origin(url=plan.dataset, version=plan.dataset_version, fingerprint=plan.fingerprint),
        metrics={name: round(value, 6) for name, value in metrics.headline(reports).items()},
        seed=plan.seed,
        versions=plan.versions,
    )
    state = {name: tensor.contiguous() for name, tensor in deployed.state_dict().items()}
    digest = bundles.digest(contract, {name: tensor.numpy().tobytes() for name, tensor in state.items()})
    weights = save(state)
    onnx = to_onnx(contract, weights, digest)
    found = proof.compare(contract, _InMemory(deployed), OnnxRuntime(onnx), _batches(pixels))
    proof.require(found, bundles.ONNX)
    files = {
        bundles.WEIGHTS: weights,
        bundles.ONNX: onnx,
        bundles.CARD: model_card(contract, digest, plan, reports).encode(),
    }
    return Finished(contract, digest, reports, found, files, bundles.model_json(contract, digest, files))


def _embed(net: PlantNet, pixels: Pixels) -> Tensor:
    return torch.cat([net.embed(torch.from_numpy(batch)) for batch in _batches(pixels)])


def _reports(plan: Plan, labels: Mapping[str, Tensor], answers: Mapping[str, Tensor]) -> list[Report]:
    found = [
        metrics.report_encoded(target, labels[target.name].numpy(), answers[target.name].numpy())
        for target in plan.targets
    ]
    return [report for report in found if report is not None]


def _batches(pixels: Pixels) -> Iterator[Pixels]:
    for start in range(0, len(pixels), _BATCH):
        yield np.ascontiguousarray(pixels[start : start + _BATCH])
