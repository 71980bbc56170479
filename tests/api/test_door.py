"""The Python interface as a notebook uses it: dataset, training, validation, export, registry."""

import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import polars as pl
import pytest

import plantml
from plantml.errors import GateError, InputError, NotFoundError, StoppedError, UsageError


@pytest.fixture(scope="module")
def run(trained):
    return plantml.Run(trained.run)


@pytest.fixture(scope="module")
def dataset(trained):
    return plantml.Dataset.open(trained.data)


@pytest.fixture
def small(write_photos, tmp_path):
    """A dataset of twelve photos in two classes, not split yet."""
    names = [f"{name}/{number}.jpg" for name in ("rust", "blight") for number in range(6)]
    return plantml.Dataset.create(write_photos(tmp_path / "photos", names), tmp_path / "data", labels="disease")


def test_every_name_of_the_interface_is_there():
    assert set(plantml.__all__) <= set(dir(plantml))
    for name in plantml.__all__:
        assert getattr(plantml, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        plantml.nonsense  # noqa: B018


@pytest.mark.parametrize("before", ["", "import plantml.train.config, plantml.validate, plantml.export.forms"])
def test_verbs_are_functions_and_packages_whatever_was_imported_first(before):
    code = f"""{before}
import plantml
assert all(map(callable, (plantml.train, plantml.validate, plantml.export)))
from plantml.train.config import TrainConfig
import plantml.validate.config as config
assert config.ValidateConfig is plantml.validate.config.ValidateConfig
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(inspect.signature(plantml.export).parameters)[:2] == ["model", "to"]


def test_a_dataset_is_created_once_and_split(small):
    assert small.version.number == 1
    assert len(small) == 12
    assert small.classes["disease"] == ("blight", "rust")
    divided = small.split(ratios="1/1/1", near=False)
    assert divided.version.number == 2
    assert set(divided.rows["split"]) == {"train", "val", "test"}
    assert divided.split(ratios="1/1/1", near=False).ref == divided.ref
    assert [(number, commit.operation) for number, commit in divided.versions().items()] == [
        (2, "split"),
        (1, "import"),
    ]
    again = plantml.Dataset.create(Path(small.url).parent / "photos", small.url, labels="disease")
    assert again.ref == divided.ref


def test_counts_add_up(small):
    divided = small.split(ratios="1/1/1", near=False)
    counts = divided.counts.filter(pl.col("target") == "disease")
    assert dict(counts.select("class", pl.sum_horizontal("train", "val", "test")).iter_rows()) == {
        "blight": 6,
        "rust": 6,
    }


def test_rows_can_be_chosen_and_become_a_dataset(small, tmp_path):
    condition = 'disease == "rust"'
    assert small.where(condition).height == 6
    rust = small.subset(tmp_path / "rust", condition)
    assert len(rust) == 6
    assert set(rust.rows["disease"]) == {"rust"}
    with pytest.raises(UsageError, match="nonsense"):
        small.where("nonsense == 1")


def test_findings_are_found_and_fixed(small):
    file = Path(small.url).parent / "photos" / "rust" / "copy.jpg"
    file.write_bytes((file.parent / "0.jpg").read_bytes())
    more = plantml.Dataset.create(file.parents[1], small.url, labels="disease")
    report = more.check(only=["duplicates"])
    assert {finding.code for finding in report.findings} >= {"exact-duplicates"}
    cleaned = more.clean("exact-duplicates")
    assert (len(more), len(cleaned)) == (13, 12)


def test_a_dataset_is_exported(small, tmp_path):
    exported = small.export(tmp_path / "coco", format="coco")
    assert exported.counts["photos"] == 12
    with pytest.raises(UsageError, match="nonsense"):
        small.export(tmp_path / "other", format="nonsense")


def test_one_name_is_not_taken_for_a_list_of_letters(small, tmp_path):
    divided = small.split(ratios="1/1/1", near=False)
    assert divided.export(tmp_path / "val", format="folder", splits="val").counts["photos"] == 4
    assert {finding.check for finding in small.check(only="duplicates").findings} <= {"duplicates"}
    table = tmp_path / "t.csv"
    table.write_text(f"path,viability\n{small.url}/../photos/rust/0.jpg,weak\n")
    created = plantml.Dataset.create(table, tmp_path / "t", targets="viability", allow_root=str(tmp_path))
    assert created.classes["viability"] == ("weak",)


def test_what_is_not_there_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no dataset"):
        plantml.Dataset.open(tmp_path / "nothing")
    with pytest.raises(NotFoundError, match="no model"):
        plantml.Run(tmp_path)


def test_a_finished_run_is_only_opened(trained, dataset):
    run = plantml.train(dataset, trained.run, size=64, epochs=2, seed=1)
    assert run.url == trained.run
    assert run.model.digest == plantml.load(trained.run).digest


def test_a_run_knows_its_history_plan_and_scores(run):
    assert run.history.height <= 2
    assert {"epoch", "train_loss", "val_loss"} <= set(run.history.columns)
    assert run.plan.epochs == 2
    assert run.scores == run.model.contract.metrics


def test_settings_are_checked_as_those_of_the_command(dataset, tmp_path):
    with pytest.raises(InputError, match="epoch"):
        plantml.train(dataset, tmp_path / "run", epoch=3)
    with pytest.raises(UsageError, match="command line"):
        plantml.train(dataset, tmp_path / "run", folds=3)
    with pytest.raises(UsageError, match="epochs"):
        plantml.train(dataset, tmp_path / "run", epochs=0)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("inside", ["", "/derived/run"])
def test_a_run_does_not_lie_in_its_dataset(dataset, inside, contents):
    before = contents(dataset.url)
    with pytest.raises(InputError, match="would lie in the dataset"):
        plantml.train(dataset, dataset.url + inside)
    assert contents(dataset.url) == before


def test_a_dataset_is_validated_on_once(run, dataset):
    for datasets in ([], [dataset, dataset], [dataset, dataset.url]):
        with pytest.raises(UsageError):
            plantml.validate(run, datasets)


def test_validation_gives_what_the_command_gives(cli, trained, run, dataset, tmp_path):
    result = cli("validate", trained.data, "--model", trained.run, "--set", "resamples=100", "--json")
    report = tmp_path / "report.html"
    by_model = plantml.validate(run.model, dataset, resamples=100, report=str(report))
    by_path = plantml.validate(trained.run, trained.data, resamples=100)
    expected = result.json.get("result", result.json)
    assert json.loads(json.dumps(dict(by_model.scores))) == pytest.approx(expected["scores"])
    assert dict(by_path.scores) == dict(by_model.scores)
    assert set(by_model.scores) & set(by_model.intervals)
    assert list(by_model.written) == [str(report)]
    assert report.exists()


def test_a_failed_gate_is_said_and_not_raised(run, dataset):
    scores = plantml.validate(run, [dataset], resamples=100, max=["macro_f1=0"], against=run.model)
    assert not scores.passed
    assert scores.comparison is not None


def test_a_registry_holds_models_and_guards_production(run, dataset, tmp_path):
    registry = plantml.Registry(tmp_path / "models")
    entry = registry.add(run, "leaf", why="a test", alias="challenger")
    assert registry.add(run.model, "leaf").number == entry.number == 1
    assert registry.load("leaf", "challenger").digest == run.model.digest
    with pytest.raises(GateError):
        registry.promote("leaf", 1, "production")
    evidence = plantml.validate(f"{registry.url}/leaf@1", dataset, resamples=100, min=["macro_f1=0"])
    assert registry.promote("leaf", 1, "production", evidence=evidence).changed
    assert registry.models()["leaf"].aliases == {"challenger": 1, "production": 1}
    assert [event.content["act"] for event in registry.history("leaf")][-1] == "promote"
    with pytest.raises(InputError):
        registry.rollback("leaf", "production")
    assert "challenger: 1" in registry._repr_html_()


@pytest.mark.parametrize("name", ["../leaf", "a/../../leaf", "..", ".", "", "/leaf", "leaf/", None])
def test_no_name_leads_out_of_a_registry(trained, tmp_path, name):
    registry = plantml.Registry(tmp_path / "models")
    acts = [
        lambda: registry.add(trained.run, name),
        lambda: registry.promote(name, 1, "challenger"),
        lambda: registry.rollback(name, "challenger"),
        lambda: registry.history(name),
        lambda: registry.load(name, 1),
    ]
    for act in acts:
        with pytest.raises(InputError, match="valid name"):
            act()
    assert not list(tmp_path.iterdir())


def test_notebooks_show_datasets_and_runs(run, small):
    assert "rust" in small._repr_html_()
    assert run.url in run._repr_html_()
    assert small.ref in repr(small)


def test_a_report_is_not_written_into_a_dataset(small):
    with pytest.raises(InputError, match="cannot be written"):
        small.check(only=["files"], html=f"{small.url}/images/report.html")


def test_training_warns_of_photos_that_leak(write_photos, tmp_path, monkeypatch, caplog):
    photos = write_photos(tmp_path / "photos", [f"{split}/{name}/1.jpg" for split in ("train", "val") for name in "ab"])
    shutil.copy(photos / "train/a/1.jpg", photos / "val/a/2.jpg")
    data = plantml.Dataset.create(photos, tmp_path / "data", labels="disease")
    monkeypatch.setattr("plantml.train.train.train", Mock(side_effect=StoppedError("Stopped", "", "")))
    with pytest.raises(StoppedError):
        plantml.train(data, tmp_path / "run")
    assert "Leak: 1 photo of train" in caplog.text
