"""What the camera does: white balance, exposure, contrast, vignette, blur, enlargement, noise."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

from plantml.synth import noise
from plantml.synth.picture import Colours, Picture, clipped

_SMALL_PIXELS = 0.3
"""The least grain of photos of many pixels: their files should be as heavy as those of real cameras."""


def expose(picture: Picture, colours: Colours, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Turn a painted scene into a photo of `size` (height, width): uint8 RGB, shape (H, W, 3).

    Where the scene is smaller than the photo, it is enlarged before the sensor adds its noise: a lens that is
    softer than its sensor looks like this.
    """
    rng, pitch = picture.rng, picture.pitch
    warm, tint = rng.normal(0, 0.09), rng.normal(0, 0.035)
    exposure = float(np.exp(rng.normal(0.2, 0.2)))
    colours = colours * np.array((1 + warm, 1 - tint, 1 - warm), np.float32)[:, None, None] * np.float32(exposure)
    grey = colours.mean(axis=0) + np.float32(rng.uniform(0, 0.06))
    colours += (grey - colours) * np.float32(rng.uniform(0, 0.3))
    if rng.random() < 0.5:
        across = np.square(2 * picture.cols() / picture.width - 1)
        down = np.square(2 * picture.rows() / picture.height - 1)
        colours *= 1 - np.float32(rng.uniform(0.03, 0.16)) * (across + down)
    colours = _curve(colours, rng.uniform(-0.25, 0.45))
    pixels = np.empty((*colours.shape[1:], 3), np.uint8)
    for channel, plane in enumerate(colours):
        np.copyto(pixels[:, :, channel], plane * np.float32(255), casting="unsafe")
    image = Image.fromarray(pixels)
    blur = rng.gamma(1.4, 0.35) * pitch
    if blur > 0.3:
        image = image.filter(ImageFilter.BoxBlur(min(blur, 1.8 * pitch)))
    grain = min(rng.gamma(1.5, 0.1), 0.6)
    if colours.shape[1:] != size:
        image = image.resize(size[::-1], Image.Resampling.BICUBIC)
        grain = max(grain, _SMALL_PIXELS)
    return np.asarray(_with_grain(image, rng, grain))


def _curve(colours: Colours, contrast: float) -> Colours:
    """Hold within 0..1 and bend: an S where `contrast` is above 0, its opposite below."""
    colours = clipped(colours)
    bent = colours * colours * (3 - 2 * colours)
    return colours + (bent - colours) * np.float32(contrast)


def _with_grain(image: Image.Image, rng: np.random.Generator, strength: float) -> Image.Image:
    tile = noise.grain_tile(strength)
    planes = []
    for plane in image.split():
        x, y = rng.integers(0, tile.width, 2).tolist()
        planes.append(ImageChops.add(plane, _tiled(tile, image.size, x, y), 1, -128))
    return Image.merge("RGB", planes)


def _tiled(tile: Image.Image, size: tuple[int, int], x: int, y: int) -> Image.Image:
    """`size` (width, height) pixels of the plane that is paved with `tile`, from (x, y) inside a tile."""
    paved = Image.new("L", size)
    for top in range(-y, size[1], tile.height):
        for left in range(-x, size[0], tile.width):
            paved.paste(tile, (left, top))
    return paved
