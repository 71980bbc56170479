"""A run: what it writes, and what it refuses."""

import csv
import json
import shutil
import time
from pathlib import Path

import pytest
import yaml
from PIL import Image

from plantml.errors import Exit
from plantml.storage import remote

SMALL = ("--size", "48", "--epochs", "3", "--set", "backbone=test_efficientnet", "--set", "pretrained=false")


def digest(run: Path | str) -> str:
    return json.loads((Path(run) / "bundle" / "model.json").read_text())["digest"]


def test_a_run_has_bundle_plots_history_and_plan(trained) -> None:
    run = Path(trained.run)
    assert {file.name for file in (run / "bundle").iterdir()} == {
        "model.json",
        "model.safetensors",
        "model.onnx",
        "README.md",
    }
    for plot in ("batch", "curves", "confusion_category", "confusion_health", "confusion_disease"):
        assert min(Image.open(run / "plots" / f"{plot}.png").size) > 100
    rows = list(csv.DictReader((run / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert (run / "plan.yaml").exists()


def test_metrics_and_contract_agree(trained) -> None:
    run = Path(trained.run)
    metrics = json.loads((run / "metrics.json").read_text())
    model = json.loads((run / "bundle" / "model.json").read_text())
    assert metrics["model"] == model["digest"]
    assert metrics["onnx"]["agreement"] == 1.0
    assert metrics["onnx"]["difference"] <= 1e-4
    assert metrics["scores"]["macro_f1"] == pytest.approx(model["contract"]["metrics"]["macro_f1"], abs=1e-6)
    assert [target["name"] for target in model["contract"]["targets"]] == ["category", "health", "disease", "severity"]


def test_the_card_is_readable(trained) -> None:
    card = (Path(trained.run) / "bundle" / "README.md").read_text()
    assert card.startswith("---\n")
    assert digest(trained.run) in card
    assert "| severity | value | fraction |" in card
    assert "provisional" in card
    assert "{{" not in card


def test_a_finished_run_is_left_alone(cli, trained) -> None:
    before = {file: file.stat().st_mtime_ns for file in Path(trained.run).rglob("*") if file.is_file()}
    result = cli("train", trained.data, "--out", trained.run, "--size", 64, "--epochs", 2, "--seed", 1, "--json")
    assert result.json["changed"] is False
    assert before == {file: file.stat().st_mtime_ns for file in Path(trained.run).rglob("*") if file.is_file()}


def test_another_plan_is_refused_and_named(cli, trained) -> None:
    result = cli("train", trained.data, "--out", trained.run, "--size", 64, "--epochs", 5, "--seed", 1)
    assert result.code == Exit.INPUT
    assert "epochs was 2 and is 5" in result.err


@pytest.mark.usefixtures("unexported", "unmeasured")
def test_fresh_removes_what_a_run_writes_and_nothing_else(cli, trained, tmp_path) -> None:
    shutil.copytree(trained.run, tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    result = cli("train", trained.data, "--out", tmp_path / "run", *SMALL, "--epochs", 1, "--fresh")
    assert result.code == Exit.DONE, result.err
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
    assert digest(tmp_path / "run") != digest(trained.run)


@pytest.mark.usefixtures("unexported", "unmeasured")
def test_training_writes_nothing_into_the_dataset(cli, trained, tmp_path) -> None:
    data = tmp_path / "data"
    shutil.copytree(trained.data, data)
    before = {str(file): file.stat().st_mtime_ns for file in data.rglob("*")}
    assert cli("train", data, "--out", tmp_path / "run", *SMALL, "--epochs", 1).code == Exit.DONE
    assert before == {str(file): file.stat().st_mtime_ns for file in data.rglob("*")}


@pytest.mark.usefixtures("unexported", "unmeasured")
def test_a_damaged_photo_is_named_and_left_out(cli, trained, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PLANTML_CACHE_DIR", str(tmp_path / "cache"))
    data = tmp_path / "data"
    shutil.copytree(trained.data, data)
    from plantml.data import versions

    train = versions.load(str(data)).usable("train")
    victim = train.row(0, named=True)
    (data / victim["path"]).write_bytes(b"\xff\xd8 broken")
    result = cli("train", data, "--out", tmp_path / "run", *SMALL, "--epochs", 1)
    assert result.code == Exit.DONE, result.err
    assert victim["name"] in result.err


QUICK = ("--set", "mode=probe", "--size", "48", "--set", "backbone=test_efficientnet", "--set", "pretrained=false")


@pytest.mark.usefixtures("unmeasured")
def test_a_probe_trains_the_heads_alone_and_is_exact(cli, trained, tmp_path, request) -> None:
    result = cli("train", trained.data, "--out", tmp_path / "one", *QUICK, "--epochs", 12)
    assert result.code == Exit.DONE, result.err
    assert len(list(csv.DictReader((tmp_path / "one" / "history.csv").open()))) == 12
    assert cli("validate", trained.data, "--model", tmp_path / "one").code == Exit.DONE
    again = cli("train", trained.data, "--out", tmp_path / "one", *QUICK, "--epochs", 12, "--json")
    assert again.json["changed"] is False
    request.getfixturevalue("unexported")
    assert cli("train", trained.data, "--out", tmp_path / "two", *QUICK, "--epochs", 12).code == Exit.DONE
    assert digest(tmp_path / "one") == digest(tmp_path / "two")


def test_only_photos_that_fit_a_condition_are_trained_on(cli, trained, tmp_path) -> None:
    condition = 'category == "tomato"'
    plan = cli("train", trained.data, "--out", tmp_path / "run", "--where", condition, *SMALL, "--dry-run",
               "--json").json  # fmt: skip
    assert plan["plan"]["where"] == condition
    assert {target["name"] for target in plan["plan"]["targets"]} == {"health", "disease", "severity"}
    assert cli("train", trained.data, "--out", tmp_path / "run", "--where", "nonsense == 1").code == Exit.USAGE


@pytest.mark.usefixtures("unexported", "unmeasured")
def test_a_run_of_other_data_is_refused_and_named(cli, trained, tmp_path) -> None:
    data = tmp_path / "data"
    shutil.copytree(trained.data, data)
    assert cli("train", data, "--out", tmp_path / "run", *QUICK, "--epochs", 2).code == Exit.DONE
    assert cli("dataset", "rename-class", data, "category", "tomato", "love apple").code == Exit.DONE
    result = cli("train", data, "--out", tmp_path / "run", *QUICK, "--epochs", 2)
    assert result.code == Exit.INPUT
    assert "dataset_version was" in result.err


@pytest.mark.usefixtures("unexported", "unmeasured")
def test_a_second_model_starts_from_the_first_by_names(cli, trained, tmp_path) -> None:
    data = tmp_path / "data"
    shutil.copytree(trained.data, data)
    assert cli("train", data, "--out", tmp_path / "first", *SMALL, "--epochs", 1).code == Exit.DONE
    assert cli("dataset", "rename-class", data, "category", "tomato", "love apple").code == Exit.DONE
    rows = [line.split(",") for line in _labels(data)]
    table = tmp_path / "labels.csv"
    table.write_text("name,disease\n" + "".join(f"{name},leaf curl\n" for name, _ in rows[:6]))
    assert cli("dataset", "relabel", data, table, "--new-classes").code == Exit.DONE
    result = cli("train", data, "--out", tmp_path / "second", "--from", tmp_path / "first", "--epochs", 1)
    assert result.code == Exit.DONE, result.err
    assert "; new: disease leaf curl." in result.err  # and not: category love apple
    plan = yaml.safe_load((tmp_path / "second" / "plan.yaml").read_text())
    assert (plan["parent"], plan["backbone"]) == (digest(tmp_path / "first"), "test_efficientnet")
    assert plan["input"]["height"] == 48
    refused = cli("train", data, "--out", tmp_path / "third", "--from", tmp_path / "first", "--backbone", "resnet18")
    assert refused.code == Exit.INPUT
    assert "another backbone" in refused.err


def _labels(data: Path) -> list[str]:
    from plantml.data import versions

    return [f"{name},x" for name in versions.load(str(data)).usable("train")["name"]]


@pytest.mark.usefixtures("unexported", "unmeasured")
def test_folds_validate_every_photo_once(cli, trained, tmp_path, monkeypatch) -> None:
    from plantml.data import versions
    from plantml.data.folds import of_fold
    from plantml.train.batches import pixel_cache

    version = versions.load(trained.data)
    folds = [of_fold(version, number, 3, seed=0) for number in (1, 2, 3)]
    validated = [set(fold.usable("val")["name"]) for fold in folds]
    assert (
        sum(map(len, validated))
        == len(set.union(*validated))
        == version.usable().height - version.usable("test").height
    )
    for fold, names in zip(folds, validated, strict=True):
        assert fold.usable("test").equals(version.usable("test"))
        groups = {name: set(fold.usable(name)["group"]) - {None} for name in ("train", "val")}
        assert not groups["train"] & groups["val"]
        assert len(names) > version.usable().height / 6
    fetched, fetch = [], pixel_cache.fetch
    monkeypatch.setattr(pixel_cache, "fetch", lambda photo, cache: fetched.append(photo) or fetch(photo, cache))
    monkeypatch.setenv("PLANTML_CACHE_DIR", str(tmp_path / "cache"))
    result = cli("train", trained.data, "--out", tmp_path / "cv", *QUICK, "--epochs", 3, "--folds", 2, "--json")
    assert result.code == Exit.DONE, result.err
    # Each size is decoded once for all folds, plus a few photos to measure the speed.
    assert len(fetched) <= 2 * sum(map(len, validated)) + 2 * 8
    assert len(result.json["folds"]["disease.macro_f1"]) == 2
    assert set(result.json["mean"]) == set(result.json["spread"])
    assert json.loads((tmp_path / "cv" / "folds.json").read_text())["folds"] == 2


def test_a_budget_is_planned_and_kept(cli, trained, tmp_path) -> None:
    plan = cli("train", trained.data, "--out", tmp_path / "run", *SMALL[:2], *SMALL[4:], "--budget", "10m", "--dry-run",
               "--json").json["plan"]  # fmt: skip
    assert plan["epochs"] > 3
    assert 0 < plan["seconds"] <= 600
    assert plan["step_seconds"] > 0
    assert "budget" in plan["reasons"]["epochs"]


@pytest.mark.usefixtures("unexported")
def test_a_machine_that_slows_down_trains_fewer_epochs(cli, trained, tmp_path, monkeypatch) -> None:
    from plantml.train import checkpoint

    real = time.monotonic
    began = real()
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: began + 50_000 * (real() - began))
    result = cli("train", trained.data, "--out", tmp_path / "run", *SMALL, "--budget", "20m", "--json")
    assert result.code == Exit.DONE, result.err
    assert "Slower than planned" in result.err
    assert len(list(csv.DictReader((tmp_path / "run" / "history.csv").open()))) < 3


@pytest.mark.usefixtures("unexported", "unmeasured")
def test_training_ends_early_when_nothing_gets_better(cli, trained, tmp_path) -> None:
    lazy = ("--epochs", 9, "--set", "patience=1", "--set", "lr=1e-12", "--set", "backbone_lr=1e-12")
    assert cli("train", trained.data, "--out", tmp_path / "run", *SMALL, *lazy, "--set", "ema=0").code == Exit.DONE
    assert len(list(csv.DictReader((tmp_path / "run" / "history.csv").open()))) < 9


@pytest.mark.usefixtures("unexported", "unmeasured")
@pytest.mark.parametrize("extra", ["balance=sampling", pytest.param("precision=bf16", marks=pytest.mark.slow)])
def test_other_settings_give_other_models(cli, trained, tmp_path, extra) -> None:
    for name, more in (("plain", ()), ("other", ("--set", extra))):
        result = cli("train", trained.data, "--out", tmp_path / name, *SMALL, "--epochs", 1, *more)
        assert result.code == Exit.DONE, result.err
    assert digest(tmp_path / "plain") != digest(tmp_path / "other")


@pytest.mark.usefixtures("unexported", "unmeasured")
def test_later_epochs_ask_the_object_store_for_nothing(cli, trained, tmp_path, s3_url, monkeypatch) -> None:
    data = f"{s3_url}/data"
    assert cli("dataset", "import", trained.photos, data).code == Exit.DONE
    assert cli("dataset", "split", data).code == Exit.DONE
    monkeypatch.setenv("PLANTML_CACHE_DIR", str(tmp_path / "cache"))
    requests: list[str] = []
    make = remote.Request.__init__

    def counting(self, fs, method, *args, **more):
        requests.append(method)
        make(self, fs, method, *args, **more)

    monkeypatch.setattr(remote.Request, "__init__", counting)
    lines: list[int] = []
    from plantml.train.step_learner import StepLearner

    monkeypatch.setattr(StepLearner, "epoch_line", lambda *_: lines.append(len(requests)) or "")
    assert cli("train", data, "--out", tmp_path / "run", *SMALL).code == Exit.DONE
    assert lines[0] > 0
    assert lines == lines[:1] * 3
    before = len(requests)
    assert cli("train", data, "--out", tmp_path / "again", *SMALL, "--epochs", 1).code == Exit.DONE
    assert requests[before:].count("cat_file") <= 2  # the version itself


@pytest.mark.parametrize("more", [("--device", "cuda"), ("--device", "foo"), ("--strategy", "foo"), ("--set", "lr=-1"),
                                  ("--set", "ema=1.5")])  # fmt: skip
def test_invalid_settings_are_refused_before_anything_is_written(cli, trained, tmp_path, more) -> None:
    result = cli("train", trained.data, "--out", tmp_path / "run", *more)
    assert result.code in {Exit.USAGE, Exit.INPUT}, result.err
    assert "bug" not in result.err
    assert not (tmp_path / "run").exists()


def test_the_plan_of_folds_is_that_of_one_fold_and_counts_the_models(cli, trained, monkeypatch) -> None:
    from plantml.train.plan_inputs import Speed
    from plantml.train.planning import throughput

    monkeypatch.setattr(throughput, "measure", lambda *_: Speed(step=0.1, embed=0.01, decode=0.01))
    one = cli("train", trained.data, "--out", "x", "--dry-run", "--json", "--preset", "quick").json
    five = cli("train", trained.data, "--out", "x", "--dry-run", "--json", "--preset", "quick", "--folds", "5").json
    assert (one["models"], five["models"]) == (1, 5)
    assert five["plan"]["val_photos"] != one["plan"]["val_photos"]
