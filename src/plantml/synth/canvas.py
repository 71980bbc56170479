"""Where leaves are put down before they get colour: a stack of planes the size of the photo.

Blades are rasterised one over the other into planes (coverage, veins, position on the blade, light), and the
whole photo is coloured once afterwards. So the cost of colour does not grow with the number of leaves.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from plantml.synth.leaf import Blade, Points, Veins
from plantml.synth.noise import Plane
from plantml.synth.picture import Picture, unit

_FINE = 2
"""Outlines and veins are drawn this much larger and averaged down, for soft edges."""


@dataclass(frozen=True)
class Shadow:
    """The shadow that every leaf casts: its offset and blur in pixels, its depth 0..1."""

    dx: float
    dy: float
    softness: float
    depth: float


def cast_shadow(
    picture: Picture, far: tuple[float, float], softness: tuple[float, float], depth: tuple[float, float]
) -> Shadow:
    """A random shadow on the side away from the light: `far` and `softness` are in units of `Picture.pitch`."""
    rng, pitch = picture.rng, picture.pitch
    offset = rng.uniform(*far) * pitch
    dx, dy = -offset * math.cos(picture.towards), -offset * math.sin(picture.towards)
    return Shadow(dx, dy, rng.uniform(*softness) * pitch, rng.uniform(*depth))


class Canvas:
    """The planes of one photo, each of shape (height, width).

    Attributes:
        along: position along the blade, 0 at the base and 1 at the tip.
        across: signed position across the blade, -1 and 1 at about its margins.
        tone: brightness of the blade as a factor.
        light: share of the direct light that reaches the surface, of plant and ground alike.
        leaf: uint8, number of the leaf on top, counted from 1; 0 is no leaf.
        heading: direction of the blade in radians.
    """

    def __init__(self, height: int, width: int, shadow: Shadow) -> None:
        self._alpha = Image.new("L", (width, height))
        self._vein = Image.new("L", (width, height))
        self.along = np.zeros((height, width), np.float32)
        self.across = np.zeros((height, width), np.float32)
        self.tone = np.ones((height, width), np.float32)
        self.light = np.ones((height, width), np.float32)
        self.heading = np.zeros((height, width), np.float32)
        self.leaf = np.zeros((height, width), np.uint8)
        self._shadow = shadow

    @property
    def alpha(self) -> Plane:
        """How much of a pixel is plant, 0..1."""
        return unit(self._alpha)

    @property
    def vein(self) -> Plane:
        """Strength of the vein under a pixel, 0..1."""
        return unit(self._vein)

    def blurred_vein(self, radius: float) -> Plane:
        """Veins widened by a blur of `radius` pixels, 0..1: what the swelling between them follows."""
        # Two boxes make a tent: near enough to a Gaussian, which Pillow makes of three.
        box = ImageFilter.BoxBlur(radius)
        return unit(self._vein.filter(box).filter(box))

    def inside(self, radius: float) -> Plane:
        """About 1 in the middle of blades and 0.5 at their margins, seen over `radius` pixels."""
        return unit(self._alpha.filter(ImageFilter.BoxBlur(radius)))

    def cropped(self, rows: slice, cols: slice) -> "Canvas":
        """A part of the canvas. Its arrays are views."""
        part = Canvas(0, 0, self._shadow)
        box = (cols.start, rows.start, cols.stop, rows.stop)
        part._alpha, part._vein = self._alpha.crop(box), self._vein.crop(box)
        for name in ("along", "across", "tone", "light", "heading", "leaf"):
            setattr(part, name, getattr(self, name)[rows, cols])
        return part

    def add_stalk(self, line: Points, width: float) -> None:
        """A stalk along `line` (x, y in pixels). It is plant, but no leaf."""
        for plane in (self._alpha, self._vein):
            path = [(float(x), float(y)) for x, y in line]
            ImageDraw.Draw(plane).line(path, fill=235, width=max(1, round(width)), joint="curve")

    def add_blade(self, blade: Blade, leaf: int, tone: float) -> None:
        """Put a blade on top of what is there, with its shadow beneath it."""
        box = self._clip(blade.outline)
        if box is None:
            return
        x0, y0, x1, y1 = box
        mask = _drawn(box, lambda draw, at: _fill(draw, at(blade.outline)))
        self._cast(mask, x0, y0)
        veins = _drawn(box, lambda draw, at: _draw_veins(draw, at(blade.veins.lines), blade.veins))
        self._alpha.paste(255, box, mask)
        self._vein.paste(veins, (x0, y0), mask)

        rows, cols = slice(y0, y1), slice(x0, x1)
        cover = np.asarray(mask)
        on = cover > 127
        along, across = _frame(blade, box)
        np.copyto(self.along[rows, cols], along, where=on)
        np.copyto(self.across[rows, cols], across, where=on)
        np.copyto(self.tone[rows, cols], np.float32(tone), where=on)
        np.copyto(self.heading[rows, cols], np.float32(blade.stance.angle), where=on)
        np.copyto(self.leaf[rows, cols], np.uint8(leaf), where=on)
        light = self.light[rows, cols]
        light += (1 - light) * (cover * np.float32(1 / 255))

    def cut_hole(self, outline: Points) -> None:
        """A hole through all leaves, as insects leave it."""
        box = self._clip(outline)
        if box is not None:
            mask = _drawn(box, lambda draw, at: _fill(draw, at(outline)))
            self._alpha.paste(0, box, mask)
            self.leaf[box[1] : box[3], box[0] : box[2]][np.asarray(mask) > 127] = 0

    def _clip(self, outline: Points) -> tuple[int, int, int, int] | None:
        low, high = np.floor(outline.min(axis=0)) - 1, np.ceil(outline.max(axis=0)) + 2
        x0, y0 = max(0, int(low[0])), max(0, int(low[1]))
        x1, y1 = min(self._alpha.width, int(high[0])), min(self._alpha.height, int(high[1]))
        return (x0, y0, x1, y1) if x1 - x0 > 1 and y1 - y0 > 1 else None

    def _cast(self, mask: Image.Image, x: int, y: int) -> None:
        """Darken what lies in the shadow of `mask`, which stands at (x, y)."""
        shadow = self._shadow
        margin = int(2 * shadow.softness) + 1
        wide = Image.new("L", (mask.width + 2 * margin, mask.height + 2 * margin))
        wide.paste(mask, (margin, margin))
        shade = unit(wide.filter(ImageFilter.BoxBlur(shadow.softness)))
        left, top = x - margin + round(shadow.dx), y - margin + round(shadow.dy)
        height, width = self.light.shape
        x0, y0, x1, y1 = (max(0, left), max(0, top), min(width, left + wide.width), min(height, top + wide.height))
        if x1 > x0 and y1 > y0:
            piece = shade[y0 - top : y1 - top, x0 - left : x1 - left]
            self.light[y0:y1, x0:x1] *= 1 - piece * np.float32(shadow.depth)


def _frame(blade: Blade, box: tuple[int, int, int, int]) -> tuple[Plane, Plane]:
    """The inverse of a blade's frame for every pixel of `box`: (t, s in half-widths of the blade)."""
    x0, y0, x1, y1 = box
    stance = blade.stance
    cos, sin = np.float32(math.cos(stance.angle)), np.float32(math.sin(stance.angle))
    x = (np.arange(x0, x1, dtype=np.float32) + np.float32(0.5 - stance.origin[0])) / np.float32(stance.length)
    y = (np.arange(y0, y1, dtype=np.float32) + np.float32(0.5 - stance.origin[1])) / np.float32(stance.length)
    along = (x * cos)[None, :] + (y * sin)[:, None]
    across = ((-x * sin)[None, :] + (y * cos)[:, None]) * np.float32(1 / stance.squeeze)
    across -= np.float32(stance.bend) * along * along
    across *= np.float32(1 / blade.half_width)
    return along, across


_Pen = Callable[[ImageDraw.ImageDraw, Callable[[Points], Points]], None]


def _drawn(box: tuple[int, int, int, int], pen: _Pen) -> Image.Image:
    """What `pen` draws inside `box`, averaged down from a finer grid.

    `pen` gets a function that moves points of the photo to that grid.
    """
    x0, y0, x1, y1 = box
    fine = Image.new("L", ((x1 - x0) * _FINE, (y1 - y0) * _FINE))
    pen(ImageDraw.Draw(fine), lambda points: (points - np.array((x0, y0), np.float32)) * np.float32(_FINE))
    return fine.reduce(_FINE)


def _fill(draw: ImageDraw.ImageDraw, outline: Points) -> None:
    draw.polygon(outline.ravel().tolist(), fill=255)


def _draw_veins(draw: ImageDraw.ImageDraw, lines: Points, veins: Veins) -> None:
    flat = lines.reshape(len(lines), -1).tolist()
    widths = np.maximum(np.rint(veins.widths * _FINE), 1).astype(int).tolist()
    strengths = (veins.strengths * 255).astype(int).tolist()
    for line, width, strength in zip(flat, widths, strengths, strict=True):
        draw.line(line, fill=strength, width=width)
