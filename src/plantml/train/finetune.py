"""Train backbone and heads with Lightning."""

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Callable, Mapping

import pytorch_lightning as pl
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

from plantml.errors import InputError
from plantml.train import distributed
from plantml.train.checkpoint import CheckpointCallback, TrainingEvents
from plantml.train.history import History
from plantml.train.learner import StepLearner
from plantml.train.lightning_module import PhotoModule
from plantml.train.mixed_precision import depthwise_in_float32
from plantml.train.run_folder import HISTORY
from plantml.train.session import Session

EpochCallback = Callable[[Mapping[str, float], int], None]
"""Called with each row of the history and the planned number of epochs."""


def fit(learner: StepLearner, session: Session, on_epoch: EpochCallback) -> History:
    """Train the learner's network, which ends with the weights of the best epoch."""
    plan, run, events = learner.plan, session.run, session.listener
    module = learner.module()

    def end_epoch(row: Mapping[str, float], epochs: int) -> None:
        on_epoch(row, epochs)
        if distributed.is_first():
            run.try_write(HISTORY, checkpoints.history.csv())

    checkpoints = CheckpointCallback(
        module,
        run.checkpoints,
        learner.evaluate,
        every=session.config.checkpoint_every,
        stop=session.stop,
        events=TrainingEvents(events.progress("training"), end_epoch, run.upload_in_background, events.say),
    )
    resumed = checkpoints.resume()
    if len(set(distributed.gather(module.step))) > 1:
        why = "each writes to a separate folder"
        raise InputError("The machines have different checkpoints", why, "Set --out to a URL or a shared folder.")
    if not resumed:
        learner.warm_up(session.embedding_job("heads", plan.device))
    module.to(plan.device)
    checkpoints.finish_pending_epoch()
    if not checkpoints.done:
        _run_steps(module, checkpoints, learner)
    if distributed.is_first():
        run.upload()
        learner.net.load_state_dict(checkpoints.best_weights())
    return checkpoints.history


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
