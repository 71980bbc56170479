"""Defects that are planted on purpose: where they go, and what they do to a photo and to its file.

They imitate real collections: exact and edited copies, damaged files, wrong labels and file extensions, rotated
pixels, and near-duplicates under another plant.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import cycle

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from plantml.synth.scene import SynthPhoto, outline_leaves
from plantml.synth.spec import PlantClass, SynthSpec, parse_class, slot_of

TURN_DEGREES = 25
_ORIENTATION_TAG = 0x0112
_STORED_AS = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
"""How the pixels lie in the file for an EXIF orientation: the inverse of what a viewer does."""


@dataclass(frozen=True)
class Defect:
    """What is wrong with one image. `source` is the index of the photo it was made from, if from another."""

    kind: str
    source: int | None = None


@dataclass(frozen=True)
class DefectivePhoto:
    """A photo as it is delivered: what it now shows, its file, and what the truth about it is.

    `photo` has the labels as delivered. `detail` holds words of the form key=value.
    """

    photo: SynthPhoto
    data: bytes
    extension: str = "jpg"
    detail: str = ""


@dataclass(frozen=True)
class _Case:
    """A photo that is to be made defective, for the place `index` in the dataset."""

    spec: SynthSpec
    index: int
    photo: SynthPhoto
    rng: np.random.Generator

    @property
    def image(self) -> Image.Image:
        return Image.fromarray(self.photo.pixels)


def encode_jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    """The file that the camera would save."""
    return _jpeg(Image.fromarray(pixels), quality)


def another_class(spec: SynthSpec, own: str, rng: np.random.Generator) -> PlantClass:
    """A class that is not `own`: mostly another disease of the same plant, as people err."""
    others = [parse_class(name) for name in spec.classes if name != own]
    alike = [other for other in others if other.category == parse_class(own).category]
    pool = alike if alike and rng.random() < 0.75 else others
    return pool[int(rng.integers(len(pool)))]


def apply_defect(spec: SynthSpec, index: int, defect: Defect, photo: SynthPhoto) -> DefectivePhoto:
    """Make the file of image `index` from `photo`, which is the defect's source where it has one."""
    return _DEFECTS[defect.kind](_Case(spec, index, photo, np.random.default_rng((spec.seed, index, 4))))


def _saved(photo: SynthPhoto, detail: str = "", extension: str = "jpg") -> DefectivePhoto:
    return DefectivePhoto(photo, encode_jpeg(photo.pixels, photo.quality), extension, detail)


def _exact_duplicate(case: _Case) -> DefectivePhoto:
    return _saved(case.photo)


def _near_duplicate(case: _Case) -> DefectivePhoto:
    """Smaller and saved anew."""
    scale, quality = case.rng.uniform(0.5, 0.9), int(case.rng.integers(40, 76))
    height, width = (max(16, round(side * scale)) for side in case.photo.leaves.shape)
    pixels = case.image.resize((width, height), Image.Resampling.BICUBIC)
    leaves = Image.fromarray(case.photo.leaves).resize((width, height), Image.Resampling.NEAREST)
    small = _reshaped(replace(case.photo, quality=quality), np.asarray(pixels), np.asarray(leaves))
    return _saved(small, f"scale={scale:.3f} quality={quality}")


def _leak(case: _Case) -> DefectivePhoto:
    """A near-duplicate that claims to show the plant whose turn it would have been."""
    copy = _near_duplicate(case)
    claimed = replace(copy.photo, plant=slot_of(case.spec, case.index).plant)
    return replace(copy, photo=claimed, detail=f"plant={case.photo.plant} {copy.detail}")


def _flip(case: _Case) -> DefectivePhoto:
    axis, name = (1, "horizontal") if case.rng.random() < 0.7 else (0, "vertical")
    flipped = _reshaped(case.photo, np.flip(case.photo.pixels, axis), np.flip(case.photo.leaves, axis))
    return _saved(flipped, f"axis={name}")


def _turn(case: _Case) -> DefectivePhoto:
    """Turned about its middle, with black corners, as augmented copies are stored."""
    degrees = TURN_DEGREES if case.rng.random() < 0.5 else -TURN_DEGREES
    pixels = np.asarray(case.image.rotate(degrees, Image.Resampling.BICUBIC))
    leaves = np.asarray(Image.fromarray(case.photo.leaves).rotate(degrees))
    return _saved(_reshaped(case.photo, pixels, leaves), f"degrees={degrees}")


def _crop(case: _Case) -> DefectivePhoto:
    """A window of 55 to 85 % of each side around some place on a leaf."""
    rng, (height, width) = case.rng, case.photo.leaves.shape
    h, w = round(height * rng.uniform(0.55, 0.85)), round(width * rng.uniform(0.55, 0.85))
    rows, cols = np.nonzero(case.photo.leaves)
    at = int(rng.integers(len(rows)))
    y = min(max(int(rows[at]) - h // 2, 0), height - h)
    x = min(max(int(cols[at]) - w // 2, 0), width - w)
    window = (slice(y, y + h), slice(x, x + w))
    cropped = _reshaped(case.photo, case.photo.pixels[window], case.photo.leaves[window])
    return _saved(cropped, f"x={x} y={y} w={w} h={h}")


def _zero_bytes(case: _Case) -> DefectivePhoto:
    return DefectivePhoto(case.photo, b"")


def _truncated(case: _Case) -> DefectivePhoto:
    data = encode_jpeg(case.photo.pixels, case.photo.quality)
    size = int(len(data) * case.rng.uniform(0.4, 0.85))
    return DefectivePhoto(case.photo, data[:size], detail=f"bytes={size} of={len(data)}")


def _wrong_label(case: _Case) -> DefectivePhoto:
    """Under another class."""
    photo, rng = case.photo, case.rng
    claimed = another_class(case.spec, photo.class_name, rng)
    severity = photo.severity or round(rng.uniform(0.01, 0.3), 4)
    mislabelled = replace(
        photo,
        class_name=claimed.name,
        category=claimed.category,
        health=claimed.health,
        disease=claimed.disease,
        severity=0.0 if claimed.look == "healthy" else severity,
    )
    return _saved(mislabelled, f"class={photo.class_name} severity={photo.severity:.4f}")


def _wrong_extension(case: _Case) -> DefectivePhoto:
    if case.rng.random() < 0.5:
        return _saved(case.photo, "format=jpeg", extension="png")
    file = io.BytesIO()
    case.image.save(file, "PNG", compress_level=1)
    return DefectivePhoto(case.photo, file.getvalue(), extension="jpg", detail="format=png")


def _exif_turn(case: _Case) -> DefectivePhoto:
    """The pixels lie turned in the file, and a tag says how to turn them back."""
    orientation = int(case.rng.choice(tuple(_STORED_AS)))
    exif = Image.Exif()
    exif[_ORIENTATION_TAG] = orientation
    stored = case.image.transpose(_STORED_AS[orientation])
    data = _jpeg(stored, case.photo.quality, exif.tobytes())
    return DefectivePhoto(case.photo, data, detail=f"orientation={orientation}")


_DEFECTS: Mapping[str, Callable[[_Case], DefectivePhoto]] = {
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
DEFECTS = tuple(_DEFECTS)
"""All kinds of defects, in the order in which they are dealt out."""

_COPIES = ("exact_duplicate", "near_duplicate", "flip", "turn", "crop", "leak", "conflicting_label")
_RELABELLED = ("wrong_label", "conflicting_label")


@lru_cache(maxsize=4)
def plan_defects(spec: SynthSpec) -> Mapping[int, Defect]:
    """Which images get which defect. Kinds are dealt in turn, so that few defects are of many kinds.

    Copies are made from photos without a defect, of the same class where there is one.
    """
    count = max(1, round(spec.defects * spec.images)) if spec.defects else 0
    rng = np.random.default_rng((spec.seed, 3))
    defective = {int(index) for index in rng.permutation(spec.images)[:count]}
    kinds = cycle(kind for kind in DEFECTS if len(spec.classes) > 1 or kind not in _RELABELLED)
    return {index: _defect_at(spec, index, next(kinds), defective) for index in sorted(defective)}


def _defect_at(spec: SynthSpec, index: int, kind: str, defective: set[int]) -> Defect:
    if kind not in _COPIES:
        return Defect(kind)
    source = _source_for(spec, index, kind, defective)
    if kind == "leak" and _same_plant(spec, index, source):
        return Defect("near_duplicate", source)  # no other plant to claim
    return Defect(kind, source)


def _source_for(spec: SynthSpec, index: int, kind: str, defective: set[int]) -> int:
    """A photo without a defect: if possible of the class of `index`, and for a leak of another plant."""
    rng = np.random.default_rng((spec.seed, index, 5))
    step = len(spec.classes)
    of_class = range(index % step, spec.images, step)
    for at in rng.integers(0, len(of_class), 60):
        source = of_class[int(at)]
        if source not in defective and not (kind == "leak" and _same_plant(spec, index, source)):
            return source
    return next(source for source in range(spec.images) if source not in defective)


def _same_plant(spec: SynthSpec, one: int, other: int) -> bool:
    return slot_of(spec, one).plant == slot_of(spec, other).plant


def _reshaped(photo: SynthPhoto, pixels: NDArray[np.uint8], leaves: NDArray[np.uint8]) -> SynthPhoto:
    leaves, boxes = outline_leaves(leaves)
    return replace(photo, pixels=np.ascontiguousarray(pixels), leaves=leaves, boxes=boxes)


def _jpeg(image: Image.Image, quality: int, exif: bytes = b"") -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, exif=exif)
    return file.getvalue()
