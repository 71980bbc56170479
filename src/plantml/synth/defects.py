"""Faults that are planted on purpose: where they go, and what they do to a photo and to its file.

They imitate what is found in real collections: copies in all degrees, damaged files, labels and names that do
not say what is inside, turned pixels, and photos of one plant that claim to show another.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import cycle
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from plantml.synth.scene import SynthPhoto, outline_leaves
from plantml.synth.spec import SynthSpec, parse_class, sitting

TURN_DEGREES = 25
_ORIENTATION_TAG = 0x0112
_STORED_AS = MappingProxyType(
    {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
)
"""How the pixels lie in the file for an EXIF orientation: the inverse of what a viewer does."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with one image. `source` is the index of the photo it was made from, if from another."""

    kind: str
    source: int | None = None


@dataclass(frozen=True)
class Faulty:
    """A photo as it is delivered: what it now shows, its file, and what the truth about it is.

    `photo` has the labels as delivered. `detail` holds words of the form key=value.
    """

    photo: SynthPhoto
    data: bytes
    extension: str = "jpg"
    detail: str = ""


@dataclass(frozen=True)
class _Case:
    """A photo that is to be spoiled, for the place `index` in the dataset."""

    spec: SynthSpec
    index: int
    photo: SynthPhoto
    rng: np.random.Generator

    @property
    def image(self) -> Image.Image:
        return Image.fromarray(self.photo.pixels)


def encode_jpeg(photo: SynthPhoto) -> bytes:
    """The file that the camera would save."""
    return _jpeg(Image.fromarray(photo.pixels), photo.quality)


def apply_fault(spec: SynthSpec, index: int, fault: Fault, photo: SynthPhoto) -> Faulty:
    """Make the file of image `index` from `photo`, which is the fault's source where it has one."""
    return _SPOILERS[fault.kind](_Case(spec, index, photo, np.random.default_rng((spec.seed, index, 4))))


def _exact_duplicate(case: _Case) -> Faulty:
    return Faulty(case.photo, encode_jpeg(case.photo))


def _near_duplicate(case: _Case) -> Faulty:
    """Smaller and saved anew."""
    scale, quality = case.rng.uniform(0.5, 0.9), int(case.rng.integers(40, 76))
    height, width = (max(16, round(side * scale)) for side in case.photo.leaves.shape)
    pixels = case.image.resize((width, height), Image.Resampling.BICUBIC)
    leaves = Image.fromarray(case.photo.leaves).resize((width, height), Image.Resampling.NEAREST)
    small = _reshaped(replace(case.photo, quality=quality), np.asarray(pixels), np.asarray(leaves))
    return Faulty(small, encode_jpeg(small), detail=f"scale={scale:.3f} quality={quality}")


def _leak(case: _Case) -> Faulty:
    """A near-duplicate that claims to show the plant whose turn it would have been."""
    copy = _near_duplicate(case)
    claimed = replace(copy.photo, plant=sitting(case.spec, case.index).plant)
    return replace(copy, photo=claimed, detail=f"plant={case.photo.plant} {copy.detail}")


def _flip(case: _Case) -> Faulty:
    axis, name = (1, "horizontal") if case.rng.random() < 0.7 else (0, "vertical")
    flipped = _reshaped(case.photo, np.flip(case.photo.pixels, axis), np.flip(case.photo.leaves, axis))
    return Faulty(flipped, encode_jpeg(flipped), detail=f"axis={name}")


def _turn(case: _Case) -> Faulty:
    """Turned about its middle, with black corners, as augmented copies are stored."""
    degrees = TURN_DEGREES if case.rng.random() < 0.5 else -TURN_DEGREES
    pixels = np.asarray(case.image.rotate(degrees, Image.Resampling.BICUBIC))
    leaves = np.asarray(Image.fromarray(case.photo.leaves).rotate(degrees))
    turned = _reshaped(case.photo, pixels, leaves)
    return Faulty(turned, encode_jpeg(turned), detail=f"degrees={degrees}")


def _crop(case: _Case) -> Faulty:
    """A window of 55 to 85 % of each side around some place on a leaf."""
    rng, (height, width) = case.rng, case.photo.leaves.shape
    h, w = round(height * rng.uniform(0.55, 0.85)), round(width * rng.uniform(0.55, 0.85))
    rows, cols = np.nonzero(case.photo.leaves)
    at = int(rng.integers(len(rows)))
    y = min(max(int(rows[at]) - h // 2, 0), height - h)
    x = min(max(int(cols[at]) - w // 2, 0), width - w)
    window = (slice(y, y + h), slice(x, x + w))
    cropped = _reshaped(case.photo, case.photo.pixels[window], case.photo.leaves[window])
    return Faulty(cropped, encode_jpeg(cropped), detail=f"x={x} y={y} w={w} h={h}")


def _zero_bytes(case: _Case) -> Faulty:
    return Faulty(case.photo, b"")


def _truncated(case: _Case) -> Faulty:
    data = encode_jpeg(case.photo)
    size = int(len(data) * case.rng.uniform(0.4, 0.85))
    return Faulty(case.photo, data[:size], detail=f"bytes={size} of={len(data)}")


def _wrong_label(case: _Case) -> Faulty:
    """Under another class: mostly another disease of the same plant, as people err."""
    photo, rng = case.photo, case.rng
    others = [parse_class(name) for name in case.spec.classes if name != photo.class_name]
    alike = [other for other in others if other.category == photo.category]
    pool = alike if alike and rng.random() < 0.75 else others
    claimed = pool[int(rng.integers(len(pool)))]
    severity = photo.severity or round(rng.uniform(0.01, 0.3), 4)
    mislabelled = replace(
        photo,
        class_name=claimed.name,
        category=claimed.category,
        health=claimed.health,
        disease=claimed.disease,
        severity=0.0 if claimed.look == "healthy" else severity,
    )
    detail = f"class={photo.class_name} severity={photo.severity:.4f}"
    return Faulty(mislabelled, encode_jpeg(photo), detail=detail)


def _wrong_extension(case: _Case) -> Faulty:
    if case.rng.random() < 0.5:
        return Faulty(case.photo, encode_jpeg(case.photo), extension="png", detail="format=jpeg")
    file = io.BytesIO()
    case.image.save(file, "PNG", compress_level=1)
    return Faulty(case.photo, file.getvalue(), extension="jpg", detail="format=png")


def _exif_turn(case: _Case) -> Faulty:
    """The pixels lie turned in the file, and a tag says how to turn them back."""
    orientation = int(case.rng.choice(tuple(_STORED_AS)))
    exif = Image.Exif()
    exif[_ORIENTATION_TAG] = orientation
    stored = case.image.transpose(_STORED_AS[orientation])
    data = _jpeg(stored, case.photo.quality, exif.tobytes())
    return Faulty(case.photo, data, detail=f"orientation={orientation}")


_SPOILERS: Mapping[str, Callable[[_Case], Faulty]] = MappingProxyType(
    {
        "exact_duplicate": _exact_duplicate,
        "near_duplicate": _near_duplicate,
        "flip": _flip,
        "turn": _turn,
        "crop": _crop,
        "zero_bytes": _zero_bytes,
        "truncated": _truncated,
        "wrong_label": _wrong_label,
        "wrong_extension": _wrong_extension,
        "exif_turn": _exif_turn,
        "leak": _leak,
        # Exact bytes of another photo, but not its class.
        "conflicting_label": _wrong_label,
    }
)
FAULTS = tuple(_SPOILERS)
"""All kinds of faults, in the order in which they are dealt out."""

_COPIES = ("exact_duplicate", "near_duplicate", "flip", "turn", "crop", "leak", "conflicting_label")
_RELABELLED = ("wrong_label", "conflicting_label")


@lru_cache(maxsize=4)
def plan_faults(spec: SynthSpec) -> Mapping[int, Fault]:
    """Which images get which fault. Kinds are dealt in turn, so that few faults are of many kinds.

    Copies are made from photos without a fault, of the same class where there is one.
    """
    count = max(1, round(spec.defects * spec.images)) if spec.defects else 0
    rng = np.random.default_rng((spec.seed, 3))
    faulty = {int(index) for index in rng.permutation(spec.images)[:count]}
    kinds = cycle(kind for kind in FAULTS if len(spec.classes) > 1 or kind not in _RELABELLED)
    plan = {index: _fault_at(spec, index, next(kinds), faulty) for index in sorted(faulty)}
    return MappingProxyType(plan)


def _fault_at(spec: SynthSpec, index: int, kind: str, faulty: set[int]) -> Fault:
    if kind not in _COPIES:
        return Fault(kind)
    source = _source_for(spec, index, kind, faulty)
    if kind == "leak" and _same_plant(spec, index, source):
        return Fault("near_duplicate", source)  # no other plant to claim
    return Fault(kind, source)


def _source_for(spec: SynthSpec, index: int, kind: str, faulty: set[int]) -> int:
    """A photo without a fault: if possible of the class of `index`, and for a leak of another plant."""
    rng = np.random.default_rng((spec.seed, index, 5))
    step = len(spec.classes)
    of_class = range(index % step, spec.images, step)
    for at in rng.integers(0, len(of_class), 60):
        source = of_class[int(at)]
        if source not in faulty and not (kind == "leak" and _same_plant(spec, index, source)):
            return source
    return next(source for source in range(spec.images) if source not in faulty)


def _same_plant(spec: SynthSpec, one: int, other: int) -> bool:
    return sitting(spec, one).plant == sitting(spec, other).plant


def _reshaped(photo: SynthPhoto, pixels: NDArray[np.uint8], leaves: NDArray[np.uint8]) -> SynthPhoto:
    leaves, boxes = outline_leaves(leaves)
    return replace(photo, pixels=np.ascontiguousarray(pixels), leaves=leaves, boxes=boxes)


def _jpeg(image: Image.Image, quality: int, exif: bytes = b"") -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, exif=exif)
    return file.getvalue()
