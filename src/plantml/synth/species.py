"""What the leaves of a plant look like, by its name."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
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


# fmt: off
SHAPES: Mapping[str, LeafShape] = {
    #                        width base  tip heart lobes depth teeth depth leaflets veins slope parallel relief gloss
    "tomato":     LeafShape( 0.64, 0.5, 0.8, 0.02,  2.6, 0.34,    0,    0,       5,    5, 0.75,   False,   1.1, 0.15),
    "bean":       LeafShape( 0.82,0.42,   1, 0.06,    0,    0,    0,    0,       1,    6, 0.75,   False,   1.2,  0.2),
    "maize":      LeafShape( 0.13,0.22,0.55,    0,    0,    0,    0,    0,       1,    9,  0.7,    True,   0.5,  0.3),
    "strawberry": LeafShape( 0.86,0.62,0.42,    0,    0,    0,    9,0.075,       3,    7,  0.9,   False,   1.3,  0.3),
    "apple":      LeafShape( 0.58,0.55,0.75, 0.01,    0,    0,   26,0.018,       1,    7,  0.8,   False,   0.9,  0.3),
    "pepper":     LeafShape(  0.5,0.75,1.15,    0,    0,    0,    0,    0,       1,    6,  0.8,   False,   0.6,  0.6),
    "potato":     LeafShape(  0.6, 0.5, 0.8, 0.02,    0,    0,    0,    0,       5,    6, 0.75,   False,   1.1,  0.2),
    "grape":      LeafShape( 0.95,0.35, 0.6, 0.12,  2.4,  0.3,   11, 0.05,       1,    5,  0.7,   False,     1, 0.25),
    "cucumber":   LeafShape(    1, 0.3,0.55, 0.12,  1.7, 0.12,   13,0.025,       1,    5,  0.7,   False,   1.3,  0.1),
    "wheat":      LeafShape( 0.06, 0.2, 0.6,    0,    0,    0,    0,    0,       1,    4,  0.7,    True,   0.4,  0.2),
    "cherry":     LeafShape( 0.48, 0.7, 0.9,    0,    0,    0,   22, 0.02,       1,    8,  0.8,   False,   0.7,  0.5),
    "raspberry":  LeafShape( 0.72,0.45, 0.9, 0.02,    0,    0,   15, 0.04,       3,    8, 0.75,   False,   1.4,  0.1),
}
# fmt: on
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
