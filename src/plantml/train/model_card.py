"""The model card: intended use, training data, results and limits of a model."""

import re
from collections.abc import Sequence
from typing import Any

from plantml.data.manifest import SPLITS, Version
from plantml.metrics import Report
from plantml.model.contract import Contract
from plantml.parsing import dump_yaml
from plantml.reporting import documents
from plantml.targets import Target
from plantml.train.calibration_report import ConfidenceReport
from plantml.train.plan import Plan
from plantml.train.weights import HUB
from plantml.validate.slices import Slice

FEW = 20
"""A class with fewer training photos, or fewer than half as many validation photos, is listed under Limits."""

_HF_METRICS = {"accuracy": "accuracy", "macro_f1": "f1", "ece": "ece", "r2": "r_squared", "mae": "mae", "mse": "mse"}
"""Names of plantml's metrics on the Hugging Face hub."""


def model_card(
    contract: Contract,
    digest: str,
    *,
    plan: Plan,
    version: Version,
    reports: Sequence[Report],
    confidence: Sequence[ConfidenceReport],
    slices: Sequence[Slice],
) -> str:
    """The card as Markdown with Hugging Face metadata."""
    return documents.fill(
        "plantml.train",
        "card.md.jinja",
        filters={"cell": documents.cell},
        header=dump_yaml(header(contract, digest, plan, reports)),
        contract=contract,
        digest=digest,
        plan=plan,
        reports=reports,
        confidence=confidence,
        counts={target.name: class_counts(version, target) for target in plan.targets},
        values={target.name: _value_range(version, target) for target in plan.targets if target.kind == "value"},
        photos={split: version.usable(split).height for split in SPLITS},
        sources=version.usable()["source"].value_counts(sort=True).rows(),
        slices=slices,
        few=few_photos(version, plan.targets),
    )


def header(contract: Contract, digest: str, plan: Plan, reports: Sequence[Report]) -> dict[str, Any]:
    """The metadata that the Hugging Face hub reads from the top of a card.

    It names no licence, because that depends on the photos and the pretrained weights.
    """
    dataset = _slug(plan.dataset)
    metadata: dict[str, Any] = {"library_name": "plantml", "tags": ["plants", "plantml", "onnx"]}
    if any(target.kind != "value" for target in contract.targets):
        metadata["pipeline_tag"] = "image-classification"
    if plan.pretrained and (base := _base_model(plan)):
        metadata["base_model"] = base
    metadata["datasets"] = [dataset]
    metadata["metrics"] = sorted(
        {_HF_METRICS[name] for report in reports for name in report.scores if name in _HF_METRICS}
    )
    kinds = {target.name: target.kind for target in contract.targets}
    metadata["model-index"] = [
        {
            "name": f"{dataset}-{digest[:12]}",
            "results": [_result(report, kinds[report.target], dataset, contract) for report in reports],
        }
    ]
    return metadata


def _base_model(plan: Plan) -> str:
    """The name on the hub of what the training started from; empty for weights from elsewhere."""
    if plan.weights:
        return plan.weights.removeprefix(HUB) if plan.weights.startswith(HUB) else ""
    import timm

    config: Any = timm.models.get_pretrained_cfg(plan.backbone)
    return str(getattr(config, "hf_hub_id", None) or f"timm/{plan.backbone}")


def _result(report: Report, kind: str, dataset: str, contract: Contract) -> dict[str, Any]:
    values = [
        {"type": hub_name, "name": f"{report.target} {name}", "value": round(report.scores[name], 4)}
        for name, hub_name in _HF_METRICS.items()
        if name in report.scores
    ]
    task = "image-regression" if kind == "value" else "image-classification"
    return {
        "task": {"type": task, "name": report.target},
        "dataset": {
            "name": f"{dataset}, version {contract.dataset.version}",
            "type": dataset,
            "split": "validation",
            "revision": contract.dataset.fingerprint,
        },
        "metrics": values,
    }


def class_counts(version: Version, target: Target) -> list[tuple[str, dict[str, int]]]:
    """Usable photos of each class by split; empty for a value."""
    rows = []
    by_split = {split: version.usable(split)[target.name].drop_nulls() for split in SPLITS}
    for name in target.classes:
        counts = {}
        for split, column in by_split.items():
            matches = column.list.contains(name) if target.kind == "multilabel" else column == name
            counts[split] = int(matches.sum() or 0)
        rows.append((name, counts))
    return rows


def train_counts(version: Version, target: Target) -> dict[str, int]:
    """Usable training photos of each class."""
    return {name: counts["train"] for name, counts in class_counts(version, target)}


def _value_range(version: Version, target: Target) -> dict[str, str]:
    ranges = {}
    for split in SPLITS:
        values = version.usable(split)[target.name].drop_nulls().to_numpy()
        if len(values):
            ranges[split] = f"{len(values)} photos, {values.min():.4g} to {values.max():.4g}, mean {values.mean():.4g}"
    return ranges


def few_photos(version: Version, targets: Sequence[Target]) -> list[str]:
    """The classes with few training or validation photos, as text."""
    return [
        f"{target.name} {name} ({counts['train']} train, {counts['val']} val)"
        for target in targets
        for name, counts in class_counts(version, target)
        if counts["train"] < FEW or counts["val"] < FEW / 2
    ]


def _slug(url: str) -> str:
    """The last segment of the dataset's URL in the hub's characters: letters, digits, `-`, `_` and `.`."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", url.rstrip("/").rsplit("/", 1)[-1]).strip("-.") or "dataset"
