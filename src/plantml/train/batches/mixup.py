"""Mixup and CutMix: photos blended with others of their batch, and their labels."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from plantml.train.batches.loader import Batch
from plantml.train.plan import Plan


@dataclass(frozen=True)
class MixedBatch:
    """A batch after blending.

    Attributes:
        image: uint8 or float32 [N, H, W, 3], 0 to 255.
        labels: one or two sets for all photos.
        shares: weight of each set of labels; they sum to 1.
    """

    image: Tensor
    labels: tuple[Batch, ...]
    shares: tuple[float, ...]


def mix(batch: Batch, plan: Plan, step: int, rank: int = 0) -> MixedBatch:
    """Blend a batch as planned; depends on seed, step and rank only.

    Mixup (Zhang et al. 2018) blends each photo with another of the batch, CutMix (Yun et al. 2019) pastes a
    part of another into it. If both are enabled, each batch gets one of them at random.
    """
    image = batch["image"]
    if not (plan.mixup or plan.cutmix) or len(image) < 2:
        return MixedBatch(image, (batch,), (1.0,))
    random = np.random.default_rng([plan.seed, step, rank])
    other = torch.from_numpy(random.permutation(len(image))).to(image.device)
    cut = bool(plan.cutmix) and (not plan.mixup or random.random() < 0.5)
    alpha = plan.cutmix if cut else plan.mixup
    share = float(random.beta(alpha, alpha))
    if cut:
        height, width = image.shape[1:3]
        tall, wide = (round(side * math.sqrt(1 - share)) for side in (height, width))
        top, left = int(random.integers(height - tall + 1)), int(random.integers(width - wide + 1))
        image = image.clone()
        image[:, top : top + tall, left : left + wide] = batch["image"][other, top : top + tall, left : left + wide]
        share = 1 - tall * wide / (height * width)
    else:
        image = share * image.float() + (1 - share) * image[other].float()
    return MixedBatch(image, (batch, {name: values[other] for name, values in batch.items()}), (share, 1 - share))
