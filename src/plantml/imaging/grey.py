"""The grey levels of a picture: a small copy, the histogram of a grid, and how sharp it is.

Two implementations give the same numbers: a small compiled kernel that passes over the pixels once, and Pillow with
numpy. The kernel is built with the package where there is a C compiler.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from plantml.imaging.resize import is_vertical_first

_VERSION = 2
"""Of the kernel's arguments: one that was built from older sources, as may lie in an editable install, is not used."""

_kernel: Any
try:
    from plantml.imaging import _grey as _kernel  # type: ignore[no-redef, attr-defined, unused-ignore]
except ImportError:  # no compiler where it was installed
    _kernel = None
if getattr(_kernel, "VERSION", None) != _VERSION:
    _kernel = None

GRID = 64
"""Levels and colours are taken at an even grid of 64 x 64 pixels."""

_BORDER = [0, 0, 0, 32, 32, 63, 63, 63], [0, 32, 63, 0, 63, 0, 32, 63]
"""Rows and columns of the cells in its corners and in the middle of each side."""

_SMALL = 32
_BILINEAR = Image.Resampling.BILINEAR
_GAP = 2.0
"""Blocks are averaged down to twice the small size. A smaller gap is no faster by more than 10 µs, and costs one copy
in seven that was resized."""


@dataclass(frozen=True, slots=True)
class Grey:
    """What is measured of a picture's grey levels, 0 to 255, and of its colours.

    Attributes:
        small: the picture at 32 x 32, its aspect bent: float32 [32, 32].
        histogram: grey levels at the grid, int64 [256].
        sharpness: mean square of the Laplacian, on every fourth row; 0 for less than 3 pixels.
        colours: sums of red, green and blue over the grid.
        border: RGB of 8 cells of the grid, those in the corners and in the middle of each side, row by row.
    """

    small: NDArray[np.float32]
    histogram: NDArray[np.int64]
    sharpness: float
    colours: tuple[int, int, int]
    border: bytes


def measure(picture: Image.Image, side: int) -> Grey:
    """Measure an RGB picture, which is made smaller first if it is wider or higher than `side` pixels."""
    scale = side / max(picture.size)
    if scale >= 1:
        return _measured(picture, None)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return _measured(picture, picture.convert("L").resize(size, Image.Resampling.BOX))


def small_grey(grey: Image.Image) -> NDArray[np.float32]:
    """A grey picture at 32 x 32, its aspect bent: float32 [32, 32]."""
    across, down = _factors(grey.size)
    width, height = grey.width / across, grey.height / down
    reduced = grey.reduce((across, down)) if across > 1 or down > 1 else grey
    # In two steps, as the order of Pillow's own depends on its version.
    if is_vertical_first(reduced.size, (_SMALL, _SMALL)):
        between = reduced.resize((reduced.width, _SMALL), _BILINEAR, (0, 0, reduced.width, height))
        small = between.resize((_SMALL, _SMALL), _BILINEAR, (0, 0, width, _SMALL))
    else:
        between = reduced.resize((_SMALL, reduced.height), _BILINEAR, (0, 0, width, reduced.height))
        small = between.resize((_SMALL, _SMALL), _BILINEAR, (0, 0, _SMALL, height))
    return np.asarray(small, np.float32)


def is_compiled() -> bool:
    """Whether the compiled kernel measures here."""
    return _kernel is not None


def _measured(picture: Image.Image, grey: Image.Image | None) -> Grey:
    """The measures of a picture and of its grey copy, which may be smaller; `None` is one of the same size."""
    if _kernel is None or not (lent := _pixels(picture if grey is None else grey)):
        grey = picture.convert("L") if grey is None else grey
        levels = np.asarray(grey.resize((GRID, GRID), Image.Resampling.NEAREST)).ravel()
        histogram = np.bincount(levels, minlength=256)
        return Grey(small_grey(grey), histogram, _sharpness(np.asarray(grey)), *_colours(picture))
    width, height = size = picture.size if grey is None else grey.size
    across, down = _factors(size)
    reduced = -(-width // across), -(-height // down)
    histogram, small = np.empty(256, np.int64), np.empty((_SMALL, _SMALL), np.float32)
    edges, colours, border = _kernel.measure(
        lent, width, height, 4 if grey is None else 1, across, down, is_vertical_first(reduced, (_SMALL, _SMALL)),
        _grid(width), _grid(height), histogram, small,
    )  # fmt: skip
    if grey is not None:
        colours, border = _colours(picture)
    return Grey(small, histogram, _mean_square(edges, width, height), colours, border)


def _factors(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height of the blocks that are averaged."""
    return max(1, int(size[0] / _SMALL / _GAP)), max(1, int(size[1] / _SMALL / _GAP))


def _colours(picture: Image.Image) -> tuple[tuple[int, int, int], bytes]:
    """Sums of red, green and blue over the grid, and the colours of its border."""
    grid = np.asarray(picture.resize((GRID, GRID), Image.Resampling.NEAREST))
    red, green, blue = grid.sum(axis=(0, 1)).tolist()
    return (red, green, blue), grid[_BORDER].tobytes()


@lru_cache(64)
def _grid(length: int) -> NDArray[np.int32]:
    """Where an even grid takes pixels of one axis, as Pillow's nearest neighbours do: it adds up the step."""
    steps = np.full(GRID, length / GRID)
    steps[0] /= 2
    return np.cumsum(steps).astype(np.int32)


def _pixels(picture: Image.Image) -> Any:
    """Pillow's own memory; `None` where it keeps a large picture in pieces."""
    try:
        return picture.__arrow_c_array__()[1]
    except ValueError:
        return None


def _sharpness(grey: NDArray[np.uint8]) -> float:
    height, width = grey.shape
    if min(grey.shape) < 3:
        return 0.0
    rows = (height - 3) // 4 * 4 + 1
    above, at, below = (grey[i : i + rows : 4].astype(np.int16) for i in range(3))
    edges = above[:, 1:-1] + below[:, 1:-1] + at[:, :-2] + at[:, 2:] - 4 * at[:, 1:-1]
    return _mean_square(int(np.square(edges, dtype=np.int32).sum(dtype=np.int64)), width, height)


def _mean_square(total: int, width: int, height: int) -> float:
    return total / ((width - 2) * ((height - 3) // 4 + 1)) if min(width, height) >= 3 else 0.0
