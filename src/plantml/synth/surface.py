"""The colours of a leaf before any disease, the light on it, and what is on it without being a disease."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from plantml.synth.canvas import Canvas
from plantml.synth.noise import Plane
from plantml.synth.picture import Colour, Colours, Picture, blend, clipped, column, scale, unit
from plantml.synth.species import LeafShape
from plantml.synth.symptoms import Foliage

_GREENS = np.array(((0.13, 0.27, 0.17), (0.20, 0.37, 0.17), (0.30, 0.46, 0.19), (0.42, 0.56, 0.22), (0.56, 0.64, 0.27)))
"""From a bluish shade leaf to a young or starved one."""


@dataclass(frozen=True)
class Complexion:
    """How one plant's leaves look when nothing ails them.

    Attributes:
        green: the colour of the blade.
        vein: the colour of the veins.
        vein_strength: how clearly they show, 0..1.
        mottle: how uneven the green is, 0..1.
        yellowing: how yellow it has become of age or hunger, 0..1; mostly 0.
        net: how clearly the fine net of veins shows, 0..1.
    """

    green: Colour
    vein: Colour
    vein_strength: float
    mottle: float
    yellowing: float
    net: float


def complexion_of(rng: np.random.Generator) -> Complexion:
    """A plant's own green. It ranges so widely that colour alone says little about health."""
    at = rng.beta(1.5, 1.6) * (len(_GREENS) - 1)
    low = min(int(at), len(_GREENS) - 2)
    mixed = _GREENS[low] + (_GREENS[low + 1] - _GREENS[low]) * (at - low) + rng.normal(0, 0.02, 3)
    red, green, blue = mixed.tolist()
    pale = rng.uniform(0.12, 0.34)
    return Complexion(
        green=(red, green, blue),
        vein=(red + pale, green + 0.9 * pale, blue + 0.55 * pale),
        vein_strength=rng.uniform(0.35, 0.95),
        mottle=rng.uniform(0.1, 0.4),
        yellowing=rng.uniform(0.2, 0.75) if rng.random() < 0.35 else 0.0,
        net=rng.uniform(0.05, 0.22),
    )


def paint_blades(picture: Picture, canvas: Canvas, shape: LeafShape, face: Complexion, veins: Plane) -> Colours:
    """Healthy leaf colour all over the photo: green, veins, net, mottling, ageing."""
    rng = picture.rng
    clouds = picture.noise("clouds", 1.1) - np.float32(0.5)
    net = picture.noise(_net_of(shape), rng.uniform(0.9, 1.6)) - np.float32(0.3)
    rough = picture.grain("rough") - np.float32(0.5)
    bright = canvas.tone * (1 + np.float32(1.1 * face.mottle) * clouds + np.float32(0.5 * face.mottle) * rough)
    bright += np.float32(face.net) * net
    colours = bright[None] * column(face.green)
    if face.yellowing:
        where = _aged(picture, canvas, veins, clouds)
        blend(colours, (0.68, 0.66, 0.23), where * np.float32(face.yellowing))
    blend(colours, face.vein, canvas.vein * np.float32(face.vein_strength))
    return colours


def add_distractions(foliage: Foliage) -> None:
    """What every leaf may carry, diseased or not: drops, dirt, dust, a dry tip."""
    picture, rng = foliage.picture, foliage.picture.rng
    if rng.random() < 0.16:
        _add_drops(foliage)
    if rng.random() < 0.22:
        mud = picture.grain("rough") + np.float32(0.5) * picture.grain("clouds")
        share = clipped((mud - np.float32(rng.uniform(0.98, 1.12))) * np.float32(6))
        blend(foliage.colours, (0.40, 0.30, 0.20), share * np.float32(0.8))
    if rng.random() < 0.15:
        dust = picture.noise("clouds")
        blend(foliage.colours, (0.62, 0.58, 0.52), dust * np.float32(rng.uniform(0.1, 0.5)))
    if rng.random() < 0.12:
        dry = clipped((foliage.canvas.along - np.float32(rng.uniform(0.86, 0.96))) * np.float32(18))
        blend(foliage.colours, (0.52, 0.42, 0.26), dry * np.float32(0.9))


def add_holes(picture: Picture, canvas: Canvas) -> None:
    """One to five holes that insects ate."""
    rng = picture.rng
    rows, cols = np.nonzero(canvas.leaf)
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(len(rows)))
        turns = np.linspace(0, 2 * np.pi, 10, endpoint=False)
        radius = rng.uniform(1.5, 6) * picture.pitch * rng.uniform(0.6, 1.3, 10)
        x, y = cols[at] + radius * np.cos(turns), rows[at] + radius * np.sin(turns) * rng.uniform(0.5, 1)
        canvas.cut_hole(np.stack((x, y), axis=1).astype(np.float32))


def shade(picture: Picture, canvas: Canvas, shape: LeafShape) -> tuple[Plane, Plane]:
    """The light on the blades: a factor, and the gloss that is added to it, each of shape (H, W)."""
    rng = picture.rng
    veins = canvas.blurred_vein(1.4 * picture.pitch)
    net = picture.noise(_net_of(shape), rng.uniform(0.8, 1.3))
    swell = picture.noise("clouds", 1.6)
    bumps = np.float32(0.18) * net + np.float32(1.1) * veins + np.float32(1.2) * swell
    step = max(1, round(1.3 * picture.pitch))
    shift = (round(step * np.sin(picture.towards)), round(step * np.cos(picture.towards)))
    relief = bumps - np.roll(bumps, shift, (0, 1))
    # A blade is folded along its midrib: one half faces the light, the other turns away, and which of them
    # does depends on where the blade points.
    fold = (canvas.across * np.float32(6)).clip(-1, 1) * np.sin(np.float32(picture.towards) - canvas.heading)
    factor = 1 + np.float32(0.9 * shape.relief * rng.uniform(0.3, 1.1)) * relief
    factor += np.float32(rng.uniform(0.05, 0.22)) * fold
    factor -= np.float32(rng.uniform(0.0, 0.22)) * np.square(canvas.across)
    factor += np.float32(rng.uniform(0.1, 0.5)) * (swell - np.float32(0.5))
    shine = swell + np.float32(0.25) * fold + np.float32(1.5) * relief
    shine = clipped((shine - np.float32(rng.uniform(0.55, 0.85))) * np.float32(2.5))
    gloss = shine * np.float32(shape.gloss * rng.uniform(0, 0.7)) * (np.float32(0.5) + np.float32(0.8) * net)
    return np.maximum(factor, np.float32(0.25)), gloss


def _net_of(shape: LeafShape) -> str:
    """The texture of the finest veins: closed cells, or nothing that shows between parallel veins."""
    return "fine" if shape.parallel else "cells"


def _aged(picture: Picture, canvas: Canvas, veins: Plane, clouds: Plane) -> Plane:
    """Where a leaf turns yellow by itself, 0..1."""
    match int(picture.rng.integers(3)):
        case 0:  # from the tip
            return clipped(canvas.along * np.float32(2.2) - np.float32(1.2) + np.float32(1.2) * clouds)
        case 1:  # between the veins, as a lack of iron or magnesium shows
            return clipped(1 - np.float32(2.4) * veins) * clipped(clouds + np.float32(0.7))
        case _:  # from the margin
            outer = 1 - canvas.inside(7 * picture.pitch)
            return clipped(np.float32(1.7) * outer + np.float32(0.9) * clouds - np.float32(0.1))


def _add_drops(foliage: Foliage) -> None:
    """Drops of water: brighter below, darker above, each with a glint."""
    picture, rng = foliage.picture, foliage.picture.rng
    size = (picture.width, picture.height)
    bodies, glints = Image.new("L", size), Image.new("L", size)
    on_bodies, on_glints = ImageDraw.Draw(bodies), ImageDraw.Draw(glints)
    for row, col in foliage.places(int(rng.integers(4, 30))).tolist():
        r = rng.uniform(0.8, 3.4) * picture.pitch
        on_bodies.ellipse((col - r, row - r * 0.8, col + r, row + r * 0.8), fill=255)
        x, y, spark = col - 0.35 * r, row - 0.35 * r, max(0.5, 0.28 * r)
        on_glints.ellipse((x - spark, y - spark, x + spark, y + spark), fill=255)
    soft = ImageFilter.GaussianBlur(0.5 * picture.pitch)
    inside = unit(bodies.filter(soft))
    upper = inside - np.roll(inside, max(1, round(picture.pitch)), 0)
    scale(foliage.colours, 1 + np.float32(0.22) * inside - np.float32(0.4) * upper)
    blend(foliage.colours, (0.97, 0.98, 1.0), clipped(unit(glints.filter(soft)) * np.float32(1.5)))
