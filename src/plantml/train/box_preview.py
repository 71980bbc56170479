"""The first training batch of a detector as a picture: what the network sees, with its boxes."""

import io
from collections.abc import Mapping, Sequence

from PIL import Image
from torch import Tensor

from plantml.imaging.drawing import DrawnBox, draw_boxes
from plantml.targets import Target
from plantml.train.batch_preview import label_text

_COLUMNS, _GAP, _MOST, _COLOUR = 4, 6, 16, "#d81b60"


def example_batch(items: Sequence[Mapping[str, Tensor]], targets: Sequence[Target]) -> bytes:
    """A PNG of items of a `BoxDataset`, with their boxes and labels."""
    items = items[:_MOST]
    height, width = items[0]["image"].shape[:2]
    size = _COLUMNS * (width + _GAP) + _GAP, -(-len(items) // _COLUMNS) * (height + _GAP) + _GAP
    canvas = Image.new("RGB", size, "white")
    for number, item in enumerate(items):
        photo = Image.fromarray(item["image"].numpy())
        draw_boxes(photo, _drawn(item, targets), text=11)
        canvas.paste(photo, (_GAP + number % _COLUMNS * (width + _GAP), _GAP + number // _COLUMNS * (height + _GAP)))
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()


def _drawn(item: Mapping[str, Tensor], targets: Sequence[Target]) -> list[DrawnBox]:
    drawn = []
    for row, (x, y, w, h) in enumerate(item["boxes"].tolist()):
        if w > 0:  # else it only fills the array
            words = ", ".join(label_text(target, item[f"target.{target.name}"][row]) for target in targets)
            drawn.append(DrawnBox(x, y, w, h, _COLOUR, words))
    return drawn
