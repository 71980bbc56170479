"""One photo from start to end: a plant, its leaves, their disease, the ground, the light, the camera."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plantml.synth import camera, ground, leaf, species, surface, symptoms
from plantml.synth.canvas import Canvas, cast_shadow
from plantml.synth.noise import Plane
from plantml.synth.picture import Colours, Picture, clipped, scale
from plantml.synth.spec import SEVERITIES, Slot, SynthSpec, slot_of

Box = tuple[int, int, int, int]
"""x, y, width and height in pixels."""

PAINTED = 1024
"""The longest side that is painted in pixels; larger photos are enlarged from it."""

_LEAST_SHOWN = 0.004
"""A leaf that shows on less than this share of the photo gets no box."""


@dataclass(frozen=True)
class SynthPhoto:
    """A synthetic photo and the truth about it.

    Attributes:
        pixels: uint8 RGB, shape (H, W, 3).
        leaves: uint8, shape (H, W): 0 is no leaf, k is where the leaf in `boxes[k - 1]` is seen.
        class_name: as in the spec, `category___disease`.
        category: the plant.
        health: `healthy` or `diseased`.
        disease: as in the class name; `none` for healthy plants.
        severity: share of the visible leaf surface with symptoms, 0..1; 0 for healthy plants only.
        boxes: (x, y, w, h) in pixels around the visible part of each leaf.
        plant: which plant it is; 2 to 6 photos show the same one.
        background: `soil`, `pot`, `lab` or `field`.
        quality: JPEG quality that the camera saves with.
    """

    pixels: NDArray[np.uint8]
    leaves: NDArray[np.uint8]
    class_name: str
    category: str
    health: str
    disease: str
    severity: float
    boxes: tuple[Box, ...]
    plant: str
    background: str
    quality: int


@dataclass(frozen=True)
class _Plant:
    """What all photos of one plant share; `severity` is that of a typical leaf, if it is diseased."""

    shape: species.LeafShape
    face: surface.Complexion
    background: str
    severity: float
    zoom: float


def render(spec: SynthSpec, index: int) -> SynthPhoto:
    """Photo number `index`: a pure function of the seed, the classes, the size and the index."""
    slot = slot_of(spec, index)
    plant = _plant_of(slot, spec)
    rng = np.random.default_rng(slot.photo_key)
    size, (height, width) = spec.shape, painted_size(spec)
    picture = Picture(rng, height, width, towards=rng.uniform(0, 2 * np.pi))

    canvas = _pose(picture, plant)
    colours, lesions = _colour(picture, canvas, plant, slot.shown.look)
    pixels = camera.expose(picture, _light(picture, canvas, plant, colours), size)
    leaves, boxes = outline_leaves(enlarged(canvas.leaf, size))
    return SynthPhoto(
        pixels=pixels,
        leaves=leaves,
        class_name=slot.shown.name,
        category=slot.shown.category,
        health=slot.shown.health,
        disease=slot.shown.disease,
        severity=0.0 if lesions is None else max(round(float(np.mean(lesions[canvas.leaf > 0] > 0.5)), 4), 0.001),
        boxes=boxes,
        plant=slot.plant,
        background=plant.background,
        quality=int(rng.integers(72, 97)),
    )


def painted_size(spec: SynthSpec) -> tuple[int, int]:
    """(height, width) in which photos are painted, in pixels."""
    shrink = min(1.0, PAINTED / max(spec.shape))
    return round(spec.shape[0] * shrink), round(spec.shape[1] * shrink)


def outline_leaves(leaves: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], tuple[Box, ...]]:
    """Number the leaves that are worth a box from 1 without gaps, and box them. The others become 0."""
    numbers = np.zeros(256, np.uint8)
    boxes: list[Box] = []
    areas = np.bincount(leaves.ravel(), minlength=2)[1:]
    least = min(_LEAST_SHOWN * leaves.size, float(areas.max()))
    for number in np.flatnonzero((areas >= least) & (areas > 0)) + 1:
        boxes.append(bounds(leaves == number))
        numbers[number] = len(boxes)
    return numbers[leaves], tuple(boxes)


def bounds(mask: NDArray[np.bool_]) -> Box:
    """The smallest box around the true pixels, of which there is one at least."""
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(cols[0]), int(rows[0])
    return x, y, int(cols[-1]) + 1 - x, int(rows[-1]) + 1 - y


def _plant_of(slot: Slot, spec: SynthSpec) -> _Plant:
    rng = np.random.default_rng(slot.plant_key)
    low, high = spec.severity
    return _Plant(
        shape=species.shape_of(slot.shown.category),
        face=surface.complexion_of(rng),
        background=tuple(ground.PAINTERS)[int(rng.integers(len(ground.PAINTERS)))],
        severity=math.exp(rng.uniform(math.log(low), math.log(high))),
        zoom=spec.zoom,
    )


def _pose(picture: Picture, plant: _Plant) -> Canvas:
    """Put one to four leaves of the plant into the picture, the main one last and on top."""
    rng = picture.rng
    shadow = cast_shadow(picture, far=(2, 9), softness=(1.2, 6), depth=(0.3, 0.75))
    canvas = Canvas(picture.height, picture.width, shadow)
    compound = plant.shape.leaflets > 1
    count = int(rng.choice((1, 2, 3, 4), p=(0.7, 0.2, 0.1, 0.0) if compound else (0.5, 0.22, 0.16, 0.12)))
    for number in range(1, count + 1):
        main = number == count
        stance = _stance(picture, plant, main=main)
        blades = leaf.grow_leaf(plant.shape, rng, stance)
        _add_stalk(picture, canvas, stance, blades)
        tone = rng.normal(1, 0.06) if main else rng.normal(0.93, 0.12)
        for blade in blades:
            canvas.add_blade(blade, number, tone=float(np.clip(tone + rng.normal(0, 0.03), 0.6, 1.3)))
    if rng.random() < 0.13:
        surface.add_holes(picture, canvas)
    return canvas


def _stance(picture: Picture, plant: _Plant, *, main: bool) -> leaf.Stance:
    """Where a leaf goes: the main one about the middle, others around it and smaller."""
    rng, shape, side = picture.rng, plant.shape, 256 * picture.pitch
    angle = rng.uniform(0, 2 * np.pi)
    length = (rng.uniform(0.55, 1.0) if main else rng.uniform(0.35, 0.8)) * side * plant.zoom
    if shape.parallel:
        length *= 1.9  # long blades run out of the picture
    x, y = rng.normal(0, 0.05 if main else 0.26, 2) * side
    middle = leaf.Stance((picture.width / 2 + float(x), picture.height / 2 + float(y)), angle, length)
    return leaf.Stance(
        origin=middle.step(-0.42 if shape.leaflets == 3 else -0.5),
        angle=angle,
        length=length,
        bend=rng.normal(0, 0.16 if shape.parallel else 0.09),
        squeeze=rng.uniform(0.72, 1.0),
    )


def _add_stalk(picture: Picture, canvas: Canvas, stance: leaf.Stance, blades: tuple[leaf.Blade, ...]) -> None:
    """The stalk behind the leaf, and those of its leaflets."""
    rng = picture.rng
    u = np.linspace(0, 1, 8)
    length, sway = rng.uniform(0.15, 0.6), rng.normal(0, 0.15)
    stalk = np.stack((-u * length, sway * u * u * length), axis=1).astype(np.float32)
    width = max(1.2 * picture.pitch, 0.014 * stance.length)
    straight = leaf.Stance(stance.origin, stance.angle, stance.length)
    canvas.add_stalk(straight.place(stalk), width)
    top = blades[-1].stance.origin
    for blade in blades[:-1]:
        canvas.add_stalk(np.array((stance.origin, blade.stance.origin, top), np.float32), 0.8 * width)


def _colour(picture: Picture, canvas: Canvas, plant: _Plant, look: str) -> tuple[Colours, Plane | None]:
    """The leaf's colours with everything on them, and where it is diseased (None for a healthy plant)."""
    rng = picture.rng
    veins = canvas.blurred_vein(2.2 * picture.pitch)
    colours = surface.paint_blades(picture, canvas, plant.shape, plant.face, veins)
    foliage = symptoms.Foliage(
        picture=picture,
        canvas=canvas,
        colours=colours,
        veins=veins,
        surface=np.flatnonzero(canvas.leaf),
        stretched=plant.shape.parallel,
    )
    lesions = None
    if look in symptoms.PAINTERS:
        severity = plant.severity * math.exp(rng.normal(0, 0.35))
        lesions = symptoms.PAINTERS[look](foliage, min(max(severity, SEVERITIES[0]), SEVERITIES[1]))
    surface.add_distractions(foliage)
    return colours, lesions


def _light(picture: Picture, canvas: Canvas, plant: _Plant, colours: Colours) -> Colours:
    """Lay the lit leaves on the lit ground."""
    rng = picture.rng
    factor, gloss = surface.shade(picture, canvas, plant.shape)
    scale(colours, factor)
    colours += gloss
    scene = ground.PAINTERS[plant.background](picture)
    alpha, light = canvas.alpha, canvas.light
    scene += (colours - scene) * alpha
    if plant.background == "field":  # too far behind the leaf for its shadow
        light = 1 + (light - 1) * alpha
    if plant.background != "lab" and rng.random() < 0.3:  # sun through leaves above
        dapple = clipped((picture.noise("clouds", rng.uniform(0.8, 2)) - np.float32(0.5)) * 8 + np.float32(0.5))
        light = light * (1 - np.float32(rng.uniform(0.2, 0.55)) * dapple)
    scale(scene, light)
    return scene


def enlarged(leaves: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The plane at `size` (height, width), every value from the nearest pixel."""
    if leaves.shape == size:
        return leaves
    rows = (np.arange(size[0]) * leaves.shape[0]) // size[0]
    cols = (np.arange(size[1]) * leaves.shape[1]) // size[1]
    large: NDArray[np.uint8] = leaves[rows[:, None], cols]
    return large
