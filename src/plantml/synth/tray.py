"""Nursery trays from above: a grid of cells with substrate, most of them with one young plant."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import ImageFilter

from plantml.synth import ground
from plantml.synth.noise import Plane
from plantml.synth.picture import Colour, Colours, Picture, clipped, column, filled, scale, unit, vary
from plantml.synth.planting import Place, Planting, sow
from plantml.synth.spec import SynthSpec
from plantml.synth.view import Places, View

_RIM = 0.3
"""Width of the tray beyond its outer cells, in cells."""

_PLASTICS = ((0.10, 0.10, 0.11), (0.16, 0.16, 0.17), (0.07, 0.08, 0.09), (0.20, 0.19, 0.18), (0.12, 0.17, 0.14))
_DEPTH = 0.14
"""How far the substrate lies within the opening of its cell, in cells."""


def plan_tray(spec: SynthSpec, key: tuple[int, ...]) -> Planting:
    """A tray of 3 by 4 to 6 by 8 cells."""
    rng = np.random.default_rng(key)
    rows = int(rng.integers(3, 7))
    cols = min(8, max(4, rows + int(rng.integers(1, 3))))
    crop = sow(spec, rng, reach=rng.uniform(0.36, 0.62), leaves=(2, 4))
    opening, round_corners = rng.uniform(0.42, 0.46), rng.uniform(3, 9) if rng.random() < 0.75 else 2.0
    soil = ground.pick(rng, ground.SOILS)
    plastic = vary(rng, _PLASTICS[int(rng.integers(len(_PLASTICS)))], 0.02)
    places = []
    for row in range(rows):
        for col in range(cols):
            middle = np.array((col - (cols - 1) / 2, row - (rows - 1) / 2))
            cell = middle + opening * _superellipse(round_corners)
            x, y = (middle + rng.normal(0, 0.05, 2)).tolist()
            plant = crop.plant_at((*key, row, col), (row + 0.5) / rows)
            places.append(Place((x, y), plant, cell))
    extent = (cols + 2 * _RIM, rows + 2 * _RIM)
    cells = np.stack([place.cell for place in places if place.cell is not None])
    tray = _Tray(extent, cells, plastic, soil)
    return Planting(extent, places, tray.look, tray.paint)


@dataclass(frozen=True)
class _Tray:
    """Width and height, the corners of each cell's opening, and the colours of what it is made of and filled with."""

    extent: tuple[float, float]
    cells: Places
    plastic: Colour
    soil: Colour

    def look(self, rng: np.random.Generator, height: int, width: int) -> View:
        """From nearly straight above, either way round."""
        half_turn = math.pi * int(rng.integers(2))
        turn = half_turn + math.radians(float(np.clip(rng.normal(0, 3), -8, 8)))
        tilt = math.radians(rng.uniform(0, 14))
        return View(self.extent, height, width, turn, tilt, margin=rng.uniform(0.0, 0.05), distance=2.6)

    def paint(self, picture: Picture, view: View) -> Colours:
        """The tray on a bench, its cells full of substrate."""
        cell = float(view.scale_at(np.zeros(2)))
        body = filled(picture, view.project(np.array(self.extent) / 2 * _superellipse(30.0))[None])
        middles = self.cells.mean(axis=1, keepdims=True)
        openings = filled(picture, view.project(self.cells))
        beds = filled(picture, view.project(middles + (self.cells - middles) * (1 - 2 * _DEPTH)))
        light = np.array((math.cos(picture.towards), math.sin(picture.towards)))

        colours = ground.paint_bench(picture)
        near = unit(body.filter(ImageFilter.BoxBlur(0.16 * cell)))
        scale(colours, 1 - np.float32(0.65) * _shifted(near, -0.12 * cell * light))

        sheet = np.float32(0.75) + np.float32(0.5) * picture.noise("clouds")
        sheet += np.float32(0.25) * (picture.grain("rough") - np.float32(0.5))
        hole = unit(openings.filter(ImageFilter.BoxBlur(0.03 * cell)))
        # Edges that face the light shine, the others lie in shade.
        sheet += np.float32(2.2) * (_shifted(hole, 0.035 * cell * light) - hole)
        edge = unit(body.filter(ImageFilter.BoxBlur(0.03 * cell)))
        sheet += np.float32(2.2) * clipped(edge - _shifted(edge, -0.05 * cell * light))
        tray = np.maximum(sheet, np.float32(0.15))[None] * column(self.plastic)

        wall = unit(beds.filter(ImageFilter.BoxBlur(0.06 * cell)))
        inside = np.float32(0.35) + np.float32(0.9) * clipped(_shifted(wall, 0.1 * cell * light) - wall)
        tray += (inside[None] * column(self.plastic) - tray) * unit(openings)

        bed = ground.paint_soil(picture, self.soil)
        lit = _shifted(unit(beds.filter(ImageFilter.BoxBlur(0.09 * cell))), -0.1 * cell * light)
        scale(bed, np.float32(0.3) + np.float32(0.8) * lit)
        tray += (bed - tray) * unit(beds)
        colours += (tray - colours) * unit(body)
        return colours


def _shifted(plane: Plane, by: Places) -> Plane:
    """The plane moved by (x, y) pixels; what leaves on one side comes back on the other."""
    x, y = np.rint(by).astype(int).tolist()
    return np.roll(plane, (y, x), (0, 1))


def _superellipse(power: float) -> Places:
    """Corners of a shape between a circle (`power` 2) and a square, with half-sides of 1."""
    turns = np.linspace(0, 2 * math.pi, 40, endpoint=False)
    sides = np.stack((np.cos(turns), np.sin(turns)), axis=1)
    corners: Places = np.sign(sides) * np.abs(sides) ** (2 / power)
    return corners
