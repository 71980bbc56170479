"""A version in MLflow's registry, for teams whose dashboard that is: an ONNX model with the same aliases."""

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
from plantml.registry.version_files import Parts, inspect

EXPERIMENT = "plantml"
DIGEST = "plantml.digest"
"""Tag of a version in MLflow that names the model."""

_REQUIREMENTS = ("mlflow", "numpy", "onnx", "onnxruntime", "pandas")


@dataclass(frozen=True)
class Pushed:
    """What a push came to.

    Attributes:
        store: MLflow's tracking URI.
        name: of the registered model there.
        number: of the version there.
        aliases: that point to it there now.
        entry: the version here.
        changed: false if that very model was there already.
    """

    store: str
    name: str
    number: int
    aliases: Sequence[str]
    entry: Entry
    changed: bool


def push(ref: str, store: str, *, name: str | None = None, cache: storage.Cache | None = None) -> Pushed:
    """Register a version with MLflow; a model that is there already only gets its aliases.

    Args:
        ref: a version of a registry.
        store: MLflow's tracking URI: `http://…`, or `mlflow://host:port`, which means the same; or `sqlite:///…`.
        name: of the registered model there; that of the model here if not given.
        cache: for remote files.

    Raises:
        InputError: the version is not there or not sound.
        StorageError: MLflow cannot be reached, or refused.
        MissingExtraError: MLflow is not installed.
    """
    state, entry = ledger.named(ref)
    module = mlflow_client.mlflow("models push")
    store = mlflow_client.address(store)
    called = name or storage.basename(state.url)
    with _explained(module, store):
        client = module.MlflowClient(tracking_uri=store, registry_uri=store)
        number = _known(client, called, entry.digest)
        changed = not number
        if changed:
            parts = inspect(entry.url, cache)
            _ensure(module, client, called)
            number = _register(client, called, entry, parts)
        names = state.names(entry.number)
        for alias in names:
            client.set_registered_model_alias(called, alias, str(number))
    return Pushed(store, called, number, names, entry, changed)


@contextmanager
def _explained(module: Any, store: str) -> Iterator[None]:
    try:
        yield
    except (module.exceptions.MlflowException, OSError) as error:
        raise StorageError(
            f"MLflow at {store} cannot be used", str(error).splitlines()[0], "Check the address and the server."
        ) from error


def _known(client: Any, name: str, digest: str) -> int:
    """The version there that is this very model; 0 if there is none."""
    found = client.search_model_versions(f"name = '{name}'")
    return next((int(each.version) for each in found if each.tags.get(DIGEST) == digest), 0)


def _register(client: Any, name: str, entry: Entry, parts: Parts) -> int:
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
    made = client.create_model_version(
        name, f"models:/{logged.model_id}", run_id=run.info.run_id, tags=tags, model_id=logged.model_id
    )
    return int(made.version)


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
