"""Where else than in its history a training writes its numbers: TensorBoard and MLflow, through Lightning's loggers."""

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


class Log:
    """Writes the rows of the history to loggers, whose trouble never ends a training.

    Args:
        loggers: of Lightning.
        say: told once of each one that fails.
    """

    def __init__(self, loggers: Sequence[Any] = (), say: Callable[[str], None] = lambda _: None) -> None:
        self._loggers, self._say = list(loggers), say

    def row(self, row: Mapping[str, float]) -> None:
        """Write an epoch's row of the history."""
        numbers = {key: value for key, value in row.items() if key != "epoch"}
        self._each(lambda logger: (logger.log_metrics(numbers, step=int(row["epoch"])), logger.save()))

    def close(self, status: str) -> None:
        """The training ended: `success` or `failed`."""
        self._each(lambda logger: logger.finalize(status))

    def _each(self, act: Callable[[Any], object]) -> None:
        for logger in list(self._loggers):
            try:
                act(logger)
            except Exception as error:  # noqa: BLE001 - of any library; the history has the numbers all the same
                self._loggers.remove(logger)
                self._say(f"{type(logger).__name__} gets no more numbers: {str(error).splitlines()[0]}")


_MLFLOW, _TENSORBOARD = "mlflow.json", "tensorboard"


def open_(plan: Plan, config: TrainConfig, run: RunFolder, say: Callable[[str], None]) -> Log:
    """What writes a row to every logger that was asked for; a resumed run goes on in the same place.

    Raises:
        MissingExtraError: a logger is not installed.
        InputError: MLflow's store cannot be reached.
    """
    made = [_mlflow(plan, config, run) if name == "mlflow" else _tensorboard(run) for name in config.logger]
    for logger in made:
        logger.log_hyperparams(_flat(plan))

    return Log(made, say)


def _tensorboard(run: RunFolder) -> Any:
    if find_spec("tensorboard") is None:
        raise MissingExtraError(
            "TensorBoard is not installed", "--logger tensorboard was asked for", extra="tensorboard"
        )
    from pytorch_lightning.loggers import TensorBoardLogger

    class Published(TensorBoardLogger):
        """Writes here first; a remote run gets a copy."""

        def save(self) -> None:
            super().save()
            run.copy(_TENSORBOARD)

    return Published(str(run.folder / _TENSORBOARD), name="", version="")


def _mlflow(plan: Plan, config: TrainConfig, run: RunFolder) -> Any:
    mlflow_client.mlflow("--logger mlflow")
    from mlflow.exceptions import MlflowException
    from pytorch_lightning.loggers import MLFlowLogger

    notes = storage.join(run.url, _MLFLOW)
    known = parse_json_object(storage.read(notes), notes) if storage.exists(notes) else {}
    try:
        logger = MLFlowLogger(
            experiment_name="plantml",
            run_name=storage.basename(run.url),
            run_id=known.get("run_id"),
            tags={"dataset": plan.dataset, "version": str(plan.dataset_version)},
            tracking_uri=mlflow_client.address(config.tracking_uri) or None,
        )
        run_id = logger.run_id
    except (MlflowException, OSError) as error:
        raise InputError(
            "MLflow's store cannot be used", str(error).splitlines()[0], "See --tracking-uri, or leave --logger away."
        ) from error
    if not known:
        storage.write(notes, json.dumps({"run_id": run_id, "tracking_uri": config.tracking_uri}).encode())
    return logger


def _flat(plan: Plan) -> dict[str, Any]:
    """The choices of a plan as scalars, which is what loggers take."""
    content = plan.model_dump(mode="json", exclude={"asked", "reasons", "targets", "versions", "workers"})
    return {key: value if isinstance(value, (int, float, str)) else json.dumps(value) for key, value in content.items()}
