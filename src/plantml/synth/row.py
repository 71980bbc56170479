"""Crop rows on soil, from above or obliquely, with gaps where plants have not come up."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import ImageFilter

from plantml.synth import ground
from plantml.synth.picture import Colour, Colours, Picture, blend, filled, scale, unit
from plantml.synth.planting import Place, Planting, sow
from plantml.synth.spec import SynthSpec
from plantml.synth.view import Places, View

_HOSE = 0.025
"""Half the width of a drip hose, in distances between plants."""


def plan_row(spec: SynthSpec, key: tuple[int, ...]) -> Planting:
    """One or two rows of 4 to 7 places each."""
    rng = np.random.default_rng(key)
    rows, cols = int(rng.integers(1, 3)), int(rng.integers(4, 8))
    crop = sow(spec, rng, reach=rng.uniform(0.5, 0.8), leaves=(3, 6))
    apart = rng.uniform(1.2, 1.7)
    lines = (np.arange(rows) - (rows - 1) / 2) * apart
    hose = 0.25 * rng.choice((-1, 1)) if rng.random() < 0.45 else None
    places = []
    for row, line in enumerate(lines.tolist()):
        for col in range(cols):
            x, y = (np.array((col - (cols - 1) / 2, line)) + rng.normal(0, (0.08, 0.05))).tolist()
            plant = crop.plant_at((*key, row, col), (row + 0.5) / rows)
            places.append(Place((x, y), plant))
    extent = (cols + 0.2, (rows - 1) * apart + 1.2)
    field = _Field(extent, lines.tolist(), hose, ground.pick(rng, ground.SOILS))
    return Planting(extent, places, field.look, field.paint)


@dataclass(frozen=True)
class _Field:
    """Width and height, where the rows lie, how far from them a drip hose does, if any, and the colour of the soil."""

    extent: tuple[float, float]
    lines: Sequence[float]
    hose: float | None
    soil: Colour

    def look(self, rng: np.random.Generator, height: int, width: int) -> View:
        """The way that shows plants larger, mostly; obliquely in half of all photos."""
        is_long = self.extent[0] / self.extent[1] > width / height
        upright = math.pi / 2 if not is_long or rng.random() < 0.2 else 0.0
        turn = upright + math.radians(float(np.clip(rng.normal(0, 6), -15, 15)))
        tilt = math.radians(rng.uniform(25, 50) if rng.random() < 0.5 else rng.uniform(0, 10))
        return View(
            self.extent, height, width, turn, tilt, margin=rng.uniform(0.0, 0.05), distance=rng.uniform(1.1, 2.2)
        )

    def paint(self, picture: Picture, view: View) -> Colours:
        """Soil, a little darker along the rows, where it is watered."""
        rng, unit_pixels = picture.rng, float(view.scale_at(np.zeros(2)))
        colours = ground.paint_soil(replace(picture, subject=None), self.soil)  # clods, not potting soil
        strips = filled(picture, view.project(np.stack([_strip(self.extent, line, 0.4) for line in self.lines])))
        moist = unit(strips.filter(ImageFilter.BoxBlur(0.2 * unit_pixels)))
        scale(colours, 1 - np.float32(rng.uniform(0.0, 0.35)) * moist)
        if self.hose is not None:
            outlines = view.project(np.stack([_strip(self.extent, line + self.hose, _HOSE) for line in self.lines]))
            body = filled(picture, outlines)
            shade = unit(body.filter(ImageFilter.BoxBlur(0.06 * unit_pixels)))
            scale(colours, 1 - np.float32(0.5) * shade)
            blend(colours, (0.07, 0.07, 0.08), unit(body))
        return colours


def _strip(extent: tuple[float, float], line: float, half: float) -> Places:
    """Corners of a strip along a row, from beyond one edge of the photo to beyond the other."""
    far = 1.2 * max(extent)  # not behind the camera
    return np.array(((-far, line - half), (far, line - half), (far, line + half), (-far, line + half)))
