"""TensorBoard and MLflow get the rows of the history, and a resumed run continues them."""

import json

import pytest

from plantml import storage
from plantml.errors import Exit

SMALL = ("--size", "48", "--epochs", "2", "--set", "backbone=test_efficientnet", "--set", "pretrained=false")


@pytest.mark.usefixtures("unexported", "unmeasured")
def test_mlflow_has_the_history(cli, trained, tmp_path, monkeypatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    from plantml.train import packaging

    store = f"sqlite:///{tmp_path}/mlflow.db"
    command = ("train", trained.data, "--out", tmp_path / "run", *SMALL, "--logger", "mlflow", "--tracking-uri", store)
    with monkeypatch.context() as patch:  # interrupted after its last epoch
        patch.setattr(packaging, "package", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert cli(*command).code == Exit.INTERRUPTED
    result = cli(*command)
    assert result.code == Exit.DONE, result.err
    client = mlflow.MlflowClient(store)
    [experiment] = [one for one in client.search_experiments() if one.name == "plantml"]
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == json.loads((tmp_path / "run" / "mlflow.json").read_text())["run_id"]
    assert run.data.params["epochs"] == "2"
    assert run.info.status == "FINISHED"
    losses = client.get_metric_history(run.info.run_id, "val_loss")
    rows = (tmp_path / "run" / "history.csv").read_text().splitlines()
    place = rows[0].split(",").index("val_loss")
    assert [round(loss.value, 6) for loss in losses] == [float(row.split(",")[place]) for row in rows[1:]]


@pytest.mark.usefixtures("unexported", "unmeasured")
def test_tensorboard_has_the_history_in_a_bucket_too(cli, trained, tmp_path, s3_url) -> None:
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
    assert cli("train", trained.data, "--out", tmp_path / "run", *SMALL, "--logger", "paper").code == Exit.USAGE


def test_a_failing_logger_does_not_end_training() -> None:
    from plantml.train.loggers import MetricsLogger

    class Broken:
        def log_metrics(self, *_: object, **__: object) -> None:
            raise ConnectionError("the server is gone\nand more")

    class Good:
        def __init__(self) -> None:
            self.calls: list[object] = []

        def log_metrics(self, numbers, step) -> None:
            self.calls.append((numbers, step))

        def save(self) -> None:
            pass

        def finalize(self, status) -> None:
            self.calls.append(status)

    messages: list[str] = []
    good = Good()
    logger = MetricsLogger([Broken(), good], messages.append)
    logger.log({"epoch": 0.0, "val_loss": 1.0})
    logger.log({"epoch": 1.0, "val_loss": 0.5})
    logger.close("success")
    assert messages == ["Broken is switched off after an error: the server is gone"]
    assert good.calls == [({"val_loss": 1.0}, 0), ({"val_loss": 0.5}, 1), "success"]
