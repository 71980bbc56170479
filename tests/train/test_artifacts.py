"""The files of a run besides its bundle."""

import json
import platform
from pathlib import Path

import pytest
import yaml
from PIL import Image

from plantml import settings
from plantml.settings import Config
from plantml.train import artifacts
from plantml.train.config import TrainConfig


class Inner(Config):
    rate: float = 0.1
    name: str = ""


class Outer(Config):
    inner: Inner = Inner()
    where: str = ""
    targets: tuple[str, ...] = ()
    size: int | str = "auto"
    limit: float | None = None


def test_the_configuration_round_trips_through_yaml(tmp_path):
    sets = ["where='note == \"a: b  # c\"'", "inner.name=ä #1", "targets=[a, b]", "limit=1e-5"]
    resolved = settings.resolve(Outer, "outer", sets=sets)
    text = artifacts.config_yaml(resolved.lines())
    file = tmp_path / "config.yaml"
    file.write_text(text)
    assert settings.resolve(Outer, "outer", file=str(file)).value == resolved.value
    assert "size: auto  # default" in text.splitlines()
    assert "targets: [a, b]  # --set targets=[a, b]" in text.splitlines()


def test_the_configuration_of_a_training_round_trips(tmp_path):
    resolved = settings.resolve(TrainConfig, "train", sets=["epochs=3"], flags={"where": 'source == "lab"'})
    file = tmp_path / "config.yaml"
    file.write_text(artifacts.config_yaml(resolved.lines()))
    assert settings.resolve(TrainConfig, "train", file=str(file)).value == resolved.value


def test_the_environment_names_what_a_result_depends_on():
    facts = artifacts.environment()
    assert facts["python"] == platform.python_version()
    assert facts["cores"] >= 1
    assert {"plantml", "torch", "numpy", "timm", "albumentations"} <= set(facts["libraries"])


def test_no_secret_of_the_environment_is_recorded(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    facts = artifacts.environment()
    assert "hush" not in json.dumps(facts)
    assert facts["variables"]["OMP_NUM_THREADS"] == "3"


# --- a real run -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(trained):
    return Path(trained.run)


def test_each_target_has_calibration_metrics_and_plots(run):
    metrics = json.loads((run / "metrics.json").read_text())
    contract = json.loads((run / "bundle" / "model.json").read_text())["contract"]
    assert contract["target_risk"] == 0.05
    assert set(metrics["calibration"]) == set(metrics["selective"]) == set(contract["acceptance"])
    assert set(contract["acceptance"]) == {"category", "health", "disease"}
    for name, selective in metrics["selective"].items():
        acceptance = contract["acceptance"][name]
        assert contract["thresholds"][name] == acceptance["score"] == selective["score"]
        assert acceptance["provisional"]
        assert acceptance["risk"] <= acceptance["bound"] <= 1
        assert acceptance["risk"] <= selective["target_risk"]
        low, high = metrics["calibration"][name]["perfect_model_95"]
        assert 0 <= low <= high <= 1
        for plot in ("reliability", "risk_coverage"):
            assert min(Image.open(run / "plots" / f"{plot}_{name}.png").size) > 300
    assert metrics["unknown"]["threshold"] == contract["unknown_threshold"]


def test_configuration_and_environment_are_saved(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert set(config) == set(TrainConfig.model_fields)
    assert "# flag" in (run / "config.yaml").read_text()
    assert "libraries" in json.loads((run / "environment.json").read_text())
