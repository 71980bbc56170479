"""Numbers reach TensorBoard and MLflow, and a resumed run goes on where it was."""

import json

import pytest

from plantml import storage
from plantml.errors import Exit

SMALL = ("--size", "48", "--epochs", "2", "--set", "backbone=test_efficientnet", "--set", "pretrained=false")


@pytest.mark.usefixtures("unexported", "unmeasured")
def test_mlflow_has_what_the_history_has(cli, trained, tmp_path, monkeypatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    from plantml.train import packaging

    store = f"sqlite:///{tmp_path}/mlflow.db"
    asked = ("train", trained.data, "--out", tmp_path / "run", *SMALL, "--logger", "mlflow", "--tracking-uri", store)
    with monkeypatch.context() as patch:  # interrupted after its last epoch
        patch.setattr(packaging, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert cli(*asked).code == Exit.INTERRUPTED
    result = cli(*asked)
    assert result.code == Exit.DONE, result.err
    client = mlflow.MlflowClient(store)
    [experiment] = [found for found in client.search_experiments() if found.name == "plantml"]
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == json.loads((tmp_path / "run" / "mlflow.json").read_text())["run_id"]
    assert run.data.params["epochs"] == "2"
    assert run.info.status == "FINISHED"
    losses = client.get_metric_history(run.info.run_id, "val_loss")
    rows = (tmp_path / "run" / "history.csv").read_text().splitlines()
    place = rows[0].split(",").index("val_loss")
    assert [round(found.value, 6) for found in losses] == [float(row.split(",")[place]) for row in rows[1:]]


@pytest.mark.usefixtures("unexported", "unmeasured")
def test_tensorboard_has_what_the_history_has_also_in_a_bucket(cli, trained, tmp_path, s3_url) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    result = cli("train", trained.data, "--out", f"{s3_url}/run", *SMALL, "--logger", "tensorboard")
    assert result.code == Exit.DONE, result.err
    for entry in storage.list_files(f"{s3_url}/run/tensorboard"):
        storage.write(str(tmp_path / entry.name), storage.read(entry.url))
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.step for event in events.Scalars("val_loss")] == [0, 1]
    assert not [entry for entry in storage.list_files(f"{s3_url}/run") if "lightning_logs" in entry.url]


def test_an_unknown_logger_is_refused(cli, trained, tmp_path) -> None:
    assert cli("train", trained.data, "--out", tmp_path / "run", *SMALL, "--logger", "paper").code == Exit.INPUT


def test_a_logger_that_fails_ends_nothing() -> None:
    from plantml.train.loggers import MetricsLogger

    class Broken:
        def log_metrics(self, *_: object, **__: object) -> None:
            raise ConnectionError("the server is gone\nand more")

    class Good:
        def __init__(self) -> None:
            self.seen: list[object] = []

        def log_metrics(self, numbers, step) -> None:
            self.seen.append((numbers, step))

        def save(self) -> None:
            pass

        def finalize(self, status) -> None:
            self.seen.append(status)

    said: list[str] = []
    good = Good()
    log = MetricsLogger([Broken(), good], said.append)
    log.row({"epoch": 0.0, "val_loss": 1.0})
    log.row({"epoch": 1.0, "val_loss": 0.5})
    log.close("success")
    assert said == ["Broken gets no more numbers: the server is gone"]
    assert good.seen == [({"val_loss": 1.0}, 0), ({"val_loss": 0.5}, 1), "success"]
