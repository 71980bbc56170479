"""The example configurations are complete, load, and say what the defaults are."""

from pathlib import Path

import pytest
import yaml

from plantml import settings
from plantml.data.labels import load_taxonomy
from plantml.detect.run import DetectConfig
from plantml.train.recipe import TrainConfig
from plantml.validate.run import ValidateConfig

CONFIGS = Path(__file__).parents[2] / "configs"
MODELS = {"train": TrainConfig, "validate": ValidateConfig, "detect": DetectConfig}


@pytest.mark.parametrize("name", MODELS)
def test_example_names_every_setting_and_loads(name: str) -> None:
    file = CONFIGS / f"{name}.yaml"
    assert set(yaml.safe_load(file.read_text())) == set(MODELS[name].model_fields)
    resolved = settings.resolve(MODELS[name], name, file=str(file))
    assert set(resolved.origins.values()) == {str(file)}


def test_training_example_holds_the_defaults() -> None:
    assert settings.resolve(TrainConfig, "train", file=str(CONFIGS / "train.yaml")).value == TrainConfig()


def test_every_setting_is_described() -> None:
    for model in (*MODELS.values(), settings.Machine):
        for key, field in model.model_fields.items():
            assert field.description, key


def test_taxonomy_example_loads() -> None:
    assert load_taxonomy(str(CONFIGS / "taxonomy.yaml"))("Tomato leaf")["disease"] == "none"
