"""The network as Lightning trains it: loss, optimiser, schedule."""

import math
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from plantml.model.network import PhotoNet, PlantNet
from plantml.train import distributed
from plantml.train.bare_rows import BareRows
from plantml.train.batches.loader import Batch
from plantml.train.batches.mixup import MixedBatch, mix
from plantml.train.covariates import COVARIATES, RATE, hidden_at_random, thinned_at_random
from plantml.train.losses import counts, total_loss
from plantml.train.plan import Plan


class PhotoModule(pl.LightningModule):
    """Wraps a network with a backbone.

    Where the plan sets a moving average of the weights, that average is evaluated and kept (Polyak and Juditsky
    1992, "Acceleration of stochastic approximation by averaging").

    Attributes:
        step: steps done, those before an interruption included.
        steps: of the whole training; the learning rate reaches zero at the end.
        losses: of this epoch's steps.
    """

    def __init__(self, net: PhotoNet, plan: Plan) -> None:
        super().__init__()
        self.net, self.plan = net, plan
        self.step, self.steps = 0, plan.epochs * plan.epoch_steps
        self.average: AveragedModel | None = None
        if plan.ema:
            # It starts at the weights of the first step; batch statistics are averaged too.
            decay: Any = get_ema_multi_avg_fn
            self.average = AveragedModel(net, multi_avg_fn=decay(plan.ema), use_buffers=True)
            self.average.requires_grad_(requires_grad=False)
        self.losses: list[Tensor] = []

    @property
    def averaged_net(self) -> PhotoNet:
        """The network to evaluate: the moving average if there is one."""
        if self.average is None or not self.average.n_averaged:
            return self.net
        return cast("PhotoNet", self.average.module)

    def on_train_batch_start(self, *_: Any) -> None:
        optimiser: Any = self.optimizers()
        rate = self.rate(self.step)
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * rate

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Loss of one batch."""
        # Dropout and the like depend on seed and step only, so that a resumed run draws the same
        # random numbers as an uninterrupted one.
        torch.manual_seed((self.plan.seed * 1_000_003 + self.step * self.plan.world + distributed.rank()) % 2**63)
        loss = self.loss(batch)
        self.losses.append(loss.detach().float().cpu())
        return loss

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a training batch, a scalar."""
        raise NotImplementedError

    def finish_step(self) -> None:
        """Count a step and update the moving average; to be called right after the optimiser's step."""
        self.step += 1
        if self.average is not None:
            self.average.update_parameters(self.net)

    def configure_optimizers(self) -> Any:
        """AdamW with layer-wise lower rates towards the pixels, without decay on norms and biases."""
        groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        depth = depths(self.net.backbone) if self.plan.layer_decay < 1 else {}
        deepest = max(depth.values(), default=0)
        for name, parameter in self.net.named_parameters():
            if not name.startswith("backbone."):
                rate = self.plan.lr * (RATE if name.startswith("covariates.") else 1)
            else:
                below = deepest - depth.get(name.removeprefix("backbone."), deepest)
                rate = self.plan.backbone_lr * self.plan.layer_decay**below
            decay = self.plan.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
        return torch.optim.AdamW(
            [
                {"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay}
                for (rate, decay), parameters in groups.items()
            ],
            # Twice as fast on CPUs, for tensors as small as these. Lightning refuses to clip gradients for it in mixed
            # precision.
            fused=self.plan.precision == "32",
        )

    def rate(self, step: int) -> float:
        """The learning rate at a step as a share of its peak: linear warm-up, then cosine decay."""
        warm = max(1, round(self.plan.warmup * self.steps))
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, self.steps - warm))))


class PlantModule(PhotoModule):
    """Trains a `PlantNet`: blended batches, one loss for all targets; with `bare`, also of rows without a photo."""

    net: PlantNet

    def __init__(self, net: PlantNet, plan: Plan, bare: BareRows | None = None) -> None:
        super().__init__(net, plan)
        self.bare = bare

    def loss(self, batch: Batch) -> Tensor:
        """See `PhotoModule.loss`."""
        mixed = mix(batch, self.plan, self.step, distributed.rank())
        embedding = self.net.embed(mixed.image)
        # With covariates, half of the loss is that of the photos alone, which must do without them.
        outputs = [self.net.classify(embedding)]
        if COVARIATES in batch:
            seed = self.plan.seed, self.step, distributed.rank()
            outputs.append(self.net.classify(thinned_at_random(embedding, *seed), self._encoded(mixed, *seed)))
        parts = (
            share / len(outputs) * self._loss(logits, labels)
            for logits in outputs
            for labels, share in zip(mixed.labels, mixed.shares, strict=True)
        )
        loss = sum(parts, torch.zeros(()))
        if self.bare is None:
            return loss
        rank, size = distributed.rank(), distributed.world_size()
        return loss + self.bare.loss(self.net, self.plan, [self.step], self.plan.batch_size, rank=rank, size=size)

    def _encoded(self, mixed: MixedBatch, *seed: int) -> Tensor:
        """Encoded covariates of a batch, some of them hidden, blended as the photos are."""
        encoded = (self.net.encode(hidden_at_random(labels[COVARIATES], *seed)) for labels in mixed.labels)
        blended = (share * each for share, each in zip(mixed.shares, encoded, strict=True) if each is not None)
        return sum(blended, torch.zeros((), device=mixed.image.device))

    def _loss(self, logits: dict[str, Tensor], labels: Batch) -> Tensor:
        plan = self.plan
        weights = plan.class_weights if plan.balance == "weights" else {}  # otherwise they are for sampling
        # Each process divides by the mean count over processes, so that their averaged gradients equal
        # those of one process with the whole batch.
        counted = distributed.sum_over_processes(counts(labels, plan.targets, weights)) / distributed.world_size()
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
    """The stage of each parameter of a timm backbone, counted from the input; empty if timm defines none."""
    from timm.models import group_parameters

    matcher = getattr(backbone, "group_matcher", None)
    if matcher is None:
        return {}
    stages: dict[int, list[str]] = group_parameters(backbone, matcher(coarse=True))
    return {name: stage for stage, (_, names) in enumerate(sorted(stages.items())) for name in names}
