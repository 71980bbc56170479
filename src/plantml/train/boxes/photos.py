"""Photos with boxes for a detector: batches of pixels, boxes and the answers of every cell.

Augmentation crops, zooms, flips and joins four photos into one (mosaic, as in YOLOv4, Bochkovskiy et al. 2020), then
changes light and sharpness as for whole photos. Every random choice is a function of (seed, epoch, photo).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from plantml.imaging import PAD, Pixels
from plantml.targets import Target
from plantml.train.batches.augment import change_appearance, seed_for
from plantml.train.batches.loader import PixelSource, Sample
from plantml.train.boxes.cells import Floats, cells_of

MOST_BOXES = 300
"""Boxes of a photo that are learnt from; the smallest ones beyond are left out."""

_VISIBLE = 0.35
"""Share of a box that must lie in a crop for the box to stay."""

_SMALLEST = 2.0
"""Pixels of the shorter side of a box that can be learnt."""


@dataclass(frozen=True)
class BoxPhotos:
    """The photos of one split, decoded, with their boxes.

    Attributes:
        pixels: uint8 [N, S, S, 3].
        keys: a number per photo, derived from its content.
        rows: indices of the readable photos.
        boxes: of each photo, float32 [M, 4]: x, y, w, h in pixels of `pixels`.
        labels: of each photo's boxes by target name, encoded.
        sizes: of the upright photos, width and height in pixels.
        doubtful: by row, which of its boxes may be none, bool [M]; all others are certain.
    """

    pixels: PixelSource
    keys: NDArray[np.uint64]
    rows: NDArray[np.int64]
    boxes: Sequence[Floats]
    labels: Sequence[Mapping[str, NDArray[Any]]]
    sizes: Sequence[tuple[int, int]]
    doubtful: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict)

    def doubts(self, row: int) -> NDArray[np.bool_]:
        """Which boxes of a photo may be none, bool [M]."""
        return self.doubtful.get(row, np.zeros(len(self.boxes[row]), np.bool_))


@dataclass(frozen=True)
class BoxAugmentation:
    """The augmentation of photos with boxes; cheap to pickle for worker processes.

    Attributes:
        size: height and width of the result, pixels.
        strength: 0 only resizes, 1 is the default, 2 is strong.
        mosaic: share of pictures that are joined from four photos.
        zoom: smallest and largest factor by which objects are enlarged.
    """

    size: int
    strength: float
    mosaic: float
    zoom: tuple[float, float] = (0.6, 1.6)

    def window(self, shape: tuple[int, int], random: np.random.Generator) -> tuple[float, float, float]:
        """The left, top and side of the square to cut from a canvas of a shape (height, width)."""
        low, high = (factor**self.strength for factor in self.zoom)
        # A window much larger than the canvas would show nothing but padding.
        low = max(low, 0.9 * self.size / max(shape))
        zoom = float(np.exp(random.uniform(np.log(low), np.log(max(low, high)))))
        side = self.size / zoom
        # Never more than a quarter of the window lies outside of the canvas on one side, where it is larger.
        left, top = (
            random.uniform(min(0.0, extent - side) - side / 8, max(0.0, extent - side) + side / 8)
            for extent in (shape[1], shape[0])
        )
        return float(left), float(top), side


class BoxDataset(Dataset[dict[str, Tensor]]):
    """Photos with boxes for a loader, augmented differently in every epoch.

    Args:
        photos: to draw from.
        targets: of the boxes.
        size: height and width of the input.
        seed: of the augmentation.
        augment: none for evaluation, where photos have the size of the input already.
    """

    def __init__(
        self, photos: BoxPhotos, targets: Sequence[Target], size: int, seed: int, augment: BoxAugmentation | None
    ) -> None:
        self.photos, self.targets, self.size, self.seed, self.augment = photos, tuple(targets), size, seed, augment

    def __getitem__(self, sample: Sample) -> dict[str, Tensor]:
        epoch, row, repetition = sample
        if self.augment is None:
            pixels, boxes, labels = np.array(self.photos.pixels[row]), self.photos.boxes[row], self.photos.labels[row]
            doubtful = self.photos.doubts(row)
        else:
            seed = seed_for(self.seed, epoch, int(self.photos.keys[row]) + repetition)
            pixels, boxes, labels, doubtful = self._augmented(row, seed, self.augment)
        order = np.argsort(-boxes[:, 2] * boxes[:, 3], kind="stable")[:MOST_BOXES]
        boxes = boxes[order]
        cells = cells_of(boxes, self.size, self.size, doubtful[order])
        item = {
            "image": torch.from_numpy(pixels),
            "row": torch.tensor(row),
            "centre": torch.from_numpy(cells.centre),
            "box": torch.from_numpy(cells.box),
            "weight": torch.from_numpy(cells.weight),
            "boxes": torch.from_numpy(_filled(boxes, 0)),
        }
        for target in self.targets:
            missing = -1 if target.kind == "class" else np.nan
            item[f"target.{target.name}"] = torch.from_numpy(_filled(labels[target.name][order], missing))
        return item

    def _augmented(
        self, row: int, seed: int, augment: BoxAugmentation
    ) -> tuple[Pixels, Floats, Mapping[str, NDArray[Any]], NDArray[np.bool_]]:
        random = np.random.default_rng(seed)
        rows = [row]
        if random.random() < augment.mosaic:
            rows += [int(other) for other in random.choice(self.photos.rows, 3)]
            random.shuffle(rows)
        canvas, boxes = self._joined(rows)
        labels = {
            target.name: np.concatenate([self.photos.labels[each][target.name] for each in rows])
            for target in self.targets
        }
        doubtful = np.concatenate([self.photos.doubts(each) for each in rows])
        pixels, boxes, kept = cut(canvas, boxes, augment.window(canvas.shape[:2], random), augment.size)
        pixels, boxes = turned(pixels, boxes, int(random.integers(8)))
        pixels = change_appearance(pixels, augment.strength, int(random.integers(2**31)))
        return pixels, boxes, {name: values[kept] for name, values in labels.items()}, doubtful[kept]

    def _joined(self, rows: Sequence[int]) -> tuple[Pixels, Floats]:
        """One photo, or four side by side, and all their boxes."""
        if len(rows) == 1:
            return self.photos.pixels[rows[0]], self.photos.boxes[rows[0]]
        parts = [self.photos.pixels[row] for row in rows]
        side = parts[0].shape[0]
        canvas = np.concatenate([np.concatenate(parts[:2], axis=1), np.concatenate(parts[2:], axis=1)])
        shifts = np.array([[0, 0, 0, 0], [side, 0, 0, 0], [0, side, 0, 0], [side, side, 0, 0]], np.float32)
        return canvas, np.concatenate([self.photos.boxes[row] + shifts[place] for place, row in enumerate(rows)])


def cut(
    canvas: Pixels, boxes: Floats, square: tuple[float, float, float], size: int
) -> tuple[Pixels, Floats, NDArray[np.int64]]:
    """A square of a canvas, resized, with what of the boxes lies in it.

    Args:
        canvas: uint8 [H, W, 3].
        boxes: [M, 4].
        square: its left, top and side; it may extend beyond the canvas.
        size: of the result.

    Returns:
        uint8 [size, size, 3], grey outside of the canvas; boxes float32 [m, 4]; and their indices [m].
    """
    x, y, edge = round(square[0]), round(square[1]), max(1, round(square[2]))
    height, width = canvas.shape[:2]
    inside = canvas[max(0, y) : max(0, min(height, y + edge)), max(0, x) : max(0, min(width, x + edge))]
    window = np.full((edge, edge, 3), PAD, np.uint8)
    at_y, at_x = max(0, -y), max(0, -x)
    window[at_y : at_y + inside.shape[0], at_x : at_x + inside.shape[1]] = inside
    shrinks = edge > size
    pixels = cv2.resize(window, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    low = (boxes[:, :2] - [x, y]) * (size / edge)
    high = low + boxes[:, 2:] * (size / edge)
    visible_low, visible_high = low.clip(0, size), high.clip(0, size)
    area = np.maximum((high - low).prod(axis=1), 1e-6)
    sides = visible_high - visible_low
    kept = np.flatnonzero((sides.prod(axis=1) / area >= _VISIBLE) & (sides.min(axis=1, initial=np.inf) >= _SMALLEST))
    return np.asarray(pixels, np.uint8), np.hstack([visible_low, sides])[kept].astype(np.float32), kept


def turned(pixels: Pixels, boxes: Floats, way: int) -> tuple[Pixels, Floats]:
    """A square picture in one of its 8 orientations (0 leaves it as it is), with its boxes."""
    size = pixels.shape[0]
    x, y, w, h = boxes.T
    if way & 4:
        pixels, x, y, w, h = pixels.transpose(1, 0, 2), y, x, h, w
    if way & 1:
        pixels, x = pixels[:, ::-1], size - x - w
    if way & 2:
        pixels, y = pixels[::-1], size - y - h
    return np.ascontiguousarray(pixels), np.stack([x, y, w, h], axis=1)


def _filled(values: NDArray[Any], filling: float) -> NDArray[Any]:
    """`values` [M, …] with further rows, up to `MOST_BOXES`."""
    rows = np.full((MOST_BOXES, *values.shape[1:]), filling, values.dtype)
    rows[: len(values)] = values
    return rows
