"""Another side of quality: Ultralytics' classification trainer, in an environment that has that package.

Its own pretrained weights come from a server, and another network would be another comparison. So its trainer gets the
default backbone with the very weights that `plantml train` starts from, normalised as these expect; augmentation,
optimiser, schedule, moving average and the choice of the best epoch are the package's defaults, in batches of 16.

    python -m bench.quality_ultralytics FOLDER --epochs 20 --seed 0 --out DIR
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from ultralytics.models.yolo.classify import ClassificationTrainer
from ultralytics.nn.tasks import ClassificationModel

from bench.quality_recipes import ADAMW, BACKBONE, CLASSES
from bench.quality_timm import network
from plantml.train import weights


class Network(ClassificationModel):
    """The default backbone under the interface that the trainer expects."""

    def __init__(self, classes: int) -> None:
        torch.nn.Module.__init__(self)
        self.model = torch.nn.Sequential(network(classes, ADAMW))
        self.stride, self.yaml, self.task = torch.Tensor([1]), {"nc": classes}, "classify"
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in weights.statistics(BACKBONE))
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def predict(self, photos: Tensor, *_: Any, **__: Any) -> Any:
        """Logits [N, classes] in training, else probabilities and logits, of photos [N, 3, H, W] of 0 to 1."""
        logits = self.model((photos - self.mean) / self.std)
        return logits if self.training else (logits.softmax(1), logits)


class Trainer(ClassificationTrainer):
    """The package's trainer without its last evaluation, as the test photos are predicted below."""

    def final_eval(self) -> None:
        """Keep the checkpoints as they are."""


def answers(model: torch.nn.Module, loader: Any) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [N, classes] and classes [N] of all photos of a loader."""
    found, truth = [], []
    with torch.inference_mode():
        for batch in loader:
            found.append(model(batch["img"])[0])
            truth.append(batch["cls"])
    return torch.cat(found).numpy(), torch.cat(truth).numpy()


def main() -> None:
    """Train, and write what it answers for the test photos."""
    parser = argparse.ArgumentParser(prog="python -m bench.quality_ultralytics")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    classes = (asked.folder / CLASSES).read_text().splitlines()
    options = {
        "data": str(asked.folder.resolve()), "epochs": asked.epochs, "seed": asked.seed, "imgsz": 224, "batch": 16,
        "workers": 2, "device": "cpu", "plots": False, "verbose": False, "project": str(asked.out.resolve()),
        "name": "run", "model": "yolo26n-cls.yaml",
    }  # fmt: skip
    trainer = Trainer(overrides=options)
    trainer.model = Network(len(classes))
    trainer.train()
    best = torch.load(trainer.best, map_location="cpu", weights_only=False)
    model = (best["ema"] or best["model"]).float().eval()
    loader = trainer.get_dataloader(str(asked.folder / "test"), batch_size=16, rank=-1, mode="val")
    probabilities, truth = answers(model, loader)
    # Its order of classes is that of the folders' names.
    names = [trainer.data["names"][index] for index in range(len(classes))]
    order = [names.index(name) for name in classes]
    place = np.array([classes.index(name) for name in names])
    np.savez(asked.out / "answers.npz", test_p=probabilities[:, order], test_y=place[truth.astype(int)])
    (asked.out / "run.json").write_text(json.dumps({"best_epoch": int(best["epoch"]) + 1}))


if __name__ == "__main__":
    main()
