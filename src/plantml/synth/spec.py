"""The specification of a synthetic dataset, and the plant in each of its photos."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from zlib import crc32

import numpy as np

from plantml.errors import InputError

LOOKS = ("healthy", "spot", "blight", "rust", "mildew")
"""Looks that can be drawn. Every disease name ends with one of these or a synonym."""

DEFAULT_CLASSES = (
    "tomato___healthy",
    "tomato___leaf_spot",
    "tomato___blight",
    "bean___healthy",
    "bean___leaf_spot",
    "bean___rust",
    "maize___healthy",
    "maize___blight",
    "maize___rust",
    "strawberry___healthy",
    "strawberry___leaf_spot",
    "strawberry___powdery_mildew",
)

Layout = Literal["plant", "tray", "row"]


@dataclass(frozen=True)
class LayoutSize:
    """The usual width of a photo in pixels, and its height as a share of the width."""

    width: int
    aspect: float


LAYOUTS: Mapping[Layout, LayoutSize] = {
    "plant": LayoutSize(256, 1.0),
    "tray": LayoutSize(640, 0.75),
    "row": LayoutSize(640, 0.75),
}
"""What a photo may show: one plant, a nursery tray, or crop rows."""

MAX_IMAGES = 10_000_000
SIDES = (32, 8192)
MAX_ASPECT = 4
SEVERITIES = (0.01, 0.62)
"""The least and the largest share of the leaf that a disease is asked to cover."""
ZOOMS = (0.5, 3.0)

_SYNONYMS = {
    "spots": "spot",
    "scab": "spot",
    "anthracnose": "spot",
    "septoria": "spot",
    "blotch": "blight",
    "rot": "blight",
    "scorch": "blight",
    "burn": "blight",
    "rusts": "rust",
    "pustules": "rust",
    "mildews": "mildew",
    "mould": "mildew",
    "mold": "mildew",
}
_CLASS = re.compile(r"([A-Za-z0-9][\w .,()-]*?)___([A-Za-z0-9][\w .,()-]*)", re.ASCII)
_PHOTOS_OF_A_PLANT = (2, 3, 4, 5, 6)
_BLOCK = sum(_PHOTOS_OF_A_PLANT)
_PHOTOS_OF_A_STAND = (1, 2, 3)


@dataclass(frozen=True)
class SynthSpec:
    """A synthetic dataset, complete: two equal specs give the same bytes.

    Attributes:
        images: number of images.
        classes: names like `tomato___leaf_spot`: category, three underscores, disease.
        seed: random seed, 0 or more.
        size: width of the photos in pixels.
        defects: share of images with a planted defect, 0 to 0.5; of boxes, where a photo shows many plants.
        height: in pixels; if it is None, the same as the width, or three quarters of it for trays and rows.
        severity: the least and the largest share of leaf area with symptoms on a diseased plant; its photos vary
            around its own share.
        zoom: how many times as large leaves are in the picture.
        layout: one `plant` fills the photo, or it shows many: a nursery `tray` or crop rows (`row`).

    Raises:
        InputError: the values are invalid.
    """

    images: int
    classes: tuple[str, ...] = DEFAULT_CLASSES
    seed: int = 0
    size: int = 256
    defects: float = 0.0
    height: int | None = None
    severity: tuple[float, float] = (0.015, 0.55)
    zoom: float = 1.0
    layout: Layout = "plant"

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise InputError(
                f"There is no layout {self.layout!r}", f"layouts: {', '.join(LAYOUTS)}", "Choose one of them."
            )
        _check_range("images", self.images, 1, MAX_IMAGES)
        _check_range("seed", self.seed, 0, 2**63 - 1)
        _check_range("size", self.size, *SIDES)
        if self.height is not None:
            _check_range("height", self.height, *SIDES)
        if max(self.shape) > MAX_ASPECT * min(self.shape):
            raise InputError(
                f"Photos of {self.size} by {self.height} pixels are too narrow",
                f"one side may be at most {MAX_ASPECT} times the other",
                "Choose another size.",
            )
        _check_range("defects", self.defects, 0.0, 0.5)
        if not self.classes:
            raise InputError(
                "There are no classes", "a dataset needs at least one", "Add one, such as tomato___healthy."
            )
        folded = [name.casefold() for name in self.classes]
        if len(set(folded)) != len(folded):
            raise InputError("A class is named twice", ", ".join(self.classes), "Name every class once.")
        if self.defects and self.images < 2 and self.layout == "plant":
            raise InputError(
                "One image cannot have planted defects",
                why="most defects are made from another image of the dataset",
                hint="Use more images, or no defects.",
            )
        for name in self.classes:
            parse_class(name)
        least, most = self.severity
        _check_range("severity", least, *SEVERITIES)
        _check_range("severity", most, least, SEVERITIES[1])
        _check_range("zoom", self.zoom, *ZOOMS)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of every photo in pixels."""
        return (self.height or round(self.size * LAYOUTS[self.layout].aspect), self.size)


@dataclass(frozen=True)
class PlantClass:
    """One class name, taken apart. `look` is one of LOOKS; `disease` is `none` for healthy plants."""

    name: str
    category: str
    disease: str
    look: str

    @property
    def health(self) -> str:
        """`healthy` or `diseased`."""
        return "healthy" if self.look == "healthy" else "diseased"


@dataclass(frozen=True)
class Slot:
    """Which class and plant a photo shows.

    `plant_key` and `photo_key` are seeds: what photos of one plant share, and what they do not.
    """

    shown: PlantClass
    plant: str
    plant_key: tuple[int, ...]
    photo_key: tuple[int, ...]


@dataclass(frozen=True)
class StandSlot:
    """Which tray or rows a photo shows: their name, and the seeds of what all its photos share and do not share."""

    stand: str
    stand_key: tuple[int, ...]
    photo_key: tuple[int, ...]


def parse_class(name: str) -> PlantClass:
    """Take `category___disease` apart. Raises InputError for other forms and for diseases without a look."""
    match = _CLASS.fullmatch(name)
    if not match:
        raise InputError(
            f"The class {name!r} does not look like category___disease",
            why="three underscores join category and disease, and the whole names a folder",
            hint="Write it like tomato___healthy or bean___leaf_rust.",
        )
    category, disease = match.groups()
    if disease == "healthy":
        return PlantClass(name, category, "none", "healthy")
    return PlantClass(name, category, disease, look_of(disease))


def look_of(disease: str) -> str:
    """The look that a disease name ends with, or its synonym: `powdery_mildew` is a mildew, `scab` a spot."""
    words = re.split(r"[^a-z]+", disease.lower())
    known = [look for word in words if (look := _SYNONYMS.get(word, word)) in LOOKS[1:]]
    if not known:
        raise InputError(
            f"The disease {disease!r} cannot be drawn",
            why=f"leaves can be drawn with {', '.join(LOOKS)} and their synonyms",
            hint="End the name with one of these, as in gray_leaf_spot.",
        )
    return known[-1]


def slot_of(spec: SynthSpec, index: int) -> Slot:
    """The plant in photo `index`, independent of all other photos.

    The classes alternate, so every class has its share in a dataset of any length. Within a class, each block of
    20 photos has five plants with 2, 3, 4, 5 and 6 photos, in random order.
    """
    place = index % len(spec.classes)
    block, offset = divmod(index // len(spec.classes), _BLOCK)
    name = spec.classes[place]
    class_key = crc32(name.encode())
    lengths = np.random.default_rng((spec.seed, class_key, block)).permutation(_PHOTOS_OF_A_PLANT)
    of_block = int(np.searchsorted(np.cumsum(lengths), offset, side="right"))
    of_class = block * len(_PHOTOS_OF_A_PLANT) + of_block
    return Slot(
        shown=parse_class(name),
        plant=f"plant-{of_class * len(spec.classes) + place:06d}",
        plant_key=(spec.seed, class_key, of_class, 1),
        photo_key=(spec.seed, class_key, index, 2),
    )


def stand_of(spec: SynthSpec, index: int) -> StandSlot:
    """The tray or the rows in photo `index`: of each three, one has one photo, one two and one three."""
    layout_key = crc32(spec.layout.encode())
    block, offset = divmod(index, sum(_PHOTOS_OF_A_STAND))
    lengths = np.random.default_rng((spec.seed, layout_key, block)).permutation(_PHOTOS_OF_A_STAND)
    number = block * len(lengths) + int(np.searchsorted(np.cumsum(lengths), offset, side="right"))
    return StandSlot(
        stand=f"{spec.layout}-{number:06d}",
        stand_key=(spec.seed, layout_key, number, 1),
        photo_key=(spec.seed, layout_key, index, 2),
    )


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InputError(
            f"{name} is {value}", why=f"it must be from {low} to {high}", hint=f"Choose another value for {name}."
        )
