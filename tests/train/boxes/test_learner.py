"""Training on boxes, by the command: detectors, and models of two stages."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from PIL import Image

import plantml
from plantml.data import versions
from plantml.errors import Exit, PlantmlError
from plantml.model import bundle as bundles
from plantml.train import tray
from plantml.train.boxes import pseudo_boxes
from plantml.train.plan_inputs import Speed
from plantml.train.planning import throughput
from plantml.train.step_learner import StepLearner

TINY = ("--size", 96, "--epochs", 2, "--batch-size", 4, "--set", "backbone=test_efficientnet",
        "--set", "pretrained=false", "--set", "precision=32")  # fmt: skip

TRUSTING = 1e-6
"""A score from which a teacher is believed that has hardly learnt anything."""

KILLED = """
import os, signal
from plantml.train.checkpoint import CheckpointCallback
after = CheckpointCallback.on_train_batch_end

def ended(self, *arguments):
    after(self, *arguments)
    if self.module.step == 3:
        os.kill(os.getpid(), signal.SIGKILL)

CheckpointCallback.on_train_batch_end = ended
from plantml.cli.app import main
main()
"""


@pytest.fixture(scope="module")
def trays(cli, tmp_path_factory):
    """A dataset of small trays, split by tray."""
    folder = tmp_path_factory.mktemp("trays")
    assert (
        cli("dataset", "synth", folder / "photos", "--layout", "tray", "--images", 14, "--size", 128).code == Exit.DONE
    )
    result = cli("dataset", "import", folder / "photos", folder / "data")
    assert result.code == Exit.DONE, result.err
    result = cli("dataset", "split", folder / "data", "--group-by", r"tray-\d+")
    assert result.code == Exit.DONE, result.err
    return folder / "data"


def digest(run):
    return json.loads((Path(run) / "bundle" / "model.json").read_text())["digest"]


@pytest.mark.usefixtures("unexported", "unmeasured")
def test_a_detector_is_trained_and_its_run_has_what_people_look_at(cli, trays, tmp_path):
    result = cli("train", trays, "--out", tmp_path / "run", "--task", "boxes", *TINY, "--json")
    assert result.code == Exit.DONE, result.err
    bundle = bundles.find(str(tmp_path / "run"))
    assert bundle.contract.task == "boxes"
    assert {target.name for target in bundle.contract.targets} == {
        "category", "health", "disease", "viability", "severity"
    }  # fmt: skip
    assert {"boxes.ap50", "boxes.ap", "boxes.f1", "boxes.count_mae"} <= set(result.json["validation"])
    plots = {file.name for file in (tmp_path / "run" / "plots").iterdir()}
    assert {"batch.png", "curves.png", "precision_recall.png", "sizes.png", "validation.png"} <= plots
    history = (tmp_path / "run" / "history.csv").read_text().splitlines()
    assert len(history) == 3
    assert "boxes.ap50" in history[0]
    card = (tmp_path / "run" / "bundle" / "README.md").read_text()
    assert "object-detection" in card
    assert "viability: missing" in card


@pytest.mark.slow
@pytest.mark.usefixtures("unexported", "unmeasured")
def test_killed_and_repeated_a_detector_ends_with_the_same_weights(cli, trays, tmp_path):
    arguments = ["train", str(trays), "--out", str(tmp_path / "killed"), "--task", "boxes", *map(str, TINY)]
    command = [sys.executable, "-c", KILLED, *arguments, "--checkpoint-every", "0.01"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert cli(*arguments, "--checkpoint-every", "0.01").code == Exit.DONE
    whole = cli("train", trays, "--out", tmp_path / "whole", "--task", "boxes", *TINY, "--checkpoint-every", "0.01")
    assert whole.code == Exit.DONE, whole.err
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")


@pytest.mark.usefixtures("unexported", "unmeasured")
def test_a_detector_starts_from_another_one_or_from_a_classifier(cli, trays, trained, tmp_path):
    first = cli("train", trays, "--out", tmp_path / "first", "--task", "boxes", *TINY)
    assert first.code == Exit.DONE, first.err
    second = cli("train", trays, "--out", tmp_path / "second", "--task", "boxes", "--from", tmp_path / "first", *TINY)
    assert second.code == Exit.DONE, second.err
    assert "; new:" not in second.err
    other = cli("train", trays, "--out", tmp_path / "third", "--task", "boxes", "--from", trained.run, *TINY)
    assert other.code == Exit.INPUT
    assert "another backbone" in other.err


@pytest.fixture(scope="module")
def season(cli, tmp_path_factory):
    """Other trays, whose boxes are not looked at."""
    folder = tmp_path_factory.mktemp("season")
    synth = ("dataset", "synth", folder / "photos", "--layout", "tray", "--images", 6, "--size", 128, "--seed", 9)
    assert cli(*synth).code == Exit.DONE
    assert cli("dataset", "import", folder / "photos", folder / "data").code == Exit.DONE
    return folder / "data"


@pytest.fixture(scope="module")
def teacher(cli, trays, tmp_path_factory):
    """A detector that has hardly learnt anything: its scores are low."""
    run = tmp_path_factory.mktemp("teacher") / "run"
    result = cli("train", trays, "--out", run, "--task", "boxes", *TINY)
    assert result.code == Exit.DONE, result.err
    return run


def unlabelled(teacher, season):
    return ("--from", teacher, "--unlabelled", season, "--set", f"pseudo_threshold={TRUSTING}")


@pytest.fixture
def trusting(monkeypatch):
    monkeypatch.setattr(pseudo_boxes, "LEAST", TRUSTING)


@pytest.mark.slow
@pytest.mark.usefixtures("trusting")
def test_a_detector_learns_from_what_it_finds_in_photos_without_boxes(
    cli, trays, teacher, season, tmp_path, monkeypatch
):
    learners, fit = [], StepLearner.fit
    monkeypatch.setattr(StepLearner, "fit", lambda learner, *more: (learners.append(learner), fit(learner, *more))[1])
    result = cli("train", trays, "--out", tmp_path / "run", "--task", "boxes", *TINY, *unlabelled(teacher, season))
    assert result.code == Exit.DONE, result.err
    assert "Pseudo-boxes in 6 unlabelled photos:" in result.err
    table = pl.read_parquet(tmp_path / "run" / "pseudo_labels.parquet")
    assert table.height == 6
    scores = table["scores"].explode().drop_nulls()
    assert scores.min() >= TRUSTING
    counts = json.loads((tmp_path / "run" / "metrics.json").read_text())["pseudo_boxes"]
    assert counts == {"photos": 6, "boxes": scores.len()}
    assert learners[0].plan.epoch_photos == versions.load(str(trays)).usable("train").height + 6


@pytest.mark.slow
@pytest.mark.usefixtures("trusting")
def test_killed_and_repeated_with_photos_without_boxes_it_has_the_same_weights(cli, trays, teacher, season, tmp_path):
    arguments = ["train", trays, "--task", "boxes", *TINY, *unlabelled(teacher, season), "--checkpoint-every", "0.01"]
    script = f"from plantml.train.boxes import pseudo_boxes\npseudo_boxes.LEAST = {TRUSTING}\n{KILLED}"
    command = [sys.executable, "-c", script, *map(str, arguments), "--out", str(tmp_path / "killed")]
    process = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert cli(*arguments, "--out", tmp_path / "killed").code == Exit.DONE
    assert cli(*arguments, "--out", tmp_path / "whole").code == Exit.DONE
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")


@pytest.mark.usefixtures("unexported", "unmeasured")
def test_a_detector_learns_from_tiles_that_are_cut_once(cli, trays, tmp_path):
    arguments = (
        "train",
        trays,
        "--out",
        tmp_path / "run",
        "--task",
        "boxes",
        "--tile",
        96,
        *TINY,
        "--epochs",
        1,
        "--json",
    )
    first = cli(*arguments)
    assert first.code == Exit.DONE, first.err
    detector, cut = bundles.find(str(tmp_path / "run")).contract, versions.load(str(tmp_path / "run" / "tiles"))
    assert (detector.detection.tile, detector.dataset.fingerprint) == (96, versions.load(str(trays)).fingerprint)
    card = (tmp_path / "run" / "bundle" / "README.md").read_text()
    assert f"tiles of that size: {(cut.rows['split'] == 'train').sum()} to train on" in card
    assert set(cut.rows["split"]) == {"train", "val"}
    assert cut.rows["group"].null_count() == 0
    assert set(cut.rows["width"]) == set(cut.rows["height"]) == {96}
    row = cut.rows.row(0, named=True)
    name, at = row["name"].rsplit("#", 1)
    left, top = map(int, at.split(","))
    original = versions.load(str(trays)).rows.filter(name=name)["path"].item()
    with Image.open(trays / original) as photo, Image.open(tmp_path / "run" / "tiles" / row["path"]) as tile:
        assert tile.tobytes() == photo.convert("RGB").crop((left, top, left + 96, top + 96)).tobytes()

    (tmp_path / "run" / "bundle" / "model.json").unlink()  # as if killed before the model was exported
    again = cli(*arguments)
    assert again.code == Exit.DONE, again.err
    assert again.json["model"] == first.json["model"]
    assert versions.numbers(str(tmp_path / "run" / "tiles")) == [1]
    other = cli(*arguments, "--tile", 0)
    assert other.code == Exit.INPUT
    assert "tile was 96 and is 0" in other.err


def test_a_probe_of_boxes_is_refused(cli, trays, tmp_path):
    result = cli("train", trays, "--out", tmp_path / "run", "--task", "boxes", "--set", "mode=probe")
    assert result.code == Exit.INPUT
    assert "A probe cannot find boxes" in result.err


@pytest.mark.slow
def test_two_stages_are_one_model_in_one_file(cli, trays, tmp_path):
    run = tmp_path / "run"
    small = ("--epochs", 1, "--batch-size", 4, "--set", "backbone=test_efficientnet", "--set", "pretrained=false")
    result = cli("train", trays, "--out", run, *small, "--json")
    assert result.code == Exit.DONE, result.err
    bundle = bundles.find(str(run))
    assert bundle.contract.task == "tray"
    assert bundle.digest == result.json["model"]
    card = (run / "bundle" / "README.md").read_text()
    assert card.count("\n---\n") == 1  # one header
    assert f"Digest `{bundle.digest}`" in card
    assert "classifier/README.md" in card
    assert "viability: missing" in card
    again = cli("train", trays, "--out", run, *small, "--json")
    assert (again.json["changed"], again.json["model"]) == (False, bundle.digest)

    shutil.copytree(run, tmp_path / "moved")  # killed before stage 2 ended, and resumed elsewhere
    for stage in ("classifier", "."):
        (tmp_path / "moved" / stage / "bundle" / "model.json").unlink()
    moved = cli("train", trays, "--out", tmp_path / "moved", *small, "--json")
    assert moved.code == Exit.DONE, moved.err
    assert (moved.json["changed"], moved.json["model"]) == (True, bundle.digest)
    origin = bundles.find(str(tmp_path / "moved" / "classifier")).contract.dataset
    assert (origin.url, origin.crops) == (str(trays), True)

    photos = sorted((trays / "images").rglob("*.jpg"))[:2]
    records = plantml.load(str(run)).predict(photos).records
    packed = cli("models", "pack", run, tmp_path / "tray.plantml")
    assert packed.code == Exit.DONE, packed.err
    assert plantml.load(str(tmp_path / "tray.plantml")).predict(photos).records == records
    for box in (box for record in records for box in record["boxes"]):
        every = {target.name for target in bundle.contract.targets}
        is_empty = box["targets"]["viability"]["label"] == "missing"
        assert set(box["targets"]) == ({"viability"} if is_empty else every)
        assert 0 <= box["unknown"] <= 2

    _check_forms_of_two_stages(cli, run, photos, records, tmp_path)
    shutil.copytree(run / "bundle", tmp_path / "mixed")
    other = tmp_path / "mixed" / "classifier" / "model.safetensors"
    other.write_bytes(other.read_bytes()[:-1] + b"\x00")
    result = cli("detect", *photos, "--model", tmp_path / "mixed", "--runtime", "torch", "--out", tmp_path / "r.jsonl")
    assert result.code != Exit.DONE
    assert "classifier" in result.err


def _check_forms_of_two_stages(cli, run, photos, records, tmp_path):
    """The int8 form of both networks: added with two proofs, packed, added to a registry, and noticed when swapped."""
    result = cli("export", run, "--form", "int8", "--max-drop", 1, "--samples", 8, "--json")
    assert result.code == Exit.DONE, result.err
    assert result.json["compared_on"] in result.json["classifier"]["compared_on"]  # crops of the same photos
    bundle = bundles.find(str(run))
    form = bundle.forms["int8"]
    fast = plantml.load(str(run), speed="int8").predict(photos).records
    assert {(record["model"], record["form"]["of"]) for record in fast} == {(form.model, bundle.digest)}
    assert plantml.load(str(run)).predict(photos).records == records
    assert cli("models", "pack", run, tmp_path / "fast.plantml").code == Exit.DONE
    assert cli("models", "add", tmp_path / "fast.plantml", tmp_path / "models" / "tray").code == Exit.DONE
    for place in (tmp_path / "fast.plantml", tmp_path / "models" / "tray@1"):
        assert plantml.load(str(place), speed="int8").predict(photos).records == fast
    shutil.copytree(run / "bundle", tmp_path / "swapped")
    shutil.copy(tmp_path / "swapped" / "forms" / "int8.onnx", tmp_path / "swapped" / "classifier" / "forms")
    with pytest.raises(PlantmlError, match=r"int8\.onnx is damaged"):
        plantml.load(str(tmp_path / "swapped"), speed="int8")


@pytest.mark.parametrize(("task", "start"), [("tray", "first/bundle/classifier"), ("image", "first"), ("boxes", "")])
def test_the_second_stage_starts_from_what_judges_photos(task, start, make_plan, monkeypatch):
    judge = SimpleNamespace(url="first/bundle/classifier")
    parent = SimpleNamespace(contract=SimpleNamespace(task=task), classifier=lambda: judge)
    monkeypatch.setattr(tray.warm_start, "parent_bundle", lambda _: parent)
    assert tray._start_of_classifier(make_plan(task="tray", parent="d", warm_start="first")) == start
    assert tray._start_of_classifier(make_plan(task="tray")) == ""


def test_the_plan_of_two_stages_is_that_of_the_detector_with_half_of_the_budget(cli, trays, tmp_path, monkeypatch):
    monkeypatch.setattr(throughput, "measure", lambda *_: Speed(step=0.5, embed=0.1, decode=0.01))
    command = ["train", trays, "--task", "tray", "--out", tmp_path / "run", "--budget", "10m", "--dry-run"]
    result = cli(*command)
    assert result.code == Exit.DONE, result.err
    assert "Expected time of stage 1" in result.out
    assert "those of the boxes, in stage 2" in result.out
    plan = cli(*command, "--json").json["plan"]
    assert plan["budget"] == 300
    assert plan["reasons"]["budget"] == "half of it: the second stage has the other"


def test_a_tray_that_the_data_chose_says_why(cli, trays, tmp_path, monkeypatch):
    monkeypatch.setattr(throughput, "measure", lambda *_: Speed(step=0.5, embed=0.1, decode=0.01))
    result = cli("train", trays, "--out", tmp_path / "run", "--dry-run", "--json")
    assert result.json["plan"]["task"] == "tray"
    assert "boxes with" in result.json["plan"]["reasons"]["task"]
