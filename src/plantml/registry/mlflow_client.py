"""MLflow, as the user's own store and nothing else."""

import os
from importlib.util import find_spec
from typing import Any

from plantml.errors import MissingExtraError


def mlflow(wanted: str) -> Any:
    """The module, which reports to nobody and leaves standard output to results.

    Args:
        wanted: what it is needed for, for the message.

    Raises:
        MissingExtraError: it is not installed.
    """
    if find_spec("mlflow") is None:
        raise MissingExtraError("MLflow is not installed", f"{wanted} was asked for", extra="mlflow")
    # Read when it is imported; it would tell its makers of every use.
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    import mlflow as module

    return module


def address(uri: str) -> str:
    """A tracking URI as MLflow knows it: `mlflow://host:port` is `http://host:port`."""
    return f"http://{uri.removeprefix('mlflow://')}" if uri.startswith("mlflow://") else uri
