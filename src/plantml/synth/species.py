"""What the leaves of a plant look like, by its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from zlib import crc32

import numpy as np


@dataclass(frozen=True)
class LeafShape:
    """What tells the leaves of one plant from another's. Lengths are in units of the blade's length.

    The half-width follows t^base · (1 - t)^tip, which covers lances, eggs and hearts with two numbers:
    a small `base` is blunt, a `tip` above 1 runs out into a point. `heart` pulls the base back past the
    petiole.
    """

    width: float
    base: float
    tip: float
    heart: float = 0.0
    lobes: float = 0.0
    lobe_depth: float = 0.0
    teeth: float = 0.0
    tooth_depth: float = 0.0
    leaflets: int = 1
    vein_pairs: int = 7
    vein_slope: float = 0.7
    parallel: bool = False
    relief: float = 1.0
    gloss: float = 0.3


SHAPES: Mapping[str, LeafShape] = MappingProxyType(
    {
        "tomato": LeafShape(
            width=0.64,
            base=0.5,
            tip=0.8,
            heart=0.02,
            lobes=2.6,
            lobe_depth=0.34,
            leaflets=5,
            vein_pairs=5,
            vein_slope=0.75,
            relief=1.1,
            gloss=0.15,
        ),
        "bean": LeafShape(
            width=0.82, base=0.42, tip=1.0, heart=0.06, vein_pairs=6, vein_slope=0.75, relief=1.2, gloss=0.2
        ),
        "maize": LeafShape(width=0.13, base=0.22, tip=0.55, vein_pairs=9, parallel=True, relief=0.5, gloss=0.3),
        "strawberry": LeafShape(
            width=0.86,
            base=0.62,
            tip=0.42,
            teeth=9,
            tooth_depth=0.075,
            leaflets=3,
            vein_pairs=7,
            vein_slope=0.9,
            relief=1.3,
            gloss=0.3,
        ),
        "apple": LeafShape(
            width=0.58,
            base=0.55,
            tip=0.75,
            heart=0.01,
            teeth=26,
            tooth_depth=0.018,
            vein_pairs=7,
            vein_slope=0.8,
            relief=0.9,
            gloss=0.3,
        ),
        "pepper": LeafShape(width=0.5, base=0.75, tip=1.15, vein_pairs=6, vein_slope=0.8, relief=0.6, gloss=0.6),
        "potato": LeafShape(
            width=0.6,
            base=0.5,
            tip=0.8,
            heart=0.02,
            leaflets=5,
            vein_pairs=6,
            vein_slope=0.75,
            relief=1.1,
            gloss=0.2,
        ),
        "grape": LeafShape(
            width=0.95,
            base=0.35,
            tip=0.6,
            heart=0.12,
            lobes=2.4,
            lobe_depth=0.3,
            teeth=11,
            tooth_depth=0.05,
            vein_pairs=5,
            vein_slope=0.7,
            relief=1.0,
            gloss=0.25,
        ),
        "cucumber": LeafShape(
            width=1.0,
            base=0.3,
            tip=0.55,
            heart=0.12,
            lobes=1.7,
            lobe_depth=0.12,
            teeth=13,
            tooth_depth=0.025,
            vein_pairs=5,
            vein_slope=0.7,
            relief=1.3,
            gloss=0.1,
        ),
        "wheat": LeafShape(width=0.06, base=0.2, tip=0.6, vein_pairs=4, parallel=True, relief=0.4, gloss=0.2),
        "cherry": LeafShape(
            width=0.48,
            base=0.7,
            tip=0.9,
            teeth=22,
            tooth_depth=0.02,
            vein_pairs=8,
            vein_slope=0.8,
            relief=0.7,
            gloss=0.5,
        ),
        "raspberry": LeafShape(
            width=0.72,
            base=0.45,
            tip=0.9,
            heart=0.02,
            teeth=15,
            tooth_depth=0.04,
            leaflets=3,
            vein_pairs=8,
            vein_slope=0.75,
            relief=1.4,
            gloss=0.1,
        ),
    }
)
_ALIASES = {"corn": "maize", "tomatoes": "tomato", "capsicum": "pepper", "chilli": "pepper", "vine": "grape"}


@cache
def shape_of(category: str) -> LeafShape:
    """The shape of a plant's leaves. A name that the table lacks gets a shape of its own, always the same."""
    key = category.lower().strip()
    key = _ALIASES.get(key, key)
    return SHAPES.get(key) or _invented_shape(np.random.default_rng(crc32(key.encode())))


def _invented_shape(rng: np.random.Generator) -> LeafShape:
    lobed, toothed = rng.random() < 0.35, rng.random() < 0.5
    return LeafShape(
        width=rng.uniform(0.3, 0.95),
        base=rng.uniform(0.3, 0.8),
        tip=rng.uniform(0.45, 1.2),
        heart=rng.uniform(0, 0.1),
        lobes=rng.uniform(1.6, 4) if lobed else 0.0,
        lobe_depth=rng.uniform(0.2, 0.45) if lobed else 0.0,
        teeth=rng.uniform(8, 26) if toothed else 0.0,
        tooth_depth=rng.uniform(0.015, 0.06) if toothed else 0.0,
        leaflets=int(rng.choice((1, 1, 1, 3, 5))),
        vein_pairs=int(rng.integers(4, 10)),
        vein_slope=rng.uniform(0.4, 1.0),
        relief=rng.uniform(0.5, 1.4),
        gloss=rng.uniform(0.1, 0.6),
    )
