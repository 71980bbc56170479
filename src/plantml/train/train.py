"""`plantml train`: a dataset version in, a run and its bundle out; repeated, it goes on where it ended."""

import contextlib
import functools
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pytorch_lightning as pl
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

from plantml import settings
from plantml.concurrency import Progress, Stop, silent
from plantml.data.manifest import Version
from plantml.errors import InputError, StoppedError
from plantml.model.bundle import Bundle
from plantml.model.network import PlantNet
from plantml.registry import references
from plantml.settings import Machine
from plantml.train import (
    allocator,
    artifacts,
    distributed,
    embedding_store,
    loggers,
    packaging,
    planning,
    prepare,
    probe,
    throughput,
    warm_start,
)
from plantml.train.batch_preview import example_batch
from plantml.train.batches import evaluation_loader, training_loader
from plantml.train.checkpoint import Hearing, Keeper
from plantml.train.config import TrainConfig
from plantml.train.history import History
from plantml.train.lightning_module import PlantModule
from plantml.train.plan import Plan
from plantml.train.planning import Facts
from plantml.train.run_folder import HISTORY, RunFolder
from plantml.train.selection import select


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


_NOBODY = Listener(lambda _: None, lambda _: silent)


def make_plan(version: Version, config: TrainConfig, machine: Machine, *, measured: bool = True) -> Plan:
    """The plan of a training, without starting it.

    Args:
        version: what to train on, as `selection.select` gives it.
        config: what is asked.
        machine: it is for.
        measured: train a few steps, for what depends on the machine's speed.
    """
    throughput.check_device(config.device)
    parent = references.find(config.warm_start) if config.warm_start else None
    facts = Facts(version, throughput.hardware(machine.threads), None, parent)
    draft = planning.plan(config, facts)
    if not measured:
        return draft
    allocator.keep_freed_memory()
    made = planning.plan(config, replace(facts, speed=throughput.measure(version, draft, machine)))
    # An alias may point elsewhere when the run is resumed; the version that it means now stays what it is.
    return made.model_copy(update={"warm_start": parent.url}) if parent and parent.asked else made


def train(
    dataset: str | Version,
    out: str,
    config: TrainConfig,
    *,
    machine: Machine | None = None,
    fresh: bool = False,
    told: Sequence[str] = (),
    stop: Stop,
    listener: Listener,
) -> Trained | None:
    """Train on a dataset and write a run.

    Args:
        dataset: its reference or a version of it, which is pinned in the plan.
        out: URL of the run.
        config: see `config.TrainConfig`.
        machine: see `settings.Machine`.
        fresh: start over if there is a run at `out`.
        told: lines of the configuration with the origin of each value, to be kept with the run.
        stop: asked after each step.
        listener: told what happens.

    Returns:
        None in a process that only helped another one.

    Raises:
        InputError: the dataset cannot be trained on, or `out` holds a run that was asked for otherwise.
        StoppedError: a signal asked for the end; repeating the call goes on.
    """
    machine = machine or settings.machine()
    distributed.meet(config.device, config.devices, config.nodes)
    listener = listener if distributed.first() else _NOBODY
    run = RunFolder(out, machine, listener.say)
    with run.locked() if distributed.first() else contextlib.nullcontext():
        return _train(dataset, config, run, machine, fresh=fresh, told=told, stop=stop, listener=listener)


def _train(
    dataset: str | Version,
    config: TrainConfig,
    run: RunFolder,
    machine: Machine,
    *,
    fresh: bool,
    told: Sequence[str],
    stop: Stop,
    listener: Listener,
) -> Trained | None:
    started = time.monotonic()
    version, plan, resumed = _begin(dataset, config, run, machine, fresh=fresh, told=told, listener=listener)
    done = run.finished()
    if done is not None:
        if not distributed.first():
            return None
        run.forget(embedding_store.PATTERN)
        seconds = time.monotonic() - started
        return Trained(run.url, done, plan, done.contract.metrics, seconds, resumed, changed=False)

    throughput.check_device(plan.device)
    allocator.keep_freed_memory()
    data, plan = _load(version, plan, run, machine, stop=stop, listener=listener)
    net = prepare.network(plan, data.train, offline=machine.offline)
    if plan.parent:
        new = warm_start.take_over(net, warm_start.parent_of(plan), plan)
        listener.say("Starts from " + plan.warm_start + (f"; new to it: {', '.join(new)}." if new else "."))
    history = _learn(net, _Work(data, plan, run, config, stop, listener))
    if not distributed.first():
        return None
    if stop:
        raise stop.error("Training stopped before the model was made", "Repeat the same command to go on.")
    listener.say(f"Best epoch: {history.best_epoch + 1} of {len(history.rows)}. Calibrating, exporting, comparing.")
    made = packaging.finish(net.cpu().eval(), plan, data, version)
    artifacts.write(run, plan, history, made)
    bundle = run.publish(made.files, made.model_json)
    run.forget(embedding_store.PATTERN)
    scores = made.contract.metrics
    return Trained(run.url, bundle, plan, scores, time.monotonic() - started, resumed, changed=True)


def _begin(
    dataset: str | Version,
    config: TrainConfig,
    run: RunFolder,
    machine: Machine,
    *,
    fresh: bool,
    told: Sequence[str],
    listener: Listener,
) -> tuple[Version, Plan, bool]:
    """The dataset, and the plan of the run that is there or that begins now; true if it was there."""
    if not distributed.first():
        # A process that Lightning started comes when the first has everything ready.
        begun = distributed.from_first(None) if distributed.size() > 1 else (run.plan(), True)
        assert begun is not None
        plan, resumed = begun
        # The first one's version: a newer one may have come meanwhile.
        return select(f"{plan.dataset}@{plan.dataset_version}", config), plan, resumed
    version = select(dataset, config)
    if fresh:
        run.clear()
    known = run.plan_of(config, version)
    if known is None:
        listener.say("Measuring how fast this machine trains.")
        plan = make_plan(version, config, machine)
        run.begin(plan)
        artifacts.write_config(run, told)
        if plan.shortfall:
            listener.say(plan.shortfall)
    else:
        plan = known
    distributed.from_first((plan, known is not None))
    return version, plan, known is not None


def _load(
    version: Version, plan: Plan, run: RunFolder, machine: Machine, *, stop: Stop, listener: Listener
) -> tuple[prepare.Data, Plan]:
    """Decoded photos, and the plan with their number."""
    if not distributed.prepares():
        distributed.wait()
    run.fetch_checkpoints()
    data = prepare.load(version, plan, machine, listener.progress, stop)
    if distributed.prepares():
        distributed.wait()
    for name, why in data.left_out:
        listener.say(f"Left out, because it cannot be read: {name} ({why})")
    return data, plan.model_copy(update={"epoch_photos": min(plan.epoch_photos, len(data.train.rows))})


@dataclass(frozen=True)
class _Work:
    """A training under way."""

    data: prepare.Data
    plan: Plan
    run: RunFolder
    config: TrainConfig
    stop: Stop
    listener: Listener

    def looking(self, what: str) -> probe.Looking:
        """How photos are embedded, and what that is called where progress is shown."""
        every = self.config.checkpoint_every
        kept = embedding_store.Parts(self.run.checkpoints, every, self.run.saved, writes=distributed.first())
        return probe.Looking(self.plan.device, kept, self.stop, self.listener.progress(what))


_Told = Callable[[Mapping[str, float], int], None]
"""Called with each row of the history and the epochs there will be."""


def _learn(net: PlantNet, work: _Work) -> History:
    """Train `net`, which ends with the weights of the best epoch."""
    data, plan, run, listener = work.data, work.plan, work.run, work.listener

    def told(row: Mapping[str, float], epochs: int) -> None:
        listener.say(_epoch_line(row, plan, epochs))
        log.row(row)

    log = loggers.open_(plan, work.config, run, listener.say) if distributed.first() else loggers.Log()
    if distributed.first():
        run.write("plots/batch.png", example_batch(data.train, plan))
    try:
        if plan.mode == "probe":
            looking = work.looking("embedding")
            history = probe.fit(
                net, plan, data.train, data.val, looking=looking, told=lambda row: told(row, plan.epochs)
            )
        else:
            history = _tune(net, work, told)
    except (StoppedError, SystemExit) as error:
        if isinstance(error, SystemExit) and work.stop:  # Lightning's answer to a second Ctrl-C
            raise work.stop.error("Training was interrupted", "Repeat the same command to go on.") from error
        if distributed.first() and work.stop:
            run.settle_if_possible()
        raise
    log.close("success")
    return history


def _tune(net: PlantNet, work: _Work, told: _Told) -> History:
    """Train backbone and heads."""
    data, plan, run, listener = work.data, work.plan, work.run, work.listener
    module = PlantModule(net, plan)

    def ended(row: Mapping[str, float], epochs: int) -> None:
        told(row, epochs)
        if distributed.first():
            run.write_if_possible(HISTORY, keeper.history.csv())

    hearing = Hearing(listener.progress("training"), ended, run.saved, listener.say)
    judging = functools.partial(evaluation_loader, data.val)
    keeper = Keeper(
        module, run.checkpoints, judging, every=work.config.checkpoint_every, stop=work.stop, hearing=hearing
    )
    resumed = keeper.resume()
    if len(set(distributed.gathered(module.step))) > 1:
        why = "each sees a folder of its own"
        raise InputError(
            "The machines have different checkpoints", why, "Let --out be a URL, or a folder that all see."
        )
    if not resumed and plan.mode == "finetune":
        probe.fit_heads_first(net, plan, data.train, work.looking("heads"))
    module.to(plan.device)
    keeper.end_epoch_before()
    if not keeper.done:
        _fit(module, keeper, data)
    if distributed.first():
        run.settle()
        net.load_state_dict(keeper.best())
    return keeper.history


def _fit(module: PlantModule, keeper: Keeper, data: prepare.Data) -> None:
    """All steps that are left, through Lightning."""
    plan = module.plan
    # Lightning's advice on loggers, workers and hardware is for its own users.
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
            callbacks=[keeper],
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
        # Signals are answered by `Stop`, between two steps. Lightning's own handler talks to the other processes from
        # within whatever is being done, where they may be waiting for something else.
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]  # noqa: SLF001
        share = {"rank": trainer.global_rank, "size": trainer.world_size}
        trainer.fit(module, training_loader(data.train, plan, module.step, keeper.epochs, **share))


def _epoch_line(row: Mapping[str, float], plan: Plan, epochs: int) -> str:
    names = [f"{target.name}.{'r2' if target.kind == 'value' else 'macro_f1'}" for target in plan.targets]
    scores = "  ".join(f"{name} {row[name]:.3f}" for name in names if name in row)
    epoch = int(row["epoch"]) + 1
    return f"epoch {epoch}/{epochs}  loss {row['train_loss']:.3f}  val {row['val_loss']:.3f}  {scores}"
