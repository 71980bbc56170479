"""Push a version to MLflow's registry, as an ONNX model with the same aliases."""

import json
import platform
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plantml import storage
from plantml.errors import StorageError
from plantml.model import bundle as bundles
from plantml.model.contract import Contract
from plantml.model.runtimes import output_names
from plantml.parsing import dump_yaml, parse_yaml
from plantml.registry import ledger, mlflow_client
from plantml.registry.ledger import Entry
from plantml.registry.version_files import VersionFiles, inspect

EXPERIMENT = "plantml"
DIGEST = "plantml.digest"
"""Tag of an MLflow version that holds the model's digest."""

_REQUIREMENTS = ("mlflow", "numpy", "onnx", "onnxruntime", "pandas")


@dataclass(frozen=True)
class PushResult:
    """Result of a push: the version in MLflow, and the one here. `changed` is false if MLflow already had the model."""

    store: str
    name: str
    number: int
    aliases: Sequence[str]
    entry: Entry
    changed: bool


def push(ref: str, store: str, *, name: str | None = None, cache: storage.Cache | None = None) -> PushResult:
    """Register a version with MLflow; for a model that it already has, only set the aliases.

    `store` is MLflow's tracking URI: `http://…`, or `mlflow://host:port`, which means the same; or `sqlite:///…`. The
    name in MLflow is by default the model's name here.

    Raises:
        InputError: the version does not exist or is damaged.
        StorageError: MLflow cannot be reached, or returned an error.
        MissingExtraError: MLflow is not installed.
    """
    state, entry = ledger.resolve(ref)
    module = mlflow_client.mlflow("models push")
    store = mlflow_client.address(store)
    name = name or storage.basename(state.url)
    with _explained(module, store):
        client = module.MlflowClient(tracking_uri=store, registry_uri=store)
        number = _known(client, name, entry.digest)
        changed = not number
        if changed:
            parts = inspect(entry.url, cache)
            _ensure(module, client, name)
            number = _register(client, name, entry, parts)
        names = state.names(entry.number)
        for alias in names:
            client.set_registered_model_alias(name, alias, str(number))
    return PushResult(store, name, number, names, entry, changed)


@contextmanager
def _explained(module: Any, store: str) -> Iterator[None]:
    try:
        yield
    except (module.exceptions.MlflowException, OSError) as error:
        raise StorageError(
            f"MLflow at {store} cannot be used", str(error).splitlines()[0], "Check the address and the server."
        ) from error


def _known(client: Any, name: str, digest: str) -> int:
    """The MLflow version of a model; 0 if there is none."""
    versions = client.search_model_versions(f"name = '{name}'")
    return next((int(each.version) for each in versions if each.tags.get(DIGEST) == digest), 0)


def _register(client: Any, name: str, entry: Entry, parts: VersionFiles) -> int:
    contract = parts.bundle.contract
    data = contract.dataset
    tags = {DIGEST: entry.digest, "plantml.version": str(entry.number), "plantml.url": entry.url,
            "plantml.dataset": f"{data.url}@{data.version}", "plantml.fingerprint": data.fingerprint}  # fmt: skip
    experiment = client.get_experiment_by_name(EXPERIMENT)
    place = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT)
    run = client.create_run(place, run_name=f"{name}@{entry.number}", tags=tags)
    logged = client.create_logged_model(place, name=name, source_run_id=run.info.run_id, tags=tags)
    with tempfile.TemporaryDirectory() as folder:
        _fill(Path(folder), contract, dict(parts.read()), logged.model_id)
        client.log_model_artifacts(logged.model_id, folder)
    for metric, value in contract.metrics.items():
        if "[" not in metric:
            client.log_metric(run.info.run_id, metric, value, model_id=logged.model_id)
    client.finalize_logged_model(logged.model_id, "READY")
    client.set_terminated(run.info.run_id)
    version = client.create_model_version(
        name, f"models:/{logged.model_id}", run_id=run.info.run_id, tags=tags, model_id=logged.model_id
    )
    return int(version.version)


def _ensure(module: Any, client: Any, name: str) -> None:
    try:
        client.create_registered_model(name)
    except module.exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _fill(folder: Path, contract: Contract, files: dict[str, bytes], model_id: str) -> None:
    """The files of MLflow's model format; see https://mlflow.org/docs/latest/ml/model/."""
    from mlflow.models import Model

    for name in (bundles.ONNX, bundles.CARD, bundles.MODEL_JSON):
        if name in files:
            (folder / name).write_bytes(files[name])
    (folder / "requirements.txt").write_text("".join(f"{each}\n" for each in _REQUIREMENTS))
    (folder / "python_env.yaml").write_text(
        dump_yaml({"python": platform.python_version(), "dependencies": ["-r requirements.txt"]})
    )
    model = Model(model_id=model_id)
    model.add_flavor(
        "onnx", onnx_version=contract.versions.get("onnx"), data=bundles.ONNX, providers=["CPUExecutionProvider"],
        onnx_session_options=None, code=None,
    )  # fmt: skip
    model.add_flavor(
        "python_function", loader_module="mlflow.onnx", data=bundles.ONNX, python_version=platform.python_version(),
        env={"virtualenv": "python_env.yaml"},
    )  # fmt: skip
    content = parse_yaml(model.to_yaml(), "MLmodel") | {"signature": _signature(contract)}
    (folder / "MLmodel").write_text(dump_yaml(content))


def _signature(contract: Contract) -> dict[str, Any]:
    """Input and outputs as tensors, in MLflow's form: lists as JSON in text."""
    fit = contract.input
    widths: dict[str, list[int]] = {f"target.{target.name}": [target.size] for target in contract.targets}
    widths |= {"embedding": [contract.architecture.embedding], "unknown": []}
    outputs = [_tensor(name, "float32", [-1, *widths[name]]) for name in output_names(contract)]
    image = _tensor("image", "uint8", [-1, fit.height, fit.width, 3])
    return {"inputs": json.dumps([image]), "outputs": json.dumps(outputs), "params": None}


def _tensor(name: str, dtype: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}}
