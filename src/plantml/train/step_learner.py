"""Learners that train by gradient steps: backbone and heads with Lightning."""

import contextlib
import logging
import tempfile
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import pytorch_lightning as pl
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from torch import Tensor
from torch.utils.data import DataLoader

from plantml.concurrency import Stop
from plantml.errors import InputError
from plantml.imaging import Pixels
from plantml.model.bundle import Bundle
from plantml.model.network import PhotoNet
from plantml.train import distributed
from plantml.train.checkpoint import CheckpointCallback, TrainingEvents
from plantml.train.history import Evaluation, History
from plantml.train.learner import EpochCallback, Learner
from plantml.train.lightning_module import PhotoModule
from plantml.train.mixed_precision import depthwise_in_float32
from plantml.train.plan import Plan
from plantml.train.probe import EmbeddingJob
from plantml.train.run_folder import HISTORY, RunFolder
from plantml.train.session import Session


class StepLearner(Learner):
    """A learner that trains by gradient steps."""

    shown: ClassVar[Sequence[str]] = ()
    """Scores of every epoch that are shown, beside those of the targets."""

    @staticmethod
    @abstractmethod
    def augmenter(plan: Plan) -> Callable[[Pixels, int], Pixels]:
        """What augments a training photo, given a seed; to measure its speed."""

    @abstractmethod
    def start_from(self, parent: Bundle) -> list[str]:
        """Load the weights of a parent bundle, and return what it lacks, as text. Raises as `warm_start`."""

    def label_others(self, run: RunFolder, job: EmbeddingJob) -> str:  # noqa: ARG002 - most have no others
        """Label the unlabelled photos, and return what came of it, as text; empty without such photos.

        The labels are a file of the run, so that a resumed run has the same.
        """
        return ""

    @abstractmethod
    def module(self) -> PhotoModule:
        """The network as Lightning trains it."""

    @abstractmethod
    def warm_up(self, job: EmbeddingJob) -> None:
        """Prepare the network before the first step, where that helps."""

    @abstractmethod
    def batches(self, start: int, epochs: int, rank: int, size: int) -> DataLoader[dict[str, Tensor]]:
        """Training batches from step `start` on, this process's share; see `batches.StepSampler`."""

    @abstractmethod
    def evaluate(self, net: PhotoNet, stop: Stop) -> Evaluation | None:
        """Evaluate a network on the validation split; `None` if a signal stopped it. It is left in training mode."""

    def fit(self, session: Session, on_epoch: EpochCallback) -> History:
        """See `Learner.fit`."""
        plan, run, events = self.plan, session.run, session.listener
        module = self.module()

        def end_epoch(row: Mapping[str, float], epochs: int) -> None:
            on_epoch(row, epochs)
            if distributed.is_first():
                run.try_write(HISTORY, checkpoints.history.csv())

        checkpoints = CheckpointCallback(
            module,
            run.checkpoints,
            self.evaluate,
            every=session.config.checkpoint_every,
            stop=session.stop,
            events=TrainingEvents(events.progress("training"), end_epoch, run.upload_in_background, events.say),
        )
        resumed = checkpoints.resume()
        if len(set(distributed.gather(module.step))) > 1:
            why = "each writes to a separate folder"
            raise InputError("The machines have different checkpoints", why, "Set --out to a URL or a shared folder.")
        if not resumed:
            self.warm_up(session.embedding_job("heads", plan.device))
        module.to(plan.device)
        checkpoints.finish_pending_epoch()
        if not checkpoints.done:
            _run_steps(module, checkpoints, self)
        if distributed.is_first():
            run.upload()
            self.net.load_state_dict(checkpoints.best_weights())
        return checkpoints.history

    def epoch_line(self, row: Mapping[str, float], epochs: int) -> str:
        """See `Learner.epoch_line`."""
        names = [f"{target.name}.{'r2' if target.kind == 'value' else 'macro_f1'}" for target in self.plan.targets]
        scores = "  ".join(f"{name} {row[name]:.3f}" for name in [*self.shown, *names] if name in row)
        epoch = int(row["epoch"]) + 1
        return f"epoch {epoch}/{epochs}  loss {row['train_loss']:.3f}  val {row['val_loss']:.3f}  {scores}"


def _run_steps(module: PhotoModule, checkpoints: CheckpointCallback, learner: StepLearner) -> None:
    """Train all remaining steps."""
    plan = module.plan
    # Lightning's advice on loggers, workers and hardware is for those who configure a Trainer.
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if plan.compile:
        module.net.backbone.compile()
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as scratch:
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            accelerator="gpu" if plan.device == "cuda" else plan.device,
            devices=plan.devices,
            num_nodes=plan.nodes,
            strategy=plan.strategy,
            sync_batchnorm=plan.device == "cuda" and plan.world > 1,
            use_distributed_sampler=False,
            precision="bf16-mixed" if plan.precision == "bf16" else "32-true",
            max_epochs=1,
            callbacks=[checkpoints],
            gradient_clip_val=plan.clip,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            plugins=[SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else None,
            default_root_dir=scratch,
        )
        is_mixed = plan.precision == "bf16" and not plan.compile  # a compiled backbone has kernels of its own
        with depthwise_in_float32(module.net, plan.device) if is_mixed else contextlib.nullcontext():
            batches = learner.batches(module.step, checkpoints.epochs, trainer.global_rank, trainer.world_size)
            trainer.fit(module, batches)
