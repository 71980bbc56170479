"""What diseases do to a leaf: spots, blight, rust and mildew, painted until they cover the share asked for.

Every painter changes the colours of the leaf in place and returns a plane of 0..1 that says where it is diseased.
The looks are those of field guides: angular or round dead spots with a yellow halo; blight in patches from
the margin, with rings and a water-soaked edge; rust in small raised pustules that follow the veins; mildew as
a powder that lies on top of the veins.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from plantml.synth.canvas import Canvas
from plantml.synth.noise import Plane
from plantml.synth.picture import Colours, Picture, blend, clipped, filled, scale, unit, vary

_Numbers = NDArray[np.float64]

RUST_LIMIT = 0.36
"""Pustules are separate grains: on more of the leaf than this they would run into one another."""


@dataclass(frozen=True)
class Foliage:
    """The surface of all leaves in a photo, which a disease is painted on.

    Attributes:
        picture: the photo that it is on.
        canvas: the leaves.
        colours: their colours, changed in place.
        veins: the veins, widened, 0..1.
        surface: flat index of every leaf pixel.
        stretched: whether the veins are parallel, which lets lesions grow along them.
    """

    picture: Picture
    canvas: Canvas
    colours: Colours
    veins: Plane
    surface: NDArray[np.intp]
    stretched: bool

    def places(self, count: int) -> NDArray[np.intp]:
        """Random pixels on the leaf, shape (count, 2), (row, column)."""
        flat = self.surface[self.picture.rng.integers(len(self.surface), size=count)]
        return np.stack(np.divmod(flat, self.picture.width), axis=1)

    def top(self, field: Plane, share: float) -> np.float32:
        """The value that `field` exceeds on `share` of the leaf's pixels."""
        values = field.ravel()[self.surface]
        at = min(len(values) - 1, max(0, round((1 - share) * len(values)) - 1))
        return np.float32(np.partition(values, at)[at])


def paint_spots(foliage: Foliage, severity: float) -> Plane:
    """Small dead spots with a pale centre, a dark rim and a yellow halo."""
    picture, rng = foliage.picture, foliage.picture.rng
    area = len(foliage.surface) * severity
    typical = rng.uniform(1.6, 5.0) * picture.pitch * (1 + severity)
    count = int(np.clip(area / (np.pi * typical**2) * rng.uniform(0.9, 1.2), 1, 260))
    typical = max(float(np.sqrt(area / (np.pi * count))), 0.9)
    places = _gathered(foliage, count)
    outlines = _spot_outlines(foliage, places, typical)
    middle = (places[:, None, ::-1] + 0.5).astype(np.float64)
    whole = filled(picture, middle + outlines)
    inner = filled(picture, middle + outlines * rng.uniform(0.45, 0.7))
    soft = ImageFilter.GaussianBlur(max(0.4, 0.35 * picture.pitch))
    core, centre = unit(whole.filter(soft)), unit(inner.filter(soft))
    halo = unit(whole.filter(ImageFilter.GaussianBlur(typical * rng.uniform(0.6, 1.0) + 0.4 * picture.pitch)))

    yellow = np.minimum(halo * np.float32(rng.uniform(0.7, 1.9)), np.float32(0.8))
    blend(foliage.colours, vary(rng, (0.72, 0.70, 0.22), 0.05), yellow)
    blend(foliage.colours, vary(rng, (0.24, 0.15, 0.09), 0.05), core * np.float32(rng.uniform(0.75, 0.95)))
    blend(foliage.colours, vary(rng, (0.55, 0.43, 0.29), 0.09), centre * np.float32(rng.uniform(0.2, 0.85)))
    return core


def paint_blight(foliage: Foliage, severity: float) -> Plane:
    """Large brown patches from the margin, with rings inside and a water-soaked edge."""
    picture, rng = foliage.picture, foliage.picture.rng
    count = int(rng.integers(1, 3 + round(4 * severity)))
    reach = float(np.sqrt(len(foliage.surface) * severity / count))
    ragged = picture.noise("clouds", 0.9) - np.float32(0.5)
    ragged += np.float32(0.4) * (picture.grain("rough") - np.float32(0.5))
    field = _from_margin(foliage, count)
    field += ragged * np.float32(reach * rng.uniform(0.6, 1.3))
    field -= foliage.veins * np.float32(0.15 * reach)
    depth = -field
    depth -= foliage.top(depth, severity)  # now in pixels: above 0 inside the patches

    edge = np.float32(rng.uniform(1.0, 2.5) * picture.pitch)
    core = clipped(depth / edge + np.float32(0.5))
    outer = clipped(1 - np.abs(depth / edge + np.float32(1.5)) / np.float32(rng.uniform(2, 4)))
    soaked = clipped(1 - np.abs(depth / edge + np.float32(0.6)))
    blend(foliage.colours, vary(rng, (0.62, 0.60, 0.22), 0.06), outer * np.float32(rng.uniform(0.2, 0.75)))
    blend(foliage.colours, vary(rng, (0.16, 0.20, 0.10), 0.03), soaked * np.float32(rng.uniform(0.2, 0.7)))
    blend(foliage.colours, vary(rng, (0.44, 0.32, 0.20), 0.09), core * np.float32(rng.uniform(0.85, 0.97)))
    spacing = rng.uniform(3.5, 7) * picture.pitch
    rings = np.sin(depth * np.float32(2 * np.pi / spacing) + ragged * np.float32(3))
    scale(foliage.colours, 1 + core * (np.float32(rng.uniform(0.05, 0.22)) * rings + np.float32(0.5) * ragged))
    pale = core * clipped(depth / np.float32(reach * 0.7)) * np.float32(rng.uniform(0, 0.7))
    blend(foliage.colours, vary(rng, (0.62, 0.54, 0.42), 0.06), pale)
    return core


def paint_rust(foliage: Foliage, severity: float) -> Plane:
    """Many tiny raised orange-brown pustules, thickest along the veins."""
    picture, rng = foliage.picture, foliage.picture.rng
    # Pustules are small: where there are more pixels, they are drawn finer, not larger.
    size = rng.uniform(1.3, 2.4) * max(1.0, picture.pitch) ** 0.5
    dots = np.maximum(picture.noise("dots", size), picture.noise("dots", 0.6 * size) - np.float32(0.12))
    near = np.minimum(foliage.veins * np.float32(2.2), np.float32(1))
    crowd = picture.noise("clouds", 0.8)
    dots *= np.float32(0.7) + np.float32(0.6) * picture.grain("rough")
    score = dots * (0.3 + np.float32(rng.uniform(0.2, 0.6)) * near + np.float32(rng.uniform(0.7, 1.8)) * crowd)
    score -= foliage.top(score, min(severity, RUST_LIMIT))
    core: Plane = clipped(score * np.float32(9) + np.float32(0.35)) * (dots > np.float32(0.02))
    grains = Image.fromarray((core * np.float32(255)).astype(np.uint8))
    halo = unit(grains.filter(ImageFilter.BoxBlur(1.8 * picture.pitch)))

    yellow = np.minimum(halo * np.float32(rng.uniform(0.4, 1.1)), np.float32(0.7))
    blend(foliage.colours, vary(rng, (0.70, 0.66, 0.24), 0.06), yellow)
    orange = rng.random()
    rusty = (0.44 + 0.26 * orange, 0.22 + 0.16 * orange, 0.09 + 0.03 * orange)
    blend(foliage.colours, vary(rng, rusty, 0.04), core * np.float32(rng.uniform(0.8, 0.96)))
    scale(foliage.colours, 1 + np.float32(0.28) * (core - np.roll(core, (1, 1), (0, 1))))
    return core


def paint_mildew(foliage: Foliage, severity: float) -> Plane:
    """White-grey powder in round patches that grow together and hide the veins."""
    picture, rng = foliage.picture, foliage.picture.rng
    count = int(rng.integers(2, 6 + round(16 * severity)))
    reach = float(np.sqrt(len(foliage.surface) * severity / count)) + picture.pitch
    field = np.zeros((picture.height, picture.width), np.float32)
    for row, col in foliage.places(count).tolist():
        size = reach * rng.uniform(0.5, 1.5)
        squared = np.square(picture.cols() - col) + np.square(picture.rows() - row)
        np.maximum(field, 1 / (1 + squared * np.float32(1 / size**2)), out=field)
    powder, grain = picture.grain("rough"), picture.grain("fine")
    field += np.float32(0.7) * picture.noise("clouds", 1.2) + np.float32(0.5) * powder
    field -= foliage.top(field, severity)
    core = clipped(field * np.float32(rng.uniform(1.5, 3.5)) + np.float32(0.5))
    density = np.float32(rng.uniform(0.5, 0.95)) * (0.45 + np.float32(0.55) * powder)
    density *= 0.75 + np.float32(0.5) * grain
    blend(foliage.colours, vary(rng, (0.86, 0.87, 0.83), 0.03), np.minimum(core * density, np.float32(0.96)))
    return core


PAINTERS: Mapping[str, Callable[[Foliage, float], Plane]] = {
    "spot": paint_spots,
    "blight": paint_blight,
    "rust": paint_rust,
    "mildew": paint_mildew,
}
"""From a look to (foliage, wanted share of the leaf) → where it is diseased."""


def _spot_outlines(foliage: Foliage, places: NDArray[np.intp], typical: float) -> _Numbers:
    """Corners of rough ellipses around the origin: shape (count, corners, 2), (x, y) in pixels."""
    rng, count = foliage.picture.rng, len(places)
    angular = rng.random() < 0.5  # where small veins stop them
    rough = rng.uniform(0.55, 1.3, (count, 6)) if angular else rng.uniform(0.85, 1.12, (count, 11))
    radius = typical * np.exp(rng.normal(0, 0.38, count) - 0.14)
    squash = rng.uniform(0.25, 0.5, count) if foliage.stretched else rng.uniform(0.6, 1.0, count)
    blades = foliage.canvas.heading[places[:, 0], places[:, 1]]
    heading = blades + rng.normal(0, 0.07 if foliage.stretched else 0.5, count)
    turns = np.linspace(0, 2 * np.pi, rough.shape[1], endpoint=False)
    long = np.cos(turns) * rough * (radius / np.sqrt(squash))[:, None]
    short = np.sin(turns) * rough * (radius * np.sqrt(squash))[:, None]
    cos, sin = np.cos(heading)[:, None], np.sin(heading)[:, None]
    return np.stack((long * cos - short * sin, long * sin + short * cos), axis=2)


def _gathered(foliage: Foliage, count: int) -> NDArray[np.intp]:
    """Places on the leaf, of which a random part stands close together, as splashed spores do."""
    rng = foliage.picture.rng
    places = foliage.places(count)
    if count > 6 and rng.random() < 0.6:
        near = foliage.places(3 * count)
        focus = places[: int(rng.integers(1, 4))]
        distance = np.min(np.abs(near[:, None] - focus[None]).sum(axis=2), axis=1)
        close = near[np.argsort(distance, kind="stable")[:count]]
        moved = rng.random(count) < rng.uniform(0.2, 0.7)
        places[moved] = close[moved]
    return places


def _from_margin(foliage: Foliage, count: int) -> Plane:
    """Distance in pixels to the nearest of `count` random places at the margin of a blade."""
    picture, rng = foliage.picture, foliage.picture.rng
    candidates = foliage.places(40 * count)
    inside = foliage.canvas.inside(6 * picture.pitch)[candidates[:, 0], candidates[:, 1]]
    outermost = np.argsort(inside, kind="stable")[: 6 * count]
    squared = np.full((picture.height, picture.width), np.inf, np.float32)
    for row, col in candidates[rng.choice(outermost, size=count, replace=False)].tolist():
        dx, dy = picture.cols() - col, picture.rows() - row
        if foliage.stretched:
            heading = foliage.canvas.heading[row, col]
            cos, sin = np.cos(heading), np.sin(heading)
            dx, dy = (dx * cos + dy * sin) * np.float32(0.28), dy * cos - dx * sin
        np.minimum(squared, (dx * dx + dy * dy) * np.float32(rng.uniform(0.5, 2.8)), out=squared)
    return np.sqrt(squared)
