"""The loop as a pipeline of another engine: valid for it, and made of commands that exist."""

import ast
import json
import os
import re
import shlex
import stat
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import yaml
from tests.cli.test_configs import parsed

from plantml import storage
from plantml.errors import InputError, UsageError
from plantml.retrain import pipelines
from plantml.retrain.rounds import STEPS

URL = 'memory://it\'s a "lab"/retrain.yaml'
IMAGE = "registry.lab/plantml-worker:0.1.0"
PLACES = {name: f"s3://lab/{name}" for name in ("dataset", "model", "work")}


@pytest.fixture
def write(tmp_path):
    """Write the pipeline of a configuration; returns its file."""

    def write_pipeline(engine, url=URL, **more):
        config = PLACES | {"feeds": [{"source": "s3://lab/feeds/list.csv", "targets": ["disease"]}]} | more
        storage.write(url, yaml.safe_dump(config).encode())
        needs_image = engine in {"kubeflow", "vertex", "cloudbuild"}
        file = str(tmp_path / f"{engine}.yaml")
        Path(file).unlink(missing_ok=True)
        result = pipelines.export(url, engine, out=file, image=IMAGE if needs_image else None, schedule="0 2 * * *")
        assert result.steps == STEPS
        return Path(file)

    return write_pipeline


def constants(file):
    """What a Python file assigns at its top."""
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.Tuple | ast.List)
        and isinstance(node.targets[0], ast.Name)
    }  # fmt: skip


@pytest.mark.parametrize("engine", ["kubeflow", "vertex", "airflow"])
def test_python_names_the_configuration_and_every_step(write, engine) -> None:
    file = write(engine)
    values = constants(file)
    assert values["CONFIG"] == URL, "quotes in a name are kept"
    assert values["STEPS"] == STEPS[1:]
    for step in values["STEPS"]:
        assert parsed(shlex.join(["plantml", "retrain", URL, "--step", step])) == "retrain"
    assert f'"{STEPS[0]}", "--json"]' in file.read_text()
    assert parsed(shlex.join(["plantml", "retrain", URL, "--step", STEPS[0], "--json"])) == "retrain"


@pytest.mark.parametrize(("engine", "schema"), [("github", "github-workflows"), ("cloudbuild", "cloudbuild")])
def test_yaml_is_valid_and_runs_every_step(write, engine, schema) -> None:
    pytest.importorskip("check_jsonschema")
    file = write(engine)
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    content = yaml.safe_load(file.read_text())
    if engine == "github":
        assert content[True]["schedule"] == [{"cron": "0 2 * * *"}]  # YAML 1.1 reads `on` as a boolean
        job = content["jobs"]["retrain"]
        runs = [step["run"].replace('"$CONFIG"', shlex.quote(job["env"]["CONFIG"])) for step in job["steps"]
                if step.get("run", "").startswith("plantml")]  # fmt: skip
    else:
        assert {step["name"] for step in content["steps"]} == {IMAGE}
        runs = [shlex.join(["plantml", *step["args"]]) for step in content["steps"]]
    assert {parsed(run) for run in runs} == {"retrain"}
    assert [shlex.split(run)[2:] for run in runs] == [[URL, "--step", step] for step in STEPS]


def test_places_of_one_machine_are_refused(write, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for engine, more in (("kubeflow", {"work": "/var/work"}), ("github", {"feeds": [{"source": "photos"}]}),
                         ("cloudbuild", {"dataset": "file:///data"})):  # fmt: skip
        with pytest.raises(InputError, match="is a path on this machine"):
            write(engine, **more)
    with pytest.raises(InputError, match="CONFIG is a path"):
        write("vertex", url="retrain.yaml")
    with pytest.raises(UsageError, match="not in the repository"):
        write("github", url=str(tmp_path / "retrain.yaml"))
    assert "configs/retrain.yaml" in write("github", url="configs/retrain.yaml").read_text()
    # Airflow's workers may share a disk.
    assert constants(write("airflow", url="retrain.yaml"))["CONFIG"] == str(tmp_path / "retrain.yaml")


def test_flags_that_do_not_fit_are_refused(write) -> None:
    file = write("github")
    file.write_text("edited")
    with pytest.raises(UsageError, match="exists"):
        pipelines.export(URL, "github", out=str(file), image=None, schedule="0 2 * * *")
    assert file.read_text() == "edited"
    for engine, image, schedule, message in (
        ("kubeflow", None, "0 2 * * *", "needs --image"),
        ("airflow", IMAGE, "0 2 * * *", "takes no --image"),
        ("github", None, "daily", "five fields"),
        ("github", None, "0 2 * *\n- x", "five fields"),
    ):
        with pytest.raises(UsageError, match=message):
            pipelines.export(URL, engine, out=None, image=image, schedule=schedule)


# --- in the engines themselves, each in an environment of its own ------------------------------


def environment_of(folder, package):
    """Python of an environment with the package; skips where it cannot be installed."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    done = subprocess.run(
        [python, "-m", "pip", "install", "-q", package], capture_output=True, text=True, check=False, timeout=900
    )
    if done.returncode:
        pytest.skip(f"{package} cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    return python


@pytest.fixture
def stand_in(tmp_path):
    """Environment whose `plantml` only writes down how it was called, and the list of these calls."""
    calls = tmp_path / "calls"
    program = tmp_path / "bin" / "plantml"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\ncase "$*" in *--json) echo "$RESULT";; esac\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    environment = os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}"}

    def read_calls():
        lines = calls.read_text().splitlines()
        calls.unlink()
        return [shlex.split(line.partition("--step ")[2])[0] for line in lines]

    return environment, read_calls


RESULTS = [(json.dumps({"outcome": "waiting"}), list(STEPS)), (json.dumps({"outcome": "nothing to do"}), [STEPS[0]])]


@pytest.mark.slow
def test_kfp_compiles_it_and_runs_a_round(write, loop, paint_feed, honest, stand_in, tmp_path) -> None:
    python = environment_of(tmp_path / "kfp", "kfp>=2.17,<3")
    for engine in ("vertex", "kubeflow"):
        file = write(engine)
        compiled = subprocess.run([python, file], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
        definition = yaml.safe_load((tmp_path / compiled.strip()).read_text())
        containers = [executor["container"] for executor in definition["deploymentSpec"]["executors"].values()]
        assert {container["image"] for container in containers} == {IMAGE}
        assert len(containers) == len(STEPS)
    environment, calls = stand_in
    for result, wanted in RESULTS:
        subprocess.run([python, file, "--local"], cwd=tmp_path, check=True, env=environment | {"RESULT": result})
        assert calls() == wanted

    # The commands themselves: a whole round, then a night with nothing new.
    loop.write([(paint_feed(tmp_path / "feed", honest(20), 1), {})])
    file.write_text(re.sub(r"^CONFIG = .*$", f"CONFIG = {str(loop.file)!r}", file.read_text(), flags=re.MULTILINE))
    real = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for _ in range(2):
        subprocess.run([python, file, "--local"], cwd=tmp_path, check=True, env=real)
        assert loop.aliases()["production"] == 1
    assert loop.report(1)["outcome"] == "promoted"


AIRFLOW = """
import sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
assert not bag.import_errors, bag.import_errors
(dag,) = bag.dags.values()
print(dag.test().state)
"""


@pytest.mark.slow
def test_airflow_loads_it_and_runs_its_tasks(write, stand_in, tmp_path) -> None:
    python = environment_of(tmp_path / "airflow", "apache-airflow>=3.2,<4")
    environment, calls = stand_in
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / "retrain.py").write_text(write("airflow").read_text())
    environment |= {"AIRFLOW_HOME": str(tmp_path / "home"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
                    "AIRFLOW__CORE__DAGS_FOLDER": str(folder)}  # fmt: skip
    subprocess.run([python.parent / "airflow", "db", "migrate"], check=True, env=environment, capture_output=True)
    for result, wanted in RESULTS:
        run = subprocess.run(
            [python, "-c", AIRFLOW, folder], env=environment | {"RESULT": result}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert run.stdout.strip().endswith("success"), run.stderr[-3000:]
        assert calls() == wanted
