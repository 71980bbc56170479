"""The network as Lightning trains it: loss, optimiser, schedule, validation outputs."""

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from plantml import metrics
from plantml.metrics import Report
from plantml.network import PlantNet
from plantml.targets import Target
from plantml.train.data import Batch
from plantml.train.losses import total_loss
from plantml.train.recipe import Plan


class PlantModule(pl.LightningModule):
    """Wraps a `PlantNet`.

    What is judged, and kept, is the moving average of the weights where the plan has one (Polyak and Juditsky
    1992, "Acceleration of stochastic approximation by averaging"). After each validation epoch `reports`,
    `val_loss` and `train_loss` hold its result.
    """

    def __init__(self, net: PlantNet, plan: Plan, steps: int) -> None:
        super().__init__()
        self.net, self.plan, self.steps = net, plan, steps
        self.average: AveragedModel | None = None
        if plan.ema:
            # It starts at the first step's weights; batch statistics are averaged too.
            decay: Any = get_ema_multi_avg_fn
            self.average = AveragedModel(net, multi_avg_fn=decay(plan.ema), use_buffers=True)
        self.reports: list[Report] = []
        self.val_loss = self.train_loss = math.nan
        self._train: list[Tensor] = []
        self._val: list[dict[str, Tensor]] = []

    def on_train_epoch_start(self) -> None:
        self._train = []

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Loss of one batch."""
        # Dropout and stochastic depth become a function of seed and step, so that a resumed run draws the
        # same numbers as one that was never interrupted.
        torch.manual_seed((self.plan.seed * 1_000_003 + self.global_step) % 2**63)
        loss = total_loss(
            self.net(batch["image"]),
            batch,
            self.plan.targets,
            smoothing=self.plan.label_smoothing,
            scales=self.net.scales(),
            weights=self.plan.class_weights,
        )
        self._train.append(loss.detach())
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        if self.average is not None:
            self.average.update_parameters(self.net)

    def on_validation_epoch_start(self) -> None:
        self._val = []

    def validation_step(self, batch: Batch, _: int) -> None:
        """Logits and labels of one batch, kept for the epoch's end."""
        judged = self.net if self.average is None else self.average.module
        logits = judged(batch["image"])
        self._val.append(
            {f"logits.{name}": logits[name].float().cpu() for name in logits}
            | {name: batch[name].cpu() for name in logits}
        )

    def on_validation_epoch_end(self) -> None:
        joined = {key: torch.cat([part[key] for part in self._val]) for key in self._val[0]}
        logits = {target.name: joined[f"logits.{target.name}"] for target in self.plan.targets}
        scales = {name: scale.cpu() for name, scale in self.net.scales().items()}
        self.val_loss = float(total_loss(logits, joined, self.plan.targets, scales=scales))
        self.train_loss = float(torch.stack(self._train).mean()) if self._train else math.nan
        found = [
            metrics.report_encoded(
                target, joined[target.name].numpy(), probabilities(target, logits[target.name]).numpy()
            )
            for target in self.plan.targets
        ]
        self.reports = [report for report in found if report is not None]

    def configure_optimizers(self) -> Any:
        """AdamW, gentler on the pretrained backbone, without decay on norms and biases; warm-up and cosine."""
        groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        for name, parameter in self.net.named_parameters():
            rate = self.plan.lr if name.startswith("heads.") else self.plan.backbone_lr
            decay = self.plan.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
        optimiser = torch.optim.AdamW(
            [{"params": found, "lr": rate, "weight_decay": decay} for (rate, decay), found in groups.items()]
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self._rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self, step: int) -> float:
        warm = max(1, round(self.plan.warmup * self.steps))
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, self.steps - warm))))


def probabilities(target: Target, logits: Tensor) -> Tensor:
    """Uncalibrated probabilities [N, classes], or values [N, 1], of one target's logits."""
    if target.kind == "value":
        return logits
    return logits.softmax(dim=1) if target.kind == "class" else logits.sigmoid()
