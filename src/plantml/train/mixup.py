"""Photos that are blended with others of their batch, and what they teach then."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from plantml.train.batches import Batch
from plantml.train.plan import Plan


@dataclass(frozen=True)
class Mixed:
    """A batch as the network sees it.

    Attributes:
        image: uint8 or float32 [N, H, W, 3], 0 to 255.
        labels: one or two sets for all photos.
        shares: how much each set counts; their sum is 1.
    """

    image: Tensor
    labels: tuple[Batch, ...]
    shares: tuple[float, ...]


def mixed(batch: Batch, plan: Plan, step: int, rank: int = 0) -> Mixed:
    """A batch, blended as the plan says: a function of seed, step and process.

    Mixup (Zhang et al. 2018) blends each photo with another of the batch, CutMix (Yun et al. 2019) pastes a
    part of another into it; a coin decides where both are on.
    """
    image = batch["image"]
    if not (plan.mixup or plan.cutmix) or len(image) < 2:
        return Mixed(image, (batch,), (1.0,))
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
    return Mixed(image, (batch, {name: found[other] for name, found in batch.items()}), (share, 1 - share))
