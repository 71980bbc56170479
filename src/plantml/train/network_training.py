"""Train one network: from a dataset version to a run and its bundle."""

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from plantml import storage
from plantml.concurrency import Listener, Stop
from plantml.data.manifest import Version
from plantml.errors import StoppedError
from plantml.model.bundle import Bundle
from plantml.registry import references
from plantml.settings import Machine
from plantml.train import allocator, artifacts, covariates, distributed, loggers, probe, warm_start, weights
from plantml.train.boxes import crops
from plantml.train.config import TrainConfig
from plantml.train.history import History
from plantml.train.learner import Learner, Loading
from plantml.train.learners import LEARNERS
from plantml.train.plan import Plan
from plantml.train.plan_inputs import PlanInputs
from plantml.train.planning import planner, throughput
from plantml.train.run_folder import RunFolder
from plantml.train.selection import Selection, check_splits, select, targets_to_learn
from plantml.train.session import Session
from plantml.train.step_learner import StepLearner
from plantml.train.unlabelled_photos import select_unlabelled

TILES = "tiles"
"""Folder of a run with the dataset of tiles."""


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training.

    Attributes:
        run: URL of the run.
        bundle: the model.
        plan: of the run.
        scores: calibrated, on the validation split.
        seconds: of this call.
        resumed: true if an earlier call started the run.
        changed: false if an earlier call finished the run.
        plots: URLs of the folders with its plots.
    """

    run: str
    bundle: Bundle
    plan: Plan
    scores: Mapping[str, float]
    seconds: float
    resumed: bool
    changed: bool
    plots: Sequence[str]


def make_plan(version: Selection, config: TrainConfig, machine: Machine, *, measured: bool = True) -> Plan:
    """Plan a training without starting it.

    Args:
        version: from `selection.select`.
        config: of the training.
        machine: to plan for.
        measured: measure the machine's speed with a few steps.
    """
    throughput.check_device(config.device)
    parent = references.find(config.warm_start) if config.warm_start else None
    others = None
    if config.unlabelled and version.task != "anomaly":  # whose plan refuses it
        others = select_unlabelled(config.unlabelled, version, _learnt(version, config))
    inputs = PlanInputs(version, throughput.hardware(machine.threads), None, parent, others)
    plan = planner.plan(config, inputs)
    fixed = {}
    if config.weights:  # before photos are decoded: do they fit?
        fixed["weights_sha256"] = weights.identify(plan.backbone, config.weights, plan.input, offline=machine.offline)
    if measured:
        allocator.keep_freed_memory()
        plan = planner.plan(config, replace(inputs, speed=throughput.measure(version, plan, machine)))
        if parent and parent.ref:
            # By the time of a resume the alias may point elsewhere; the version it points to now is fixed.
            fixed["warm_start"] = parent.url
    return plan.model_copy(update=fixed)


def _learnt(version: Selection, config: TrainConfig) -> list[str]:
    """The columns of a version that a training learns from: targets, or `boxes`."""
    if version.task != "image":
        return ["boxes"]
    check_splits(version)
    return [target.name for target in targets_to_learn(config.targets, version, version.usable("train"), "image")]


def train_network(
    dataset: Selection,
    out: str,
    config: TrainConfig,
    machine: Machine,
    *,
    fresh: bool,
    config_lines: Sequence[str],
    stop: Stop,
    listener: Listener,
) -> TrainingResult | None:
    """Train one network; see `train`."""
    started = time.monotonic()
    distributed.join(config.device, config.devices, config.nodes)
    listener = listener if distributed.is_first() else Listener()
    session = Session(config, RunFolder(out, machine, listener.say), machine, stop, listener)
    with session.run.locked() if distributed.is_first() else contextlib.nullcontext():
        version, plan, resumed = _open_run(dataset, session, fresh=fresh, config_lines=config_lines)
        bundle = session.run.finished_bundle()
        changed = bundle is None
        if bundle is None:
            bundle = _train(version, plan, session)
        if bundle is None or not distributed.is_first():
            return None
        session.run.remove_checkpoints(probe.SAVED)
        scores, seconds = bundle.contract.metrics, time.monotonic() - started
        plots = [storage.join(session.run.url, artifacts.PLOTS)]
        return TrainingResult(session.run.url, bundle, plan, scores, seconds, resumed, changed, plots)


def _open_run(
    dataset: str | Version, session: Session, *, fresh: bool, config_lines: Sequence[str]
) -> tuple[Selection, Plan, bool]:
    """The dataset version, the plan of the run, and whether the run exists already."""
    config, run, listener = session.config, session.run, session.listener
    if not distributed.is_first():
        # Lightning starts other processes only after rank 0 has created the run.
        opened = distributed.broadcast(None) if distributed.world_size() > 1 else (run.plan(), True)
        assert opened is not None
        plan, resumed = opened
        if isinstance(dataset, Selection) and dataset.origin:  # crops, which lie in the run
            return dataset, plan, resumed
        # The version of rank 0, as a newer one may exist by now.
        return select(f"{plan.dataset}@{plan.dataset_version}", config), plan, resumed
    version = select(dataset, config)
    if fresh:
        run.clear()
    existing = run.plan_of(config, version.origin or version)
    if existing is None:
        listener.say("Measuring the training speed of this machine.")
        plan = make_plan(version, config, session.machine)
        run.create(plan)
        artifacts.write_config(run, config_lines)
        if plan.shortfall:
            listener.say(plan.shortfall)
    else:
        plan = existing
    distributed.broadcast((plan, existing is not None))
    return version, plan, existing is not None


def _train(version: Selection, plan: Plan, session: Session) -> Bundle | None:
    """Train the model of a plan; None in all processes but that of rank 0."""
    run, stop, listener = session.run, session.stop, session.listener
    throughput.check_device(plan.device)
    allocator.keep_freed_memory()
    if said := covariates.used_without_photo(version, plan):
        listener.say(said)
    learner = _load_photos(_tiles(version, plan, session) if plan.tile else version, plan, session)
    if isinstance(learner, StepLearner):
        if plan.parent:
            new = learner.start_from(warm_start.parent_bundle(plan))
            listener.say(f"Starting from {plan.warm_start}" + (f"; new: {', '.join(new)}." if new else "."))
        said = learner.label_others(run, session.embedding_job("unlabelled photos", plan.device))
        if said:
            listener.say(said)
    history = _fit(learner, session)
    if not distributed.is_first():
        return None
    if stop:
        raise stop.error("Training stopped before the model was exported", "Repeat the same command to resume.")
    best = f"Best epoch: {history.best_epoch + 1} of {len(history.rows)}. " if isinstance(learner, StepLearner) else ""
    listener.say(f"{best}Calibrating, exporting and verifying the model.")
    learner.net.cpu().eval()
    model = learner.package(version)
    artifacts.write(run, history, model)
    return run.publish(model.files, model.model_json)


def _tiles(version: Selection, plan: Plan, session: Session) -> Version:
    """The tiles of the photos, cut by one process for all: the others find them in the run."""
    run, listener = session.run, session.listener
    if not distributed.is_first():
        distributed.barrier()
    url, progress = storage.join(run.url, TILES), listener.progress("cutting tiles")
    tiles = crops.tile_dataset(version, url, session.machine, progress, session.stop, size=plan.tile)
    if distributed.is_first():
        distributed.barrier()
    return tiles


def _load_photos(version: Version, plan: Plan, session: Session) -> Learner:
    """Decode the photos, one process per machine before the others."""
    if not distributed.prepares_data():
        distributed.barrier()
    session.run.fetch_checkpoints()
    loading = Loading(session.machine, session.listener.progress, session.stop)
    learner = LEARNERS[plan.task](version, plan, loading)
    if distributed.prepares_data():
        distributed.barrier()
    for name, why in learner.left_out:
        session.listener.say(f"Skipped unreadable photo {name}: {why}")
    return learner


def _fit(learner: Learner, session: Session) -> History:
    """Train the learner's network, which ends with the weights of the best epoch."""
    plan, run, stop, listener = learner.plan, session.run, session.stop, session.listener
    logger = loggers.MetricsLogger()
    if distributed.is_first():
        logger = loggers.open_loggers(plan, session.config, run, listener.say)
        run.write(f"{artifacts.PLOTS}/batch.png", learner.example())

    def log_epoch(row: Mapping[str, float], epochs: int) -> None:
        listener.say(learner.epoch_line(row, epochs))
        logger.log(row)

    try:
        history = learner.fit(session, log_epoch)
    except (StoppedError, SystemExit) as error:
        if isinstance(error, SystemExit) and stop:  # how Lightning ends after a second Ctrl-C
            raise stop.error("Training was interrupted", "Repeat the same command to resume.") from error
        if distributed.is_first() and stop:
            run.try_upload()
        raise
    logger.close("success")
    return history
