"""A run: what it leaves, that it is exact, and that it survives a kill."""

import csv
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from plantml.errors import Exit

SMALL = ("--size", "48", "--epochs", "3", "--set", "backbone=mobilenetv3_small_050", "--set", "pretrained=false")


def digest(run: Path | str) -> str:
    return json.loads((Path(run) / "bundle" / "model.json").read_text())["digest"]


def test_a_run_leaves_what_it_promises(trained) -> None:
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
    found = json.loads((run / "metrics.json").read_text())
    model = json.loads((run / "bundle" / "model.json").read_text())
    assert found["model"] == model["digest"]
    assert found["onnx"]["agreement"] == 1.0
    assert found["onnx"]["difference"] <= 1e-4
    assert found["scores"]["macro_f1"] == pytest.approx(model["contract"]["metrics"]["macro_f1"], abs=1e-6)
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


def test_fresh_removes_what_a_run_writes_and_nothing_else(cli, trained, tmp_path) -> None:
    shutil.copytree(trained.run, tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    result = cli("train", trained.data, "--out", tmp_path / "run", *SMALL, "--epochs", 1, "--fresh")
    assert result.code == Exit.DONE, result.err
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
    assert digest(tmp_path / "run") != digest(trained.run)


@pytest.fixture(scope="module")
def uninterrupted(cli, trained, tmp_path_factory) -> str:
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    result = cli("train", trained.data, "--out", run, *SMALL)
    assert result.code == Exit.DONE, result.err
    return digest(run)


def start(data: str, run: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "plantml", "train", data, "--out", str(run), *SMALL]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], path: Path, pattern: str) -> None:
    deadline = time.monotonic() + 120
    while not list(path.glob(pattern)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_same_seed_gives_the_same_weights(cli, trained, uninterrupted, tmp_path) -> None:
    assert cli("train", trained.data, "--out", tmp_path / "run", *SMALL).code == Exit.DONE
    assert digest(tmp_path / "run") == uninterrupted


@pytest.mark.parametrize("checkpoint", ["epoch-0000.ckpt", "epoch-0001.ckpt", "epoch-0002.ckpt"])
def test_killed_and_repeated_it_ends_with_the_same_weights(cli, trained, uninterrupted, tmp_path, checkpoint) -> None:
    process = start(trained.data, tmp_path / "run")
    wait_for(process, tmp_path / "run" / "checkpoints", checkpoint)
    time.sleep(random.Random(checkpoint).uniform(0, 0.2))
    process.kill()
    process.communicate()
    result = cli("train", trained.data, "--out", tmp_path / "run", *SMALL)
    assert result.code == Exit.DONE, result.err
    assert digest(tmp_path / "run") == uninterrupted
    epochs = [row["epoch"] for row in csv.DictReader((tmp_path / "run" / "history.csv").open())]
    assert epochs == ["0", "1", "2"]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, Exit.TERMINATED), (signal.SIGINT, Exit.INTERRUPTED)])
def test_a_signal_ends_training_with_its_code_and_says_how_to_go_on(trained, tmp_path, sent, code) -> None:
    process = start(trained.data, tmp_path / "run")
    wait_for(process, tmp_path / "run" / "checkpoints", "*.ckpt")
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    if process.returncode != Exit.DONE:  # it may have been faster than the signal
        assert process.returncode == code
        assert "Repeat the same command" in err
        assert "Traceback" not in err


def test_training_writes_nothing_into_the_dataset(cli, trained, tmp_path) -> None:
    before = {str(file): file.stat().st_mtime_ns for file in Path(trained.data).rglob("*")}
    cli("train", trained.data, "--out", tmp_path / "run", *SMALL, "--epochs", 1)
    assert before == {str(file): file.stat().st_mtime_ns for file in Path(trained.data).rglob("*")}


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


QUICK = ("--preset", "quick", "--size", "48", "--set", "backbone=mobilenetv3_small_050", "--set", "pretrained=false")


def test_a_probe_trains_the_heads_alone_and_is_exact(cli, trained, tmp_path) -> None:
    for name in ("one", "two"):
        result = cli("train", trained.data, "--out", tmp_path / name, *QUICK, "--epochs", 12)
        assert result.code == Exit.DONE, result.err
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    assert len(list(csv.DictReader((tmp_path / "one" / "history.csv").open()))) == 12
    assert cli("validate", trained.data, "--model", tmp_path / "one").code == Exit.DONE
    again = cli("train", trained.data, "--out", tmp_path / "one", *QUICK, "--epochs", 12, "--json")
    assert again.json["changed"] is False


def test_only_photos_that_fit_a_condition_are_trained_on(cli, trained, tmp_path) -> None:
    condition = 'category == "tomato"'
    plan = cli("train", trained.data, "--out", tmp_path / "run", "--where", condition, "--dry-run", "--json").json
    assert plan["plan"]["where"] == condition
    assert {target["name"] for target in plan["plan"]["targets"]} == {"health", "disease", "severity"}
    assert cli("train", trained.data, "--out", tmp_path / "run", "--where", "nonsense == 1").code == Exit.USAGE


def test_the_average_of_the_weights_is_what_is_kept(cli, trained, tmp_path) -> None:
    digests = set()
    for ema in ("0", "0.5", "0.9"):
        result = cli("train", trained.data, "--out", tmp_path / ema, *SMALL, "--epochs", 1, "--set", f"ema={ema}")
        assert result.code == Exit.DONE, result.err
        digests.add(digest(tmp_path / ema))
    assert len(digests) == 3
