"""Loggers beside the history: TensorBoard and MLflow, through Lightning."""

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from plantml import storage
from plantml.errors import InputError, MissingExtraError
from plantml.parsing import parse_json_object
from plantml.registry import mlflow_client
from plantml.train.config import TrainConfig
from plantml.train.plan import Plan
from plantml.train.run_folder import RunFolder


class MetricsLogger:
    """Writes the rows of the history to Lightning loggers. A failing logger never ends a training.

    Args:
        loggers: Lightning loggers.
        say: called once per logger that fails.
    """

    def __init__(self, loggers: Sequence[Any] = (), say: Callable[[str], None] = lambda _: None) -> None:
        self._loggers, self._say = list(loggers), say

    def log(self, row: Mapping[str, float]) -> None:
        """Log an epoch's row of the history."""
        values = {key: value for key, value in row.items() if key != "epoch"}
        self._for_each(lambda logger: (logger.log_metrics(values, step=int(row["epoch"])), logger.save()))

    def close(self, status: str) -> None:
        """Finish with the status `success` or `failed`."""
        self._for_each(lambda logger: logger.finalize(status))

    def _for_each(self, action: Callable[[Any], object]) -> None:
        for logger in list(self._loggers):
            try:
                action(logger)
            except Exception as error:  # noqa: BLE001 - from any library; the history has the values anyway
                self._loggers.remove(logger)
                self._say(f"{type(logger).__name__} is switched off after an error: {str(error).splitlines()[0]}")


_MLFLOW, _TENSORBOARD = "mlflow.json", "tensorboard"


def open_loggers(plan: Plan, config: TrainConfig, run: RunFolder, say: Callable[[str], None]) -> MetricsLogger:
    """Open the configured loggers; a resumed run continues the same logs.

    Raises:
        MissingExtraError: a logger is not installed.
        InputError: MLflow's store cannot be reached.
    """
    opened = [_mlflow(plan, config, run) if name == "mlflow" else _tensorboard(run) for name in config.logger]
    for logger in opened:
        logger.log_hyperparams(_hyperparameters(plan))

    return MetricsLogger(opened, say)


def _tensorboard(run: RunFolder) -> Any:
    if find_spec("tensorboard") is None:
        raise MissingExtraError("TensorBoard is not installed", "--logger tensorboard needs it", extra="tensorboard")
    from pytorch_lightning.loggers import TensorBoardLogger

    class UploadingLogger(TensorBoardLogger):
        """Writes locally, then uploads to a remote run."""

        def save(self) -> None:
            super().save()
            run.upload_folder(_TENSORBOARD)

    return UploadingLogger(str(run.folder / _TENSORBOARD), name="", version="")


def _mlflow(plan: Plan, config: TrainConfig, run: RunFolder) -> Any:
    mlflow_client.mlflow("--logger mlflow")
    from mlflow.exceptions import MlflowException
    from pytorch_lightning.loggers import MLFlowLogger

    url = storage.join(run.url, _MLFLOW)
    mlflow_run = parse_json_object(storage.read(url), url) if storage.exists(url) else {}
    try:
        logger = MLFlowLogger(
            experiment_name="plantml",
            run_name=storage.basename(run.url),
            run_id=mlflow_run.get("run_id"),
            tags={"dataset": plan.dataset, "version": str(plan.dataset_version)},
            tracking_uri=mlflow_client.address(config.tracking_uri) or None,
        )
        run_id = logger.run_id
    except (MlflowException, OSError) as error:
        raise InputError(
            "MLflow's store cannot be used",
            str(error).splitlines()[0],
            "Check --tracking-uri, or leave out --logger mlflow.",
        ) from error
    if not mlflow_run:
        storage.write(url, json.dumps({"run_id": run_id, "tracking_uri": config.tracking_uri}).encode())
    return logger


def _hyperparameters(plan: Plan) -> dict[str, Any]:
    """The settings of a plan as scalars, which is what loggers accept."""
    content = plan.model_dump(mode="json", exclude={"asked", "reasons", "targets", "versions", "workers"})
    return {key: value if isinstance(value, (int, float, str)) else json.dumps(value) for key, value in content.items()}
