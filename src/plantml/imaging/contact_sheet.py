"""Contact sheets: thumbnails, each with a coloured bar and a caption."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from plantml import imaging
from plantml.errors import PlantmlError

_COLUMNS, _TILE, _LINE, _GAP = 6, 200, 17, 8


@dataclass(frozen=True)
class Tile:
    """One photo of a contact sheet.

    Attributes:
        read: returns the bytes of the photo; one that cannot be read or decoded is crossed out.
        lines: the caption; lines that are too long are truncated.
        colour: of the bar below the photo.
    """

    read: Callable[[], bytes]
    lines: Sequence[str]
    colour: str


def draw(tiles: Sequence[Tile]) -> bytes:
    """Draw the sheet as PNG."""
    height = _TILE + 6 + _LINE * max((len(tile.lines) for tile in tiles), default=1) + _GAP
    rows = -(-len(tiles) // _COLUMNS)
    columns = min(_COLUMNS, max(1, len(tiles)))
    canvas = Image.new("RGB", (columns * (_TILE + _GAP) + _GAP, rows * height + _GAP), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    for number, tile in enumerate(tiles):
        left = _GAP + (number % _COLUMNS) * (_TILE + _GAP)
        top = _GAP + (number // _COLUMNS) * height
        _paste(canvas, pen, tile, left, top)
        pen.rectangle((left, top + _TILE, left + _TILE - 1, top + _TILE + 4), fill=tile.colour)
        for row, text in enumerate(tile.lines):
            pen.text((left, top + _TILE + 6 + row * _LINE), _short(text, font), fill="black", font=font)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()


def _paste(canvas: Image.Image, pen: ImageDraw.ImageDraw, tile: Tile, left: int, top: int) -> None:
    try:
        photo = imaging.thumbnail(tile.read(), _TILE)
    except PlantmlError:
        pen.rectangle((left, top, left + _TILE - 1, top + _TILE - 1), fill="#eeeeee")
        pen.line((left, top, left + _TILE - 1, top + _TILE - 1), fill="#c62828", width=2)
        return
    canvas.paste(photo, (left + (_TILE - photo.width) // 2, top + (_TILE - photo.height) // 2))


def _short(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Truncate the text to the width of its photo."""
    if font.getlength(text) <= _TILE:
        return text
    while text and font.getlength(f"{text}…") > _TILE:
        text = text[:-1]
    return f"{text}…"
