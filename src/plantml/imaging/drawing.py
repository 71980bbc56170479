"""Draw boxes onto a photo."""

from collections.abc import Iterable
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont


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
    """Draw boxes into an RGB photo, in place. Words that are wider than twice their box are left out.

    Args:
        photo: the picture.
        boxes: to draw, the important ones last.
        text: height of the words in pixels; by the picture's width if 0.
    """
    pen = ImageDraw.Draw(photo, "RGBA")
    size = text or max(11, photo.width // 60)
    font, line = ImageFont.load_default(size), max(2, size // 6)
    for box in boxes:
        corners = [round(box.x), round(box.y), round(box.x + box.w), round(box.y + box.h)]
        if box.dashed:
            _dashed(pen, corners, box.colour, line)
        else:
            pen.rectangle(corners, outline=box.colour, width=line)
        length = font.getlength(box.words)
        if box.words and length <= max(2 * box.w, 3 * size):
            left = max(0, min(corners[0], round(photo.width - length - 4)))
            top = corners[1] - size - 4 if corners[1] >= size + 4 else corners[1]
            pen.rectangle((left, top, left + length + 4, top + size + 4), fill=f"{box.colour}d0")
            pen.text((left + 2, top + 1), box.words, fill="white", font=font)


def _dashed(pen: ImageDraw.ImageDraw, corners: list[int], colour: str, line: int) -> None:
    left, top, right, bottom = corners
    dash = 4 * line
    for start in range(left, right, 2 * dash):
        end = min(start + dash, right)
        pen.line((start, top, end, top), fill=colour, width=line)
        pen.line((start, bottom, end, bottom), fill=colour, width=line)
    for start in range(top, bottom, 2 * dash):
        end = min(start + dash, bottom)
        pen.line((left, start, left, end), fill=colour, width=line)
        pen.line((right, start, right, end), fill=colour, width=line)
