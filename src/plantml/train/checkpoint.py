"""Checkpoints: the whole state of a training in one file, written in one move."""

import io
import math
import pickle
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from plantml import storage
from plantml.concurrency import Progress, Stop
from plantml.errors import InputError
from plantml.model.network import PhotoNet
from plantml.train import distributed, probe
from plantml.train.budget import BUDGET_SHARE
from plantml.train.history import Evaluation, History
from plantml.train.lightning_module import PhotoModule

_CHECKPOINT = re.compile(r"state-\d{9}(-\d{4})?\.ckpt")
_FORMAT = 1


@dataclass(frozen=True)
class TrainingEvents:
    """Functions to call while a training runs.

    Attributes:
        on_progress: called with (steps done, steps).
        on_epoch: called with the epoch's row of the history and the planned number of epochs.
        on_save: called when a checkpoint is complete and older ones are removed.
        on_message: called with a sentence.
    """

    on_progress: Progress
    on_epoch: Callable[[dict[str, float], int], None]
    on_save: Callable[[], None]
    on_message: Callable[[str], None]


class CheckpointCallback(pl.Callback):
    """Ends epochs, writes checkpoints, and restores them.

    Lightning sees one long epoch of all remaining steps. A plantml epoch ends with its last step: the network
    is evaluated, the best weights are kept, and a checkpoint is written. In between, one is written every
    `every` seconds and when a signal stops the training. There is no random state to save: random numbers
    depend on seed, step and photo only.

    Args:
        module: the module to train.
        folder: local folder of the checkpoints.
        evaluate: evaluates a network on the validation split; `None` if a signal stopped it.
        every: longest time between two checkpoints in seconds, as far as steps and validation allow.
        stop: checked after each step.
        events: functions to call.
    """

    def __init__(
        self,
        module: PhotoModule,
        folder: Path,
        evaluate: Callable[[PhotoNet, Stop], Evaluation | None],
        *,
        every: float,
        stop: Stop,
        events: TrainingEvents,
    ) -> None:
        self.module, self.plan, self.folder, self.evaluate = module, module.plan, folder, evaluate
        self.every, self.stop, self.events = every, stop, events
        self.history = History()
        self.epochs = self.plan.epochs
        self._optimiser: dict[str, Any] | None = None
        self._earlier_seconds, self._started, self._saved = 0.0, time.monotonic(), time.monotonic()
        self._evaluation_seconds = 0.0
        self._signal_handler: Any = signal.SIG_DFL

    @property
    def done(self) -> bool:
        """True if no step is left and the last epoch was evaluated."""
        return len(self.history.rows) >= self.epochs or self._is_out_of_patience()

    def resume(self) -> bool:
        """Restore the newest checkpoint of the folder; false if there is none."""
        for partial in self.folder.glob(".*.part"):
            partial.unlink(missing_ok=True)  # left by a killed write
        file = newest_checkpoint(self.folder)
        if file is None:
            return False
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            raise InputError(
                f"{file} is damaged",
                str(error).splitlines()[0],
                "Restore the file from a copy, or start over with --fresh.",
            ) from error
        if state.get("format") != _FORMAT:
            raise InputError(
                f"{file} is not a checkpoint that this version of plantml can read",
                "",
                "Start over with --fresh, or use the version that wrote it.",
            )
        self.module.load_state_dict(state["module"])
        self.module.step, self.module.losses = state["step"], list(state["losses"])
        self.epochs = state["epochs"]
        self.module.steps = self.epochs * self.plan.epoch_steps
        self.history = History(state["history"])
        self._optimiser, self._earlier_seconds = state["optimiser"], state["seconds"]
        return True

    def best_weights(self) -> dict[str, Tensor]:
        """The weights of the best epoch."""
        return load_file(best_file(self.folder, self.history.best_epoch))

    def finish_pending_epoch(self) -> None:
        """Evaluate an epoch that was interrupted between its last step and its evaluation."""
        finished = self.module.step // self.plan.epoch_steps
        if finished > len(self.history.rows):
            self._end_epoch()

    def on_fit_start(self, *_: Any) -> None:
        self._signal_handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        # Lightning has installed its own handler in between. It communicates with the other processes at any point of
        # their work, while `Stop` only notes the signal for the end of the step.
        if signal.getsignal(signal.SIGTERM) != self._signal_handler:
            signal.signal(signal.SIGTERM, self._signal_handler)
        if self._optimiser is not None:
            trainer.optimizers[0].load_state_dict(self._optimiser)
            self._optimiser = None
        self._started = self._saved = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        module = self.module
        module.finish_step()  # not a hook of the module, because that would run after this one
        self.events.on_progress(module.step, module.steps)
        stopping, save_due = self._any_process(bool(self.stop), time.monotonic() - self._saved >= self.every)
        if module.step % self.plan.epoch_steps == 0:
            # The evaluation counts towards the interval: it will take about as long as the last one.
            if not stopping and time.monotonic() - self._saved + self._evaluation_seconds >= self.every:
                self._save(trainer)
            self._end_epoch(trainer)
            self._keep_to_budget()
            trainer.should_stop = self.done
        elif save_due or stopping:
            self._save(trainer)
        if stopping:
            raise self._stopped_error()

    def _end_epoch(self, trainer: pl.Trainer | None = None) -> None:
        epoch = len(self.history.rows)
        started = time.monotonic()
        evaluation = self.evaluate(self.module.averaged_net, self.stop)
        if evaluation is None:
            self._save(trainer)
            raise self._stopped_error()
        self._evaluation_seconds = time.monotonic() - started
        means = [torch.stack(losses).mean() for losses in distributed.gather(self.module.losses) if losses]
        row = self.history.add(epoch, float(torch.stack(means).mean()), evaluation)
        self.module.losses = []
        if not (math.isfinite(row["train_loss"]) and math.isfinite(row["val_loss"])):
            raise InputError(
                "Training diverged: the loss is not a number",
                f"the learning rates {self.plan.lr:g} and {self.plan.backbone_lr:g} are too high for this data",
                "Start over with lower rates: --fresh --set lr=1e-3 --set backbone_lr=1e-4",
            )
        if self.history.best_epoch == epoch and distributed.is_first():
            weights = {name: value.cpu().contiguous() for name, value in self.module.averaged_net.state_dict().items()}
            storage.write(str(best_file(self.folder, epoch)), save(weights), durable=True)
        self._save(trainer)
        self.events.on_epoch(row, self.epochs)

    def _save(self, trainer: pl.Trainer | None) -> None:
        """Write a checkpoint, then remove the files that it replaces."""
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
        # An epoch's last step is saved before and after the evaluation: two contents need two names.
        file = self.folder / f"state-{self.module.step:09d}-{len(self.history.rows):04d}.ckpt"
        buffer = io.BytesIO()
        torch.save(content, buffer)
        storage.write(str(file), buffer.getvalue(), durable=True)
        keep = {file.name}
        if self.history.rows:
            keep.add(best_file(self.folder, self.history.best_epoch).name)
        for pattern in ("state-*.ckpt", "best-*.safetensors", probe.SAVED):
            for other in self.folder.glob(pattern):
                if other.name not in keep:
                    other.unlink(missing_ok=True)
        self.events.on_save()

    def _keep_to_budget(self) -> None:
        """Drop later epochs if training is slower than measured at the start."""
        if not self.plan.budget or self.module.step >= self.module.steps:
            return
        elapsed, done = distributed.broadcast(self._seconds()), len(self.history.rows)
        left = BUDGET_SHARE * self.plan.budget - self.plan.other_seconds - elapsed
        affordable = done + max(0, math.floor(left / (elapsed / done)))
        if affordable < self.epochs:
            fit = "1 epoch fits" if affordable == 1 else f"{affordable} epochs fit"
            self.events.on_message(f"Slower than planned: {fit} the budget instead of {self.epochs}.")
            self.epochs = affordable
            self.module.steps = affordable * self.plan.epoch_steps

    def _is_out_of_patience(self) -> bool:
        rows = self.history.rows
        return bool(rows) and len(rows) - 1 - self.history.best_epoch >= self.plan.patience

    def _seconds(self) -> float:
        return self._earlier_seconds + time.monotonic() - self._started

    def _any_process(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag, true if it is true in any process."""
        if distributed.world_size() == 1:
            return flags
        return tuple(
            bool(flag)
            for flag in distributed.sum_over_processes(torch.tensor(flags, device=self.module.device)).tolist()
        )

    def _stopped_error(self) -> BaseException:
        done = self.module.step / self.plan.epoch_steps
        return self.stop.error(
            f"Training stopped after {done:.1f} of {self.epochs} epochs",
            f"All of it is saved in {self.folder}. Repeat the same command to resume.",
        )


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a folder, or None."""
    files = sorted(file for file in folder.glob("state-*.ckpt") if _CHECKPOINT.fullmatch(file.name))
    return files[-1] if files else None


def best_file(folder: Path, epoch: int) -> Path:
    """The file with the weights of the best epoch."""
    return folder / f"best-{epoch:04d}.safetensors"
