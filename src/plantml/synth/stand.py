"""One photo of many plants: a nursery tray or crop rows, with a box around each plant."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plantml.data.boxes import Box
from plantml.synth import camera, seedling, species, surface, symptoms
from plantml.synth.canvas import Canvas, cast_shadow
from plantml.synth.picture import Colours, Picture, scale
from plantml.synth.planting import Place, Planting
from plantml.synth.row import plan_row
from plantml.synth.scene import bounds, enlarged, painted_size
from plantml.synth.seedling import Seedling
from plantml.synth.spec import SEVERITIES, SynthSpec, stand_of
from plantml.synth.tray import plan_tray
from plantml.synth.view import View

_PLANNERS = {"tray": plan_tray, "row": plan_row}


@dataclass(frozen=True)
class StandPhoto:
    """A synthetic photo of many plants and the truth about it.

    Attributes:
        pixels: uint8 RGB, shape (H, W, 3).
        plants: uint8, shape (H, W): 0 is no leaf, k is where a leaf of the plant in `boxes[k - 1]` is seen.
        boxes: one around the visible part of each plant, labelled with category, health, disease, viability and
            severity; one around each empty cell, labelled with the viability `missing` alone.
        stand: which tray or rows it shows; 1 to 3 photos show the same.
        quality: JPEG quality that the camera saves with.
    """

    pixels: NDArray[np.uint8]
    plants: NDArray[np.uint8]
    boxes: tuple[Box, ...]
    stand: str
    quality: int


def render_stand(spec: SynthSpec, index: int) -> StandPhoto:
    """Photo number `index` of trays or rows: a pure function of the seed, the classes, the size and the index."""
    slot = stand_of(spec, index)
    planting = _PLANNERS[spec.layout](spec, slot.stand_key)
    rng = np.random.default_rng(slot.photo_key)
    size, (height, width) = spec.shape, painted_size(spec)
    view = planting.look(rng, height, width)
    subject = float(view.scale_at(np.zeros(2)))
    picture = Picture(rng, height, width, towards=rng.uniform(0, 2 * np.pi), subject=subject)

    of_stand = np.random.default_rng((*slot.stand_key, 2))
    canvas = _plant_all(picture, planting, view, of_stand)
    colours, severities = _colour(picture, canvas, planting, surface.complexion_of(of_stand))
    factor, gloss = surface.shade(picture, canvas, _main_shape(planting))
    scale(colours, factor)
    colours += gloss
    scene = planting.paint(picture, view)
    scene += (colours - scene) * canvas.alpha
    scale(scene, canvas.light)
    pixels = camera.expose(picture, scene, size)
    plants, boxes = _boxed(planting, view, enlarged(canvas.leaf, size), severities)
    return StandPhoto(pixels, plants, boxes, slot.stand, quality=int(rng.integers(72, 97)))


def _plants(planting: Planting) -> list[tuple[int, Place, Seedling]]:
    """Number on the canvas, place and plant of every place that has one."""
    return [(number, place, place.plant) for number, place in enumerate(planting.places, 1) if place.plant]


def _main_shape(planting: Planting) -> species.LeafShape:
    """The leaves of the first plant: at this size, those of others take the same light."""
    categories = [plant.shown.category for _, _, plant in _plants(planting)]
    return species.shape_of(categories[0] if categories else "")


def _plant_all(picture: Picture, planting: Planting, view: View, of_stand: np.random.Generator) -> Canvas:
    shadow = cast_shadow(picture, far=(5, 16), softness=(2, 7), depth=(0.3, 0.7))
    canvas = Canvas(picture.height, picture.width, shadow)
    plants = _plants(planting)
    typical_scale = picture.width / planting.extent[0]  # the same from everywhere
    leaves = {
        category: seedling.grow_leaves(category, of_stand, typical_scale)
        for category in sorted({plant.shown.category for _, _, plant in plants})
    }
    feet = {number: view.project(np.array(place.at)).tolist() for number, place, _ in plants}
    for number, place, plant in sorted(plants, key=lambda each: feet[each[0]][1]):  # nearer plants on top
        x, y = feet[number]
        seedling.put(
            canvas,
            number,
            plant,
            leaves[plant.shown.category],
            at=(x, y),
            scale=float(view.scale_at(np.array(place.at))),
            squash=view.squash,
            turn=view.turn,
        )
    return canvas


def _colour(
    picture: Picture, canvas: Canvas, planting: Planting, face: surface.Complexion
) -> tuple[Colours, dict[int, float]]:
    """The leaves' colours with all symptoms, and the severity of each plant, by its number."""
    plants = _plants(planting)
    veins = canvas.blurred_vein(2.2 * picture.pitch)
    colours = surface.paint_blades(picture, canvas, _main_shape(planting), face, veins)
    tints = np.ones((3, 256), np.float32)
    for number, _, plant in plants:
        tints[:, number] = plant.tint
    colours *= tints[:, canvas.leaf]
    severities = {}
    for number, _, plant in plants:
        severities[number] = 0.0
        if plant.severity:
            severities[number] = _sicken(picture, canvas, colours, number, plant)
    return colours, severities


def _sicken(picture: Picture, canvas: Canvas, colours: Colours, number: int, plant: Seedling) -> float:
    """Paint the symptoms of one plant, in place. The share of its visible leaves that has them."""
    shown = canvas.leaf == number
    if not shown.any():
        return 0.0
    x, y, w, h = bounds(shown)
    rows, cols = slice(y, y + h), slice(x, x + w)
    mine = canvas.leaf[rows, cols] == number
    crop = canvas.cropped(rows, cols)
    foliage = symptoms.Foliage(
        picture=Picture(picture.rng, h, w, picture.towards, subject=max(h, w)),
        canvas=crop,
        colours=colours[:, rows, cols].copy(),
        veins=crop.blurred_vein(2.2 * picture.pitch),
        surface=np.flatnonzero(mine),
        stretched=species.shape_of(plant.shown.category).parallel,
    )
    severity = plant.severity * math.exp(picture.rng.normal(0, 0.1))
    lesions = symptoms.PAINTERS[plant.shown.look](foliage, float(np.clip(severity, *SEVERITIES)))
    np.copyto(colours[:, rows, cols], foliage.colours, where=mine)
    return max(round(float(np.mean(lesions[mine] > 0.5)), 4), 0.001)


def _boxed(
    planting: Planting, view: View, leaf: NDArray[np.uint8], severities: dict[int, float]
) -> tuple[NDArray[np.uint8], tuple[Box, ...]]:
    """Plants numbered by their boxes, and the boxes."""
    numbers = np.zeros(256, np.uint8)
    boxes: list[Box] = []
    for number, place in enumerate(planting.places, 1):
        if place.plant is None:
            if place.cell is not None:
                boxes.append(_cell_box(view, place.cell, leaf.shape))
            continue
        mine = leaf == number
        if not mine.any():  # under its neighbours
            continue
        shown, severity = place.plant.shown, severities[number]
        labels: dict[str, str | float] = {
            "category": shown.category,
            "health": shown.health,
            "disease": shown.disease,
            "viability": place.plant.viability(severity),
            "severity": severity,
        }
        boxes.append(Box(*bounds(mine), labels))
        numbers[number] = len(boxes)
    return numbers[leaf], tuple(boxes)


def _cell_box(view: View, cell: NDArray[np.float64], shape: tuple[int, ...]) -> Box:
    corners = view.project(cell) * (shape[1] / view.width)
    low = np.clip(np.floor(corners.min(axis=0)), 0, None)
    high = np.clip(np.ceil(corners.max(axis=0)), None, shape[::-1])
    x, y, w, h = (int(value) for value in (*low, *(high - low)))
    return Box(x, y, w, h, {"viability": seedling.MISSING})
