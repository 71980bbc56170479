"""Import MLflow without its telemetry."""

import os
from importlib.util import find_spec
from typing import Any

from plantml.errors import MissingExtraError


def mlflow(feature: str) -> Any:
    """The module, without telemetry and without output on stdout. The error names the `feature` that needs it.

    Raises:
        MissingExtraError: it is not installed.
    """
    if find_spec("mlflow") is None:
        raise MissingExtraError("MLflow is not installed", f"{feature} needs it", extra="mlflow")
    # MLflow reads these when it is imported.
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    import mlflow as module

    return module


def address(uri: str) -> str:
    """A tracking URI in MLflow's form: `mlflow://host:port` is `http://host:port`."""
    return f"http://{uri.removeprefix('mlflow://')}" if uri.startswith("mlflow://") else uri
