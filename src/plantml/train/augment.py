"""Augmentation for plants: what a camera, a hand and the weather change, and a diagnosis does not.

Every random choice is a function of (seed, epoch, photo), never of worker or order.
"""

import hashlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from plantml.images import Pixels

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it looks for a newer version of itself, and says so
    import albumentations as alb

Augment = Callable[[Pixels, int], Pixels]
"""From pixels [H, W, 3] and a random seed to pixels at the model's size."""


def training(size: tuple[int, int], strength: float) -> Augment:
    """The augmentation of training photos.

    Hue stays within a few degrees and saturation within a fifth: yellow and brown are symptoms. Sharpness
    and noise stay below what hides a rust pustule of a few pixels.

    Args:
        size: height and width of the result, pixels.
        strength: 0 only resizes, 1 is the default, 2 is strong.
    """
    height, width = size
    if strength == 0:
        return _seeded(alb.Compose([alb.Resize(height, width, interpolation=3)]))
    low = max(0.25, 1 - 0.5 * strength)
    light = 0.2 * strength
    return _seeded(
        alb.Compose(
            [
                alb.Rotate(limit=30 * strength, border_mode=0, fill=128, p=0.4),
                alb.RandomResizedCrop((height, width), scale=(low, 1.0), ratio=(0.8, 1.25), interpolation=3, p=1),
                alb.HorizontalFlip(p=0.5),
                alb.VerticalFlip(p=0.5),
                alb.RandomRotate90(p=0.5),
                alb.ColorJitter(
                    brightness=(1 - light, 1 + light),
                    contrast=(1 - light, 1 + light),
                    saturation=(1 - light, 1 + light),
                    hue=(-0.02 * strength, 0.02 * strength),
                    p=0.7,
                ),
                alb.OneOf([alb.GaussianBlur(blur_limit=(3, 3)), alb.GaussNoise(std_range=(0.01, 0.03))], p=0.15),
            ]
        )
    )


def seed_for(seed: int, epoch: int, image_id: str) -> int:
    """The random seed of one photo in one epoch: 32 bits of a hash."""
    text = f"{seed}:{epoch}:{image_id}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")


def _seeded(transform: Any) -> Augment:
    def augment(pixels: Pixels, seed: int) -> Pixels:
        transform.set_random_seed(seed)
        result: Pixels = np.ascontiguousarray(transform(image=np.ascontiguousarray(pixels))["image"])
        return result

    return augment
