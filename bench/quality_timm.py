"""The other side of quality: timm's published parts, put together as timm's own training script does it.

The script (`train.py` of huggingface/pytorch-image-models) is not in the package, so that its loop stands here;
data set, loader, transforms, loss, optimiser and schedule are the package's. A process of its own, as a user's:

    python -m bench.quality_timm FOLDER --recipe adamw --epochs 20 --seed 0 --out DIR

The values are in `bench.quality_recipes`.
"""

import argparse
import copy
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from timm import utils
from timm.data import create_dataset, create_loader, resolve_data_config
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn

from bench.quality_recipes import BACKBONE, CLASSES, RECIPES, Recipe, Speed
from plantml.imaging import Fit
from plantml.train import weights

_FEW, _SMALL = 4, 8
"""With fewer batches an epoch than this, batches are smaller, as nobody would take one step an epoch."""


class Run:
    """One training.

    Args:
        folder: with `train`, `val` and `test`, a folder a class in each, and `CLASSES`.
        recipe: what to train with.
        epochs: passes over the photos.
        seed: of every random choice.
        speed: see `Speed`.
    """

    def __init__(self, folder: Path, recipe: Recipe, epochs: int, seed: int, speed: Speed) -> None:
        self.folder, self.recipe, self.speed, self.epochs = folder, recipe, speed, epochs
        utils.random_seed(seed, 0)
        self.classes = (folder / CLASSES).read_text().splitlines()
        photos = sum(1 for _ in (folder / "train").glob("*/*"))
        # The loader leaves an incomplete batch out: with few photos, all of them.
        self.batch = recipe.batch_size if photos >= _FEW * recipe.batch_size else _SMALL
        self.model = network(len(self.classes), recipe)
        if speed.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.train, self.val = self.loader("train"), self.loader("val")
        self.loss = LabelSmoothingCrossEntropy(recipe.smoothing)
        extra = {} if recipe.opt_eps is None else {"eps": recipe.opt_eps}
        self.optimiser = create_optimizer_v2(
            self.model, opt=recipe.opt, lr=recipe.lr, weight_decay=recipe.weight_decay, momentum=0.9, **extra
        )
        self.schedule, _ = create_scheduler_v2(
            self.optimiser,
            sched="cosine",
            num_epochs=epochs,
            warmup_epochs=min(recipe.warmup_epochs, epochs // 4),
            warmup_lr=recipe.warmup_lr,
            min_lr=0.0,
            step_on_epochs=False,
            updates_per_epoch=len(self.train),
        )
        self.steps = 0

    def loader(self, split: str) -> Any:
        """Batches of a split: augmented and shuffled for training, else in order at the centre."""
        training = split == "train"
        photos = create_dataset(
            "", root=str(self.folder), split=split, is_training=training, class_map=str(self.folder / CLASSES)
        )
        config = resolve_data_config({}, model=self.model)
        return create_loader(
            photos,
            input_size=config["input_size"],
            batch_size=self.batch,
            is_training=training,
            scale=(0.08, 1.0),
            ratio=(3 / 4, 4 / 3),
            hflip=0.5,
            color_jitter=0.4,
            interpolation="random" if training else config["interpolation"],
            mean=config["mean"],
            std=config["std"],
            crop_pct=config["crop_pct"],
            num_workers=self.speed.workers,
            persistent_workers=self.speed.workers > 0,
            device=torch.device("cpu"),
            use_prefetcher=self.speed.prefetcher,
        )

    def epoch(self) -> int:
        """One pass over the photos; gives their number."""
        self.model.train()
        done = 0
        for photos, truth in self.train:
            loss = self.loss(self.model(self._laid(photos)), truth)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            self.steps += 1
            self.schedule.step_update(num_updates=self.steps)
            done += len(truth)
        return done

    @torch.no_grad()
    def answers(self, loader: Any) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities [N, classes] and classes [N] of all photos of a loader."""
        self.model.eval()
        pairs = [(self.model(self._laid(photos)).softmax(1), truth) for photos, truth in loader]
        return torch.cat([found for found, _ in pairs]).numpy(), torch.cat([truth for _, truth in pairs]).numpy()

    def fit(self) -> list[float]:
        """All epochs; keeps the weights of the best. Gives the accuracy on the validation split by epoch."""
        best: dict[str, Tensor] = {}
        history: list[float] = []
        for _ in range(self.epochs):
            self.epoch()
            found, truth = self.answers(self.val)
            score = float((found.argmax(1) == truth).mean())
            if score > max(history, default=-1.0):  # of equal ones the first, as `CheckpointSaver` has it
                best = copy.deepcopy(self.model.state_dict())
            history.append(score)
        self.model.load_state_dict(best)
        return history

    def _laid(self, photos: Tensor) -> Tensor:
        return photos.contiguous(memory_format=torch.channels_last) if self.speed.channels_last else photos


def network(classes: int, recipe: Recipe) -> nn.Module:
    """The default backbone with the very weights that `plantml train` starts from, and a fresh classifier."""
    model: nn.Module = timm.create_model(
        BACKBONE, num_classes=classes, drop_rate=recipe.drop, drop_path_rate=recipe.drop_path
    )
    backbone = weights.backbone(BACKBONE, weights.Weights(), Fit(224, 224), drop_path=0.0, offline=True)
    missing, unexpected = model.load_state_dict(backbone.state_dict(), strict=False)
    assert set(missing) == {"classifier.weight", "classifier.bias"}
    assert not unexpected
    return model


def main() -> None:
    """Train, and write what it answers for the test photos."""
    parser = argparse.ArgumentParser(prog="python -m bench.quality_timm")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="adamw")
    parser.add_argument("--lr", type=float, help="another rate than the recipe's")
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    started = time.perf_counter()
    recipe = RECIPES[asked.recipe]
    recipe = recipe if asked.lr is None else replace(recipe, lr=asked.lr)
    run = Run(asked.folder, recipe, asked.epochs, asked.seed, Speed())
    history = run.fit()
    seconds = time.perf_counter() - started
    asked.out.mkdir(parents=True, exist_ok=True)
    answers = {split: run.answers(run.loader(split)) for split in ("val", "test")}
    np.savez(
        asked.out / "answers.npz",
        **{f"{split}_{name}": part for split, pair in answers.items() for name, part in zip("py", pair, strict=True)},
    )
    content = {"recipe": asdict(recipe), "speed": asdict(run.speed), "seconds": seconds, "val_accuracy": history}
    (asked.out / "run.json").write_text(json.dumps(content))


if __name__ == "__main__":
    main()
