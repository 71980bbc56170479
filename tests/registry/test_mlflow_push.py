"""Against a real MLflow server on loopback, with its SQLite store."""

import importlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from plantml import registry
from plantml.errors import StorageError
from plantml.registry.mlflow_push import push

mlflow = pytest.importorskip("mlflow")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """URI of a server that was started once."""
    if shutil.which("mlflow", path=Path(sys.executable).parent) is None:
        pytest.skip("only the client of MLflow is installed")
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    quiet = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "NO_PROXY": "127.0.0.1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=quiet, start_new_session=True)
    try:
        direct, deadline = urllib.request.build_opener(urllib.request.ProxyHandler({})), time.monotonic() + 90
        while True:
            try:
                direct.open(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                tail = (folder / "log").read_text()[-2000:]
                assert process.poll() is None, tail
                assert time.monotonic() < deadline, tail
                time.sleep(0.2)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("NO_PROXY", "127.0.0.1")
            yield f"mlflow://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 9)
        process.wait()


@pytest.mark.slow  # for the server's start
def test_a_version_is_an_onnx_model_there_with_the_same_aliases(server, cli, tmp_path, make_bundle, photo):
    model, me = f"{tmp_path}/models/leaf", {"by": "me", "force": True, "why": "a test"}
    for seed in (1, 2):
        registry.add(make_bundle(seed), model, by="me")
    registry.promote(model, 1, "production", **me)
    first = cli("models", "push", f"{model}@production", server, "--json")
    assert first.code == 0, first.err
    assert {key: first.json[key] for key in ("name", "version", "aliases", "changed")} == {
        "name": "leaf", "version": 1, "aliases": ["production"], "changed": True,
    }  # fmt: skip
    assert not push(f"{model}@1", server).changed
    registry.promote(model, 2, "production", **me)
    done = push(f"{model}@2", server)
    assert (done.number, list(done.aliases)) == (2, ["production"])

    store = server.replace("mlflow:", "http:")
    client = mlflow.MlflowClient(store, store)
    there = client.get_model_version_by_alias("leaf", "production")
    digest = registry.load(model).entries[2].digest
    assert (int(there.version), there.tags["plantml.digest"], there.status) == (2, digest, "READY")
    assert client.get_run(there.run_id).data.metrics["macro_f1"] == 0.502
    mlflow.set_tracking_uri(store)
    mlflow.set_registry_uri(store)
    graph = importlib.import_module("mlflow.onnx").load_model("models:/leaf@production")
    assert {each.key: each.value for each in graph.metadata_props}["plantml_digest"] == digest
    batch = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3), np.uint8)
    outputs = mlflow.pyfunc.load_model("models:/leaf@production").predict({"image": batch})
    from plantml.registry.references import open_model

    ours = open_model(f"{model}@2")[1].run(batch)
    assert np.allclose(outputs["target.category"], ours["target.category"], atol=1e-6)


@pytest.mark.slow
def test_a_training_shows_up_in_the_dashboard(server, cli, trained, tmp_path):
    small = ("--size", 48, "--epochs", 2, "--set", "backbone=mobilenetv3_small_050", "--set", "pretrained=false")
    logged = ("--logger", "mlflow", "--tracking-uri", server)
    done = cli("train", trained.data, "--out", tmp_path / "night", *small, *logged)
    assert done.code == 0, done.err
    client = mlflow.MlflowClient(server.replace("mlflow:", "http:"))
    place = client.get_experiment_by_name("plantml").experiment_id
    [run] = [each for each in client.search_runs([place]) if each.info.run_name == "night"]
    assert run.data.params["epochs"] == "2"
    assert len(client.get_metric_history(run.info.run_id, "val_loss")) == 2
    model = f"{tmp_path}/models/night"
    assert cli("models", "add", tmp_path / "night", model).code == 0
    pushed = push(f"{model}@1", server)
    there = client.get_model_version("night", str(pushed.number))
    assert there.tags["plantml.digest"] == pushed.entry.digest
    assert {each.info.run_name for each in client.search_runs([place])} >= {"night", "night@1"}


def test_a_server_that_is_not_there_is_told(tmp_path, make_bundle, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    registry.add(make_bundle(1), f"{tmp_path}/models/leaf", by="me")
    with pytest.raises(StorageError, match="cannot be used"):
        push(f"{tmp_path}/models/leaf@1", "http://127.0.0.1:9")


def test_nobody_is_told_of_it():
    from plantml.registry import mlflow_client

    mlflow_client.mlflow("a test")
    from mlflow.telemetry.utils import is_telemetry_disabled

    assert is_telemetry_disabled()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
