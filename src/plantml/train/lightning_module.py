"""The network as Lightning trains it: loss, optimiser, schedule."""

import math
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from plantml.model.network import PlantNet
from plantml.train import distributed
from plantml.train.batches import Batch
from plantml.train.losses import counts, total_loss
from plantml.train.mixup import mixed
from plantml.train.plan import Plan


class PlantModule(pl.LightningModule):
    """Wraps a `PlantNet`.

    What is judged, and kept, is the moving average of the weights where the plan has one (Polyak and Juditsky
    1992, "Acceleration of stochastic approximation by averaging").

    Attributes:
        step: steps done since the training began, before every interruption too.
        steps: of the whole training; the rate falls to nothing at its end.
        losses: of the steps of this epoch.
    """

    def __init__(self, net: PlantNet, plan: Plan) -> None:
        super().__init__()
        self.net, self.plan = net, plan
        self.step, self.steps = 0, plan.epochs * plan.epoch_steps
        self.average: AveragedModel | None = None
        if plan.ema:
            # It starts at the first step's weights; batch statistics are averaged too.
            decay: Any = get_ema_multi_avg_fn
            self.average = AveragedModel(net, multi_avg_fn=decay(plan.ema), use_buffers=True)
            self.average.requires_grad_(requires_grad=False)
        self.losses: list[Tensor] = []

    @property
    def judged(self) -> PlantNet:
        """The network that counts."""
        if self.average is None or not self.average.n_averaged:
            return self.net
        return cast("PlantNet", self.average.module)

    def on_train_batch_start(self, *_: Any) -> None:
        optimiser: Any = self.optimizers()
        rate = self.rate(self.step)
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * rate

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Loss of one batch."""
        # Dropout and the like become a function of seed and step, so that a resumed run draws the same
        # numbers as one that was never interrupted.
        torch.manual_seed((self.plan.seed * 1_000_003 + self.step * self.plan.world + distributed.rank()) % 2**63)
        seen = mixed(batch, self.plan, self.step, distributed.rank())
        logits = self.net(seen.image)
        parts = (share * self._loss(logits, labels) for labels, share in zip(seen.labels, seen.shares, strict=True))
        loss = sum(parts, torch.zeros(()))
        self.losses.append(loss.detach().float().cpu())
        return loss

    def stepped(self) -> None:
        """Called when a step is done, before anybody looks at what it came to."""
        self.step += 1
        if self.average is not None:
            self.average.update_parameters(self.net)

    def configure_optimizers(self) -> Any:
        """AdamW, gentler on the pretrained backbone the deeper it is, without decay on norms and biases."""
        groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        depth = depths(self.net.backbone) if self.plan.layer_decay < 1 else {}
        deepest = max(depth.values(), default=0)
        for name, parameter in self.net.named_parameters():
            if name.startswith("heads."):
                rate = self.plan.lr
            else:
                below = deepest - depth.get(name.removeprefix("backbone."), deepest)
                rate = self.plan.backbone_lr * self.plan.layer_decay**below
            decay = self.plan.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
        return torch.optim.AdamW(
            [
                {"params": found, "lr": rate, "peak": rate, "weight_decay": decay}
                for (rate, decay), found in groups.items()
            ]
        )

    def rate(self, step: int) -> float:
        """The share of its peak that a learning rate has at a step: a linear rise, then half a cosine."""
        warm = max(1, round(self.plan.warmup * self.steps))
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, self.steps - warm))))

    def _loss(self, logits: dict[str, Tensor], labels: Batch) -> Tensor:
        plan = self.plan
        weights = plan.class_weights if plan.balance == "weights" else {}  # else they say how often photos are drawn
        # Each process divides by its share of what all of them see, so that the mean of their gradients is
        # that of one process with the whole batch.
        counted = distributed.total(counts(labels, plan.targets, weights)) / distributed.size()
        return total_loss(
            logits,
            labels,
            plan.targets,
            smoothing=plan.label_smoothing,
            scales=self.net.scales(),
            weights=weights,
            shifts=plan.class_logits,
            counted=counted,
        )


def depths(backbone: torch.nn.Module) -> dict[str, int]:
    """The stage of each parameter of a timm backbone, counted from the pixels; empty if it names no stages."""
    from timm.models import group_parameters

    matcher = getattr(backbone, "group_matcher", None)
    if matcher is None:
        return {}
    stages: dict[int, list[str]] = group_parameters(backbone, matcher(coarse=True))
    return {name: place for place, (_, names) in enumerate(sorted(stages.items())) for name in names}
