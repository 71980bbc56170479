"""How good a network is on a split while it learns."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from plantml import metrics
from plantml.concurrency import Stop
from plantml.metrics import Report
from plantml.model.network import PlantNet
from plantml.targets import Target
from plantml.train import distributed
from plantml.train.batches import Batch
from plantml.train.losses import total_loss
from plantml.train.plan import Plan


@dataclass(frozen=True)
class Judged:
    """The loss and the reports of one split."""

    loss: float
    reports: list[Report]


def evaluate(net: PlantNet, batches: Iterable[Batch], plan: Plan, stop: Stop) -> Judged | None:
    """Judge a network on this process's share of the photos, together with the others.

    It is left in training mode. None if a stop was asked for meanwhile.
    """
    found: list[dict[str, Tensor]] = []
    device = next(net.parameters()).device
    net.eval()
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=plan.precision == "bf16"):
        for batch in batches:
            # Several processes must agree when they stop, and do so between steps.
            if stop and distributed.size() == 1:
                return None
            logits = net(batch["image"].to(device))
            found.append(
                {f"logits.{name}": logits[name].float().cpu() for name in logits}
                | {name: batch[name] for name in logits}
            )
    net.train()
    parts = [part for share in distributed.gathered(found) for part in share]
    joined = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    return judge(net, plan.targets, {name: joined[f"logits.{name}"] for name in net.heads}, joined)


def judge(net: PlantNet, targets: Sequence[Target], logits: dict[str, Tensor], labels: dict[str, Any]) -> Judged:
    """The loss and the reports of logits and labels by target."""
    scales = {name: scale.cpu() for name, scale in net.scales().items()}
    loss = float(total_loss(logits, labels, targets, scales=scales))
    truth = {target.name: labels[target.name].numpy() for target in targets}
    outputs = {target.name: probabilities(target, logits[target.name]).numpy() for target in targets}
    return Judged(loss, metrics.reports_of(targets, truth, outputs))


def probabilities(target: Target, logits: Tensor) -> Tensor:
    """Uncalibrated probabilities [N, classes], or values [N, 1], of one target's logits."""
    if target.kind == "value":
        return logits
    return logits.softmax(dim=1) if target.kind == "class" else logits.sigmoid()
