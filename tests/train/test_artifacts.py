"""What a run leaves besides its bundle."""

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


def test_the_configuration_is_yaml_that_gives_it_again(tmp_path):
    sets = ["where='note == \"a: b  # c\"'", "inner.name=ä #1", "targets=[a, b]", "limit=1e-5"]
    found = settings.resolve(Outer, "outer", sets=sets)
    text = artifacts.config_yaml(found.lines())
    file = tmp_path / "config.yaml"
    file.write_text(text)
    assert settings.resolve(Outer, "outer", file=str(file)).value == found.value
    assert "size: auto  # default" in text.splitlines()
    assert "targets: [a, b]  # --set targets=[a, b]" in text.splitlines()


def test_the_configuration_of_a_training_is_read_again(tmp_path):
    found = settings.resolve(TrainConfig, "train", sets=["epochs=3"], flags={"where": 'source == "lab"'})
    file = tmp_path / "config.yaml"
    file.write_text(artifacts.config_yaml(found.lines()))
    assert settings.resolve(TrainConfig, "train", file=str(file)).value == found.value


def test_the_environment_names_what_a_result_depends_on():
    found = artifacts.environment()
    assert found["python"] == platform.python_version()
    assert found["cores"] >= 1
    assert {"plantml", "torch", "numpy", "timm", "albumentations"} <= set(found["libraries"])


def test_no_secret_of_the_environment_is_written_down(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = artifacts.environment()
    assert "hush" not in json.dumps(found)
    assert found["variables"]["OMP_NUM_THREADS"] == "3"


# --- a real run -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(trained):
    return Path(trained.run)


def test_each_target_has_its_account_in_numbers_and_pictures(run):
    found = json.loads((run / "metrics.json").read_text())
    contract = json.loads((run / "bundle" / "model.json").read_text())["contract"]
    assert contract["target_risk"] == 0.05
    assert set(found["calibration"]) == set(found["selective"]) == set(contract["acceptance"])
    assert set(contract["acceptance"]) == {"category", "health", "disease"}
    for name, told in found["selective"].items():
        held = contract["acceptance"][name]
        assert contract["thresholds"][name] == held["score"] == told["score"]
        assert held["provisional"]
        assert held["risk"] <= held["bound"] <= 1
        assert held["risk"] <= told["target_risk"]
        low, high = found["calibration"][name]["perfect_model_95"]
        assert 0 <= low <= high <= 1
        for plot in ("reliability", "risk_coverage"):
            assert min(Image.open(run / "plots" / f"{plot}_{name}.png").size) > 300
    assert found["unknown"]["threshold"] == contract["unknown_threshold"]


def test_configuration_and_environment_are_kept(run):
    asked = yaml.safe_load((run / "config.yaml").read_text())
    assert set(asked) == set(TrainConfig.model_fields)
    assert "# flag" in (run / "config.yaml").read_text()
    assert "libraries" in json.loads((run / "environment.json").read_text())
