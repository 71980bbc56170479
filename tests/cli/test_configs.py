"""The example configurations are complete, load, and say what the defaults are."""

import configparser
import re
import shlex
from pathlib import Path

import pytest
import yaml

from plantml import settings
from plantml.cli.app import build
from plantml.concurrency import Listener
from plantml.data.labels import load_taxonomy
from plantml.detect.detect import DetectConfig
from plantml.errors import Exit
from plantml.export.config import ExportConfig
from plantml.retrain.config import DriftConfig, Feed, GateConfig, RetrainConfig
from plantml.retrain.consistency import check
from plantml.retrain.manual_commands import commands_for
from plantml.retrain.rounds import STEPS, Round, Work
from plantml.serve.config import ServeConfig
from plantml.storage.lease import LeaseStop
from plantml.train.config import TrainConfig
from plantml.validate.validate import ValidateConfig

CONFIGS = Path(__file__).parents[2] / "configs"
MODELS = {
    "train": TrainConfig,
    "validate": ValidateConfig,
    "export": ExportConfig,
    "detect": DetectConfig,
    "serve": ServeConfig,
}


@pytest.mark.parametrize("name", MODELS)
def test_example_names_every_setting_and_loads(name: str) -> None:
    file = CONFIGS / f"{name}.yaml"
    assert set(yaml.safe_load(file.read_text())) == set(MODELS[name].model_fields)
    resolved = settings.resolve(MODELS[name], name, file=str(file))
    assert set(resolved.origins.values()) == {str(file)}


@pytest.mark.parametrize("name", ["train", "serve"])
def test_example_holds_the_defaults(name: str) -> None:
    assert settings.resolve(MODELS[name], name, file=str(CONFIGS / f"{name}.yaml")).value == MODELS[name]()


def test_every_setting_is_described() -> None:
    for model in (*MODELS.values(), settings.Machine):
        for key, field in model.model_fields.items():
            assert field.description, key


def test_taxonomy_example_loads() -> None:
    assert load_taxonomy(str(CONFIGS / "taxonomy.yaml"))("Tomato leaf")["disease"] == "none"


# --- retraining -------------------------------------------------------------------------------

SCHEDULES = CONFIGS / "schedules"


def parsed(line: str) -> str:
    """Parse a command line as plantml does, without running it; returns the name of its command."""
    import typer

    words = shlex.split(line)
    assert words[0].endswith("plantml"), line
    command, words = typer.main.get_command(build()), words[1:]
    context = command.make_context("plantml", list(words))
    path = []
    while hasattr(command, "commands"):
        name, command, words = command.resolve_command(context, words)
        path.append(name)
        # Raises for an option or argument that the command does not have.
        context = command.make_context(name, list(words), parent=context)
        command = context.command  # a group may do something itself
        words = [*context._protected_args, *context.args] if hasattr(command, "commands") else []
    return " ".join(path)


def test_parsing_finds_what_is_wrong() -> None:
    assert parsed("plantml dataset split leaves --keep") == "dataset split"
    for line in ("plantml retrain x.yaml --no-such", "plantml dataset bake", "plantml retrain", "plantml train a b"):
        with pytest.raises(Exception, match=r"(?i)no such|missing|unexpected"):
            parsed(line)


def test_retraining_example_names_every_setting_and_loads() -> None:
    file = CONFIGS / "retrain.yaml"
    written = yaml.safe_load(file.read_text())
    assert set(written) == set(RetrainConfig.model_fields)
    assert set(written["feeds"][0]) == set(Feed.model_fields)
    for part, model in (("drift", DriftConfig), ("gates", GateConfig)):
        assert set(written[part]) == set(model.model_fields)
    value = settings.resolve(RetrainConfig, "retrain", file=str(file)).value
    check(value)
    assert (value.every, value.lease, value.train.budget) == (7 * 86400, 1800, 8 * 3600)


def test_settings_of_retraining_are_described() -> None:
    for model in (RetrainConfig, Feed, DriftConfig, GateConfig):
        for key, field in model.model_fields.items():
            assert field.description, key


def test_cron_example() -> None:
    lines = [
        line for line in (SCHEDULES / "retrain.cron").read_text().splitlines() if line and line[0] in "0123456789*"
    ]
    assert len(lines) == 3
    for line in lines:
        fields = line.split(maxsplit=5)
        assert all(re.fullmatch(r"\*|\d+", field) for field in fields[:5])
        assert parsed(fields[5]) == "retrain"


def test_systemd_example() -> None:
    units = {}
    for name in ("plantml-retrain.service", "plantml-retrain.timer"):
        units[name] = configparser.ConfigParser(interpolation=None)
        units[name].optionxform = str  # type: ignore[assignment,method-assign]
        units[name].read(SCHEDULES / name)
    service = units["plantml-retrain.service"]["Service"]
    assert service["Type"] == "oneshot"
    assert parsed(service["ExecStart"]) == "retrain"
    assert {int(code) for code in service["SuccessExitStatus"].split()} == {Exit.INTERRUPTED, Exit.TERMINATED}
    assert units["plantml-retrain.timer"]["Timer"]["OnCalendar"]


def test_the_commands_that_stand_for_steps_are_real(tmp_path) -> None:
    written = yaml.safe_load((CONFIGS / "retrain.yaml").read_text())
    written |= {name: str(tmp_path / name) for name in ("dataset", "model", "work")} | {"start": "warm"}
    begun = {"config": written, "base": 1}
    config = RetrainConfig.model_validate(written)
    work = Work(config, Round(config.work, 1, begun), settings.machine(), "test", LeaseStop(), Listener())
    named = {name: [parsed(line) for line in commands_for(work, name)] for name in STEPS}
    assert named == {
        "add": ["dataset import", "dataset add"], "clean": ["dataset clean"], "split": ["dataset split"],
        "production": ["models show"], "train": ["train"], "predict": ["validate"], "compare": ["validate"],
        "choose": [], "register": ["models add", "models promote"], "report": [],
    }  # fmt: skip
    split = {"dataset": f"{config.dataset}@5", "test": 9, "frozen": 6, "recent": 3, "rounds": [1, 2]}
    work.round.results |= {"split": split, "production": {"number": 3}, "choose": {"decision": "refuse"}}
    lines = {name: commands_for(work, name) for name in STEPS}
    assert [parsed(line) for line in lines["compare"]] == ["validate"] * 3
    assert all("--against" in line and "--max-drop 0.05" in line for line in lines["compare"])
    assert "--from" in lines["train"][0]
    assert "--set budget=28800.0" in lines["train"][0]
    assert [parsed(line) for line in lines["register"]] == ["models add"]
