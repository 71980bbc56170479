"""`plantml train`: from a dataset version to a run and its bundle. The same call again resumes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from plantml import settings
from plantml.concurrency import Listener, Stop
from plantml.data.manifest import Version
from plantml.errors import GateError
from plantml.export import bundle_forms
from plantml.export.config import ExportConfig
from plantml.model import bundle as bundles
from plantml.model.runtimes import import_openvino
from plantml.settings import Machine
from plantml.train import network_training, tray
from plantml.train.config import TrainConfig
from plantml.train.network_training import TrainingResult
from plantml.train.plan import Plan
from plantml.train.selection import Selection, select


def first_plan(version: Selection, config: TrainConfig, machine: Machine) -> Plan:
    """The plan that `train` makes first, without starting it; of two stages, that of the detector."""
    if version.task == "tray":
        config = tray.of_stage(config)
    return network_training.make_plan(version, config, machine)


def train(
    dataset: str | Version,
    out: str,
    config: TrainConfig,
    *,
    machine: Machine | None = None,
    fresh: bool = False,
    config_lines: Sequence[str] = (),
    stop: Stop,
    listener: Listener,
) -> TrainingResult | None:
    """Train on a dataset and write a run.

    Args:
        dataset: reference or version; the plan pins the version.
        out: URL of the run.
        config: see `config.TrainConfig`.
        machine: see `settings.Machine`.
        fresh: start over if there is a run at `out`.
        config_lines: the configuration with the origin of each value, saved with the run.
        stop: checked after each step.
        listener: receives messages and progress.

    Returns:
        None in all processes but that of rank 0.

    Raises:
        InputError: the dataset cannot be trained on, or `out` holds a run with another configuration.
        StoppedError: a signal stopped the training; the same call again resumes.
        MissingExtraError: the runtime of a form is not installed.
    """
    version = select(dataset, config)
    options: dict[str, Any] = {"fresh": fresh, "config_lines": config_lines, "stop": stop, "listener": listener}
    machine = machine or settings.machine()
    if "bfloat16" in config.forms:
        import_openvino()  # to know before the training, not after it, that it is not installed
    if version.task == "tray":
        result = tray.train_tray(version, out, config, machine, **options)
    else:
        result = network_training.train_network(version, out, config, machine, **options)
    return _with_forms(result, config, machine, listener) if result else None


def _with_forms(result: TrainingResult, config: TrainConfig, machine: Machine, listener: Listener) -> TrainingResult:
    """The result, after the forms that its bundle lacks were added; one that does not pass is only reported."""
    url = result.bundle.url
    for name in config.forms:
        try:
            progress = listener.progress(f"adding {name}")
            bundle_forms.add_missing(url, [name], ExportConfig(), machine=machine, progress=progress)
        except GateError as error:
            listener.warn(str(error))
    return replace(result, bundle=bundles.find(url)) if config.forms else result
