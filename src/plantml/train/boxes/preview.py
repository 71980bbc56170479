"""The first training batch of a detector as a picture: what the network sees, with its boxes."""

from collections.abc import Mapping, Sequence

from PIL import Image
from torch import Tensor

from plantml.imaging.drawing import DrawnBox, draw_boxes, grid
from plantml.targets import Target
from plantml.train.batches.preview import label_text

_MOST, _COLOUR = 16, "#d81b60"


def example_batch(items: Sequence[Mapping[str, Tensor]], targets: Sequence[Target]) -> bytes:
    """A PNG of items of a `BoxDataset`, with their boxes and labels."""
    photos = []
    for item in items[:_MOST]:
        photo = Image.fromarray(item["image"].numpy())
        draw_boxes(photo, _drawn(item, targets), text=11)
        photos.append(photo)
    return grid(photos)


def _drawn(item: Mapping[str, Tensor], targets: Sequence[Target]) -> list[DrawnBox]:
    drawn = []
    for row, (x, y, w, h) in enumerate(item["boxes"].tolist()):
        if w > 0:  # else it only fills the array
            words = ", ".join(label_text(target, item[f"target.{target.name}"][row]) for target in targets)
            drawn.append(DrawnBox(x, y, w, h, _COLOUR, words))
    return drawn
