"""From a trained network to a bundle: calibrate, export, verify the export, and write the contract and the card."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from plantml import metrics
from plantml.data import covariates as dataset_columns
from plantml.data.manifest import Version
from plantml.errors import InputError
from plantml.export import proof
from plantml.export.onnx import to_onnx
from plantml.imaging import Pixels
from plantml.metrics import ClassReport, Report, calibration
from plantml.model import bundle as bundles
from plantml.model import temperature
from plantml.model.anomaly import DeployedAnomaly
from plantml.model.contract import Combinations, Contract, Origin
from plantml.model.covariates import Columns, network_inputs
from plantml.model.detector import DeployedDetector
from plantml.model.network import Deployed, PlantNet
from plantml.model.runtimes import OnnxRuntime, Outputs
from plantml.reporting import charts
from plantml.targets import Target, tied, valid_combinations
from plantml.train import calibration_report, prepare, unlabelled_photos
from plantml.train.batches.loader import PixelSource
from plantml.train.calibration_report import ConfidenceReport
from plantml.train.covariates import COVARIATES
from plantml.train.learner import PackagedModel
from plantml.train.model_card import model_card, train_counts
from plantml.train.plan import Plan
from plantml.train.probe import Embed
from plantml.validate.scoring import Outcomes
from plantml.validate.selection import DATASET, groups_of
from plantml.validate.slices import slices

_BATCH = 32
_RESAMPLES = 500
_COMBINED = ("category", "health", "disease")
"""Class targets whose combinations can be restricted to those in the training labels."""


class _MemoryRuntime:
    """A deployed network in memory as a runtime."""

    name = "torch"

    def __init__(self, deployed: Deployed | DeployedDetector | DeployedAnomaly) -> None:
        self._deployed = deployed

    def run(self, batch: Pixels, columns: Columns | None = None) -> Outputs:
        """See `runtimes.Runtime.run`."""
        width = 0 if columns is None else columns.shape[1]
        arrays = (batch, *network_inputs(columns, len(batch), width).values())
        with torch.inference_mode():
            outputs = self._deployed(*map(torch.from_numpy, arrays))
        return {name: output.numpy() for name, output in zip(self._deployed.output_names, outputs, strict=True)}


def package(
    net: PlantNet,
    plan: Plan,
    data: prepare.TrainingData,
    version: Version,
    embed: Embed,
) -> PackagedModel:
    """Make the bundle of a trained network.

    Args:
        net: in evaluation mode, on the CPU.
        plan: how it was trained.
        data: of the training; `bank` is the reference for `unknown`, `val` calibrates and sets the thresholds.
        version: of the dataset that `data` was loaded from.
        embed: computes embeddings of the network.

    Raises:
        GateError: the ONNX file does not reproduce the network's predictions.
        InputError: `combinations` is `seen`, and no combination in the training labels is valid.
    """
    val, train = data.val, data.train
    labels = {name: values[val.rows] for name, values in val.labels.items()}
    combinations = None
    if plan.combinations == "seen":
        combinations = training_combinations(
            plan.targets, {name: values[train.rows] for name, values in train.labels.items()}
        )
    with torch.inference_mode():
        embeddings = embed(val.pixels[row] for row in val.rows)
        columns = torch.from_numpy(labels[COVARIATES]) if COVARIATES in labels else None
        logits = net.classify(embeddings, None if columns is None else net.encode(columns))
        reference = embed(data.bank)
    plain = Deployed(net, {}, reference, combinations).eval()
    fitted = temperature.fit(plain, logits, labels)
    deployed = Deployed(net, fitted.temperatures, reference, combinations, fitted.biases).eval()
    with torch.inference_mode():
        before, answers = _arrays(plain.answers(logits)), _arrays(deployed.answers(logits))
        unknown = deployed.unknown(embeddings).numpy()
    reports = metrics.reports_of(plan.targets, labels, answers)
    thresholds = calibration.accept_thresholds(plan.targets, answers, labels, plan.target_risk)
    names = [covariate.name for covariate in plan.covariates]
    contract = Contract(
        targets=plan.targets,
        input=plan.input,
        covariates=plan.covariates or None,
        architecture=prepare.architecture(plan, net.backbone).model_copy(update={"bank": len(data.bank)}),
        temperatures=fitted.temperatures,
        biases=fitted.biases,
        thresholds={name: threshold.score for name, threshold in thresholds.items()},
        target_risk=plan.target_risk,
        acceptance=thresholds,
        unknown_threshold=calibration.unknown_threshold(unknown),
        combinations=combinations,
        withheld=plan.withheld or None,
        dataset=Origin(
            url=plan.dataset,
            version=plan.dataset_version,
            fingerprint=plan.fingerprint,
            crops=plan.crops or None,
            with_covariates=dataset_columns.fingerprint(version.rows, version.targets, names) if names else None,
        ),
        unlabelled=unlabelled_photos.origin(plan),
        metrics={name: round(value, 6) for name, value in metrics.headline(reports).items()},
        seed=plan.seed,
        versions=plan.versions,
    )
    exported = export(deployed, contract, lambda: photo_batches(val.pixels, val.rows), labels.get(COVARIATES))
    digest = exported.digest
    confidence = calibration_report.confidence_reports(plan.targets, before, answers, labels, thresholds)
    # In the order of `prepare.load`, without unreadable photos.
    rows = version.usable("val").sort("image_id", "source", "name")[val.rows]
    rows = rows.with_columns(pl.lit(version.ref).alias(DATASET))
    judged = Outcomes(plan.targets, labels, answers, groups_of(rows), {})
    learnt = {target.name: train_counts(version, target) for target in plan.targets}
    parts = slices(judged, rows, learnt, resamples=_RESAMPLES, seed=plan.seed)
    card = model_card(
        contract, digest, plan=plan, version=version, reports=reports, confidence=confidence, slices=parts
    )
    return exported.packaged(
        card,
        {
            "scores": metrics.headline(reports),
            **_of_photos_alone(deployed, embeddings, labels),
            "targets": {report.target: metrics.as_json(report) for report in reports},
            "calibration": calibration_report.calibration_json(confidence),
            "selective": calibration_report.selective_json(confidence, plan.target_risk),
            "unknown": {"threshold": contract.unknown_threshold, "known_share": calibration.KNOWN_SHARE},
        },
        _plots(reports, confidence, plan.target_risk),
    )


@dataclass(frozen=True)
class Exported:
    """A deployed network as files.

    Attributes:
        contract: of the model.
        digest: of the model.
        weights: as safetensors.
        onnx: the same network, verified.
        proof: comparison of the two.
    """

    contract: Contract
    digest: str
    weights: bytes
    onnx: bytes
    proof: proof.Proof

    def packaged(self, card: str, content: Mapping[str, Any], plots: Mapping[str, bytes]) -> PackagedModel:
        """The bundle with its card, and what the run keeps beside it; see `PackagedModel`."""
        files = {bundles.WEIGHTS: self.weights, bundles.ONNX: self.onnx, bundles.CARD: card.encode()}
        text = bundles.model_json(self.contract, self.digest, files)
        return PackagedModel(self.contract, self.digest, files, text, {**content, "onnx": asdict(self.proof)}, plots)


def export(
    deployed: Deployed | DeployedDetector | DeployedAnomaly,
    contract: Contract,
    batches: Callable[[], Iterable[Pixels]],
    columns: Columns | None = None,
) -> Exported:
    """Export a network, and verify it on photos.

    Args:
        deployed: in evaluation mode, on the CPU.
        contract: of the model.
        batches: gives the photos, uint8 RGB [n, H, W, 3] each; called once for each of the two.
        columns: covariates of the photos, of a network that takes some.

    Raises:
        GateError: the ONNX file does not reproduce the network's predictions.
    """
    state = {name: tensor.contiguous() for name, tensor in deployed.state_dict().items()}
    digest = bundles.digest(contract, {name: tensor.numpy().tobytes() for name, tensor in state.items()})
    weights = save(state)
    onnx = to_onnx(contract, weights, digest)
    expected, actual = (
        proof.outputs(runtime, batches(), columns) for runtime in (_MemoryRuntime(deployed), OnnxRuntime(onnx))
    )
    proven = proof.require(proof.compare(contract, expected, actual), bundles.ONNX)
    return Exported(contract, digest, weights, onnx, proven)


def _plots(reports: Sequence[Report], confidence: Sequence[ConfidenceReport], risk: float) -> dict[str, bytes]:
    plots = {
        f"confusion_{report.target}.png": charts.confusion(report)
        for report in reports
        if isinstance(report, ClassReport)
    }
    for each in confidence:
        plots[f"reliability_{each.target}.png"] = charts.reliability(
            each.target, each.confidences, each.before, each.after, each.threshold
        )
        plots[f"risk_coverage_{each.target}.png"] = charts.risk_coverage(each.target, each.curve, risk, each.threshold)
    return plots


def training_combinations(targets: Sequence[Target], labels: Mapping[str, NDArray[Any]]) -> Combinations | None:
    """The valid combinations of category, health and disease in the training labels.

    A photo without a label for one of them counts for every class of that target.

    Args:
        targets: of the model.
        labels: of the training photos by target, encoded.

    Returns:
        `None` if fewer than two of the three are class targets.

    Raises:
        InputError: no valid combination is left.
    """
    by_name = {target.name: target for target in targets if target.kind == "class"}
    combined = [by_name[name] for name in _COMBINED if name in by_name]
    if len(combined) < 2:
        return None
    names = [target.name for target in combined]
    valid = np.zeros([target.size for target in combined], bool)
    for row in np.unique(np.stack([labels[name] for name in names], axis=1), axis=0):
        if (row >= 0).any():
            valid[tuple(slice(None) if number < 0 else int(number) for number in row)] = True
    pair = tied(targets)
    if pair is not None:
        # Health and disease are the last axes, in this order.
        valid &= valid_combinations(*pair)
    if not valid.any():
        raise InputError(
            "No combination of classes in the training labels is valid",
            "every healthy plant has a disease, or every diseased plant has none",
            "Fix the labels, or train with --set combinations=any.",
        )
    combinations = tuple(
        tuple(target.classes[number] for target, number in zip(combined, place, strict=True))
        for place in np.argwhere(valid).tolist()
    )
    return Combinations(targets=tuple(names), seen=combinations)


def _of_photos_alone(deployed: Deployed, embeddings: Tensor, labels: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """The scores of the photos without their covariates; nothing of a network that takes none."""
    if deployed.net.covariates is None:
        return {}
    with torch.inference_mode():
        answers = _arrays(deployed.answers(deployed.net.classify(embeddings)))
    return {"photos_alone": metrics.headline(metrics.reports_of(deployed.net.targets, labels, answers))}


def _arrays(answers: Mapping[str, Tensor]) -> dict[str, NDArray[np.float32]]:
    return {name: values.numpy() for name, values in answers.items()}


def photo_batches(pixels: PixelSource, rows: NDArray[np.int64], size: int = _BATCH) -> Iterator[Pixels]:
    """The photos of some rows in batches, uint8 [n, H, W, 3] each."""
    for start in range(0, len(rows), size):
        yield np.ascontiguousarray(pixels[rows[start : start + size]])
