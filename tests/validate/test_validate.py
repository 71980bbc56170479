import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from sklearn import metrics as sk

from plantml import storage
from plantml.data import photos, versions
from plantml.errors import Exit, StorageError
from plantml.model import bundle
from plantml.model.contract import Withheld

CLASSES = {"category": ["bean", "tomato"], "health": ["diseased", "healthy"], "disease": ["blight", "none", "rust"]}


@pytest.fixture(scope="module")
def validated(cli, trained, tmp_path_factory):
    """The result on all photos as JSON, and the folder that was written."""
    out = tmp_path_factory.mktemp("validated") / "report"
    result = cli("validate", trained.data, "--model", trained.run, "--split", "all", "--out", out, "--json")
    assert result.code == Exit.DONE, result.err
    return result.json, out


@pytest.fixture(scope="module")
def table(validated):
    return pl.read_parquet(validated[1] / "predictions.parquet")


@pytest.fixture
def import_photos(cli, write_photos, tmp_path):
    """`import_photos(names, *options)`: a dataset of small photos, one folder a class."""

    def make(names, *options):
        home = write_photos(tmp_path / "photos", names)
        assert cli("dataset", "import", home, tmp_path / "data", *options).code == Exit.DONE
        return str(tmp_path / "data")

    return make


# --- the numbers ------------------------------------------------------------------------------


def test_answers_are_those_that_detect_gives(cli, trained, table, tmp_path):
    cli("detect", f"{trained.data}/images", "--model", trained.run, "--out", tmp_path / "records.jsonl")
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    records = {record["image_id"]: record for record in map(json.loads, lines)}
    assert table.height == versions.load(trained.data).usable().height == 72
    for row in table.iter_rows(named=True):
        record = records[row["image_id"]]
        for name, classes in CLASSES.items():
            answer = record["targets"][name]
            assert row[f"{name}_predicted"] == answer["label"]
            assert {label: round(row[f"{name}[{label}]"], 6) for label in classes} == dict(answer["top"])
        assert row["severity_predicted"] == record["targets"]["severity"]["value"]
        assert (row["decision"], row["unknown"], row["failure"]) == (record["decision"], record["unknown"], None)


def test_scores_are_those_of_the_predictions(validated, table):
    scores = validated[0]["scores"]
    for name, classes in CLASSES.items():
        truth, predicted = table[f"{name}_true"].to_list(), table[f"{name}_predicted"].to_list()
        assert scores[f"{name}.accuracy"] == pytest.approx(sk.accuracy_score(truth, predicted))
        macro_f1 = sk.f1_score(truth, predicted, average="macro", zero_division=0)
        assert scores[f"{name}.macro_f1"] == pytest.approx(macro_f1)
        result = validated[0]["targets"][name]
        assert result["confusion"] == sk.confusion_matrix(truth, predicted, labels=classes).tolist()
        assert result["classes"] == classes
    truth, predicted = table["severity_true"], table["severity_predicted"]
    assert scores["severity.mae"] == pytest.approx(sk.mean_absolute_error(truth, predicted), rel=1e-4)
    assert scores["severity.r2"] == pytest.approx(sk.r2_score(truth, predicted), abs=1e-3)
    mean = sum(scores[f"{name}.macro_f1"] for name in CLASSES) / len(CLASSES)
    assert scores["macro_f1"] == pytest.approx(mean)


def test_truth_is_that_of_the_dataset(trained, table):
    rows = versions.load(trained.data).usable().sort("source", "name")
    assert table["name"].to_list() == rows["name"].to_list()
    for name in (*CLASSES, "severity"):
        assert table[f"{name}_true"].to_list() == rows[name].to_list()


# --- what is written --------------------------------------------------------------------------


def test_metrics_json_is_the_result_and_where_it_came_from(trained, validated):
    result, out = validated
    content = json.loads((out / "metrics.json").read_text())
    version = versions.load(trained.data)
    assert content == {key: value for key, value in result.items() if key not in {"plantml_result", "command"}}
    assert content["plantml_metrics"] == 2
    assert content["datasets"] == [{"ref": version.ref, "fingerprint": version.fingerprint, "photos": 72}]
    assert content["model"] == bundle.find(trained.run).digest
    assert (content["split"], content["photos"], content["failed"]) == ("all", 72, [])
    assert sum(content["decisions"].values()) == 72


def test_predictions_are_the_same_as_csv(validated, table):
    with (validated[1] / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == table.columns
    assert [row["disease_predicted"] for row in rows] == table["disease_predicted"].to_list()
    assert [float(row["disease[rust]"]) for row in rows] == pytest.approx(table["disease[rust]"].to_list())


def test_confusion_matrix_reliability_and_risk_are_drawn_for_each_class_target(validated):
    drawn = {file.name for file in validated[1].glob("*.png")} - {"agreement_severity.png"}
    charts = ("confusion", "reliability", "risk_coverage")
    assert drawn == {f"{chart}_{target}.png" for chart in charts for target in CLASSES}


def test_every_score_has_an_interval_around_it(validated, table):
    result = validated[0]
    for name, value in result["scores"].items():
        low, high = result["intervals"][name]
        assert low <= high
        if not name.endswith("ece"):  # resampling makes it larger; its interval leans against that
            assert low - 1e-9 <= value <= high + 1e-9
    groups = table["group"].n_unique()
    assert result["bootstrap"] == {"level": 0.95, "over": "groups", "groups": groups, "resamples": 2000, "seed": 0}


def test_the_joint_score_is_that_of_the_predictions(validated, table):
    right = [table[f"{name}_true"] == table[f"{name}_predicted"] for name in CLASSES]
    assert validated[0]["scores"]["joint_accuracy"] == pytest.approx((right[0] & right[1] & right[2]).mean())


def test_a_run_against_its_own_file_is_the_same_model(cli, trained, tmp_path):
    file = tmp_path / "model.onnx"
    shutil.copy(Path(trained.run) / "bundle" / "model.onnx", file)
    line = ("validate", trained.data, "--model", file, "--against", trained.run, "--max-drop", "0")
    result = cli(*line, "--split", "all", "--json", "--out", tmp_path / "out")
    assert result.code == Exit.DONE, result.err
    assert result.json["against"]["changed"] == []
    assert result.json["against"]["model"] == result.json["model"]
    assert all(each["difference"] == 0 for each in result.json["against"]["differences"])
    assert all(gate["value"] == 0 for gate in result.json["gates"])
    assert pl.read_parquet(tmp_path / "out" / "changed.parquet").is_empty()


def test_a_drop_without_another_model_is_wrong_usage(cli, trained):
    result = cli("validate", trained.data, "--model", trained.run, "--max-drop", "0.01")
    assert result.code == Exit.USAGE
    assert "--against" in result.err


def test_all_outputs_in_one_command(cli, trained, tmp_path):
    result = cli(
        "validate", trained.data, "--model", trained.run, "--batch", 5, "--where", "brightness > 0",
        "--report", tmp_path / "r.html", "--markdown", tmp_path / "r.md", "--junit", tmp_path / "r.xml",
        "--review", 3, "--out", tmp_path / "out", "--min", "macro_f1=0",
    )  # fmt: skip
    assert result.code == Exit.DONE, result.err
    for name in ("r.html", "r.md", "r.xml", "out/review/tasks.json", "out/metrics.json"):
        assert (tmp_path / name).stat().st_size > 100
        assert str(tmp_path / name.split("/")[0]) in result.out


def test_the_dataset_is_only_read(cli, trained, contents):
    before = contents(trained.data)
    assert cli("validate", trained.data, "--model", trained.run).code == Exit.DONE
    assert contents(trained.data) == before


# --- gates ------------------------------------------------------------------------------------


def test_a_failing_gate_ends_with_its_code_and_everything_is_written(cli, trained, tmp_path):
    result = cli(
        "validate", trained.data, "--model", trained.run, "--out", tmp_path / "report", "--json",
        "--min", "macro_f1=1.01", "--min", "disease.recall[none]=0", "--max", "severity.mae=0",
    )  # fmt: skip
    assert result.code == Exit.GATE
    assert "2 of 3 gates failed" in result.err
    assert "macro_f1" in result.err
    gates = json.loads((tmp_path / "report" / "metrics.json").read_text())["gates"]
    assert [(gate["name"], gate["passed"]) for gate in gates] == [
        ("macro_f1", False),
        ("disease.recall[none]", True),
        ("severity.mae", False),
    ]
    assert gates[0]["min"] == 1.01
    assert gates[2]["max"] == 0
    assert (tmp_path / "report" / "predictions.parquet").exists()


def test_gates_that_pass_end_well(cli, trained):
    result = cli("validate", trained.data, "--model", trained.run, "--min", "macro_f1=0", "--max", "macro_f1=1")
    assert result.code == Exit.DONE
    assert result.out.count("passed  macro_f1") == 2


@pytest.mark.parametrize(("gate", "said"), [("makro_f1=0.5", "macro_f1"), ("macro_f1", "is not a gate")])
def test_a_gate_that_means_nothing_is_wrong_usage(cli, trained, gate, said):
    result = cli("validate", trained.data, "--model", trained.run, "--min", gate)
    assert result.code == Exit.USAGE
    assert said in result.err


# --- what cannot be judged --------------------------------------------------------------------


def test_an_unknown_class_is_named(cli, trained, import_photos):
    data = import_photos(["tomato___rust/1.jpg", "potato___rust/2.jpg"])
    result = cli("validate", data, "--model", trained.run, "--split", "all")
    assert result.code == Exit.INPUT
    assert "potato" in result.err
    assert "bean, tomato" in result.err


def test_a_missing_split_is_told_with_the_command_that_makes_it(cli, trained, import_photos):
    data = import_photos(["tomato___rust/1.jpg"])
    result = cli("validate", data, "--model", trained.run)
    assert result.code == Exit.INPUT
    assert "no photos in its test split" in result.err
    assert f"plantml dataset split {data}" in result.err


def test_an_unknown_split_lists_those_that_there_are(cli, trained):
    result = cli("validate", trained.data, "--model", trained.run, "--split", "holdout")
    assert result.code == Exit.INPUT
    assert "test, train, val" in result.err
    assert "--split val" in result.err


def test_no_shared_target_names_both_sides(cli, trained, import_photos):
    data = import_photos(["dead/1.jpg", "alive/2.jpg"], "--labels", "viability")
    result = cli("validate", data, "--model", trained.run, "--split", "all")
    assert result.code == Exit.INPUT
    assert "share no target" in result.err
    assert "category, health, disease, severity" in result.err
    assert "viability" in result.err


def test_another_kind_of_target_is_told(cli, trained, tmp_path, write_photos):
    write_photos(tmp_path, ("1.jpg",))
    (tmp_path / "labels.csv").write_text("image,severity\n1.jpg,high\n")
    line = (tmp_path / "labels.csv", tmp_path / "data", "--target", "severity:class")
    assert cli("dataset", "import", *line).code == Exit.DONE
    result = cli("validate", tmp_path / "data", "--model", trained.run, "--split", "all")
    assert result.code == Exit.INPUT
    assert "severity is a class" in result.err


def test_only_labelled_targets_are_judged(cli, trained, import_photos):
    data = import_photos(["bean/1.jpg", "tomato/2.jpg"], "--labels", "category")
    result = cli("validate", data, "--model", trained.run, "--split", "all", "--json")
    assert list(result.json["targets"]) == ["category"]


@pytest.fixture
def referenced(cli, trained, tmp_path):
    """A copy of some photos, left where they are."""
    for folder in Path(trained.photos).iterdir():
        (tmp_path / "photos" / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:3]:
            shutil.copy(file, tmp_path / "photos" / folder.name)
    line = (tmp_path / "photos", tmp_path / "data", "--reference")
    assert cli("dataset", "import", *line).code == Exit.DONE
    return tmp_path


def test_a_lost_photo_is_named_and_counts_as_nothing(cli, trained, referenced):
    victim = sorted((referenced / "photos").rglob("*.jpg"))[4]
    victim.unlink()
    line = (referenced / "data", "--model", trained.run, "--split", "all", "--out", referenced / "report", "--json")
    result = cli("validate", *line)
    assert result.code == Exit.FAILURES, result.err
    assert cli("validate", *line, "--max-failures", 1).code == Exit.DONE
    ((name, reason),) = result.json["failed"]
    assert name == str(victim.relative_to(referenced / "photos"))
    assert reason.startswith("not-found")
    assert result.json["photos"] == 9
    assert result.json["targets"]["category"]["photos"] == 8
    table = pl.read_parquet(referenced / "report" / "predictions.parquet")
    lost = table.filter(pl.col("name") == name)
    assert lost["failure"].item().startswith("not-found")
    assert lost["category_predicted"].item() is None
    assert table["category_predicted"].null_count() == 1


def test_a_changed_photo_is_left_out_and_reported(cli, trained, referenced, photo):
    victim = min((referenced / "photos").rglob("*.jpg"))
    victim.write_bytes(photo())
    result = cli("validate", referenced / "data", "--model", trained.run, "--split", "all", "--json")
    assert result.code == Exit.FAILURES
    ((name, reason),) = result.json["failed"]
    assert name == str(victim.relative_to(referenced / "photos"))
    assert reason.startswith("damaged")
    assert result.json["targets"]["category"]["photos"] == 8


@pytest.mark.parametrize("gate", [(), ("--min", "macro_f1=0.5")])
def test_no_answer_at_all_does_not_pass(cli, trained, referenced, gate):
    for file in (referenced / "photos").rglob("*.jpg"):
        file.unlink()
    result = cli("validate", referenced / "data", "--model", trained.run, "--split", "all", *gate)
    assert result.code == Exit.INPUT, result.err
    assert "not-found" in result.err


def test_no_model_is_wrong_usage(cli, trained):
    result = cli("validate", trained.data)
    assert result.code == Exit.USAGE
    assert "--model" in result.err


@pytest.fixture
def reads(monkeypatch):
    """How often each photo of a dataset in `memory://` was read."""
    from fsspec.implementations.memory import MemoryFileSystem

    counts = Counter()
    cat_file = MemoryFileSystem.cat_file

    def counted(self, path, *args, **kwargs):
        counts.update([path] if "/images/" in path else [])
        return cat_file(self, path, *args, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", counted)
    return counts


PHOTOS = [(truth, shown, {}) for truth in ("none", "rust", "blight") for shown in ("none", "rust", "blight")]


def test_what_does_not_apply_is_neither_right_nor_wrong(paint, painted, judged):
    data = paint([("none", "none", {}), ("rust", "rust", {}), ("none", "rust", {}), ("none", "blight", {})])
    rule = Withheld(targets=("health",), where="disease", label="blight")
    plain, of_crops = painted(digest="plain"), painted(digest="crops", withheld=(rule,))
    result = judged(data, of_crops)
    assert [(report.target, report.photos) for report in result.reports] == [("health", 3), ("disease", 4)]
    assert result.scores["health.accuracy"] == pytest.approx(2 / 3)
    assert result.scores["joint_accuracy"] == pytest.approx(2 / 3)
    assert judged(data, plain).scores["health.accuracy"] == pytest.approx(2 / 4)
    alone = judged(paint([("none", "blight", {})] * 2, "alone"), of_crops)
    assert [report.target for report in alone.reports] == ["disease"]
    for first, second in ((of_crops, plain), (plain, of_crops)):  # models are compared where both answer
        duels = judged(data, first, other=second).comparison.duels
        assert {duel.target: duel.paired.photos for duel in duels if not duel.label} == {
            "joint_accuracy": 3, "health": 3, "disease": 4,
        }  # fmt: skip


def test_a_remote_photo_is_read_once(paint, painted, judged, reads, tmp_path):
    """By two models, for the perturbations, for the pictures of the report, and for the photos to label next."""
    local, remote = paint(PHOTOS), f"memory://{tmp_path.name}"
    for entry in storage.list_files(local):
        storage.write(storage.join(remote, entry.name), storage.read(entry.url))
    outputs = {"out": str(tmp_path / "out"), "report": str(tmp_path / "report.html"), "review": 5}
    result = judged(remote, painted(), painted(digest="other"), against="other", robustness=True, **outputs)
    assert (result.photos, result.failed, result.review) == (9, [], 5)
    assert list(reads.values()) == [1] * 9


def test_a_storage_that_fails_ends_the_validation_and_costs_no_prediction(paint, painted, judged, monkeypatch):
    data, read = paint(PHOTOS), photos.read
    last = versions.load(data).rows.sort("name")["image_id"][-1]

    def fail_at_last(image_id, url, cache):
        if image_id == last:
            raise StorageError("the disk is gone")
        return read(image_id, url, cache)

    with monkeypatch.context() as patch:
        patch.setattr(photos, "read", fail_at_last)
        with pytest.raises(StorageError, match="the disk is gone"):
            judged(data, painted())
    assert judged(data, painted()).new == 1
