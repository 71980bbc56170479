"""How the camera sees a plane that plants stand on."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.float64]
"""float64, shape (…, 2): (x, y) on the plane or in pixels."""


@dataclass(frozen=True)
class View:
    """A pinhole camera over a rectangle around (0, 0), which fills the photo but for a margin.

    Attributes:
        extent: width and height of the rectangle, in the plane's unit.
        height: of the photo in pixels.
        width: of the photo in pixels.
        turn: of the plane, radians.
        tilt: of the camera, radians; 0 looks straight down. What is further down the photo is nearer.
        margin: share of the photo on every side that the rectangle leaves free.
        distance: of the camera from the middle of the rectangle, in its longer sides.
    """

    extent: tuple[float, float]
    height: int
    width: int
    turn: float
    tilt: float
    margin: float
    distance: float

    def project(self, places: Places) -> Places:
        """Pixels (x, y) of places on the plane."""
        middle, zoom = self._frame()
        pixels: Places = (self._seen(places)[0] - middle) * zoom + np.array((self.width / 2, self.height / 2))
        return pixels

    def scale_at(self, places: Places) -> NDArray[np.float64]:
        """Pixels per unit of the plane, across the photo: shape (…)."""
        nearness: NDArray[np.float64] = self._seen(places)[1] * self._frame()[1]
        return nearness

    @property
    def squash(self) -> float:
        """Breadth down the photo of what is round on the plane, as a share of its breadth across."""
        return math.cos(self.tilt)

    def _frame(self) -> tuple[Places, float]:
        """Middle and zoom that make the rectangle fill the photo."""
        half = np.array(self.extent) / 2
        corners = self._seen(half * ((-1, -1), (1, -1), (1, 1), (-1, 1)))[0]
        low, high = corners.min(axis=0), corners.max(axis=0)
        free = np.array((self.width, self.height)) * (1 - 2 * self.margin)
        return (low + high) / 2, float(np.min(free / (high - low)))

    def _seen(self, places: Places) -> tuple[Places, NDArray[np.float64]]:
        """Places as projected before zoom, and how near they are: 1 in the middle."""
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        turned = np.asarray(places) @ np.array(((cos, sin), (-sin, cos)))
        distance = self.distance * max(self.extent)
        nearness = distance / (distance - turned[..., 1] * math.sin(self.tilt))
        return turned * (1, self.squash) * nearness[..., None], nearness
