"""A training batch as a picture: what the network really sees, with its labels."""

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from plantml.targets import Target
from plantml.train.data import Batch, PhotoDataset, Photos
from plantml.train.recipe import Plan

_COLUMNS, _GAP, _LINE = 4, 6, 15


def example_batch(dataset: PhotoDataset, photos: Photos, plan: Plan, limit: int = 16) -> bytes:
    """A PNG of the first augmented photos of an epoch, each with its labels."""
    rows = np.random.default_rng(plan.seed).permutation(photos.rows)[:limit]
    items = [dataset[0, int(row), 0] for row in rows]
    height, width = items[0]["image"].shape[:2]
    step = height + _LINE * len(plan.targets) + _GAP
    canvas = Image.new("RGB", (_COLUMNS * (width + _GAP) + _GAP, -(-len(items) // _COLUMNS) * step + _GAP), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    for number, item in enumerate(items):
        left, top = _GAP + (number % _COLUMNS) * (width + _GAP), _GAP + (number // _COLUMNS) * step
        canvas.paste(Image.fromarray(item["image"].numpy()), (left, top))
        for line, target in enumerate(plan.targets):
            text = f"{target.name}: {_label(target, item)}"
            pen.text((left, top + height + line * _LINE), text, fill="black", font=font)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()


def _label(target: Target, item: Batch) -> str:
    value = item[target.name]
    if target.kind == "class":
        return target.classes[int(value)] if int(value) >= 0 else "–"
    if target.kind == "value":
        return "–" if value.isnan() else f"{float(value):.3g} {target.unit}"
    return ", ".join(name for name, there in zip(target.classes, value.tolist(), strict=True) if there == 1) or "–"
