"""How a large photo is cut into overlapping tiles; training and detection cut alike."""

import math
from dataclasses import dataclass

Corners = tuple[int, int, int, int]
"""Left, top, right and bottom of a part, pixels of the upright photo."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a photo is cut.

    Attributes:
        size: of a tile, pixels; a smaller photo is one tile.
        overlap: minimum share of a tile that overlaps its neighbour, 0 to below 1.
    """

    size: int
    overlap: float

    def starts(self, length: int) -> list[int]:
        """Offsets of tiles along one side, pixels: evenly spaced, and the last tile ends at the edge."""
        if length <= self.size:
            return [0]
        count = math.ceil((length - self.size) / (self.size * (1 - self.overlap)) - 1e-9) + 1
        return [round(number * (length - self.size) / (count - 1)) for number in range(count)]

    def places(self, width: int, height: int) -> list[Corners]:
        """The tiles of a photo, row by row."""
        columns = self.starts(width)
        return [
            (left, top, min(left + self.size, width), min(top + self.size, height))
            for top in self.starts(height)
            for left in columns
        ]
