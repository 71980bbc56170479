"""The model card: what the model is for, what it was made of, how good it is, and where it ends."""

import re
from collections.abc import Sequence
from typing import Any

from plantml.data.manifest import SPLITS, Version
from plantml.metrics import Report
from plantml.model.bundle import Contract
from plantml.parsing import dump_yaml
from plantml.reporting import documents
from plantml.targets import Target
from plantml.train.calibration_report import Account
from plantml.train.plan import Plan
from plantml.validate.slices import Slice

FEW = 20
"""Training photos of a class below which the card names it; half of that of validation photos."""

_HF_METRICS = {"accuracy": "accuracy", "macro_f1": "f1", "ece": "ece", "r2": "r_squared", "mae": "mae", "mse": "mse"}
"""Our scores as the Hugging Face hub calls them."""


def model_card(
    contract: Contract,
    digest: str,
    *,
    plan: Plan,
    version: Version,
    reports: Sequence[Report],
    accounts: Sequence[Account],
    slices: Sequence[Slice],
) -> str:
    """The card as Markdown with a Hugging Face header."""
    return documents.fill(
        "plantml.train",
        "card.md.jinja",
        filters={"cell": documents.cell},
        header=dump_yaml(header(contract, digest, plan, reports)),
        contract=contract,
        digest=digest,
        plan=plan,
        reports=reports,
        accounts=accounts,
        counts={target.name: class_counts(version, target) for target in plan.targets},
        values={target.name: _value_range(version, target) for target in plan.targets if target.kind == "value"},
        photos={split: version.usable(split).height for split in SPLITS},
        sources=version.usable()["source"].value_counts(sort=True).rows(),
        slices=slices,
        few=few_photos(version, plan.targets),
    )


def header(contract: Contract, digest: str, plan: Plan, reports: Sequence[Report]) -> dict[str, Any]:
    """The metadata that the Hugging Face hub reads from the top of a card.

    No licence: whether a model may be passed on depends on its photos and its pretrained weights.
    """
    dataset = _slug(plan.dataset)
    found: dict[str, Any] = {"library_name": "plantml", "tags": ["plants", "plantml", "onnx"]}
    if any(target.kind != "value" for target in contract.targets):
        found["pipeline_tag"] = "image-classification"
    if plan.pretrained:
        found["base_model"] = _base_model(plan.backbone)
    found["datasets"] = [dataset]
    found["metrics"] = sorted(
        {_HF_METRICS[name] for report in reports for name in report.scores if name in _HF_METRICS}
    )
    kinds = {target.name: target.kind for target in contract.targets}
    found["model-index"] = [
        {
            "name": f"{dataset}-{digest[:12]}",
            "results": [_result(report, kinds[report.target], dataset, contract) for report in reports],
        }
    ]
    return found


def _base_model(backbone: str) -> str:
    """The backbone's name on the hub."""
    import timm

    config: Any = timm.models.get_pretrained_cfg(backbone)
    return str(getattr(config, "hf_hub_id", None) or f"timm/{backbone}")


def _result(report: Report, kind: str, dataset: str, contract: Contract) -> dict[str, Any]:
    values = [
        {"type": kind_, "name": f"{report.target} {name}", "value": round(report.scores[name], 4)}
        for name, kind_ in _HF_METRICS.items()
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
    found = []
    by_split = {split: version.usable(split)[target.name].drop_nulls() for split in SPLITS}
    for name in target.classes:
        counts = {}
        for split, column in by_split.items():
            has = column.list.contains(name) if target.kind == "multilabel" else column == name
            counts[split] = int(has.sum() or 0)
        found.append((name, counts))
    return found


def train_counts(version: Version, target: Target) -> dict[str, int]:
    """Usable training photos of each class."""
    return {name: counts["train"] for name, counts in class_counts(version, target)}


def _value_range(version: Version, target: Target) -> dict[str, str]:
    found = {}
    for split in SPLITS:
        held = version.usable(split)[target.name].drop_nulls().to_numpy()
        if len(held):
            found[split] = f"{len(held)} photos, {held.min():.4g} to {held.max():.4g}, mean {held.mean():.4g}"
    return found


def few_photos(version: Version, targets: Sequence[Target]) -> list[str]:
    """In words, the classes that there are few photos of to learn from or to judge by."""
    return [
        f"{target.name} {name} ({counts['train']} to learn from, {counts['val']} to judge by)"
        for target in targets
        for name, counts in class_counts(version, target)
        if counts["train"] < FEW or counts["val"] < FEW / 2
    ]


def _slug(url: str) -> str:
    """The dataset's name as the hub allows names: its last segment, in letters, digits, `-`, `_` and `.`."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", url.rstrip("/").rsplit("/", 1)[-1]).strip("-.") or "dataset"
