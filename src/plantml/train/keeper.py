"""What survives an epoch: history, checkpoints, the best epoch; and the clean end that a signal asks for."""

import csv
import io
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from plantml import metrics
from plantml.metrics import Report
from plantml.train.module import PlantModule
from plantml.work import Progress, Stop

_NAME = re.compile(r"epoch-(\d{4})\.ckpt")


class History:
    """What each epoch came to: one row of numbers an epoch."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    @property
    def best_epoch(self) -> int:
        """The epoch with the best validation score; of equal ones the one with the lower loss."""
        best = max(self.rows, key=lambda row: (row["score"], -row["val_loss"]))
        return int(best["epoch"])

    def add(self, epoch: int, train_loss: float, val_loss: float, reports: Sequence[Report]) -> dict[str, float]:
        """Write an epoch down; its row."""
        row = {
            "epoch": float(epoch),
            "train_loss": train_loss,
            "val_loss": val_loss,
            "score": metrics.selection_score(reports),
            **metrics.headline(reports),
        }
        self.rows.append(row)
        return row

    def csv(self) -> bytes:
        """The rows as CSV."""
        text = io.StringIO()
        table = csv.DictWriter(text, list(self.rows[0]), lineterminator="\n")
        table.writeheader()
        for row in self.rows:
            table.writerow({key: round(value, 6) for key, value in row.items()} | {"epoch": int(row["epoch"])})
        return text.getvalue().encode()


class Keeper(pl.Callback):
    """Saves a checkpoint after each epoch and keeps the last and the best one.

    Args:
        folder: of the checkpoints, on this machine.
        steps: of the whole training, for progress.
        progress: called with (steps done, steps).
        stop: asked after each step.
        saved: called with each checkpoint's path once it is complete.
        told: called with each epoch's row of the history.
    """

    def __init__(
        self,
        folder: Path,
        steps: int,
        *,
        progress: Progress,
        stop: Stop,
        saved: Callable[[Path], None],
        told: Callable[[dict[str, float]], None],
    ) -> None:
        self.folder, self.steps = folder, steps
        self.progress, self.stop, self.saved, self.told = progress, stop, saved, told
        self.history = History()

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history.rows = state_dict["history"]

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.progress(trainer.global_step, self.steps)
        if self.stop:
            raise KeyboardInterrupt

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, PlantModule)
        row = self.history.add(trainer.current_epoch, pl_module.train_loss, pl_module.val_loss, pl_module.reports)
        if not math.isfinite(row["train_loss"]):
            trainer.should_stop = True
        file = self.folder / f"epoch-{trainer.current_epoch:04d}.ckpt"
        trainer.save_checkpoint(file)
        keep = {file.name, f"epoch-{self.history.best_epoch:04d}.ckpt"}
        for other in self.folder.glob("epoch-*.ckpt"):
            if other.name not in keep:
                other.unlink()
        self.saved(file)
        self.told(row)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a folder, or none."""
    found = sorted(file for file in folder.glob("epoch-*.ckpt") if _NAME.fullmatch(file.name))
    return found[-1] if found else None


def load_network(file: Path) -> dict[str, Tensor]:
    """The weights of a `PlantNet` in a checkpoint: their moving average where there is one."""
    state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    prefix = "average.module." if any(key.startswith("average.") for key in state) else "net."
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
