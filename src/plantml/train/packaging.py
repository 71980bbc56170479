"""From a trained network to a bundle: calibrate, describe, export, and prove the export equal."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from plantml import metrics
from plantml.data.manifest import Version
from plantml.errors import InputError
from plantml.export import proof
from plantml.export.onnx import to_onnx
from plantml.export.proof import Proof
from plantml.imaging import Pixels
from plantml.metrics import Report, calibration
from plantml.model import bundle as bundles
from plantml.model import temperature
from plantml.model.bundle import Combinations, Contract, Origin
from plantml.model.network import Deployed, PlantNet
from plantml.model.runtimes import OnnxRuntime, Outputs
from plantml.targets import Target, tied, valid_combinations
from plantml.train import calibration_report, prepare
from plantml.train.batches import PixelSource
from plantml.train.calibration_report import Account
from plantml.train.model_card import model_card, train_counts
from plantml.train.plan import Plan
from plantml.validate.scoring import Answered
from plantml.validate.selection import DATASET, groups_of
from plantml.validate.slices import slices

_BATCH = 32
_RESAMPLES = 500
_COMBINED = ("category", "health", "disease")
"""Class targets whose combinations can be restricted to those that were seen."""


@dataclass(frozen=True)
class Finished:
    """A bundle's content, ready to be published.

    Attributes:
        contract: what the model promises.
        digest: its name.
        reports: on the validation split, calibrated.
        accounts: of its confidence there, by target.
        proof: that the ONNX file is the same model.
        files: bytes by name, all but `model.json`.
        model_json: the bytes of `model.json`.
    """

    contract: Contract
    digest: str
    reports: list[Report]
    accounts: list[Account]
    proof: Proof
    files: Mapping[str, bytes]
    model_json: bytes


class _InMemory:
    """The network that was just trained, as a runtime."""

    name = "torch"

    def __init__(self, deployed: Deployed) -> None:
        self._deployed = deployed

    def run(self, batch: Pixels) -> Outputs:
        """See `runtimes.Runtime.run`."""
        with torch.inference_mode():
            found = self._deployed(torch.from_numpy(batch))
        return {name: part.numpy() for name, part in zip(self._deployed.output_names, found, strict=True)}


def finish(net: PlantNet, plan: Plan, data: prepare.Data, version: Version) -> Finished:
    """Make the bundle of a trained network.

    Args:
        net: in evaluation mode, on the CPU.
        plan: how it was trained.
        data: what it was trained on; its `bank` is the reference for `unknown`, its `val` decides on confidence.
        version: whose rows that is.

    Raises:
        GateError: the ONNX file does not give the network's answers.
        InputError: answers shall be restricted to combinations seen in training, and none can be true.
    """
    val, train = data.val, data.train
    labels = {name: found[val.rows] for name, found in val.labels.items()}
    combinations = None
    if plan.combinations == "seen":
        combinations = seen_combinations(plan.targets, {name: held[train.rows] for name, held in train.labels.items()})
    with torch.inference_mode():
        embeddings = _embed(net, _batches(val.pixels, val.rows))
        logits = net.classify(embeddings)
        reference = _embed(net, _batches(data.bank, np.arange(len(data.bank))))
    plain = Deployed(net, {}, reference, combinations).eval()
    fitted = temperature.fit(plain, logits, labels)
    deployed = Deployed(net, fitted.temperatures, reference, combinations, fitted.biases).eval()
    with torch.inference_mode():
        before, answers = _arrays(plain.answers(logits)), _arrays(deployed.answers(logits))
        unknown = deployed.unknown(embeddings).numpy()
    reports = metrics.reports_of(plan.targets, labels, answers)
    thresholds = calibration.accept_thresholds(plan.targets, answers, labels, plan.target_risk)
    contract = Contract(
        targets=plan.targets,
        input=plan.input,
        architecture=prepare.architecture(plan, net.backbone).model_copy(update={"bank": len(data.bank)}),
        temperatures=fitted.temperatures,
        biases=fitted.biases,
        thresholds={name: found.score for name, found in thresholds.items()},
        target_risk=plan.target_risk,
        acceptance=thresholds,
        unknown_threshold=calibration.unknown_threshold(unknown),
        combinations=combinations,
        dataset=Origin(url=plan.dataset, version=plan.dataset_version, fingerprint=plan.fingerprint),
        metrics={name: round(value, 6) for name, value in metrics.headline(reports).items()},
        seed=plan.seed,
        versions=plan.versions,
    )
    state = {name: tensor.contiguous() for name, tensor in deployed.state_dict().items()}
    digest = bundles.digest(contract, {name: tensor.numpy().tobytes() for name, tensor in state.items()})
    weights = save(state)
    onnx = to_onnx(contract, weights, digest)
    proven = proof.compare(contract, _InMemory(deployed), OnnxRuntime(onnx), _batches(val.pixels, val.rows))
    proof.require(proven, bundles.ONNX)
    accounts = calibration_report.accounts(plan.targets, before, answers, labels, thresholds)
    # In the order of `prepare.load`, without the photos that could not be read.
    rows = version.usable("val").sort("image_id", "source", "name")[val.rows]
    rows = rows.with_columns(pl.lit(version.ref).alias(DATASET))
    judged = Answered(plan.targets, labels, answers, groups_of(rows), {})
    learnt = {target.name: train_counts(version, target) for target in plan.targets}
    parts = slices(judged, rows, learnt, resamples=_RESAMPLES, seed=plan.seed)
    card = model_card(contract, digest, plan=plan, version=version, reports=reports, accounts=accounts, slices=parts)
    files = {bundles.WEIGHTS: weights, bundles.ONNX: onnx, bundles.CARD: card.encode()}
    return Finished(contract, digest, reports, accounts, proven, files, bundles.model_json(contract, digest, files))


def seen_combinations(targets: Sequence[Target], labels: Mapping[str, NDArray[Any]]) -> Combinations | None:
    """The combinations of category, health and disease that training photos show and that can be true.

    A photo without a label of one of them shows the others with every class of it.

    Args:
        targets: of the model.
        labels: of the training photos by target, encoded.

    Returns:
        `None` if fewer than two of the three are class targets.

    Raises:
        InputError: no combination is left.
    """
    by_name = {target.name: target for target in targets if target.kind == "class"}
    combined = [by_name[name] for name in _COMBINED if name in by_name]
    if len(combined) < 2:
        return None
    names = [target.name for target in combined]
    shown = np.zeros([target.size for target in combined], bool)
    for row in np.unique(np.stack([labels[name] for name in names], axis=1), axis=0):
        if (row >= 0).any():
            shown[tuple(slice(None) if number < 0 else int(number) for number in row)] = True
    pair = tied(targets)
    if pair is not None:
        # Health and disease are the last axes, in this order.
        shown &= valid_combinations(*pair)
    if not shown.any():
        raise InputError(
            "No combination of classes in training can be true",
            "every healthy plant has a disease, or every diseased one has none",
            "Put the labels right, or train with --set combinations=any.",
        )
    seen = tuple(
        tuple(target.classes[number] for target, number in zip(combined, place, strict=True))
        for place in np.argwhere(shown).tolist()
    )
    return Combinations(targets=tuple(names), seen=seen)


def _embed(net: PlantNet, batches: Iterable[Pixels]) -> Tensor:
    return torch.cat([net.embed(torch.from_numpy(batch)) for batch in batches])


def _arrays(answers: Mapping[str, Tensor]) -> dict[str, NDArray[np.float32]]:
    return {name: answer.numpy() for name, answer in answers.items()}


def _batches(pixels: PixelSource, rows: NDArray[np.int64]) -> Iterator[Pixels]:
    for start in range(0, len(rows), _BATCH):
        yield np.ascontiguousarray(pixels[rows[start : start + _BATCH]])
