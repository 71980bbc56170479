"""Draw boxes onto a photo."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

RIGHT, WRONG, MISSED = "#2e7d32", "#c62828", "#f9a825"
"""Colours of predicted boxes that match an annotated one, of others, and of annotated ones that none matches."""

_COLUMNS, _GAP = 4, 6


@dataclass(frozen=True, slots=True)
class DrawnBox:
    """A box in pixels of the picture, with a colour and a few words; dashed boxes are missed or doubtful ones."""

    x: float
    y: float
    w: float
    h: float
    colour: str
    words: str = ""
    dashed: bool = False


def draw_boxes(photo: Image.Image, boxes: Iterable[DrawnBox], *, text: int = 0) -> None:
    """Draw boxes into an RGB photo, in place: the smaller a box, the thinner its line.

    Words that are wider than their box, or would cover those of a more important box, are left out.

    Args:
        photo: the picture.
        boxes: to draw, the important ones last.
        text: height of the words in pixels; by the picture's width if 0.
    """
    pen = ImageDraw.Draw(photo, "RGBA")
    size = text or max(11, photo.width // 60)
    font, drawn = ImageFont.load_default(size), list(boxes)
    for box in drawn:
        corners = [round(box.x), round(box.y), round(box.x + box.w), round(box.y + box.h)]
        line = max(1, min(max(2, size // 6), round(min(box.w, box.h) / 16)))
        if box.dashed:
            _dashed(pen, corners, box.colour, line)
        else:
            pen.rectangle(corners, outline=box.colour, width=line)
    taken: list[tuple[int, int, int, int]] = []
    for box in reversed(drawn):
        length = font.getlength(box.words)
        if not box.words or length > 1.2 * box.w:
            continue
        left = max(0, min(round(box.x), round(photo.width - length - 4)))
        top = round(box.y) - size - 4 if box.y >= size + 4 else round(box.y)
        place = left, top, round(left + length + 4), top + size + 4
        if any(_overlap(place, other) for other in taken):
            continue
        taken.append(place)
        pen.rectangle(place, fill=f"{box.colour}d0")
        pen.text((left + 2, top + 1), box.words, fill="white", font=font)


def grid(pictures: Sequence[Image.Image]) -> bytes:
    """Pictures side by side, four in a row, as PNG bytes."""
    rows = [pictures[start : start + _COLUMNS] for start in range(0, len(pictures), _COLUMNS)]
    width = max(picture.width for picture in pictures)
    heights = [max(picture.height for picture in row) for row in rows]
    canvas = Image.new("RGB", (len(rows[0]) * (width + _GAP) + _GAP, sum(heights) + _GAP * (len(rows) + 1)), "white")
    top = _GAP
    for row, height in zip(rows, heights, strict=True):
        for column, picture in enumerate(row):
            canvas.paste(picture, (_GAP + column * (width + _GAP), top))
        top += height + _GAP
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _dashed(pen: ImageDraw.ImageDraw, corners: list[int], colour: str, line: int) -> None:
    left, top, right, bottom = corners
    dash = max(2, min(4 * line, (right - left) // 5, (bottom - top) // 5))
    for start in range(left, right, 2 * dash):
        end = min(start + dash, right)
        pen.line((start, top, end, top), fill=colour, width=line)
        pen.line((start, bottom, end, bottom), fill=colour, width=line)
    for start in range(top, bottom, 2 * dash):
        end = min(start + dash, bottom)
        pen.line((left, start, left, end), fill=colour, width=line)
        pen.line((right, start, right, end), fill=colour, width=line)
