"""What an image file says of itself: size, format, colour mode, orientation, camera, JPEG quality."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

_ORIENTATION, _MAKE, _MODEL = 0x0112, 0x010F, 0x0110
_STANDARD_SUM = 3688  # sum of the standard luminance table


@dataclass(frozen=True, slots=True)
class Facts:
    """Properties of an image file.

    Attributes:
        width: width of the upright photo, pixels.
        height: height of the upright photo, pixels.
        format: by content, not by file name: `JPEG`, `MPO`, `PNG`…
        mode: colour mode as stored: `RGB`, `L`, `I;16`, `P`, `RGBA`, `CMYK`…
        orientation: EXIF orientation 1 to 8; 1 if there is none, or if the decoder applies it (TIFF, HEIF).
        frames: images in the file; the first one is used.
    """

    width: int
    height: int
    format: str
    mode: str
    orientation: int
    frames: int


@dataclass(frozen=True, slots=True)
class Origin:
    """How a photo was taken and stored.

    Attributes:
        camera: make and model from EXIF; empty if unknown.
        quality: JPEG quality 1 to 100, estimated from the luminance table; `None` for other formats.
    """

    camera: str
    quality: int | None


def facts_of(image: Image.Image) -> Facts:
    """Facts of an opened image, without decoding it."""
    orientation = _orientation(image)
    width, height = image.size
    if orientation >= 5:
        width, height = height, width
    frames = _frames(image)
    return Facts(width, height, image.format or "", image.mode, orientation, frames)


def _orientation(image: Image.Image) -> int:
    if image.format == "TIFF":
        return 1  # Pillow rotates TIFFs itself
    if image.format == "JPEG" and not {"exif", "xmp"} & image.info.keys():
        return 1  # reading EXIF would cost as much as opening
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - broken EXIF is common and does not affect the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def origin_of(image: Image.Image) -> Origin:
    """Camera and JPEG quality of an opened image."""
    camera = ""
    if "exif" in image.info:
        try:
            exif = image.getexif()
            make, model = (str(exif.get(tag, "")).strip("\0 ") for tag in (_MAKE, _MODEL))
            camera = model if model.startswith(make) else f"{make} {model}".strip()
        except Exception:  # noqa: BLE001 - broken EXIF is common and does not affect the pixels
            camera = ""
    tables = getattr(image, "quantization", None)
    return Origin(camera, _quality(tables[0]) if tables and len(tables.get(0, ())) == 64 else None)


def _quality(table: Sequence[int]) -> int:
    """Estimate the quality from the sum of the table: standard table of ITU-T T.81, K.1, scaled as libjpeg does."""
    percent = sum(table) * 100 / _STANDARD_SUM
    quality = (200 - percent) / 2 if percent <= 100 else 5000 / percent
    return int(min(100, max(1, round(quality))))


def _frames(image: Image.Image) -> int:
    if image.format not in {"MPO", "GIF", "TIFF", "WEBP", "PNG", "AVIF", "HEIF"}:
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # noqa: BLE001 - counting may read a damaged tail that the first frame does not need
        return 1
