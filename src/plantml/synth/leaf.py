"""The geometry of leaves: outlines, veins, and how blades stand on a leaf. No pixels here.

A blade lives in its own frame: `t` runs along the midrib from 0 at the base to 1 at the tip, `s` across it,
both in units of the blade's length. A `Blade` is such a frame put somewhere on the photo.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from plantml.synth.species import LeafShape

Points = NDArray[np.float32]
"""float32, shape (N, 2): (x, y) in pixels or (t, s) in the frame of a blade."""

_Line = NDArray[np.float32]


@dataclass(frozen=True)
class Stance:
    """How a leaf or blade stands on the photo.

    Attributes:
        origin: (x, y) of its base in pixels.
        angle: where it points, radians in image axes (x right, y down).
        length: in pixels.
        bend: how far its tip is swung sideways, in lengths.
        squeeze: its breadth as the camera sees it, as a share of the real one.
    """

    origin: tuple[float, float]
    angle: float
    length: float
    bend: float = 0.0
    squeeze: float = 1.0

    def step(self, along: float) -> tuple[float, float]:
        """(x, y) of the point `along` lengths from the base."""
        x, y = self.origin
        reach = along * self.length
        return x + math.cos(self.angle) * reach, y + math.sin(self.angle) * reach

    def place(self, points: Points) -> Points:
        """Points (…, 2) from the frame (t, s) to pixels (x, y).

        A point lies at origin + length · (t · d + (s + bend · t²) · squeeze · n), where d is the unit vector
        at `angle` and n is d turned by a quarter.
        """
        t = points[..., 0]
        across = (points[..., 1] + self.bend * t * t) * self.squeeze
        cos, sin = self.length * math.cos(self.angle), self.length * math.sin(self.angle)
        placed = np.empty(points.shape, np.float32)
        placed[..., 0] = self.origin[0] + t * cos - across * sin
        placed[..., 1] = self.origin[1] + t * sin + across * cos
        return placed


SPECIMEN = Stance((0.0, 0.0), 0.0, 200.0)
"""How a leaf stands that is grown once and moved to many places."""


@dataclass(frozen=True)
class Veins:
    """V lines of P points each: shape (V, P, 2), with the width and strength (0..1) of each, shape (V,)."""

    lines: Points
    widths: NDArray[np.float32]
    strengths: NDArray[np.float32]


@dataclass(frozen=True)
class Blade:
    """One blade: where it stands, its largest half-width in lengths, outline and veins in pixels."""

    stance: Stance
    half_width: float
    outline: Points
    veins: Veins


def grow_leaf(shape: LeafShape, rng: np.random.Generator, stance: Stance) -> tuple[Blade, ...]:
    """All blades of one leaf, the last of them on top; `stance` is that of the whole leaf."""
    if shape.leaflets == 1:
        return (_grow_blade(shape, rng, stance),)
    pairs = (shape.leaflets - 1) // 2
    trifoliate = pairs == 1
    rachis, own = (0.06, 0.62) if trifoliate else (0.42, 0.56)
    blades = []
    for pair in range(pairs):
        foot = stance.step(0.03 if trifoliate else rachis * (pair + 0.55) / pairs)
        for side in (-1, 1):
            spread = rng.uniform(1.1, 1.5) if trifoliate else rng.uniform(0.8, 1.2)
            size = own * (rng.uniform(0.88, 1.0) if trifoliate else rng.uniform(0.62, 0.82))
            leaflet = Stance(
                origin=foot,
                angle=stance.angle + side * spread,
                length=size * stance.length,
                bend=-side * rng.uniform(0.0, 0.12),
                squeeze=stance.squeeze * rng.uniform(0.85, 1.0),
            )
            blades.append(_grow_blade(shape, rng, leaflet))
    top = replace(stance, origin=stance.step(rachis), length=own * stance.length)
    return (*blades, _grow_blade(shape, rng, top))


def moved(blades: tuple[Blade, ...], at: Stance) -> tuple[Blade, ...]:
    """The blades of a leaf that was grown at `SPECIMEN`, turned, scaled and moved to stand as `at`.

    Bend and squeeze of `at` do not count: a leaf keeps its own.
    """
    scale = at.length / SPECIMEN.length
    cos, sin = scale * math.cos(at.angle), scale * math.sin(at.angle)
    turn = np.array(((cos, sin), (-sin, cos)), np.float32)
    origin = np.array(at.origin, np.float32)

    def move(blade: Blade) -> Blade:
        x, y = (np.array(blade.stance.origin, np.float32) @ turn + origin).tolist()
        stance = replace(
            blade.stance, origin=(x, y), angle=blade.stance.angle + at.angle, length=blade.stance.length * scale
        )
        widths = np.maximum(blade.veins.widths * np.float32(scale), 1)
        veins = Veins(blade.veins.lines @ turn + origin, widths, blade.veins.strengths)
        return Blade(stance, blade.half_width, blade.outline @ turn + origin, veins)

    return tuple(move(blade) for blade in blades)


def _grow_blade(shape: LeafShape, rng: np.random.Generator, stance: Stance) -> Blade:
    u, half, outline = _outline(shape, rng, stance.length)
    veins = _parallel_veins(shape, rng, u, half) if shape.parallel else _branching_veins(shape, rng, u, half)
    widths = np.maximum(veins.widths * np.float32(stance.length), 1)
    on_photo = Veins(stance.place(veins.lines), widths, veins.strengths)
    return Blade(stance, float(half.max()), stance.place(outline), on_photo)


def _outline(shape: LeafShape, rng: np.random.Generator, length: float) -> tuple[_Line, _Line, Points]:
    """Stations along the midrib, the smooth half-width there, and the closed outline in (t, s)."""
    stations = int(max(36, shape.teeth * 6)) * (2 if length > 300 else 1)
    u = np.linspace(0, 1, stations, dtype=np.float32)
    base, tip = shape.base * rng.uniform(0.92, 1.08), shape.tip * rng.uniform(0.92, 1.08)
    peak = base / (base + tip)
    half = u**base * (1 - u) ** tip
    half *= 0.5 * shape.width * rng.uniform(0.9, 1.1) / (peak**base * (1 - peak) ** tip)
    right, left = _margin(shape, rng, u, half), _margin(shape, rng, u, half)
    left = left[::-1] * np.array((1, -1), dtype=np.float32)
    return u, half, np.concatenate((right, left))


def _margin(shape: LeafShape, rng: np.random.Generator, u: _Line, half: _Line) -> Points:
    """One side of a blade from base to tip, (t, s) with s above 0. No two sides are the same."""
    along = u - shape.heart * np.sin(np.pi * np.minimum(u * 2.2, 1)) * (u < 0.46)
    wave = 1 + 0.03 * np.sin(u * rng.uniform(8, 16) + rng.uniform(0, 6.28))
    edge = half * wave * rng.uniform(0.93, 1.07)
    if shape.lobes:
        lobe = 0.5 + 0.5 * np.cos(2 * np.pi * (shape.lobes * u**0.9 + rng.uniform(-0.12, 0.12)))
        fading = np.maximum(np.sin(np.pi * np.minimum(u * 1.08, 1)), 0) ** 0.4
        edge = edge * (1 - shape.lobe_depth * lobe * fading)
    if shape.teeth:
        phase = (shape.teeth * u + rng.random()) % 1
        depth = shape.tooth_depth * np.minimum(1, half / half.max() * 2.5) * rng.uniform(0.7, 1.2, len(u))
        edge = edge + depth * (phase - 0.4)
        along = along + 0.7 * depth * phase  # teeth point to the tip
    if shape.parallel:
        edge = edge * (1 + 0.06 * np.sin(u * rng.uniform(30, 60) + rng.uniform(0, 6.28)))
    return _single(np.stack((along, np.maximum(edge, 0)), axis=1))


def _branching_veins(shape: LeafShape, rng: np.random.Generator, u: _Line, half: _Line) -> Veins:
    """Midrib and curved side veins in the frame, each in pieces of four points that grow thinner."""
    pairs = shape.vein_pairs
    feet = np.tile(np.linspace(0.02, 0.82, pairs) ** 1.05, 2) + rng.uniform(-0.02, 0.02, 2 * pairs)
    side = np.repeat((-1.0, 1.0), pairs)
    feet += 0.012 * side
    slope = shape.vein_slope * rng.uniform(0.85, 1.15, 2 * pairs) * (0.75 + 0.6 * feet)
    reach = 0.97 * np.interp(np.minimum(feet + 0.25 * slope * shape.width, 1), u, half)
    x = np.linspace(0, 1, 7)
    along = feet[:, None] + (reach * slope)[:, None] * (x + 0.35 * x * x)
    along -= np.where(feet < 0.1, shape.heart, 0)[:, None] * x
    side_veins = np.stack((along, (side * reach)[:, None] * x), axis=2)
    spine = np.linspace(-0.01, 0.98, 13)
    midrib = np.stack((spine, np.zeros(13)), axis=1)
    pieces = [midrib[at : at + 4] for at in (9, 6, 3, 0)]
    lines = np.concatenate((side_veins[:, 3:], side_veins[:, :4], pieces))
    widths = np.repeat((0.006, 0.010), 2 * pairs), (0.009, 0.013, 0.017, 0.021)
    strengths = np.repeat((0.38, 0.6), 2 * pairs), (0.65, 0.8, 0.9, 0.95)
    return Veins(_single(lines), _single(np.concatenate(widths)), _single(np.concatenate(strengths)))


def _parallel_veins(shape: LeafShape, rng: np.random.Generator, u: _Line, half: _Line) -> Veins:
    """Veins from base to tip side by side, the midrib last."""
    at = np.linspace(0, 1, 19)
    shares = np.append(np.linspace(-0.93, 0.93, 2 * shape.vein_pairs + 2), 0)
    across = shares[:, None] * np.interp(at, u, half)
    lines = np.stack((np.broadcast_to(at, across.shape), across), axis=2)
    widths, strengths = np.full(len(shares), 0.002), rng.uniform(0.1, 0.5, len(shares))
    widths[-1], strengths[-1] = 0.016, 0.8
    return Veins(_single(lines), _single(widths), _single(strengths))


def _single(values: NDArray[np.floating]) -> NDArray[np.float32]:
    return values.astype(np.float32)
