"""The first training batch as a picture: what the network sees, with its labels."""

import io

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.utils.data import default_collate

from plantml.targets import Target
from plantml.train.batches.loader import PhotoDataset, Photos, StepSampler, augmentation
from plantml.train.batches.mixup import MixedBatch, mix
from plantml.train.plan import Plan

_COLUMNS, _GAP, _LINE = 4, 6, 15


def example_batch(photos: Photos, plan: Plan, limit: int = 16) -> bytes:
    """A PNG of the first training batch after augmentation, with labels and, for blended photos, their shares."""
    dataset = PhotoDataset(photos, plan.seed, augmentation(plan))
    places = next(iter(StepSampler(photos, plan, size=plan.world)))
    if plan.mode == "probe":  # its batches are embeddings, and it blends nothing
        plan, places = plan.model_copy(update={"mixup": 0.0, "cutmix": 0.0}), places[:limit]
    batch = mix(default_collate([dataset[place] for place in places]), plan, step=0)
    images = batch.image[:limit].byte().numpy()
    height, width = images.shape[1:3]
    step = height + _LINE * len(plan.targets) * len(batch.labels) + _GAP
    canvas = Image.new("RGB", (_COLUMNS * (width + _GAP) + _GAP, -(-len(images) // _COLUMNS) * step + _GAP), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    for number, pixels in enumerate(images):
        left, top = _GAP + (number % _COLUMNS) * (width + _GAP), _GAP + (number // _COLUMNS) * step
        canvas.paste(Image.fromarray(pixels), (left, top))
        lines = [line for target in plan.targets for line in _captions(target, batch, number)]
        for line, text in enumerate(lines):
            while pen.textlength(text, font) > width and len(text) > 1:
                text = f"{text[:-2]}…"  # noqa: PLW2901 - shortened until it fits
            pen.text((left, top + height + line * _LINE), text, fill="black", font=font)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()


def _captions(target: Target, batch: MixedBatch, number: int) -> list[str]:
    """The label of a photo, or both labels of a blended one with their shares."""
    names = [label_text(target, labels[target.name][number]) for labels in batch.labels]
    if len(set(names)) == 1:
        return [f"{target.name}: {names[0]}"]
    return [f"{share:.0%} {target.name}: {name}" for name, share in zip(names, batch.shares, strict=True)]


def label_text(target: Target, value: Tensor) -> str:
    """An encoded label in words."""
    if target.kind == "class":
        return target.classes[int(value)] if int(value) >= 0 else "–"
    if target.kind == "value":
        return "–" if value.isnan() else f"{float(value):.3g} {target.unit}"
    return ", ".join(name for name, label in zip(target.classes, value.tolist(), strict=True) if label == 1) or "–"
