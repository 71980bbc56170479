"""The first training batch as a picture: what the network really sees, with its labels."""

import io

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.utils.data import default_collate

from plantml.targets import Target
from plantml.train.batches import PhotoDataset, Photos, Steps, augmentation
from plantml.train.mixup import Mixed, mixed
from plantml.train.plan import Plan

_COLUMNS, _GAP, _LINE = 4, 6, 15


def example_batch(photos: Photos, plan: Plan, limit: int = 16) -> bytes:
    """A PNG of augmented photos of the first step, or of a probe, each with its labels and how much they count."""
    dataset = PhotoDataset(photos, plan.seed, augmentation(plan))
    places = next(iter(Steps(photos, plan, size=plan.world)))
    if plan.mode == "probe":  # which blends nothing, and whose batches are vectors
        plan, places = plan.model_copy(update={"mixup": 0.0, "cutmix": 0.0}), places[:limit]
    batch = mixed(default_collate([dataset[place] for place in places]), plan, step=0)
    images = batch.image[:limit].byte().numpy()
    height, width = images.shape[1:3]
    step = height + _LINE * len(plan.targets) * len(batch.labels) + _GAP
    canvas = Image.new("RGB", (_COLUMNS * (width + _GAP) + _GAP, -(-len(images) // _COLUMNS) * step + _GAP), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    for number, pixels in enumerate(images):
        left, top = _GAP + (number % _COLUMNS) * (width + _GAP), _GAP + (number // _COLUMNS) * step
        canvas.paste(Image.fromarray(pixels), (left, top))
        lines = [line for target in plan.targets for line in _taught(target, batch, number)]
        for line, text in enumerate(lines):
            while pen.textlength(text, font) > width and len(text) > 1:
                text = f"{text[:-2]}…"  # noqa: PLW2901 - as much of it as fits
            pen.text((left, top + height + line * _LINE), text, fill="black", font=font)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()


def _taught(target: Target, batch: Mixed, number: int) -> list[str]:
    """The label of a photo, or both labels of a blended one with their shares."""
    names = [_label(target, labels[target.name][number]) for labels in batch.labels]
    if len(set(names)) == 1:
        return [f"{target.name}: {names[0]}"]
    return [f"{share:.0%} {target.name}: {name}" for name, share in zip(names, batch.shares, strict=True)]


def _label(target: Target, value: Tensor) -> str:
    if target.kind == "class":
        return target.classes[int(value)] if int(value) >= 0 else "–"
    if target.kind == "value":
        return "–" if value.isnan() else f"{float(value):.3g} {target.unit}"
    return ", ".join(name for name, there in zip(target.classes, value.tolist(), strict=True) if there == 1) or "–"
