"""`plantml train`: a dataset version in, a run and its bundle out; repeated, it goes on where it ended."""

import json
import logging
import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import pytorch_lightning as pl
import torch

from plantml import charts, metrics, settings
from plantml.bundle import Bundle
from plantml.data import versions
from plantml.data.manifest import Version, narrow_targets
from plantml.data.where import where
from plantml.errors import InputError
from plantml.metrics import ClassReport
from plantml.network import PlantNet
from plantml.settings import Machine
from plantml.train import allocator, finish, prepare, probe, recipe
from plantml.train.augment import Training
from plantml.train.data import evaluation_loader, training_loader
from plantml.train.finish import Finished
from plantml.train.keeper import History, Keeper, load_network
from plantml.train.module import PlantModule
from plantml.train.picture import example_batch
from plantml.train.recipe import Facts, Plan, TrainConfig
from plantml.train.rundir import HISTORY, METRICS, RunFolder
from plantml.work import Progress, Stop

METRICS_FORMAT = 1


@dataclass(frozen=True)
class Trained:
    """What a training came to.

    Attributes:
        run: URL of the run.
        bundle: the model.
        plan: how it was made.
        scores: of the validation split, calibrated.
        seconds: of this call.
        resumed: true if an earlier call had begun the run.
        changed: false if an earlier call had finished it.
    """

    run: str
    bundle: Bundle
    plan: Plan
    scores: Mapping[str, float]
    seconds: float
    resumed: bool
    changed: bool


@dataclass(frozen=True)
class Listener:
    """Where a training tells what it does: a sentence now and then, and progress by stage."""

    say: Callable[[str], None]
    progress: Callable[[str], Progress]


def make_plan(ref: str, config: TrainConfig, machine: Machine) -> tuple[Version, Plan]:
    """The plan of a training, without starting it."""
    version = chosen(versions.load(ref), config.where)
    train, val = version.usable("train").height, version.usable("val").height
    return version, recipe.plan(config, Facts(version, train, val, machine.threads, _best_device()))


def chosen(version: Version, condition: str) -> Version:
    """The version with those rows only for which a condition holds, and their classes; all if it is empty."""
    if not condition:
        return version
    rows = where(version.rows, condition)
    return replace(version, rows=rows, targets=narrow_targets(rows, version.targets))


def train(
    ref: str,
    out: str,
    config: TrainConfig,
    *,
    machine: Machine | None = None,
    fresh: bool = False,
    stop: Stop,
    listener: Listener,
) -> Trained:
    """Train on a dataset and write a run.

    Args:
        ref: the dataset; its version is pinned in the plan.
        out: URL of the run.
        config: see `recipe.TrainConfig`.
        machine: see `settings.Machine`.
        fresh: start over if there is a run at `out`.
        stop: asked after each step.
        listener: told what happens.

    Raises:
        InputError: the dataset cannot be trained on, or `out` holds a run with another plan.
        StoppedError: a signal asked for the end; repeating the call goes on.
    """
    started = time.monotonic()
    machine = machine or settings.machine()
    version, plan = make_plan(ref, config, machine)
    run = RunFolder(out, machine)
    if fresh:
        run.clear()
    resumed = run.begin(plan)
    done = run.finished()
    if done is not None:
        return Trained(run.url, done, plan, done.contract.metrics, time.monotonic() - started, resumed, changed=False)

    allocator.keep_freed_memory()
    data = prepare.load(version, plan, machine, listener.progress)
    for name, why in data.left_out:
        listener.say(f"Left out, because it cannot be read: {name} ({why})")
    torch.manual_seed(plan.seed)
    net = prepare.network(plan, data.train, offline=machine.offline)
    try:
        history = _learn(net, data, plan, run, stop=stop, listener=listener)
    except KeyboardInterrupt:
        if not stop:
            raise
        raise stop.error("Training stopped", f"Repeat the same command to go on with {run.url}.") from None
    listener.say(f"Best epoch: {history.best_epoch + 1} of {plan.epochs}. Calibrating, exporting, comparing.")
    made = finish.finish(net.cpu().eval(), plan, data.bank, data.val)
    _write_results(run, history, made)
    bundle = run.publish(made.files, made.model_json)
    scores = made.contract.metrics
    return Trained(run.url, bundle, plan, scores, time.monotonic() - started, resumed, changed=True)


def _learn(net: PlantNet, data: prepare.Data, plan: Plan, run: RunFolder, *, stop: Stop, listener: Listener) -> History:
    """Train `net`, which ends with the weights of the best epoch."""

    def told(row: Mapping[str, float]) -> None:
        listener.say(_epoch_line(row, plan))

    change = Training(plan.input.height, plan.input.width, plan.augment)
    loader = training_loader(data.train, change, plan.batch_size, plan.seed, plan.workers)
    run.write("plots/batch.png", example_batch(loader.dataset, data.train, plan))  # type: ignore[arg-type]
    if plan.mode == "probe":
        progress = listener.progress("embedding")
        return probe.fit(net, plan, data.train, data.val, stop=stop, progress=progress, told=told)
    module = PlantModule(net, plan, len(loader) * plan.epochs)
    keeper = Keeper(
        run.checkpoints,
        module.steps,
        progress=listener.progress("training"),
        stop=stop,
        saved=run.saved,
        told=told,
    )
    _fit(module, keeper, (loader, evaluation_loader(data.val, 32)), run, stop)
    best = keeper.history.best_epoch
    net.load_state_dict(load_network(run.checkpoints / f"epoch-{best:04d}.ckpt"))
    return keeper.history


def _fit(module: PlantModule, keeper: Keeper, loaders: tuple[Any, Any], run: RunFolder, stop: Stop) -> None:
    plan = module.plan
    # Lightning's advice on loggers, workers and hardware is for its own users.
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            accelerator="gpu" if plan.device == "cuda" else plan.device,
            devices=1,
            max_epochs=plan.epochs,
            callbacks=[keeper],
            gradient_clip_val=1.0,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        try:
            trainer.fit(module, *loaders, ckpt_path=run.last_checkpoint(), weights_only=True)
        except BaseException:
            # Lightning ends the process its own way on signals; ours says what was saved.
            if stop:
                raise stop.error(
                    f"Training stopped in epoch {module.current_epoch + 1} of {plan.epochs}",
                    f"The epochs before are saved in {run.url}. Repeat the same command to go on.",
                ) from None
            raise
    if not math.isfinite(keeper.history.rows[-1]["train_loss"]):
        raise InputError(
            "The training diverged: its loss is not a number",
            f"learning rates {plan.lr:g} and {plan.backbone_lr:g} are too high for this data",
            "Start over with lower ones: --fresh --set lr=1e-3 --set backbone_lr=1e-4",
        )


def _write_results(run: RunFolder, history: History, made: Finished) -> None:
    run.write("plots/curves.png", charts.learning_curves(history.rows, history.best_epoch))
    for found in made.reports:
        if isinstance(found, ClassReport):
            run.write(f"plots/confusion_{found.target}.png", charts.confusion(found))
    run.write(HISTORY, history.csv())
    content = {
        "plantml_metrics": METRICS_FORMAT,
        "split": "val",
        "model": made.digest,
        "best_epoch": history.best_epoch,
        "scores": metrics.headline(made.reports),
        "targets": {found.target: metrics.as_json(found) for found in made.reports},
        "onnx": asdict(made.proof),
    }
    run.write(METRICS, (json.dumps(content, indent=2) + "\n").encode())


def _epoch_line(row: Mapping[str, float], plan: Plan) -> str:
    names = [f"{target.name}.{'r2' if target.kind == 'value' else 'macro_f1'}" for target in plan.targets]
    scores = "  ".join(f"{name} {row[name]:.3f}" for name in names if name in row)
    epoch = int(row["epoch"]) + 1
    return f"epoch {epoch}/{plan.epochs}  loss {row['train_loss']:.3f}  val {row['val_loss']:.3f}  {scores}"


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
