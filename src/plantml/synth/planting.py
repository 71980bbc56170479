"""What grows where in a tray or in crop rows, before any camera looks at it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from plantml.synth import seedling
from plantml.synth.picture import Colours, Picture
from plantml.synth.seedling import Seedling
from plantml.synth.spec import PlantClass, SynthSpec, parse_class
from plantml.synth.view import Places, View


@dataclass(frozen=True)
class Place:
    """Where a plant stands, or would stand: (x, y) on the plane. `cell` has the corners of its cell in a tray."""

    at: tuple[float, float]
    plant: Seedling | None
    cell: Places | None = None


@dataclass(frozen=True)
class Planting:
    """Everything that all photos of one tray, or of the same rows, share.

    Attributes:
        extent: width and height of the plane around (0, 0), in units of the distance between plants.
        places: where plants stand, or would.
        look: a random view, from random numbers and the height and width of the photo.
        paint: the ground beneath the plants.
    """

    extent: tuple[float, float]
    places: Sequence[Place]
    look: Callable[[np.random.Generator, int, int], View]
    paint: Callable[[Picture, View], Colours]


@dataclass(frozen=True)
class Crop:
    """What was sown, and how it fares.

    Attributes:
        strips: the classes of each species; strips of species lie side by side.
        diseased: share of plants that are, where their species has both kinds of classes.
        weak: share of weak plants.
        missing: share of places without a plant.
        leaves: typical number of true leaves.
        reach: typical reach of the leaves.
        severity: least and largest share of leaf area with symptoms.
    """

    strips: Sequence[Sequence[PlantClass]]
    diseased: float
    weak: float
    missing: float
    leaves: int
    reach: float
    severity: tuple[float, float]

    def plant_at(self, key: tuple[int, ...], across: float) -> Seedling | None:
        """The plant whose seed is `key`, at `across` (0..1) over the strips; `None` if none has come up."""
        rng = np.random.default_rng((*key, 0))
        if rng.random() < self.missing:
            return None
        classes = self.strips[int(across * len(self.strips))]
        healthy = [each for each in classes if each.look == "healthy"]
        others = [each for each in classes if each.look != "healthy"]
        pool = others if others and (not healthy or rng.random() < self.diseased) else healthy
        shown = pool[int(rng.integers(len(pool)))]
        low, high = self.severity
        severity = 0.0 if shown.look == "healthy" else math.exp(rng.uniform(math.log(low), math.log(high)))
        weak = bool(rng.random() < self.weak)
        return seedling.plan(key, shown, weak=weak, severity=severity, reach=self.reach, leaves=self.leaves)


def sow(spec: SynthSpec, rng: np.random.Generator, *, reach: float, leaves: tuple[int, int]) -> Crop:
    """One species, sometimes two or three, of much the same age; `reach` and `leaves` are those of a typical plant."""
    classes = [parse_class(name) for name in spec.classes]
    categories = sorted({each.category for each in classes})
    count = min(len(categories), int(rng.choice((1, 2, 3), p=(0.65, 0.25, 0.1))))
    chosen = [categories[number] for number in rng.permutation(len(categories))[:count]]
    return Crop(
        strips=[[each for each in classes if each.category == category] for category in chosen],
        diseased=rng.uniform(0.1, 0.4),
        weak=rng.uniform(0.04, 0.2),
        missing=rng.uniform(0.04, 0.25),
        leaves=int(rng.integers(leaves[0], leaves[1] + 1)),
        reach=reach * spec.zoom,
        severity=spec.severity,
    )
