"""`plantml.train`, `plantml.validate` and `plantml.export`: the commands of these names, as functions."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from plantml import settings
from plantml.api.dataset import Dataset
from plantml.api.model import Model, load
from plantml.api.run import ModelInput, Run, model_ref
from plantml.concurrency import Listener, Stop
from plantml.errors import UsageError
from plantml.extras import need_train

if TYPE_CHECKING:
    from plantml.export.export import Compared
    from plantml.validate.results import ValidationResult

_log = logging.getLogger(__name__)

DatasetInput: TypeAlias = Dataset | str | Path
"""A dataset, or a reference to one."""


def train(
    dataset: DatasetInput,
    out: str | Path = "run",
    *,
    fresh: bool = False,
    config: str | None = None,
    say: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> Run:
    """Train a model on a dataset with splits, as `plantml train` does.

    Interrupted, the same call resumes; finished, it only opens the run. Warnings, such as of photos that leak between
    splits, go to the log `plantml`.

    Args:
        dataset: to train on.
        out: URL of the run's folder.
        fresh: start over if there is a run at `out`.
        config: URL of a YAML file of settings.
        say: called with a line of progress now and then; `print` shows it.
        options: settings of `plantml train`, such as `preset="quick"`, `epochs=20` or `seed=1`; see `docs/settings.md`.

    Raises:
        InputError: the dataset cannot be trained on, a setting is unknown, or `out` holds a run with other settings.
        UsageError: a setting does not fit.
        MissingExtraError: the extra `train` is not installed.
        StoppedError: an interrupt ended it; repeat the call to resume.
    """
    need_train()
    from plantml.train import selection
    from plantml.train import train as training
    from plantml.train.config import TrainConfig

    resolved = settings.resolve(TrainConfig, "train", flags=options, file=config)
    values = resolved.value
    if values.folds or values.devices * values.nodes > 1:
        raise UsageError(
            "This training is for the command line",
            "folds make no model, and several devices need a process each",
            "Leave folds, devices and nodes out here, or run `plantml train`.",
        )
    listener = Listener(say=say, warn=_log.warning)
    version = selection.load_checked(_dataset_ref(dataset), values, str(out), listener.warn)
    with Stop() as stop:
        trained = training.train(
            version, str(out), values, fresh=fresh, config_lines=resolved.lines(), stop=stop, listener=listener
        )
    assert trained is not None  # only a helping process gets none
    return Run(trained.run)


def validate(
    model: ModelInput,
    datasets: DatasetInput | Sequence[DatasetInput],
    *,
    against: ModelInput | None = None,
    config: str | None = None,
    **options: Any,
) -> "ValidationResult":
    """Score a model on a split of one or more datasets, as `plantml validate` does.

    Args:
        model: to score.
        datasets: one, or several.
        against: another model, to compare with on the same photos.
        config: URL of a YAML file of settings.
        options: settings of `plantml validate`, such as `split="val"`, `report="report.html"` or
            `min=["macro_f1=0.85"]`; see `docs/settings.md`.

    Returns:
        `scores`, `intervals` (95 %, over groups of photos), `reports`, `slices`, `gates` and more. A gate that fails
        raises nothing: `passed` says so.

    Raises:
        InputError: the split is empty, model and dataset share no target, or a setting is unknown.
        UsageError: a setting does not fit.
        StoppedError: an interrupt ended it; the predictions so far are kept.
    """
    from plantml.validate import validate as validation
    from plantml.validate.config import ValidateConfig
    from plantml.validate.predictions import Machine

    flags: dict[str, Any] = options | {"model": model_ref(model)}
    if against is not None:
        flags["against"] = model_ref(against)
    if isinstance(model, Model):
        flags |= {"device": model.device, "runtime": model.runtime}
    resolved = settings.resolve(ValidateConfig, "validate", flags=flags, file=config).value

    def opened(model: ModelInput) -> Model:
        if isinstance(model, Model):
            return model
        return load(
            model_ref(model),
            runtime=resolved.runtime,
            device=resolved.device,
            batch=resolved.batch,
            tile=resolved.tile,
            speed=resolved.speed,
        )

    several = [datasets] if isinstance(datasets, (Dataset, str, Path)) else datasets
    other = against if against is not None else resolved.against
    with Stop() as stop:
        return validation.validate(
            [_dataset_ref(each) for each in several],
            opened(model).pipeline,
            resolved,
            machine=Machine(settings.machine(), stop),
            other=opened(other).pipeline if other is not None else None,
        )


def export(
    model: ModelInput,
    to: str | Path,
    *,
    format: str | None = None,  # noqa: A002 - the option is called so
    data: DatasetInput | None = None,
    config: str | None = None,
    **options: Any,
) -> "Compared":
    """Convert a model to another format, and verify it, as `plantml export` does.

    Args:
        model: to convert.
        to: URL of the file (`.onnx`, `.xml`, `.pt2`), or of a folder for it.
        format: `onnx`, `onnx-int8`, `openvino` or `pt2`; by the file's extension if not given.
        data: dataset to compare on, and to calibrate int8; the model's own if not given.
        config: URL of a YAML file of settings.
        options: settings of `plantml export`: `split`, `samples` and `max_drop`; see `docs/settings.md`.

    Returns:
        The comparison with the network; `url` is the file that was written.

    Raises:
        RefusedError: the predictions differ, or int8 costs more than `max_drop`; nothing was written.
        InputError: there are no photos to compare, or a setting is unknown.
        UsageError: a setting does not fit.
        MissingExtraError: the extra `train` is not installed.
    """
    need_train()
    from plantml.export import export as exporting
    from plantml.export.config import ExportConfig

    flags = options | ({} if data is None else {"data": _dataset_ref(data)})
    resolved = settings.resolve(ExportConfig, "export", flags=flags, file=config).value
    return exporting.export(model_ref(model), str(to), resolved, form=format, machine=settings.machine())


def _dataset_ref(dataset: DatasetInput) -> str:
    return dataset.ref if isinstance(dataset, Dataset) else str(dataset)
