import contextlib
import os
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import Field

from plantml import settings, storage
from plantml.detect.config import DetectConfig
from plantml.errors import Exit, InputError, NotFoundError, StorageError, UsageError
from plantml.retrain.config import RetrainConfig
from plantml.settings import Config, Duration, Machine, Seed, machine, resolve
from plantml.train.config import TrainConfig
from plantml.validate.config import ValidateConfig


class Augment(Config):
    flips: bool = True
    strength: float = Field(0.5, ge=0, le=1)


class Plan(Config):
    epochs: int = Field(3, ge=1)
    seed: int = 0
    name: str = "leaf"
    augment: Augment = Augment()
    gates: dict[str, float] = Field(default_factory=dict)


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "plan.yaml"
        path.write_text(text)
        return str(path)

    return write


# --- precedence -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sources", "value", "origin"),
    [
        (("flag", "set", "env", "file"), 10, "flag"),
        (("set", "env", "file"), 20, "--set epochs=20"),
        (("env", "file"), 30, "environment"),
        (("file",), 40, "file"),
        ((), 3, "default"),
    ],
)
def test_the_strongest_source_wins_and_is_named(sources, value, origin, file, monkeypatch):
    path = file("epochs: 40\n")
    if "env" in sources:
        monkeypatch.setenv("PLANTML_PLAN__EPOCHS", "30")
    resolved = resolve(
        Plan,
        "plan",
        flags={"epochs": 10 if "flag" in sources else None},
        sets=["epochs=20"] if "set" in sources else [],
        file=path if "file" in sources else None,
    )
    assert resolved.value.epochs == value
    assert f"epochs = {value}  # {path if origin == 'file' else origin}" in resolved.lines()


def test_each_key_comes_from_its_own_source(file, monkeypatch):
    monkeypatch.setenv("PLANTML_PLAN__AUGMENT__FLIPS", "false")
    path = file("augment: {flips: true, strength: 0.25}\nseed: 7\n")
    resolved = resolve(Plan, "plan", sets=["name=bean"], flags={"epochs": 9}, file=path)
    assert resolved.value == Plan(epochs=9, seed=7, name="bean", augment=Augment(flips=False, strength=0.25))
    assert resolved.lines() == [
        "epochs = 9  # flag",
        f"seed = 7  # {path}",
        "name = 'bean'  # --set name=bean",
        "augment.flips = False  # environment",
        f"augment.strength = 0.25  # {path}",
        "gates = {}  # default",
    ]


def test_the_last_of_several_sets_wins():
    resolved = resolve(Plan, "plan", sets=["epochs=5", "epochs=6"])
    assert resolved.value.epochs == 6
    assert resolved.origins["epochs"] == "--set epochs=6"


def test_a_mapping_of_free_keys_is_not_shown_as_a_default_when_it_was_given():
    (line,) = [line for line in resolve(Plan, "plan", sets=["gates.f1=0.9"]).lines() if "gates" in line]
    assert "default" not in line
    assert "--set gates.f1=0.9" in line


def test_the_environment_of_another_command_does_not_count(monkeypatch):
    monkeypatch.setenv("PLANTML_DETECT__EPOCHS", "30")
    assert resolve(Plan, "plan").value.epochs == 3


def test_a_config_file_may_be_anywhere(memory_url):
    storage.write(f"{memory_url}/plan.yaml", b"epochs: 8")
    assert resolve(Plan, "plan", file=f"{memory_url}/plan.yaml").value.epochs == 8


def test_an_empty_config_file_sets_nothing(file):
    assert resolve(Plan, "plan", file=file("# nothing yet\n")).value == Plan()


def test_set_reads_its_value_as_yaml():
    value = resolve(Plan, "plan", sets=["augment={flips: false}", "augment.strength=1e-1"]).value
    assert value.augment == Augment(flips=False, strength=0.1)


def test_an_equals_sign_may_be_part_of_a_value():
    assert resolve(Plan, "plan", sets=["name=a=b"]).value.name == "a=b"


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("epoch=5", "epochs"),
        ("augment.strenght=1", "augment.strength"),
        ("augmnet.flips=false", "augment"),
    ],
)
def test_an_unknown_key_suggests_the_nearest(text, nearest):
    with pytest.raises(InputError) as caught:
        resolve(Plan, "plan", sets=[text])
    assert f"--set {text}" in caught.value.what
    assert caught.value.hint == f"Did you mean {nearest}?"


def test_an_unknown_key_like_no_other_lists_what_there_is():
    with pytest.raises(InputError) as caught:
        resolve(Plan, "plan", sets=["xyzzy=1"])
    assert "epochs" in caught.value.hint
    assert "augment.strength" in caught.value.hint


def test_an_unknown_key_of_the_environment_is_an_error_too(monkeypatch):
    monkeypatch.setenv("PLANTML_PLAN__EPOCH", "5")
    with pytest.raises(InputError, match="environment"):
        resolve(Plan, "plan")


def test_an_unknown_key_of_a_file_names_the_file(file):
    path = file("epoch: 5")
    with pytest.raises(InputError) as caught:
        resolve(Plan, "plan", file=path)
    assert path in caught.value.what


@pytest.mark.parametrize("text", ["epochs=0", "epochs=many", "augment.strength=2", "augment=3", "seed=1.5"])
def test_a_value_that_does_not_fit_names_the_key_and_its_origin(text):
    with pytest.raises(InputError) as caught:
        resolve(Plan, "plan", sets=[text])
    assert text.partition("=")[0] in caught.value.what
    assert f"--set {text}" in caught.value.what
    assert caught.value.why


@pytest.mark.parametrize("text", ["epochs", "=5", ""])
def test_a_set_that_is_no_pair_is_wrong_usage(text):
    with pytest.raises(UsageError, match="KEY=VALUE"):
        resolve(Plan, "plan", sets=[text])


def test_a_set_whose_value_is_broken_yaml_is_wrong_usage():
    with pytest.raises(UsageError) as caught:
        resolve(Plan, "plan", sets=["epochs=[1"])
    assert "epochs=[1" in caught.value.what


def test_an_environment_value_that_is_broken_yaml_is_told(monkeypatch):
    monkeypatch.setenv("PLANTML_PLAN__EPOCHS", "[1")
    with pytest.raises((InputError, UsageError)):
        resolve(Plan, "plan")


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words", "a: [1"])
def test_a_file_that_holds_no_settings_is_bad_input(text, file):
    path = file(text)
    with pytest.raises(InputError) as caught:
        resolve(Plan, "plan", file=path)
    assert path in caught.value.what


def test_a_file_that_is_not_text_is_bad_input(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_bytes(b"name: gr\xfcn")
    with pytest.raises(InputError, match="YAML"):
        resolve(Plan, "plan", file=str(path))


def test_a_missing_file_is_not_taken_for_an_empty_one(tmp_path):
    with pytest.raises(NotFoundError):
        resolve(Plan, "plan", file=str(tmp_path / "plan.yaml"))


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Plan().epochs = 5


# --- values and words -------------------------------------------------------------------------


class Odd(Config):
    size: Annotated[int, Field(ge=32, le=1024)] | Literal["auto"] = "auto"
    rate: float = Field(0.1, gt=0, le=10)
    share: float = Field(0.1, ge=0, lt=1)
    wait: Duration | None = None
    seed: Seed = 0
    loggers: tuple[Literal["a", "b"], ...] = ()
    parts: tuple[Augment, ...] = ()


@pytest.mark.parametrize(
    ("text", "key", "why"),
    [
        ("size=0", "size", "a whole number from 32 to 1024, or auto"),
        ("size=[1]", "size", "a whole number from 32 to 1024, or auto"),
        ("size.x=1", "size", "a whole number from 32 to 1024, or auto"),
        ("rate=.nan", "rate", "a number above 0 and at most 10"),
        ("rate=.inf", "rate", "a number above 0 and at most 10"),
        ("share=1", "share", "a number of at least 0 and below 1"),
        ("seed=9223372036854775808", "seed", "a whole number from 0 to 9223372036854775807"),
        ("wait=soon", "wait", "a time like 90s, 20m, 1h30m, 7d or 2w"),
        ("wait=true", "wait", "a time like 90s, 20m, 1h30m, 7d or 2w"),
        ("wait=0s", "wait", "a time like 90s, 20m, 1h30m, 7d or 2w, above 0 and at most 366d"),
        ("wait=60w", "wait", "a time like 90s, 20m, 1h30m, 7d or 2w, above 0 and at most 366d"),
        ("loggers=[c]", "loggers.0", "a, or b"),
        ("loggers=c", "loggers", "a list, each a, or b"),
        ("parts=[{flips: perhaps}]", "parts.0.flips", "true or false"),
        ("parts=[3]", "parts.0", "a mapping of keys to values"),
    ],
)
def test_what_does_not_fit_names_the_key_as_people_write_it_and_what_would_fit(text, key, why):
    with pytest.raises(InputError) as caught:
        resolve(Odd, "odd", sets=[text])
    assert caught.value.what == f"Setting {key} (from --set {text}) does not fit"
    assert caught.value.why == why


def test_a_time_beyond_all_numbers_is_no_bug():
    with pytest.raises(InputError, match="wait"):
        resolve(Odd, "odd", flags={"wait": "9" * 400 + "w"})


def test_an_unknown_key_in_a_list_names_where_the_list_came_from():
    with pytest.raises(InputError, match=r"^Unknown setting parts\.0\.flip \(from --set parts=\[{flip: 1}\]\)"):
        resolve(Odd, "odd", sets=["parts=[{flip: 1}]"])


def test_a_key_that_must_be_given_is_told():
    with pytest.raises(InputError, match="Setting dataset is missing"):
        resolve(RetrainConfig, "retrain")


def test_a_fold_that_there_is_not_is_told():
    with pytest.raises(InputError, match="there is no fold 3 of 0 folds"):
        resolve(TrainConfig, "train", sets=["fold=3"])


def test_a_key_of_a_thousand_parts_is_wrong_usage():
    with pytest.raises(UsageError, match="names no setting"):
        resolve(Plan, "plan", sets=[".".join("a" * 5000) + "=1"])


def test_a_long_value_is_shortened_in_the_error():
    with pytest.raises(UsageError) as caught:
        resolve(Plan, "plan", sets=["seed=" + "9" * 5000])
    assert len(caught.value.what) < 120


CONFIGS = {"train": TrainConfig, "detect": DetectConfig, "validate": ValidateConfig, "retrain": RetrainConfig}


def _numbers(schema):
    """Every part of a JSON schema that is a number, and the key it belongs to."""
    for key, part in schema["properties"].items():
        for option in part.get("anyOf", [part]):
            if option.get("type") in {"integer", "number"} and "const" not in option and "words" not in part:
                yield key, option
    for inner in schema.get("$defs", {}).values():
        if "properties" in inner:
            yield from _numbers(inner)


@pytest.mark.parametrize("config", [*CONFIGS.values(), Machine])
def test_every_number_has_a_lower_and_an_upper_bound(config):
    for key, part in _numbers(config.model_json_schema()):
        assert {"minimum", "exclusiveMinimum", "gt"} & set(part), key
        assert {"maximum", "exclusiveMaximum", "le"} & set(part), key


KEYS = sorted({name for config in CONFIGS.values() for name in config.model_fields} | {"train.size", "gates.min", "x"})
VALUES = st.sampled_from(
    ["", "0", "-1",
     "1e9", ".nan", ".inf", "-.inf", "true", "auto", "null", "[1]", "[[]]", "{a: 1}", "{}", "9" * 400 + "w",
     "9" * 5000, "!!int x", "!!timestamp x", "2020-13-45", "[" * 200, "a: a: a", "&a [*a]", "{a: 1, a: 2}", '"\\0"',
     "1h30m", "0x" + "f" * 60, "'", "{source: [1]}", "[{source: a, x: 1}]", "[{}]", "{1: 2}", "{~: 2}", "{.nan: 2}"]
) | st.text(max_size=8)  # fmt: skip
SETS = st.tuples(st.sampled_from(KEYS) | st.text(max_size=6), VALUES).map("=".join)
FILES = st.dictionaries(st.sampled_from(KEYS[:-1]) | st.integers(), VALUES, max_size=3).map(
    lambda pairs: "\n".join(f"{key}: {value}" for key, value in pairs.items())
)


@given(section=st.sampled_from(sorted(CONFIGS)), sets=st.lists(SETS, max_size=2), text=FILES)
@hypothesis_settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_asked_for_only_documented_errors_are_raised(section, sets, text, memory_url):
    url = f"{memory_url}/config.yaml"
    storage.write(url, text.encode("utf-8", "replace"))
    with contextlib.suppress(InputError, UsageError):
        resolve(CONFIGS[section], section, sets=sets, file=url).lines()


# --- the machine ------------------------------------------------------------------------------


def test_the_machine_is_read_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("PLANTML_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PLANTML_CACHE_LIMIT", "1000")
    monkeypatch.setenv("PLANTML_OFFLINE", "1")
    monkeypatch.setenv("PLANTML_THREADS", "3")
    assert machine() == settings.Machine(cache_dir=tmp_path, cache_limit=1000, offline=True, threads=3)


def test_without_an_environment_the_machine_has_its_defaults(monkeypatch):
    monkeypatch.delenv("PLANTML_CACHE_DIR")
    found = machine()
    assert found.threads == settings.usable_cores() >= 1
    assert found.offline is False
    assert found.cache_limit == 20 * 2**30
    assert found.cache_dir.name == "plantml"


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch):
    monkeypatch.setenv("PLANTML_THREADS", "")
    assert machine().threads == settings.usable_cores()


def test_the_flag_for_offline_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("PLANTML_OFFLINE", "0")
    assert machine(offline=True).offline is True
    assert machine().offline is False


@pytest.mark.parametrize(
    ("name", "text"),
    [("PLANTML_THREADS", "0"), ("PLANTML_OFFLINE", "perhaps"), ("PLANTML_CACHE_LIMIT", "-1")],
)
def test_a_variable_that_does_not_fit_is_named(name, text, monkeypatch):
    monkeypatch.setenv(name, text)
    with pytest.raises(InputError) as caught:
        machine()
    assert name in caught.value.what
    assert caught.value.exit_code == Exit.INPUT


def test_the_home_of_nobody_is_no_folder(monkeypatch):
    monkeypatch.setenv("PLANTML_CACHE_DIR", "~no-such-user-here/cache")
    with pytest.raises(InputError, match="names no folder"):
        machine()


def test_the_cache_lies_in_a_folder_of_its_own_with_the_limit(monkeypatch, tmp_path):
    monkeypatch.setenv("PLANTML_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PLANTML_CACHE_LIMIT", "1000")
    cache = machine().cache()
    assert cache.folder == tmp_path / "objects"
    assert cache.limit == 1000


def test_a_tilde_in_the_cache_folder_is_the_users_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PLANTML_CACHE_DIR", "~/plants")
    assert Path(machine().cache_dir) == tmp_path / "plants"


# --- the cache --------------------------------------------------------------------------------


def test_a_cache_that_cannot_be_written_is_elsewhere_with_one_warning(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PLANTML_CACHE_DIR", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    folder = machine().cache_dir
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700
    assert machine().cache_dir == folder
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "PLANTML_CACHE_DIR" in caplog.records[0].getMessage()


def test_a_cache_of_somebody_else_is_not_used(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"plantml-cache-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setenv("PLANTML_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    with pytest.raises(StorageError, match="somebody else's") as caught:
        machine()
    assert "PLANTML_CACHE_DIR" in caught.value.hint


@pytest.mark.parametrize("folder", ["~nosuchuser/cache", "s3://bucket/cache"])
def test_a_cache_is_a_folder_of_this_machine(monkeypatch, folder):
    monkeypatch.setenv("PLANTML_CACHE_DIR", folder)
    with pytest.raises(InputError):
        machine()


def test_a_cache_that_is_not_there_yet_is_not_made_by_looking(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PLANTML_CACHE_DIR", str(tmp_path / "a" / "b"))
    assert machine().cache_dir == tmp_path / "a" / "b"
    assert not (tmp_path / "a").exists()
    assert not caplog.records
