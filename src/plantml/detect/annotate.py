"""`--annotate`: each photo with its boxes, tiles or heat map; predictions below, in the colour of the decision."""

import io
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from plantml import imaging, storage
from plantml.concurrency import Progress, in_threads, silent
from plantml.detect.record_sheet import COLOURS, counts_text, prediction_text
from plantml.errors import PlantmlError
from plantml.imaging.drawing import DrawnBox, draw_boxes
from plantml.imaging.heat import draw_heat
from plantml.model.records import answer_to, heat_of

SIDE = 2048
"""Pictures are drawn at most this wide and high, pixels."""

_SMALLEST = 480
"""Narrower ones are enlarged to this width, so that the text beneath has room."""

_NEUTRAL = "#808080"
"""Colour of a box that the target which colours the others does not apply to."""

_WELL, _GREEN = frozenset({"healthy", "none"}), "#3cb44b"
_PALETTE = ("#e6194b", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45", "#9a6324", "#808000")


def write(folder: str, records: Iterable[Mapping[str, Any]], *, threads: int = 1, progress: Progress = silent) -> int:
    """Draw every record that has predictions into a folder, as `NAME.<first 8 digits of its image_id>.jpg`.

    Returns:
        How many were drawn. A photo that has disappeared or become unreadable is left out.
    """
    count = 0

    def draw_one(record: Mapping[str, Any]) -> bool:
        try:
            data = storage.read(record["image"])
            picture = draw(data, record)
        except PlantmlError:
            return False
        storage.write(storage.join(folder, file_name(record, ".jpg")), picture)
        return True

    for drawn in in_threads(draw_one, (record for record in records if record["failure"] is None), threads):
        count += drawn
        progress(count, 0)
    return count


def file_name(record: Mapping[str, Any], extension: str) -> str:
    """A unique file name for a record: the photo's name and the first digits of its `image_id`."""
    stem = os.path.splitext(storage.basename(record["image"].partition("?")[0]))[0]  # noqa: PTH122 - a URL is no Path
    if stem == record["image_id"]:  # a photo of a dataset
        return f"{stem}{extension}"
    return f"{stem[:100] or 'image'}.{record['image_id'][:8]}{extension}"


def draw(data: bytes, record: Mapping[str, Any]) -> bytes:
    """The upright photo with its predictions below it, its boxes, tiles or heat map, as JPEG bytes.

    Raises:
        ImageError: the photo cannot be decoded.
    """
    photo = imaging.thumbnail(data, SIDE)
    if photo.width < _SMALLEST:
        size = _SMALLEST, round(photo.height * _SMALLEST / photo.width)
        photo = photo.resize(size, Image.Resampling.NEAREST) if size[1] <= 4 * SIDE else photo
    scale = photo.width / record["width"]
    text = max(15, photo.width // 40)
    if "heat_map" in record:
        photo = draw_heat(photo, heat_of(record["heat_map"]), [scale * record["heat_map"][side] for side in "xywh"])
    _overlay(photo, record, scale, text)
    key = _box_key(record)
    lines = [f"{target}: {prediction_text(target, prediction)}" for target, prediction in record["targets"].items()]
    if "counts" in record:
        shown = _box_colours(record)[0]
        lines.append(counts_text({name: counts for name, counts in record["counts"].items() if name != shown}))
    if "tiles" in record:
        lines += _legend(record["tiles"])
    lines += [f"advice: {line}" for advice in record.get("advice", {}).values() for line in advice.splitlines()]
    font = ImageFont.load_default(text)
    wrapped = [row for line in lines for row in _wrap(line, font, photo.width - text)]
    entries = _arranged(key, font, photo.width - text)
    rows = len(wrapped) + (entries[-1][1] + 1 if entries else 0)
    canvas = Image.new("RGB", (photo.width, photo.height + round(text * (1.4 * (rows + 1) + 1.2))), "white")
    canvas.paste(photo, (0, 0))
    pen, top, colour = ImageDraw.Draw(canvas), photo.height, COLOURS[record["decision"]]
    pen.rectangle((0, top, photo.width, top + round(text * 1.6)), fill=colour)
    pen.text((text // 2, top + text // 5), record["decision"], fill="white", font=font)
    for number, line in enumerate(wrapped):
        pen.text((text // 2, top + round(text * (1.9 + 1.4 * number))), line, fill="black", font=font)
    for offset, row, colour, words in entries:
        x, y = text // 2 + offset, top + round(text * (1.9 + 1.4 * (len(wrapped) + row)))
        pen.rectangle((x, y + text // 5, x + text * 4 // 5, y + text), fill=colour)
        pen.text((x + round(text * 1.2), y), words, fill="black", font=font)
    buffer = io.BytesIO()
    canvas.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _overlay(photo: Image.Image, record: Mapping[str, Any], scale: float, text: int) -> None:
    target, colours = _box_colours(record)
    boxes = []
    for box in reversed(record["boxes"]):  # the best on top
        sides = {side: scale * box[side] for side in "xywh"}
        colour = colours.get(_kind(box, target), _NEUTRAL)
        is_doubtful = box["decision"] != "accept"
        boxes.append(DrawnBox(**sides, colour=colour, words=_words(box, target), dashed=is_doubtful))
    draw_boxes(photo, boxes, text=max(11, text * 2 // 3))
    if "tiles" in record:
        _grid(ImageDraw.Draw(photo, "RGBA"), record, scale)


def _kind(box: Mapping[str, Any], target: str | None) -> str:
    """The label that a box is coloured by."""
    return str(box["decision"] if target is None else answer_to(target, box["targets"])[1]["label"])


def _words(box: Mapping[str, Any], target: str | None) -> str:
    """What a box is; its score if there is nothing else to say."""
    return f"{box['score']:.2f}" if target is None else prediction_text(*answer_to(target, box["targets"]))


def _box_colours(record: Mapping[str, Any]) -> tuple[str | None, Mapping[str, str]]:
    """The target whose classes colour the boxes, the first with several, and its colours; else those of decisions."""
    for target, labels in record.get("counts", {}).items():
        if target != "boxes" and len(labels) > 1:
            return target, _class_colours(labels)
    return None, {decision: colour for decision, colour in COLOURS.items() if decision}


def _box_key(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Colour and words of each kind of box in a photo."""
    target, colours = _box_colours(record)
    kinds = Counter(_kind(box, target) for box in record["boxes"])
    names = colours if target is None else record["counts"][target]
    order = [*names, *sorted(set(kinds) - set(names))]
    return [(colours.get(name, _NEUTRAL), f"{name} {kinds[name]}") for name in order if kinds[name]]


def _arranged(
    key: Sequence[tuple[str, str]], font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> list[tuple[int, int, str, str]]:
    """Each entry of a key with its place: offset in pixels, line, colour, words."""
    entries, left, line, gap = [], 0, 0, font.getlength("mm")
    for colour, words in key:
        needed = round(font.getlength(words) + 2 * gap)
        if left and left + needed > width:
            left, line = 0, line + 1
        entries.append((left, line, colour, words))
        left += needed
    return entries


def _grid(pen: ImageDraw.ImageDraw, record: Mapping[str, Any], scale: float) -> None:
    """Draw each tile's cell, the area closest to its centre, in the colour of its label."""
    tiles = record["tiles"]
    target = _displayed_target(tiles)
    colours = _colours(record, target) if target else {}
    font = ImageFont.load_default(max(11, round(scale * tiles["grid"][0]["w"] / 12)))
    xs, ys = sorted({tile["x"] for tile in tiles["grid"]}), sorted({tile["y"] for tile in tiles["grid"]})
    for tile in tiles["grid"]:
        left, right = _cell(xs, tile["x"], tile["w"])
        top, bottom = _cell(ys, tile["y"], tile["h"])
        corners = [round(scale * edge) for edge in (left, top, right, bottom)]
        answer = answer_to(target, tile["targets"])[1] if target else {}
        label = answer.get("label", tile["decision"])
        colour = colours.get(label, _NEUTRAL)
        opacity = 70 if tile["decision"] == "accept" else 20
        pen.rectangle(corners, fill=f"{colour}{opacity:02x}", outline=f"{colour}ff", width=2)
        words = f"{label} {answer['score']:.2f}" if target else label
        if tile["decision"] != "accept":
            words += f"\n{tile['decision']}"
        if font.getlength(words.split("\n", maxsplit=1)[0]) <= corners[2] - corners[0] - 8:
            origin = (corners[0] + 5, corners[1] + 3)
            pen.multiline_text(origin, words, fill="white", font=font, stroke_width=2, stroke_fill="black")


def _cell(starts: Sequence[int], start: int, length: int) -> tuple[float, float]:
    """One side of a tile's cell: it ends halfway into the overlap with each neighbour."""
    index = starts.index(start)
    first = start if not index else (starts[index - 1] + length + start) / 2
    last = start + length if index + 1 == len(starts) else (start + length + starts[index + 1]) / 2
    return first, last


def _displayed_target(tiles: Mapping[str, Any]) -> str | None:
    """The target whose labels are drawn: the one with the most labels."""
    labels = tiles["labels"]
    return max(labels, key=lambda name: (len(labels[name]), name == "disease"), default=None)


def _colours(record: Mapping[str, Any], target: str) -> dict[str, str]:
    """A colour per label, the same for all photos whose records name the same classes."""
    names = {label for label, _ in record["targets"].get(target, {}).get("top", ())} | set(
        record["tiles"]["labels"][target]
    )
    return _class_colours(sorted(names))


def _class_colours(names: Iterable[str]) -> dict[str, str]:
    others = [name for name in names if name not in _WELL]
    return dict.fromkeys(_WELL, _GREEN) | {name: _PALETTE[n % len(_PALETTE)] for n, name in enumerate(others)}


def _legend(tiles: Mapping[str, Any]) -> list[str]:
    target = _displayed_target(tiles)
    counts = tiles["labels"].get(target, {}) if target else {}
    summary = ", ".join(f"{label} {count}" for label, count in counts.items())
    return [f"{tiles['columns']} x {tiles['rows']} tiles of {tiles['size']} pixels: {summary}"]


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Wrap text to a width in pixels; cut words that are too long."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        while len(word) > 1 and font.getlength(word) > width:
            word = word[:-2] + "…"  # noqa: PLW2901
        lines.append(word)
    return [line for line in lines if line]
