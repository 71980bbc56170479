"""What lies behind the leaf: soil, a pot on a bench, cloth or paper in a lab, a field out of focus."""

from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from plantml.synth import noise
from plantml.synth.noise import Plane
from plantml.synth.picture import Colour, Colours, Picture, blend, clipped, column, scale, unit, vary

SOILS = ((0.42, 0.27, 0.20), (0.24, 0.19, 0.15), (0.52, 0.43, 0.34), (0.40, 0.37, 0.33), (0.33, 0.25, 0.19))
_LABS = (
    (0.56, 0.54, 0.60),
    (0.66, 0.63, 0.61),
    (0.88, 0.88, 0.86),
    (0.42, 0.50, 0.60),
    (0.74, 0.69, 0.58),
    (0.20, 0.20, 0.22),
    (0.60, 0.60, 0.58),
)
_POTS = ((0.64, 0.34, 0.22), (0.12, 0.12, 0.13), (0.80, 0.79, 0.76), (0.32, 0.36, 0.30))
_BENCHES = ((0.52, 0.42, 0.31), (0.62, 0.62, 0.60), (0.36, 0.33, 0.31), (0.70, 0.66, 0.60))
_GREENS = ((0.20, 0.31, 0.15), (0.33, 0.42, 0.20), (0.13, 0.20, 0.12), (0.44, 0.50, 0.26), (0.50, 0.46, 0.25))
_STRAWS = ((0.70, 0.60, 0.42), (0.45, 0.36, 0.24))


def paint_soil(picture: Picture, soil: Colour | None = None) -> Colours:
    """Crumbs of earth of a random or given colour, lit from one side, with pebbles and bits of straw."""
    rng = picture.rng
    crumbs = picture.grain("rough")
    depth = np.float32(rng.uniform(0.2, 0.6)) * picture.noise("grit", rng.uniform(0.25, 0.7))
    depth += np.float32(0.4) * picture.noise("rough", rng.uniform(0.3, 0.6)) + np.float32(0.5) * crumbs
    step = max(1, round(1.1 * picture.pitch))
    slope = depth - np.roll(depth, (step, step), (0, 1))
    bright = np.float32(rng.uniform(0.05, 0.25)) + depth * np.float32(rng.uniform(0.6, 1.0))
    bright += slope * np.float32(rng.uniform(0.4, 1.4))
    crevices = clipped((depth - np.float32(rng.uniform(0.1, 0.4))) * np.float32(3))
    bright *= np.maximum(crevices, np.float32(0.5))
    bright += np.float32(0.5) * picture.noise("clouds") - np.float32(0.25)
    colours: Colours = np.maximum(bright, np.float32(0.06))[None] * column(soil or pick(rng, SOILS))
    if rng.random() < 0.5:
        stones = picture.noise("dots", rng.uniform(0.25, 0.6))
        stony = clipped((stones - np.float32(rng.uniform(0.72, 0.92))) * np.float32(14))
        blend(colours, vary(rng, (0.62, 0.58, 0.54), 0.08), stony * (0.4 + np.float32(0.6) * crumbs))
    if rng.random() < 0.7:
        _scatter_straw(picture, colours)
    return colours


def paint_pot(picture: Picture) -> Colours:
    """A pot from above, filled with soil, on a bench."""
    rng, side = picture.rng, 256 * picture.pitch
    colours = paint_bench(picture)
    x, y = picture.width / 2 + rng.normal(0, 0.12) * side, picture.height / 2 + rng.normal(0, 0.12) * side
    outer, wall = rng.uniform(0.36, 0.62) * side, rng.uniform(0.03, 0.08) * side
    shade = _disc(picture, (x + 0.05 * side, y + 0.06 * side), outer, 5 * picture.pitch)
    scale(colours, 1 - np.float32(0.5) * shade)
    lit = _disc(picture, (x - 0.3 * wall, y - 0.3 * wall), outer - 0.45 * wall, 0.25 * wall)
    bright = np.float32(0.55) + np.float32(0.45) * lit
    bright += np.float32(0.35) * (picture.noise("clouds") - np.float32(0.5))
    pot = column(pick(rng, _POTS)) * bright
    colours += (pot - colours) * _disc(picture, (x, y), outer, 0.6 * picture.pitch)
    soil = paint_soil(picture)
    well = _disc(picture, (x + 0.5 * wall, y + 0.5 * wall), outer - wall, 4 * picture.pitch)
    scale(soil, np.float32(0.4) + np.float32(0.6) * well)
    colours += (soil - colours) * _disc(picture, (x, y), outer - wall, 0.8 * picture.pitch)
    return colours


def paint_lab(picture: Picture) -> Colours:
    """Paper or cloth with a fine grain, soft folds, and light that falls off to one side."""
    rng = picture.rng
    bright = 1 + (picture.grain("rough") - np.float32(0.5)) * np.float32(rng.uniform(0.04, 0.3))
    folds = picture.noise("clouds", rng.uniform(0.3, 1.0)) - np.float32(0.5)
    bright += folds * np.float32(rng.uniform(0.02, 0.25))
    if rng.random() < 0.4:
        thread = np.float32(2 * np.pi / (rng.uniform(2.6, 5) * picture.pitch))
        woven = np.sin(picture.cols() * thread) * np.sin(picture.rows() * thread)
        bright += np.float32(rng.uniform(0.01, 0.05)) * woven
    bright += np.float32(rng.uniform(-0.5, 0.5)) * (picture.cols() / picture.width - np.float32(0.5))
    bright += np.float32(rng.uniform(-0.5, 0.5)) * (picture.rows() / picture.height - np.float32(0.5))
    return bright[None] * column(pick(rng, _LABS))


def paint_field(picture: Picture) -> Colours:
    """A field far behind the leaf: earth, light and other leaves, all out of focus."""
    rng, pitch = picture.rng, picture.pitch
    # What is out of focus has no detail: paint it small.
    zoom = max(1, round(2 * pitch))
    small = Picture(rng, -(-picture.height // zoom), -(-picture.width // zoom), picture.towards)
    soil, leafy = column(pick(rng, SOILS)), column(pick(rng, _GREENS))
    patches = small.noise("clouds", rng.uniform(1, 3)) - np.float32(rng.uniform(0.25, 0.75))
    base = soil + (leafy - soil) * clipped(patches * np.float32(4) + np.float32(0.5))
    bright = np.float32(0.25) + np.float32(0.6) * small.noise("rough", 2)
    scale(base, bright + np.float32(0.7) * small.noise("clouds", 3))
    image = Image.fromarray((clipped(base).transpose(1, 2, 0) * 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(8, 34))):
        lit = 255 * rng.uniform(0.3, 1.25)
        red, green, blue = (int(lit * value) for value in pick(rng, _GREENS))
        draw.polygon(_far_leaf(small), fill=(red, green, blue))
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(3.5, 9) * pitch / zoom))
    if rng.random() < 0.35:
        _add_bokeh(image, rng)
    image = image.resize((picture.width, picture.height), Image.Resampling.BICUBIC)
    return np.stack([unit(plane) for plane in image.split()])


PAINTERS: Mapping[str, Callable[[Picture], Colours]] = {
    "soil": paint_soil,
    "pot": paint_pot,
    "lab": paint_lab,
    "field": paint_field,
}


def paint_bench(picture: Picture) -> Colours:
    """Planks or a plain table top."""
    rng = picture.rng
    bright = np.float32(0.7) + np.float32(0.3) * picture.grain("rough")
    if rng.random() < 0.6:
        at = picture.cols()[0] / np.float32(rng.uniform(30, 90) * picture.pitch) + np.float32(rng.random())
        board = np.floor(at).astype(int)
        tint = rng.uniform(0.85, 1.12, board.max() + 1).astype(np.float32)[board]
        gap = clipped((np.abs(at - board - np.float32(0.5)) - np.float32(0.47)) * np.float32(40))
        streak = noise.window("rough", rng, 1, picture.width)[0] - np.float32(0.5)
        bright *= tint * (1 - np.float32(0.7) * gap) + np.float32(0.35) * streak
    return bright[None] * column(pick(rng, _BENCHES))


def _scatter_straw(picture: Picture, colours: Colours) -> None:
    rng, pitch = picture.rng, picture.pitch
    plane = Image.new("L", (picture.width, picture.height))
    draw = ImageDraw.Draw(plane)
    for _ in range(int(rng.integers(2, 16))):
        x, y, turn = rng.uniform(0, picture.width), rng.uniform(0, picture.height), rng.uniform(0, 2 * np.pi)
        length = rng.uniform(8, 60) * pitch
        dx, dy = float(np.cos(turn)) * length, float(np.sin(turn)) * length
        knee = (x + dx / 2 + rng.normal(0, 3) * pitch, y + dy / 2 + rng.normal(0, 3) * pitch)
        path = [(x, y), knee, (x + dx, y + dy)]
        draw.line(path, fill=int(rng.integers(120, 235)), width=max(1, round(rng.uniform(0.6, 2) * pitch)))
    blend(colours, pick(rng, _STRAWS), unit(plane.filter(ImageFilter.BoxBlur(0.4))))


def _far_leaf(picture: Picture) -> list[tuple[float, float]]:
    rng, side = picture.rng, min(picture.height, picture.width)
    x, y = rng.uniform(-0.1, 1.1) * picture.width, rng.uniform(-0.1, 1.1) * picture.height
    turn, length, breadth = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.45) * side, rng.uniform(0.25, 0.9)
    u = np.linspace(0, 1, 9)
    half = 0.5 * breadth * np.sin(np.pi * u**0.8)
    t, s = np.concatenate((u, u[::-1])) * length, np.concatenate((half, -half[::-1])) * length
    px, py = x + t * np.cos(turn) - s * np.sin(turn), y + t * np.sin(turn) + s * np.cos(turn)
    return list(zip(px.tolist(), py.tolist(), strict=True))


def _add_bokeh(image: Image.Image, rng: np.random.Generator) -> None:
    """Bright discs where light falls through leaves far away."""
    veil = Image.new("L", image.size)
    draw = ImageDraw.Draw(veil)
    for _ in range(int(rng.integers(3, 14))):
        x, y = rng.uniform(0, image.width), rng.uniform(0, image.height)
        r = rng.uniform(0.01, 0.05) * min(image.size)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=int(rng.integers(30, 130)))
    image.paste((245, 250, 225), (0, 0), veil.filter(ImageFilter.GaussianBlur(0.7)))


def _disc(picture: Picture, middle: tuple[float, float], radius: float, soft: float) -> Plane:
    """1 inside a circle, 0 outside, with an edge `soft` pixels wide."""
    dx, dy = picture.cols() + np.float32(0.5 - middle[0]), picture.rows() + np.float32(0.5 - middle[1])
    inside = np.float32(radius) - np.sqrt(dx * dx + dy * dy)
    return clipped(inside * np.float32(1 / max(soft, 1e-3)) + np.float32(0.5))


def pick(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    """One of the colours, varied a little."""
    return vary(rng, colours[int(rng.integers(len(colours)))], 0.05)
