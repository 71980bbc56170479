"""A contact sheet: photos with what was said of them, to look at instead of reading."""

import io
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from plantml import images, storage
from plantml.errors import PlantmlError

_COLUMNS, _TILE, _LINE, _GAP = 6, 200, 17, 8
_COLOURS = {"accept": "#2e7d32", "review": "#ef6c00", "unknown": "#6a1b9a", None: "#c62828"}


def draw(records: Iterable[Mapping[str, Any]], limit: int = 48) -> bytes:
    """A PNG of the first `limit` records: each photo, a bar in its decision's colour, its labels."""
    shown = list(islice(records, limit))
    texts = [_lines(record) for record in shown]
    height = _TILE + 6 + _LINE * max(map(len, texts), default=1) + _GAP
    rows = -(-len(shown) // _COLUMNS)
    columns = min(_COLUMNS, max(1, len(shown)))
    canvas = Image.new("RGB", (columns * (_TILE + _GAP) + _GAP, rows * height + _GAP), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    for number, (record, lines) in enumerate(zip(shown, texts, strict=True)):
        left = _GAP + (number % _COLUMNS) * (_TILE + _GAP)
        top = _GAP + (number // _COLUMNS) * height
        _paste(canvas, pen, record["image"], left, top)
        pen.rectangle((left, top + _TILE, left + _TILE - 1, top + _TILE + 4), fill=_COLOURS[record["decision"]])
        for row, text in enumerate(lines):
            pen.text((left, top + _TILE + 6 + row * _LINE), _short(text, font), fill="black", font=font)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()


def _paste(canvas: Image.Image, pen: ImageDraw.ImageDraw, url: str, left: int, top: int) -> None:
    try:
        photo = images.thumbnail(storage.read(url), _TILE)
    except PlantmlError:
        pen.rectangle((left, top, left + _TILE - 1, top + _TILE - 1), fill="#eeeeee")
        pen.line((left, top, left + _TILE - 1, top + _TILE - 1), fill="#c62828", width=2)
        return
    canvas.paste(photo, (left + (_TILE - photo.width) // 2, top + (_TILE - photo.height) // 2))


def _lines(record: Mapping[str, Any]) -> list[str]:
    name = storage.basename(record["image"])
    if record["failure"] is not None:
        return [name, record["failure"]]
    said = [_said(target, answer) for target, answer in record["targets"].items()]
    return [name, *said] if record["decision"] == "accept" else [name, *said, f"-> {record['decision']}"]


def _said(target: str, answer: Mapping[str, Any]) -> str:
    if "label" in answer:
        return f"{answer['label']} {answer['score']:.2f}"
    if "labels" in answer:
        return ", ".join(f"{label} {score:.2f}" for label, score in answer["labels"]) or f"no {target}"
    return f"{target} {answer['value']:.3g} {answer['unit']}".strip()


def _short(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text cut so that it stays under its photo."""
    if font.getlength(text) <= _TILE:
        return text
    while text and font.getlength(f"{text}…") > _TILE:
        text = text[:-1]
    return f"{text}…"
