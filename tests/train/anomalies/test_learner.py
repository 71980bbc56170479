"""A model that learns from healthy photos only: by the commands, from training to the report."""

import csv
import json
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image, ImageDraw
from sklearn.covariance import LedoitWolf

import plantml
from plantml.data import versions
from plantml.errors import Exit, InputError
from plantml.model import bundle as bundles
from plantml.model.anomaly import DeployedAnomaly
from plantml.model.pipeline import Pipeline
from plantml.train.anomalies import learner, packaging
from plantml.train.config import TrainConfig
from plantml.train.plan_inputs import Hardware, PlanInputs, Speed
from plantml.train.planning import anomalies
from plantml.train.selection import select

TINY = ("--task", "anomaly", "--size", 64, "--backbone", "test_efficientnet", "--set", "pretrained=false",
        "--set", "anomaly.cells=64")  # fmt: skip
"""Random weights tell red spots from green, too."""

KILLED = """
import os, signal
from plantml.train.anomalies import learner
learner.coreset = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from plantml.cli.app import main
main()
"""


@pytest.fixture(scope="module")
def leaves(cli, tmp_path_factory):
    """30 green photos of two crops, one darker, and 14 with red spots, of which none is in train by right."""
    folder = tmp_path_factory.mktemp("leaves")
    rng = np.random.default_rng(0)
    for number in range(44):
        is_sick = number % 3 == 2
        crop, light = ("tomato", 0.5) if number % 2 else ("bean", 1.0)
        green = rng.integers(90, 130, (64, 64, 3)) * np.array([0.4, 1, 0.4]) * light
        picture = Image.fromarray(green.astype(np.uint8))
        pen = ImageDraw.Draw(picture)
        for x, y in rng.integers(5, 50, (6 if is_sick else 0, 2)).tolist():
            pen.ellipse((x, y, x + 12, y + 12), fill=(220, 40, 30))
        file = folder / "photos" / f"{crop}___{'rust' if is_sick else 'healthy'}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.save(file)
    result = cli("dataset", "import", folder / "photos", folder / "data")
    assert result.code == Exit.DONE, result.err
    assert cli("dataset", "split", folder / "data", "--ratios", "0.5/0.25/0.25").code == Exit.DONE
    return folder / "data"


@pytest.fixture(scope="module")
def run(cli, leaves, tmp_path_factory):
    """A finished run, exported and verified."""
    out = tmp_path_factory.mktemp("anomaly") / "run"
    result = cli("train", leaves, "--out", out, *TINY, "--json")
    assert result.code == Exit.DONE, result.err
    return SimpleNamespace(out=out, result=result, bundle=bundles.find(str(out)))


def test_a_run_has_what_people_look_at(run):
    anomaly = run.bundle.contract.anomaly
    assert run.bundle.contract.task == "anomaly"
    assert anomaly.normal == "health=healthy"
    assert (anomaly.by, anomaly.classes) == ("category", ("bean", "tomato"))
    assert (anomaly.false_alarms.wanted, anomaly.false_alarms.share) == (0.01, 0.0)
    assert anomaly.false_alarms.high > 0.3  # a few photos promise nothing
    assert run.result.json["validation"]["anomaly.auroc"] > 0.9
    plots = {file.name for file in (run.out / "plots").iterdir()}
    assert plots >= {"batch.png", "scores.png", "roc.png", "anomalous.png", "normal.png"}
    assert len((run.out / "history.csv").read_text().splitlines()) == 2
    card = (run.out / "bundle" / "README.md").read_text()
    assert "too few of them to promise 1.0 %" in card
    assert "| rust |" in card
    assert run.bundle.contract.architecture.bank == 64


def test_the_onnx_alone_is_a_complete_model(run):
    session = onnxruntime.InferenceSession(run.bundle.read(bundles.ONNX))
    photos = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    score, heat_map = session.run(["score", "heat_map"], {"image": photos})
    assert score.shape == (3,)
    assert heat_map.shape == (3, 4, 4)
    assert (score > 0.5).all()
    assert (heat_map > 0.5).all()
    alone = [session.run(["score"], {"image": photos[row : row + 1]})[0][0] for row in range(3)]
    np.testing.assert_allclose(alone, score, atol=5e-7)  # records have six digits


def test_the_plan_says_which_photos_are_normal_and_why(cli, leaves):
    result = cli("train", leaves, *TINY, "--dry-run", "--json")
    plan = result.json["plan"]
    train = versions.load(str(leaves)).usable("train")
    assert plan["train_photos"] == (train["health"] == "healthy").sum() < train.height
    assert plan["by"] == "category"
    assert plan["reasons"]["normal"] == "the dataset says which plants are healthy"
    text = cli("train", leaves, *TINY, "--dry-run").out
    assert "health=healthy" in text
    assert "lr" not in text.split()


def test_diseased_photos_do_not_move_the_threshold(cli, leaves, run, tmp_path):
    out = tmp_path / "run"
    where = "--where", 'split != "val" or health == "healthy"'
    assert cli("train", leaves, "--out", out, *TINY, *where).code == Exit.DONE
    other = bundles.find(str(out)).contract
    # Photos come in other batches, which moves the last digits of their embeddings.
    assert other.anomaly.distance == pytest.approx(run.bundle.contract.anomaly.distance, rel=1e-5)
    assert "anomaly.auroc" not in other.metrics


@pytest.mark.usefixtures("unexported")
def test_killed_and_repeated_it_is_the_same_model(cli, leaves, run, tmp_path):
    command = ["train", str(leaves), "--out", str(tmp_path / "run"), *map(str, TINY)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *command], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list((tmp_path / "run" / "checkpoints").glob("*.embeddings-*"))
    result = cli(*command, "--json")
    assert result.json["resumed"]
    assert result.json["model"] == run.bundle.digest
    assert not list((tmp_path / "run" / "checkpoints").glob("*.embeddings-*"))
    assert not cli(*command, "--json").json["changed"]


def test_detect_gives_scores_heat_maps_and_pictures(cli, leaves, run, tmp_path):
    out, more = tmp_path / "records.jsonl", ("--annotate", tmp_path / "drawn", "--sort-into", tmp_path / "sorted")
    result = cli(
        "detect", leaves, "--split", "test", "--model", run.out, "--out", out, *more, "--sheet", tmp_path / "s.png"
    )
    assert result.code == Exit.DONE, result.err
    records = [json.loads(line) for line in out.read_text().splitlines()]
    for record in records:
        answer = record["targets"]["anomaly"]
        is_anomalous = record["decision"] == "unknown"
        assert answer["label"] == ("anomalous" if is_anomalous else "normal") == answer["top"][0][0]
        assert answer["score"] == record["unknown"]
        assert (answer["score"] > 0.5) == is_anomalous
        assert (record["heat_map"]["rows"], record["heat_map"]["w"]) == (4, 64)
    assert {folder.name for folder in (tmp_path / "sorted").iterdir()} == {"normal", "anomalous"}
    assert len(list((tmp_path / "drawn").iterdir())) == len(records)
    table = tmp_path / "high.csv"
    assert cli("detect", leaves, "--model", run.out, "--out", table, "--where", "anomaly_score > 0.5").code == Exit.DONE
    rows = list(csv.DictReader(table.open()))
    assert rows
    assert {row["anomaly"] for row in rows} == {"anomalous"}


@pytest.mark.parametrize("option", [("--tta",), ("--tile", 64), ("--embeddings", "e.npy")])
def test_detect_refuses_what_the_model_cannot_do(cli, leaves, run, tmp_path, option):
    result = cli("detect", leaves, "--model", run.out, "--out", tmp_path / "out.jsonl", *option)
    assert result.code == Exit.USAGE
    assert "cannot be used with a model of anomalies" in result.err


def test_validate_scores_by_disease_judges_gates_and_draws_heat_maps(cli, leaves, run, tmp_path):
    report = tmp_path / "report.html"
    gates = "--min", "anomaly.auroc=0.9", "--max", "anomaly.false_alarms=0"
    result = cli(
        "validate", leaves, "--model", run.out, "--report", report, "--out", tmp_path / "out", *gates, "--json"
    )
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert result.code in {Exit.DONE, Exit.GATE}, result.err
    assert content["scores"]["anomaly.auroc"] > 0.9
    assert set(content["anomalies"]) == {"rust"}
    assert (
        content["anomalies"]["rust"]["support"]
        == (versions.load(str(leaves)).usable("test")["health"] == "diseased").sum()
    )
    assert {gate["name"] for gate in content["gates"]} == {"anomaly.auroc", "anomaly.false_alarms"}
    page = report.read_text()
    assert 'alt="heat map"' in page
    assert "AUROC" in page
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").open()))
    assert {row["anomaly_true"] for row in rows} == {"normal", "anomalous"}


def test_a_validation_that_is_repeated_takes_its_predictions_from_the_cache(cli, leaves, run, tmp_path, monkeypatch):
    command = "validate", leaves, "--model", run.out, "--json", "--out"
    first = cli(*command, tmp_path / "first")
    assert first.code == Exit.DONE, first.err

    def predict(*_):
        raise AssertionError("predicted again")

    monkeypatch.setattr(Pipeline, "predict_bytes", predict)
    again = cli(*command, tmp_path / "again")
    assert again.code == Exit.DONE, again.err
    tables = [(tmp_path / name / "predictions.csv").read_bytes() for name in ("first", "again")]
    assert tables[0] == tables[1]
    assert again.json["anomalies"] == first.json["anomalies"]


def test_validate_compares_two_models_of_anomalies(cli, leaves, run):
    result = cli("validate", leaves, "--model", run.out, "--against", run.out, "--max-drop", 0.01, "--json")
    assert result.code == Exit.DONE, result.err
    assert result.json["against"]["differences"][0]["name"] == "anomaly.auroc"
    assert [gate["name"] for gate in result.json["gates"]][:1] == ["anomaly.auroc"]


def test_the_python_door_has_scores_and_heat_maps(leaves, run):
    version = versions.load(str(leaves))
    urls = [version.image_url(path) for path in version.usable("test")["path"]]
    predictions = plantml.load(run.out).predict(urls)
    assert all(0 <= each.score <= 1 for each in predictions)
    assert predictions[0].heat_map.shape == (4, 4)
    assert predictions[0].embedding is None
    table = predictions.to_polars()
    assert table["anomaly_score"].to_list() == [each.score for each in predictions]


@pytest.mark.parametrize("form", ["openvino", "onnx-int8"])
def test_only_exact_forms_are_exported(cli, run, tmp_path, form):
    result = cli("export", run.out, "--to", tmp_path / "out", "--format", form, "--json")
    if form == "openvino":
        pytest.importorskip("openvino")
        assert result.code == Exit.DONE, result.err
        assert result.json["agreement"] == 1.0
    else:
        assert result.code == Exit.INPUT
        assert "anomalies" in result.err


@pytest.mark.parametrize(
    ("option", "why"),
    [
        (("--targets", "health"), "--targets is not for the task anomaly"),
        (("--forms", "int8"), "--forms int8 is not for the task anomaly"),
        (("--set", "anomaly.normal=health=blue"), "names no photos"),
        (("--set", "anomaly.by=health"), "cannot differ by 'health'"),
        (("--where", 'health == "diseased"'), "does not say which photos are normal"),
    ],
)
def test_what_cannot_be_learnt_is_refused(cli, leaves, tmp_path, option, why):
    result = cli("train", leaves, "--out", tmp_path / "run", *TINY, *option)
    assert result.code == Exit.INPUT
    assert why in result.err


def test_a_budget_takes_fewer_photos(leaves):
    config = TrainConfig.model_validate({"task": "anomaly", "budget": 40.0})
    inputs = PlanInputs(select(str(leaves), config), Hardware(2, "cpu"), Speed(0.0, 0.5, 0.0))
    plan = anomalies.plan(config, inputs)
    assert plan.epoch_photos == 8 < plan.train_photos
    assert plan.reasons["epoch_photos"] == "as many as fit the budget"


@pytest.mark.parametrize(("count", "share", "place"), [(10, 0.01, 9), (99, 0.01, 98), (100, 0.1, 90), (19, 0.5, 9)])
def test_the_threshold_keeps_its_promise_for_other_photos(count, share, place):
    """Of n + 1 photos of one kind, each is as likely to be the new one."""
    normal = np.arange(1, count + 1, dtype=np.float32)
    threshold = packaging.threshold(normal, share)
    assert threshold == normal[place]
    assert place == count - 1 or count - place <= share * (count + 1)


def test_the_shrunk_covariance_is_that_of_scikit_learn():
    samples = np.random.default_rng(0).normal(size=(30, 50)) * np.linspace(0.1, 3, 50) + 5
    white = learner.whitening(samples)
    expected = np.sqrt(LedoitWolf().fit(samples).mahalanobis(samples))
    actual = np.linalg.norm((samples - samples.mean(axis=0)) @ white, axis=1)
    np.testing.assert_allclose(actual, expected / expected.mean(), rtol=1e-4)


def test_a_photo_is_compared_with_the_nearest_class_in_units_of_its_spread():
    random = np.random.default_rng(0)
    tight, varied = random.normal(0, 0.5, (40, 5)), random.normal(0, 1, (40, 5)) + 20
    whole = torch.from_numpy(np.concatenate([tight, varied, [[9] * 5]]).astype(np.float32))
    of_class = torch.tensor([0] * 40 + [1] * 40 + [-1])
    deployed = DeployedAnomaly(SimpleNamespace(channels=[2, 3]), torch.zeros(1, 5), classes=2)
    learner.learn_photos(deployed, whole, of_class)
    distances = deployed.photo_distances(torch.cat([whole, torch.full((1, 5), 2.0)]))
    assert distances[:40].mean() == pytest.approx(1, abs=0.1) == distances[40:80].mean()
    # Of the tight class it is an outlier, though nearer to its mean than photos of the other are to theirs.
    assert distances[-1] > distances[:80].max()
    pooled = DeployedAnomaly(SimpleNamespace(channels=[2, 3]), torch.zeros(1, 5))
    learner.learn_photos(pooled, whole[:80], torch.zeros(80, dtype=torch.int64))
    assert (pooled.photo_distances(torch.full((1, 5), 2.0)) < pooled.photo_distances(whole[:80]).amax()).all()
    alone = DeployedAnomaly(SimpleNamespace(channels=[2, 3]), torch.zeros(1, 5), classes=2)
    learner.learn_photos(alone, whole[:41], torch.tensor([0] * 40 + [1]))
    assert alone.spread[1].tolist() == [1, 1]  # one photo says nothing of its class


def test_a_coreset_covers_all_cells_and_takes_no_cell_twice():
    centres = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)) * 10
    cells = (centres[:, None] + 0.01 * torch.randn(20, 30, 5, generator=torch.Generator().manual_seed(1))).flatten(0, 1)
    chosen = learner.coreset(cells, 20, 0, False, lambda *_: None)
    assert (torch.cdist(cells, chosen).amin(dim=1) < 0.5).all()
    everything = learner.coreset(cells[:7], 20, 0, False, lambda *_: None)
    assert len(everything.unique(dim=0)) == len(everything) == 7


def test_photos_without_normal_ones_are_refused(leaves):
    version = versions.load(str(leaves))
    rows = version.usable().filter(version.usable()["split"] != "val")
    config = TrainConfig.model_validate({"task": "anomaly"})
    chosen = select(versions.load(str(leaves)), config)
    cut = type(chosen)(version.url, version.number, rows, version.targets, None, "anomaly", "", chosen.normal)
    with pytest.raises(InputError, match="no photos with health=healthy in its val split"):
        anomalies.plan(config, PlanInputs(cut, Hardware(2, "cpu")))
