"""Augmentation for plants: changes that come from the camera, the hand and the weather, and keep the diagnosis.

Every random choice is a function of (seed, epoch, photo), never of worker or order.
"""

import functools
import hashlib
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from plantml.imaging import Pixels
from plantml.train.batches.backgrounds import replace_background

# Without it, albumentations looks for a newer version of itself on import.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as alb

_BACKGROUND = 1
"""What tells the random numbers of backgrounds from others of the same seed."""


@dataclass(frozen=True)
class Augmentation:
    """The augmentation of training photos; cheap to pickle for worker processes.

    Yellow and brown are symptoms. So hue stays within a few degrees, saturation within a fifth, and the colour
    temperature between a cloudy noon and a late afternoon. Shadows darken but keep colours. Blur, noise and JPEG
    artefacts are too weak to hide a rust pustule of a few pixels.

    Attributes:
        height: of the result, pixels.
        width: of the result, pixels.
        strength: 0 only resizes, 1 is the default, 2 is strong.
        background: share of photos whose background is replaced, unless the strength is 0.
    """

    height: int
    width: int
    strength: float
    background: float = 0.0

    def __call__(self, pixels: Pixels, seed: int) -> Pixels:
        """Augment a photo, uint8 [H, W, 3], to uint8 [height, width, 3]."""
        if self.strength and self.background:
            random = np.random.default_rng([seed, _BACKGROUND])
            pixels = replace_background(pixels, random) if random.random() < self.background else pixels
        transform = _transform(self)
        transform.set_random_seed(seed)
        result: Pixels = np.ascontiguousarray(transform(image=np.ascontiguousarray(pixels))["image"])
        return result


def seed_for(seed: int, epoch: int, key: int) -> int:
    """The random seed of one photo in one epoch: 32 bits of a hash. `key` identifies the photo."""
    text = f"{seed}:{epoch}:{key}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")


@functools.lru_cache(maxsize=4)
def _transform(augmentation: Augmentation) -> Any:
    size, strength = (augmentation.height, augmentation.width), augmentation.strength
    if strength == 0:
        return alb.Compose([alb.Resize(*size, interpolation=3)])
    return alb.Compose(
        [
            alb.Rotate(limit=30 * strength, border_mode=0, fill=128, p=0.4),
            alb.RandomResizedCrop(
                size, scale=(max(0.25, 1 - 0.5 * strength), 1.0), ratio=(0.8, 1.25), interpolation=3, p=1
            ),
            alb.HorizontalFlip(p=0.5),
            alb.VerticalFlip(p=0.5),
            alb.RandomRotate90(p=0.5),
            *_appearance(strength),
        ]
    )


def change_appearance(pixels: Pixels, strength: float, seed: int) -> Pixels:
    """Change light and sharpness of a photo, uint8 [H, W, 3], and leave every pixel in its place."""
    if strength == 0:
        return pixels
    transform = _appearance_alone(strength)
    transform.set_random_seed(seed)
    changed: Pixels = np.ascontiguousarray(transform(image=pixels)["image"])
    return changed


@functools.lru_cache(maxsize=4)
def _appearance_alone(strength: float) -> Any:
    return alb.Compose(_appearance(strength))


def _appearance(strength: float) -> list[Any]:
    return [
        _light(strength),
        alb.RandomShadow(
            shadow_roi=(0, 0, 1, 1),
            shadow_intensity_range=(0.1 * strength, 0.25 * strength),
            p=min(1, 0.1 * strength),
        ),
        alb.OneOf(
            [
                alb.GaussianBlur(blur_limit=(3, 3)),
                alb.GaussNoise(std_range=(0.01, 0.03)),
                alb.ImageCompression(quality_range=(max(30, round(90 - 30 * strength)), 95)),
            ],
            p=0.2,
        ),
    ]


def _light(strength: float) -> Any:
    light = 0.2 * strength
    jitter = alb.ColorJitter(
        brightness=(1 - light, 1 + light),
        contrast=(1 - light, 1 + light),
        saturation=(1 - light, 1 + light),
        hue=(-0.02 * strength, 0.02 * strength),
        p=0.7,
    )
    # 6,000 K is the library's neutral white.
    warm, cold = round(6000 - 1000 * min(strength, 2)), round(6000 + 1500 * min(strength, 2))
    return alb.Sequential([jitter, alb.PlanckianJitter(temperature_limit=(warm, cold), p=0.2)], p=1)
