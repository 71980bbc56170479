"""A photo while it is being painted: its size, its random numbers, and what all painters do to planes."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from plantml.synth import noise
from plantml.synth.noise import Plane

Colours = NDArray[np.float32]
"""Planar RGB: float32, shape (3, H, W), 0..1 from black to white."""

Colour = tuple[float, float, float]
"""Red, green and blue, 0..1."""


@dataclass(frozen=True)
class Picture:
    """What every painter needs to know.

    Attributes:
        rng: the photo's own random numbers; painters draw from it in turn.
        height: in pixels.
        width: in pixels.
        towards: where the light comes from, radians in image axes (x right, y down).
        subject: side of one plant in pixels, where many share the picture; the shorter side if it is None.
    """

    rng: np.random.Generator
    height: int
    width: int
    towards: float
    subject: float | None = None

    @cached_property
    def pitch(self) -> float:
        """Pixels per 1/256 of the subject: the unit of all lengths that should grow with it."""
        return (self.subject or min(self.height, self.width)) / 256

    def noise(self, name: str, scale: float = 1.0) -> Plane:
        """A window of a texture that looks the same in any size of photo; a small `scale` enlarges it."""
        return noise.window(name, self.rng, self.height, self.width, scale / self.pitch)

    def grain(self, name: str) -> Plane:
        """A window of a texture at its own size: the finest detail that the photo can hold."""
        return noise.window(name, self.rng, self.height, self.width)

    def rows(self) -> Plane:
        """The y of every pixel, shape (H, 1)."""
        return np.arange(self.height, dtype=np.float32)[:, None]

    def cols(self) -> Plane:
        """The x of every pixel, shape (1, W)."""
        return np.arange(self.width, dtype=np.float32)[None, :]


def blend(colours: Colours, colour: Colour, share: Plane) -> None:
    """Move `colours` towards one colour by `share` (0..1, shape (H, W)), in place."""
    for plane, value in zip(colours, colour, strict=True):
        np.add(plane, (np.float32(value) - plane) * share, out=plane)


def scale(colours: Colours, factor: Plane) -> None:
    """Multiply `colours` by a factor for every pixel, in place."""
    np.multiply(colours, factor, out=colours)


def unit(image: Image.Image) -> Plane:
    """A grey image as a plane of 0..1."""
    return np.asarray(image, dtype=np.float32) * np.float32(1 / 255)


def filled(picture: Picture, polygons: NDArray[np.floating]) -> Image.Image:
    """Polygons (count, corners, 2) in pixels, filled with white on black, with soft edges."""
    fine = 2
    plane = Image.new("L", (picture.width * fine, picture.height * fine))
    draw = ImageDraw.Draw(plane)
    for polygon in (polygons * fine).reshape(len(polygons), -1).tolist():
        draw.polygon(polygon, fill=255)
    return plane.reduce(fine)


def clipped(plane: Plane) -> Plane:
    """The plane with its values held within 0..1."""
    inside: Plane = np.clip(plane, np.float32(0), np.float32(1))
    return inside


def column(colour: Colour) -> Colours:
    """One colour, shape (3, 1, 1), to be spread over a plane."""
    return np.array(colour, dtype=np.float32).clip(0.02, 0.98)[:, None, None]


def vary(rng: np.random.Generator, colour: Colour, by: float) -> Colour:
    """The colour with its brightness, and a little its hue, changed by about `by`."""
    red, green, blue = (value + rng.normal(0, by / 3) for value in colour)
    lift = rng.normal(0, by)
    return red + lift, green + lift, blue + 0.8 * lift
