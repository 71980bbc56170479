"""Evaluation of a network on the validation split during training."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from plantml import metrics
from plantml.concurrency import Stop
from plantml.model.network import PlantNet, probabilities
from plantml.targets import Target
from plantml.train import distributed
from plantml.train.batches.loader import Batch
from plantml.train.covariates import COVARIATES
from plantml.train.history import Evaluation
from plantml.train.losses import total_loss
from plantml.train.plan import Plan


def evaluate(net: PlantNet, batches: Iterable[Batch], plan: Plan, stop: Stop) -> Evaluation | None:
    """Evaluate a network, each process on its share of the photos.

    The network is left in training mode. None if a signal stopped the evaluation.
    """
    outputs: list[dict[str, Tensor]] = []
    device = next(net.parameters()).device
    net.eval()
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=plan.precision == "bf16"):
        for batch in batches:
            # Several processes must stop together, which they do between steps.
            if stop and distributed.world_size() == 1:
                return None
            columns = batch.get(COVARIATES)
            logits = net(batch["image"].to(device), None if columns is None else net.encode(columns.to(device)))
            outputs.append(
                {f"logits.{name}": logits[name].float().cpu() for name in logits}
                | {name: batch[name] for name in logits}
            )
    net.train()
    parts = [part for share in distributed.gather(outputs) for part in share]
    joined = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    return evaluate_logits(net, plan.targets, {name: joined[f"logits.{name}"] for name in net.heads}, joined)


def evaluate_logits(
    net: PlantNet, targets: Sequence[Target], logits: dict[str, Tensor], labels: dict[str, Any]
) -> Evaluation:
    """The loss and the scores of logits and labels by target."""
    scales = {name: scale.cpu() for name, scale in net.scales().items()}
    loss = float(total_loss(logits, labels, targets, scales=scales))
    truth = {target.name: labels[target.name].numpy() for target in targets}
    predictions = {target.name: probabilities(target, logits[target.name]).numpy() for target in targets}
    reports = metrics.reports_of(targets, truth, predictions)
    return Evaluation(loss, metrics.selection_score(reports), metrics.headline(reports))
