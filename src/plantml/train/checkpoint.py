"""What survives a kill: where a training stands, in one file that is complete or not there."""

import io
import math
import pickle
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.utils.data import DataLoader

from plantml import storage
from plantml.concurrency import Progress, Stop
from plantml.errors import InputError
from plantml.train import distributed, embedding_store
from plantml.train.batches import Batch
from plantml.train.evaluation import evaluate
from plantml.train.history import History
from plantml.train.lightning_module import PlantModule
from plantml.train.planning import KEPT

_STATE = re.compile(r"state-\d{9}(-\d{4})?\.ckpt")
_FORMAT = 1


@dataclass(frozen=True)
class TrainingEvents:
    """Who is told what.

    Attributes:
        progress: called with (steps done, steps).
        epoch: called with each epoch's row of the history and the epochs there will be.
        saved: called when the folder's files are complete and those that are not needed are gone.
        said: called with a sentence.
    """

    progress: Progress
    epoch: Callable[[dict[str, float], int], None]
    saved: Callable[[], None]
    said: Callable[[str], None]


class CheckpointCallback(pl.Callback):
    """Ends epochs, saves where the training stands, and brings it back.

    Lightning sees one long epoch of all steps that are left. A plantml epoch ends when its last step is done:
    the network is judged, the best one so far is kept, and the state is written. In between it is written
    whenever `every` seconds have passed, and when a signal asks for the end. Random numbers need no saving:
    they are functions of seed, step and photo.

    Args:
        module: what is trained.
        folder: of the checkpoints, on this machine.
        judging: gives the share of the validation photos that is a process's, from its number and their number.
        every: seconds between two states at most, as far as steps and validation allow.
        stop: asked after each step.
        hearing: see there.
    """

    def __init__(
        self,
        module: PlantModule,
        folder: Path,
        judging: Callable[[int, int], DataLoader[Batch]],
        *,
        every: float,
        stop: Stop,
        hearing: TrainingEvents,
    ) -> None:
        self.module, self.plan, self.folder, self.judging = module, module.plan, folder, judging
        self.every, self.stop, self.hearing = every, stop, hearing
        self.history = History()
        self.epochs = self.plan.epochs
        self._optimiser: dict[str, Any] | None = None
        self._before, self._began, self._saved = 0.0, time.monotonic(), time.monotonic()
        self._judging = 0.0

    @property
    def done(self) -> bool:
        """True if no step is left and the last epoch was judged."""
        return len(self.history.rows) >= self.epochs or self._patience_is_over()

    def resume(self) -> bool:
        """Bring back the newest state of the folder; false if there is none."""
        for part in self.folder.glob(".*.part"):
            part.unlink(missing_ok=True)  # of a write that was killed
        file = last_state(self.folder)
        if file is None:
            return False
        try:
            found = torch.load(file, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            raise InputError(
                f"{file} is damaged",
                str(error).splitlines()[0],
                "Start over with --fresh, or bring the file back from a copy.",
            ) from error
        if found.get("format") != _FORMAT:
            raise InputError(
                f"{file} is not a checkpoint that this version can read",
                "",
                "Start over with --fresh, or use the old one.",
            )
        self.module.load_state_dict(found["module"])
        self.module.step, self.module.losses = found["step"], list(found["losses"])
        self.epochs = found["epochs"]
        self.module.steps = self.epochs * self.plan.epoch_steps
        self.history = History(found["history"])
        self._optimiser, self._before = found["optimiser"], found["seconds"]
        return True

    def best(self) -> dict[str, Tensor]:
        """The weights of the best epoch."""
        return load_file(best_file(self.folder, self.history.best_epoch))

    def finish_pending_epoch(self) -> None:
        """Judge an epoch whose steps were done when the training was interrupted."""
        due = self.module.step // self.plan.epoch_steps
        if due > len(self.history.rows):
            self._end_epoch()

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if self._optimiser is not None:
            trainer.optimizers[0].load_state_dict(self._optimiser)
            self._optimiser = None
        self._began = self._saved = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        module = self.module
        module.finish_step()  # not a hook of the module, which would come after this one
        self.hearing.progress(module.step, module.steps)
        stopping, due = self._agreed(float(bool(self.stop)), float(time.monotonic() - self._saved >= self.every))
        if module.step % self.plan.epoch_steps == 0:
            # Judging may take long, too: as long as it did the last time.
            if not stopping and time.monotonic() - self._saved + self._judging >= self.every:
                self._save(trainer)
            self._end_epoch(trainer)
            self._keep_to_budget()
            trainer.should_stop = self.done
        elif due or stopping:
            self._save(trainer)
        if stopping:
            raise self._stopped()

    def _end_epoch(self, trainer: pl.Trainer | None = None) -> None:
        epoch = len(self.history.rows)
        began = time.monotonic()
        judged = evaluate(
            self.module.judged, self.judging(distributed.rank(), distributed.world_size()), self.plan, self.stop
        )
        if judged is None:
            self._save(trainer)
            raise self._stopped()
        self._judging = time.monotonic() - began
        losses = torch.stack([torch.stack(part).mean() for part in distributed.gather(self.module.losses) if part])
        row = self.history.add(epoch, float(losses.mean()), judged.loss, judged.reports)
        self.module.losses = []
        if not (math.isfinite(row["train_loss"]) and math.isfinite(row["val_loss"])):
            raise InputError(
                "The training diverged: its loss is not a number",
                f"learning rates {self.plan.lr:g} and {self.plan.backbone_lr:g} are too high for this data",
                "Start over with lower ones: --fresh --set lr=1e-3 --set backbone_lr=1e-4",
            )
        if self.history.best_epoch == epoch and distributed.is_first():
            weights = {name: value.cpu().contiguous() for name, value in self.module.judged.state_dict().items()}
            storage.write(str(best_file(self.folder, epoch)), save(weights), durable=True)
        self._save(trainer)
        self.hearing.epoch(row, self.epochs)

    def _save(self, trainer: pl.Trainer | None) -> None:
        """Write the state down, then drop what it needs no longer."""
        self._saved = time.monotonic()
        if not distributed.is_first():
            return
        content = {
            "format": _FORMAT,
            "step": self.module.step,
            "epochs": self.epochs,
            "seconds": self._seconds(),
            "history": self.history.rows,
            "losses": self.module.losses,
            "module": self.module.state_dict(),
            "optimiser": trainer.optimizers[0].state_dict() if trainer else self._optimiser,
        }
        # A step is saved before and after it is judged: two contents, and so two names.
        file = self.folder / f"state-{self.module.step:09d}-{len(self.history.rows):04d}.ckpt"
        data = io.BytesIO()
        torch.save(content, data)
        storage.write(str(file), data.getvalue(), durable=True)
        keep = {file.name}
        if self.history.rows:
            keep.add(best_file(self.folder, self.history.best_epoch).name)
        for pattern in ("state-*.ckpt", "best-*.safetensors", embedding_store.PATTERN):
            for other in self.folder.glob(pattern):
                if other.name not in keep:
                    other.unlink(missing_ok=True)
        self.hearing.saved()

    def _keep_to_budget(self) -> None:
        """Fewer epochs from here on, if this machine turns out to be slower than it was when it was measured."""
        if not self.plan.budget or self.module.step >= self.module.steps:
            return
        spent, done = distributed.broadcast(self._seconds()), len(self.history.rows)
        left = KEPT * self.plan.budget - self.plan.other_seconds - spent
        fitting = done + max(0, math.floor(left / (spent / done)))
        if fitting < self.epochs:
            self.hearing.said(f"Slower than planned: {fitting} epochs instead of {self.epochs} keep to the budget.")
            self.epochs = fitting
            self.module.steps = fitting * self.plan.epoch_steps

    def _patience_is_over(self) -> bool:
        rows = self.history.rows
        return bool(rows) and len(rows) - 1 - self.history.best_epoch >= self.plan.patience

    def _seconds(self) -> float:
        return self._before + time.monotonic() - self._began

    def _agreed(self, *flags: float) -> tuple[bool, ...]:
        """True where any process says so."""
        if distributed.world_size() == 1:
            return tuple(bool(flag) for flag in flags)
        return tuple(
            bool(flag)
            for flag in distributed.sum_over_processes(torch.tensor(flags, device=self.module.device)).tolist()
        )

    def _stopped(self) -> BaseException:
        done = self.module.step / self.plan.epoch_steps
        return self.stop.error(
            f"Training stopped after {done:.1f} of {self.epochs} epochs",
            f"All of it is saved in {self.folder}. Repeat the same command to go on.",
        )


def last_state(folder: Path) -> Path | None:
    """The newest state of a folder, or none."""
    found = sorted(file for file in folder.glob("state-*.ckpt") if _STATE.fullmatch(file.name))
    return found[-1] if found else None


def best_file(folder: Path, epoch: int) -> Path:
    """Where the weights of the best epoch are kept."""
    return folder / f"best-{epoch:04d}.safetensors"
