"""The other side of boxes: torchvision's FCOS and RetinaNet on plantml's backbone and weights. A process of its own:

    python -m bench.quality_torchvision DATASET --model fcos --recipe adamw --size 352 --cpu 600 --seed 0 --out FILE

Networks, losses, post-processing, transforms and feature pyramid are torchvision's. Its training script
(references/detection) is not in the package, so that its loop stands here. Photos are decoded once, into memory, as on
our side, and batch statistics stay as they were pretrained, as on both.
"""

import argparse
import copy
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.transforms import v2

from plantml import imaging, storage
from plantml.data import boxes, versions
from plantml.imaging import Fit
from plantml.metrics import detection
from plantml.model.detector import LEVELS
from plantml.train import weights

_CHANNELS = 256
"""Of the pyramid and the heads, torchvision's default."""

_BATCH, _CHECKS, _WARM_UP = 8, 8, 0.05
"""Photos a step; validations of a training; share of the time in which the rate rises."""

_LARGEST = 300
"""Boxes of a photo, as many as ours gives."""


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        opt: optimiser.
        lr: its highest rate.
        weight_decay: its own.
        strong: torchvision's augmentation for SSD (crops, zooms, colours, flips) in place of flips alone.
    """

    opt: str
    lr: float
    weight_decay: float
    strong: bool


RECIPES: Mapping[str, Recipe] = {
    # references/detection/train.py for fcos_resnet50_fpn: 0.01 for 16 photos a step, and flips.
    "reference": Recipe("sgd", 0.005, 1e-4, strong=False),
    # What small sets are usually tuned with.
    "adamw": Recipe("adamw", 5e-4, 0.02, strong=True),
}


class Pyramid(nn.Module):
    """A backbone's maps at strides 8 to 32 and two coarser ones, as torchvision's detectors take them."""

    out_channels = _CHANNELS

    def __init__(self, size: int) -> None:
        super().__init__()
        fit = Fit(size, size)
        self.body = weights.features(weights.DEFAULT, weights.Weights(), fit, LEVELS[1:], offline=True)
        channels = self.body.feature_info.channels()  # type: ignore[union-attr, operator]
        self.fpn = FeaturePyramidNetwork(channels, _CHANNELS, extra_blocks=LastLevelP6P7(_CHANNELS, _CHANNELS))

    def train(self, mode: bool = True) -> "Pyramid":  # noqa: FBT001, FBT002 - torch's signature
        """Set training mode; batch statistics stay as they were pretrained."""
        super().train(mode)
        for module in self.body.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, photos: Tensor) -> dict[str, Tensor]:
        """Maps by name."""
        return self.fpn(dict(zip("345", self.body(photos), strict=True)))  # type: ignore[no-any-return]


def network(name: str, size: int) -> nn.Module:
    """A detector of one class with pretrained backbone."""
    mean, std = weights.statistics(weights.DEFAULT)
    common: dict[str, Any] = {"min_size": size, "max_size": size, "image_mean": mean, "image_std": std,
                              "score_thresh": 0.01, "detections_per_img": _LARGEST}  # fmt: skip
    if name == "fcos":
        fcos = FCOS(Pyramid(size), 2, **common)
        # Sides start at zero in torchvision, behind a ReLU: in short trainings with AdamW all of them stay there.
        nn.init.constant_(fcos.head.regression_head.bbox_reg.bias, 1.0)  # in strides
        return fcos
    sides = tuple((side, int(side * 2 ** (1 / 3)), int(side * 2 ** (2 / 3))) for side in (16, 32, 64, 128, 256))
    anchors = AnchorGenerator(sides, ((0.5, 1.0, 2.0),) * len(sides))  # half of the default: apples are small
    return RetinaNet(Pyramid(size), 2, anchor_generator=anchors, **common)


MODELS = ("fcos", "retinanet")


@dataclass(frozen=True)
class Photos:
    """The photos of a split.

    Attributes:
        pixels: uint8 [N, S, S, 3].
        corners: by photo, left, top, right, bottom in pixels of the input, float32 [M, 4].
    """

    pixels: Sequence[imaging.Pixels]
    corners: Sequence[np.ndarray]


def load(ref: str, split: str, size: int) -> Photos:
    """Decode a split as `plantml train` and `detect` do."""
    version, fit = versions.load(ref), Fit(size, size)
    rows = boxes.annotated(version.usable(split)).sort("image_id")
    pixels, corners = [], []
    for path, width, height, drawn in rows.select("path", "width", "height", "boxes").iter_rows():
        pixels.append(imaging.decode(storage.read(version.image_url(path)), fit))
        sides = np.array([[box.x, box.y, box.w, box.h] for box in boxes.from_rows(drawn) or ()], float).reshape(-1, 4)
        placed = fit.placement(width, height).to_input(sides)
        corners.append(np.hstack([placed[:, :2], placed[:, :2] + placed[:, 2:]]).astype(np.float32))
    return Photos(pixels, corners)


def augmentation(recipe: Recipe, size: int) -> v2.Transform:
    """The transforms of a recipe (references/detection/presets.py)."""
    finish: list[nn.Module] = [
        v2.RandomHorizontalFlip(),
        v2.SanitizeBoundingBoxes(),
        v2.ToDtype(torch.float, scale=True),
    ]
    if not recipe.strong:
        return v2.Compose(finish)
    fill: Any = {tv_tensors.Image: (123, 117, 104), "others": 0}
    crops = [v2.RandomPhotometricDistort(), v2.RandomZoomOut(fill=fill), v2.RandomIoUCrop()]
    return v2.Compose([*crops, v2.Resize((size, size), antialias=True), *finish])


def batch(
    photos: Photos, places: Sequence[int], transform: v2.Transform
) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Augmented photos with their boxes, as torchvision's detectors take them."""
    images, targets = [], []
    for place in places:
        pixels = torch.from_numpy(np.array(photos.pixels[place])).permute(2, 0, 1)
        shape = pixels.shape[-2:]
        drawn = tv_tensors.BoundingBoxes(torch.from_numpy(photos.corners[place]), format="XYXY", canvas_size=shape)  # type: ignore[call-arg]
        image, target = transform(
            tv_tensors.Image(pixels), {"boxes": drawn, "labels": torch.ones(len(drawn), dtype=torch.int64)}
        )
        images.append(image.as_subclass(Tensor))
        targets.append({name: each.as_subclass(Tensor) for name, each in target.items()})
    return images, targets


@torch.no_grad()
def judge(model: nn.Module, photos: Photos) -> dict[str, float]:
    """Scores of a split, by the code that judges ours."""
    model.eval()
    predicted, scores = [], []
    for pixels in photos.pixels:
        answer = model([torch.from_numpy(np.array(pixels)).permute(2, 0, 1) / 255])[0]
        corners = answer["boxes"].numpy()
        predicted.append(np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]]))
        scores.append(answer["scores"].numpy())
    truth = [np.hstack([each[:, :2], each[:, 2:] - each[:, :2]]) for each in photos.corners]
    return dict(detection.report(detection.of_one_class(predicted, scores, truth)).scores)


def fit(model: nn.Module, ref: str, recipe: Recipe, *, size: int, cpu: float, seed: int) -> int:
    """Train for a processor time; ends with the best weights by AP50 on the validation split. Gives the epochs."""
    train, val, transform = load(ref, "train", size), load(ref, "val", size), augmentation(recipe, size)
    random, parameters = np.random.default_rng(seed), [each for each in model.parameters() if each.requires_grad]
    optimiser: torch.optim.Optimizer = torch.optim.AdamW(parameters, recipe.lr, weight_decay=recipe.weight_decay)
    if recipe.opt == "sgd":
        optimiser = torch.optim.SGD(parameters, recipe.lr, momentum=0.9, weight_decay=recipe.weight_decay)
    best, best_weights, checks, epochs = -1.0, model.state_dict(), 0, 0
    while (spent := time.process_time() / cpu) < 1:
        order = random.permutation(len(train.pixels))
        epochs += 1
        for start in range(0, len(order) - len(order) % _BATCH or len(order), _BATCH):
            spent = min(1.0, time.process_time() / cpu)
            rate = min(spent / _WARM_UP, (1 + np.cos(np.pi * spent)) / 2)
            for group in optimiser.param_groups:
                group["lr"] = recipe.lr * max(1e-3, rate)
            model.train()
            loss = sum(model(*batch(train, order[start : start + _BATCH].tolist(), transform)).values())
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 10.0)
            optimiser.step()
        if time.process_time() / cpu >= (checks + 1) / _CHECKS:
            checks = int(time.process_time() / cpu * _CHECKS)
            score = judge(model, val).get("ap50", 0.0)
            if score > best:
                best, best_weights = score, copy.deepcopy(model.state_dict())
    model.load_state_dict(best_weights)
    return epochs


def main() -> None:
    """Train, and write the scores of the test photos."""
    parser = argparse.ArgumentParser(prog="python -m bench.quality_torchvision")
    parser.add_argument("dataset")
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--recipe", choices=sorted(RECIPES), required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--cpu", type=float, required=True, help="processor seconds of the whole process")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    model = network(options.model, options.size)
    epochs = fit(model, options.dataset, RECIPES[options.recipe], size=options.size, cpu=options.cpu, seed=options.seed)
    content = {"epochs": epochs, "scores": judge(model, load(options.dataset, "test", options.size))}
    options.out.write_text(json.dumps(content))


if __name__ == "__main__":
    main()
