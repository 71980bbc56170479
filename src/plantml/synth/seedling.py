"""Young plants among many: what each is like, and how its leaves are put into a picture."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from plantml.synth import leaf, species
from plantml.synth.canvas import Canvas
from plantml.synth.leaf import Blade, Stance
from plantml.synth.picture import Colour
from plantml.synth.spec import PlantClass
from plantml.synth.species import LeafShape

VIABILITIES = VIABLE, WEAK, MISSING = "viable", "weak", "missing"

_SEED_LEAF = LeafShape(0.5, 0.75, 0.6, vein_pairs=2, relief=0.4)
_GOLDEN = math.pi * (3 - math.sqrt(5))
"""The angle from one leaf to the next, as phyllotaxis has it."""

_VARIANTS = 4
"""Sound leaves of a species that are grown for one photo; its plants share them, turned and scaled."""

_VEIN_PIXELS = 25
"""Pixels between plants for which a leaf has one more pair of veins, up to its own number: more could not be seen."""

_SICKLY = 0.3
"""A plant with symptoms on more than this share of its leaves is weak."""


@dataclass(frozen=True)
class Seedling:
    """What all photos of one plant share.

    Attributes:
        shown: its class.
        weak: small, pale and limp.
        severity: share of its leaves with symptoms that is asked for; 0 for a healthy plant.
        reach: how far its leaves reach, in units of the plane that it stands on.
        turn: where its first leaf points, radians.
        leaves: number of true leaves.
        tint: its colour relative to that of its neighbours.
        key: seed of all else.
    """

    shown: PlantClass
    weak: bool
    severity: float
    reach: float
    turn: float
    leaves: int
    tint: Colour
    key: tuple[int, ...]

    def viability(self, severity: float) -> str:
        """`viable` or `weak`, with `severity` as seen in the photo."""
        return WEAK if self.weak or severity > _SICKLY else VIABLE


@dataclass(frozen=True)
class Leaves:
    """Leaves of one species, each grown at `leaf.SPECIMEN`: sound, limp, and seed leaves."""

    sound: Sequence[tuple[Blade, ...]]
    limp: Sequence[tuple[Blade, ...]]
    seed: Sequence[tuple[Blade, ...]]


def plan(
    key: tuple[int, ...], shown: PlantClass, *, weak: bool, severity: float, reach: float, leaves: int
) -> Seedling:
    """A plant about as large as its neighbours, whose `reach` and number of `leaves` are typical ones."""
    rng = np.random.default_rng(key)
    size, bright, pale = rng.normal(1, 0.12), rng.normal(1, 0.08), 0.0
    if weak:
        size, bright, pale = rng.uniform(0.42, 0.68), rng.uniform(1.05, 1.3), rng.uniform(0.35, 0.9)
    if species.shape_of(shown.category).leaflets > 1:
        leaves -= 1  # leaves of many parts come late
    return Seedling(
        shown=shown,
        weak=weak,
        severity=severity,
        reach=reach * float(np.clip(size, 0.4, 1.3)),
        turn=rng.uniform(0, 2 * math.pi),
        leaves=max(1, leaves + int(rng.integers(-1, 2)) - (2 if weak else 0)),
        tint=(bright * (1 + 0.75 * pale), bright * (1 + 0.25 * pale), bright * (1 - 0.15 * pale)),
        key=key,
    )


def grow_leaves(category: str, rng: np.random.Generator, scale: float) -> Leaves:
    """The leaves that the plants of one species in one photo share; `scale` is pixels between plants."""
    shape = species.shape_of(category)
    shape = replace(shape, vein_pairs=min(shape.vein_pairs, max(3, round(scale / _VEIN_PIXELS))))

    def grow(shape: LeafShape, count: int, squeeze: tuple[float, float], bend: float) -> list[tuple[Blade, ...]]:
        at = leaf.SPECIMEN
        stances = [
            Stance(at.origin, at.angle, at.length, rng.normal(0, bend), rng.uniform(*squeeze)) for _ in range(count)
        ]
        return [leaf.grow_leaf(shape, rng, stance) for stance in stances]

    return Leaves(
        sound=grow(shape, _VARIANTS, (0.75, 1.0), 0.25 if shape.parallel else 0.09),
        limp=grow(shape, 2, (0.4, 0.65), 0.3),
        seed=[] if shape.parallel else grow(_SEED_LEAF, 2, (0.8, 1.0), 0.08),
    )


def put(
    canvas: Canvas,
    number: int,
    seedling: Seedling,
    leaves: Leaves,
    *,
    at: tuple[float, float],
    scale: float,
    squash: float,
    turn: float,
) -> None:
    """Put a plant's leaves on the canvas as leaf `number`, the youngest on top.

    `at` is (x, y) of its stem in pixels, `scale` pixels per unit of the plane, `turn` that of the plane in radians; for
    `squash` see `View`.
    """
    rng = np.random.default_rng((*seedling.key, 1))
    radius = seedling.reach * scale
    pool = leaves.limp if seedling.weak else leaves.sound
    first = seedling.turn + turn
    posture = (
        [(leaves.seed, first + side * math.pi / 2, rng.uniform(0.4, 0.5)) for side in (-1, 1)] if leaves.seed else []
    )
    for nth in range(seedling.leaves):
        age = 1 - nth / (seedling.leaves + 1)
        posture.append((pool, first + nth * _GOLDEN + rng.normal(0, 0.2), (0.45 + 0.55 * age) * rng.uniform(0.9, 1.1)))
    for pool, heading, share in posture:
        dx, dy = math.cos(heading), math.sin(heading) * squash
        length, angle = radius * share * math.hypot(dx, dy), math.atan2(dy, dx)
        stalk = length * rng.uniform(0.12, 0.3)
        base = (at[0] + stalk * math.cos(angle), at[1] + stalk * math.sin(angle))
        canvas.add_stalk(np.array((at, base), np.float32), max(1.0, 0.05 * length))
        tone = float(np.clip(rng.normal(1, 0.1), 0.7, 1.3))
        for blade in leaf.moved(pool[int(rng.integers(len(pool)))], Stance(base, angle, length - stalk)):
            canvas.add_blade(blade, number, tone=tone)
