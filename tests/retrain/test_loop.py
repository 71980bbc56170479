"""The whole loop with a tiny network: what is learnt, refused, left alone, and told."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from plantml import registry, storage
from plantml.data import versions
from plantml.errors import Exit
from plantml.retrain import rounds

GATES = {"min": ["disease.macro_f1=0.8"], "max_drop": 0.15, "sure": 0.0}


def test_a_first_model_however_often_it_is_killed_and_then_nothing(
    loop, paint_feed, honest, tmp_path, monkeypatch, run_python
) -> None:
    feeds = [(paint_feed(tmp_path / "first", honest(20), 1), {})]
    hook = [sys.executable, str(tmp_path / "hook.py"), str(tmp_path / "told.json")]
    (tmp_path / "hook.py").write_text(
        "import json, os, sys\ncontent = json.load(sys.stdin)\n"
        "json.dump([content['outcome'], os.environ['PLANTML_OUTCOME']], open(sys.argv[1], 'w'))\n"
    )
    loop.write(feeds, gates=GATES, on_result=" ".join(hook))
    # Killed, which cannot be caught, in the middle of a step.
    kill_at(loop, Path(loop.url, "work/rounds/000001/02-clean.json"))
    # Then each step is killed after its work and before its result is written down, and so is done twice.
    with monkeypatch.context() as patch:
        one = done_twice(loop, patch)
    assert one["outcome"] == "promoted", one["reasons"]
    assert set(one["results"]) == set(rounds.STEPS)
    assert [commit.operation for _, commit in versions.log(loop.place("data"))] == ["split", "import"]
    model = registry.load(loop.place("models/leaf"))
    assert [event.content["act"] for event in model.events] == ["begin", "add", "promote", "promote"]
    assert loop.aliases() == {"challenger": 1, "production": 1}
    assert json.loads((tmp_path / "told.json").read_text()) == ["promoted", "promoted"]
    assert {"report.html", "report.md", "report.json"} <= {file.name for file in Path(one["report"]).iterdir()}

    # Nothing is new: nothing is written.
    files = sorted(entry.url for entry in storage.list_files(loop.url))
    idle = loop()
    assert (idle["outcome"], idle["reasons"], idle["done"]) == ("nothing to do", ["nothing is new"], [])
    assert sorted(entry.url for entry in storage.list_files(loop.url)) == files

    # Only training needs torch.
    code = "import sys; from plantml.cli.app import run; run(sys.argv[1:]); print('torch' in sys.modules)"
    out, err = run_python(code, "retrain", loop.file, "--dry-run").communicate(timeout=60)
    assert out.splitlines()[-1] == "False", err


@pytest.mark.slow
def test_a_new_disease_is_learnt(loop, paint_feed, honest, tmp_path) -> None:
    feeds = [(paint_feed(tmp_path / "first", honest(20), 1), {})]
    loop.write(feeds, gates=GATES)
    assert loop()["outcome"] == "promoted"
    # A new disease comes with a feed that may bring one. The frozen test set stays; the recent one has the disease.
    # Killed twice on the way, the round ends as any other.
    frozen = test_photos(loop)
    feeds.append((paint_feed(tmp_path / "second", honest(20, ("none", "mildew")), 2), {"new_classes": True}))
    loop.write(feeds, gates={"max_drop": 0.15, "sure": 0.5})
    for moment in ("01-add.json", "challenger/plan.yaml", "compare/all/metrics.json"):
        kill_at(loop, Path(loop.url, "work/rounds/000002", moment))
    two = loop()
    assert two["outcome"] == "promoted", two["reasons"]
    assert not {"add", "clean", "split", "train"} & set(two["done"])
    assert two["results"]["production"]["number"] == 1
    assert [commit.operation for _, commit in versions.log(loop.place("data"))][::-1] == [
        "import", "split", "import", "split", "recent-test",
    ]  # fmt: skip
    assert frozen < test_photos(loop)
    compared = two["results"]["compare"]
    assert set(compared) == {"all", "frozen", "recent"}
    assert compared["frozen"]["photos"] == len(frozen)
    assert compared["frozen"]["photos"] + compared["recent"]["photos"] == compared["all"]["photos"]
    (mildew,) = [duel for duel in compared["recent"]["classes"] if duel["class"] == "mildew"]
    assert mildew["wins"] >= 0.8 * mildew["photos"] > 0  # the model in service cannot say it
    assert mildew["losses"] == 0
    for name in ("challenger", "production"):
        tables = [pl.read_parquet(two["results"]["predict"][name]["files"][0]),
                  pl.read_csv(two["results"]["predict"][name]["files"][1])]  # fmt: skip
        assert [table.height for table in tables] == [compared["all"]["photos"]] * 2
        assert "disease[mildew]" in tables[0].columns

    # Detections that drift away from the training photos begin a round, if something new can be learnt.
    feeds.append((paint_feed(tmp_path / "third", honest(4), 3), {}))
    for said, wanted in ((["mildew"] * 60, "drift: disease"), (["none", "rust", "blight", "mildew"] * 15, "no drift")):
        rows = [{"image": f"{at}.jpg", "image_id": f"{at:064x}", "model": "m", "decision": "accept", "unknown": 0.1,
                 "targets": {"disease": {"label": label, "score": 0.9}}} for at, label in enumerate(said)]  # fmt: skip
        (tmp_path / "records.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        drift = {"records": str(tmp_path / "records.jsonl"), "max_psi": 0.5}
        loop.write(feeds, on_drift=True, drift=drift)
        assert wanted in loop("--dry-run")["reasons"][0]


@pytest.mark.slow
def test_who_moves_production_meanwhile_is_not_overruled(loop, paint_feed, honest, tmp_path) -> None:
    model = loop.place("models/leaf")
    feeds = [(paint_feed(tmp_path / "first", honest(20), 1), {})]
    loop.write(feeds)
    assert loop()["outcome"] == "promoted"
    loop.write([*feeds, (paint_feed(tmp_path / "second", honest(20), 2), {})], gates={"max_drop": 0.5, "sure": 0.0})
    for step in rounds.STEPS[:8]:
        loop("--step", step)
    assert (
        json.loads(Path(loop.url, "work/rounds/000002/08-choose.json").read_text())["result"]["decision"] == "promote"
    )
    registry.unalias(model, "production", by="a person", why="it was seen to fail")
    two = loop()
    assert two["outcome"] == "not promoted"
    assert "moved in the meantime" in two["reasons"][-1]
    assert loop.aliases() == {"challenger": 2}
    assert loop()["outcome"] == "nothing to do"


class Killed(BaseException):
    pass


def done_twice(loop, patch):
    """Call until a round is through, each step's first result lost."""
    lost: list[str] = []
    record = rounds.Round.record

    def lose(round_, name, result, about):
        if name not in lost:
            lost.append(name)
            raise Killed
        return record(round_, name, result, about)

    patch.setattr(rounds.Round, "record", lose)
    for _ in range(len(rounds.STEPS) - len(done_before(loop))):
        with pytest.raises(Killed):
            loop()
    return loop()


def done_before(loop):
    work = loop.place("work")
    return rounds.Round(work, 1, rounds.state(work).begun[1]).results


def kill_at(loop, file):
    """Start the loop, and kill it, which cannot be caught, as soon as a file is there."""
    process = subprocess.Popen(
        [sys.executable, "-m", "plantml", "retrain", str(loop.file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while not file.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    _, err = process.communicate()
    assert file.exists(), err.decode()


@pytest.mark.slow
def test_a_feed_with_wrong_labels_is_refused_and_set_aside(loop, paint_feed, honest, tmp_path) -> None:
    feeds = [(paint_feed(tmp_path / "first", honest(20), 1), {})]
    loop.write(feeds)
    assert loop()["outcome"] == "promoted"
    # What is rust is called blight. That the challenger is refused is no error.
    feeds.append((paint_feed(tmp_path / "second", [("blight", "rust"), ("blight", "rust")] * 20, 3), {}))
    loop.write(feeds, refused="review")
    two = loop()
    assert two["outcome"] == "refused"
    assert any("drop of" in reason or "test set" in reason for reason in two["reasons"])
    assert loop.aliases() == {"challenger": 2, "production": 1}
    told = loop.report(2)
    assert (told["outcome"], told["before"], told["version"]) == ("refused", 1, 2)
    assert "Version 1 is in service" in Path(two["report"], "report.md").read_text()
    # Set aside, its photos trouble no later round, and begin none.
    head = versions.load(loop.place("data"))
    aside = head.rows.filter(pl.col("reason").fill_null("").str.starts_with("review refused-challenger"))
    assert aside.height == 40
    assert two["results"]["register"]["set_aside"] == 40
    assert any("40 new photos are set aside" in reason for reason in two["reasons"])
    assert set(aside["source"]) == {storage.absolute(feeds[-1][0])}
    assert loop()["outcome"] == "nothing to do"


def test_photos(loop):
    return set(versions.load(loop.place("data")).usable("test")["image_id"])


test_photos.__test__ = False


def test_steps_one_by_one_and_what_waits_for_what(loop, paint_feed, honest, tmp_path, cli) -> None:
    loop.write([(paint_feed(tmp_path / "first", honest(8), 1), {})])
    assert loop("--step", "train")["outcome"] == "nothing to do"  # no round is open: a later task of a DAG
    assert loop("--step", "add")["done"] == ["add"]
    early = cli("retrain", loop.file, "--step", "split")
    assert early.code == Exit.INPUT
    assert "--step clean" in early.err
    again = loop("--step", "add")
    assert (again["outcome"], again["done"]) == ("waiting", [])
    assert cli("retrain", loop.file, "--step", "bake").code == Exit.USAGE
    plan = loop("--dry-run")
    assert list(plan["commands"]) == list(rounds.STEPS[1:])
    assert loop("--step", "clean")["done"] == ["clean"]
    # A round keeps the configuration that it began with.
    loop.write([(paint_feed(tmp_path / "second", honest(8), 2), {})])
    assert loop("--step", "split")["results"]["add"]["added"] == 24
    assert loop("--abandon")["outcome"] == "abandoned"
    assert loop("--abandon")["outcome"] == "nothing to do"
    assert loop("--dry-run")["round"] == 2


def test_triggers(loop, paint_feed, honest, tmp_path, cli) -> None:
    feeds = [(paint_feed(tmp_path / "first", honest(8), 1), {})]
    loop.write(feeds)
    few = loop("--min-new", "100", "--step", "add")
    assert few["outcome"] == "nothing to do"
    assert few["reasons"] == ["24 new photos of 100"]
    assert few["news"]["photos"] == 24
    assert loop("--min-new", "100", "--every", "7d", "--dry-run")["reasons"] == ["the first round"]
    unknown = tmp_path / "not-there"
    loop.write([*feeds, (str(unknown), {})])
    assert "not-there" in loop("--min-new", "100")["reasons"][1]
    loop.write([(str(unknown), {})])
    none = cli("retrain", loop.file, "--quiet")
    assert none.code == Exit.INPUT
    assert "No feed can be read" in none.err


def test_what_cannot_work_is_told_before_anything_is_done(loop, paint_feed, honest, tmp_path, cli) -> None:
    feed = paint_feed(tmp_path / "first", honest(4), 1)
    for more, code, said in (
        ({"work": loop.place("data/work")}, Exit.USAGE, "lies inside dataset"),
        ({"on_drift": True}, Exit.USAGE, "drift.records"),
        ({"train": {"folds": 3}}, Exit.USAGE, "train.folds"),
        ({"train": {"epoch": 3}}, Exit.INPUT, "epochs"),
        ({"min_news": 3}, Exit.INPUT, "min_new"),
        ({"every": "soon"}, Exit.INPUT, "90s, 20m, 1h30m, 7d"),
        ({"alias": "my alias"}, Exit.INPUT, "is not a valid alias"),
        ({"alias": "stage", "challenger": "stage"}, Exit.USAGE, "are both 'stage'"),
        ({"challenger": "Production"}, Exit.USAGE, "require passed gates"),
        ({"clean": "rubbish"}, Exit.USAGE, "rubbish"),
        ({"ratios": "0.7/0.3"}, Exit.USAGE, "ratios"),
        ({"gates": {"min": ["macro_f1"]}}, Exit.USAGE, "is not a gate"),
    ):
        loop.write([(feed, {})], **more)
        result = cli("retrain", loop.file)
        assert (result.code, said in result.err) == (code, True), result.err
    assert not Path(loop.url).exists()


def test_a_feed_that_the_dataset_may_not_take_is_left_out_and_told(loop, paint_feed, honest, tmp_path, cli) -> None:
    loop.write([(paint_feed(tmp_path / "first", honest(8), 1), {})])
    assert loop("--step", "add")["done"]
    loop("--abandon")
    odd = paint_feed(tmp_path / "odd", honest(8, ("none", "mildew")), 2)
    good = paint_feed(tmp_path / "good", honest(8, ("none", "rust")), 3)
    loop.write([(odd, {}), (good, {})])
    added = loop("--step", "add")["results"]["add"]
    assert "mildew" in added["refused"][odd]
    assert added["by_source"] == {good: 16}


@pytest.mark.parametrize(
    ("text", "seconds"), [("7d", 604800), ("1d12h", 129600), ("90m", 5400), ("45", 45), ("2w", 1209600)]
)
def test_times_may_be_in_days(text, seconds) -> None:
    from plantml.retrain.config import RetrainConfig

    settings = {"dataset": "a", "model": "b", "work": "c", "every": text}
    config = RetrainConfig.model_validate(settings)
    assert config.every == seconds
    assert RetrainConfig.model_validate(config.model_dump(mode="json")) == config


def test_what_is_left_out_is_told_where_cron_looks(loop, paint_feed, honest, tmp_path, cli) -> None:
    feeds = [(paint_feed(tmp_path / "first", honest(8), 1), {})]
    loop.write([*feeds, (str(tmp_path / "not-there"), {})])
    result = cli("retrain", loop.file, "--step", "add", "--quiet")
    assert result.code == Exit.DONE
    assert "not-there" in result.err


def test_a_work_folder_belongs_to_one_loop(loop, paint_feed, honest, tmp_path, cli) -> None:
    feeds = [(paint_feed(tmp_path / "first", honest(4), 1), {})]
    loop.write(feeds)
    loop("--step", "add")
    loop.write(feeds, dataset=loop.place("other"))
    result = cli("retrain", loop.file)
    assert result.code == Exit.USAGE
    assert "another configuration" in result.err


def test_a_round_goes_on_in_another_directory(loop, paint_feed, honest, tmp_path, monkeypatch) -> None:
    feed = Path(paint_feed(tmp_path / "first", honest(8), 1))
    loop.write([(feed.relative_to(tmp_path).as_posix(), {})], dataset="here/data", model="here/leaf", work="here/work")
    monkeypatch.chdir(tmp_path)
    assert loop("--step", "add")["results"]["add"]["dataset"] == f"{tmp_path}/here/data@1"
    loop.write([], dataset=f"{tmp_path}/here/data", model=f"{tmp_path}/here/leaf", work=f"{tmp_path}/here/work")
    monkeypatch.chdir("/")
    assert loop("--step", "clean")["results"]["clean"]["dataset"].startswith(f"{tmp_path}/here/data@")


def test_a_photo_that_was_not_whole_comes_again_and_labels_changed_there_are_told(
    loop, paint_feed, honest, tmp_path
) -> None:
    feed = Path(paint_feed(tmp_path / "first", honest(8), 1))
    whole = (feed.parent / "003.png").read_bytes()
    (feed.parent / "003.png").write_bytes(whole[:200])
    (feed.parent / "004.png").unlink()
    loop.write([(str(feed), {})])
    assert loop("--step", "add")["done"]
    loop("--step", "clean")
    loop("--abandon")
    known = loop("--dry-run", "--min-new", "1000")["news"]["waiting"][str(feed)]
    (feed.parent / "003.png").write_bytes(whole)
    shutil.copy(feed.parent / "005.png", feed.parent / "004.png")
    assert loop("--dry-run", "--min-new", "1000")["news"]["waiting"][str(feed)] == known + 2
    loop("--step", "add")
    rows = versions.load(loop.place("data")).rows
    assert rows.filter(pl.col("name").is_in(["003.png", "004.png"]))["status"].to_list() == ["ok", "ok"]
    lines = feed.read_text().splitlines()
    feed.write_text("\n".join([lines[0], lines[1].replace("none", "rust"), *lines[2:]]) + "\n")
    loop("--abandon")
    told = loop("--min-new", "1000", "--dry-run")
    assert told["news"]["relabelled"] == {str(feed): 1}
    assert any("differ from the dataset" in reason for reason in told["reasons"])


@pytest.mark.parametrize(("unknown", "others", "said"), [(12, 88, "12 of 100"), (9, 1, ""), (12, 400, "")])
def test_many_photos_of_another_kind_are_drift(tmp_path, unknown, others, said) -> None:
    from plantml.drift import inputs
    from plantml.retrain import triggers

    rows = [
        {"image": f"{number}.jpg", "image_id": f"{number:064x}", "model": "a", "targets": {},
         "decision": "unknown" if number < unknown else "accept"}
        for number in range(unknown + others)
    ]  # fmt: skip
    rows.append({"image": "x.jpg", "image_id": None, "model": "a", "targets": None, "decision": None})
    file = tmp_path / "records.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    found = triggers._unknown_share(inputs.records(str(file)))
    assert (said in "".join(found)) if said else not found


def test_who_lost_the_lease_within_a_step_is_no_failure(loop, paint_feed, honest, tmp_path, monkeypatch) -> None:
    from plantml.retrain import retrain

    def suspended(work):
        work.stop.lease.lost = True  # another machine took over while this process did nothing
        raise work.stop.error("Stopped", "")

    monkeypatch.setattr(retrain, "STEPS", {**retrain.STEPS, "clean": retrain.Step(suspended, "")})
    loop.write([(paint_feed(tmp_path / "first", honest(4), 1), {})])
    told = loop()
    assert (told["outcome"], told["reasons"]) == ("busy", ["another machine took over"])


@pytest.mark.slow
def test_a_model_of_anomalies_is_retrained_by_its_auroc(loop, tmp_path, paint_feed, honest, cli) -> None:
    train = {"task": "anomaly", "backbone": "test_efficientnet", "pretrained": False, "size": 64,
             "anomaly": {"cells": 64}}  # fmt: skip
    feeds = [(paint_feed(tmp_path / name, honest(20), seed), {}) for seed, name in enumerate(("first", "second"))]
    loop.write(feeds[:1], train=train)
    assert loop()["outcome"] == "promoted"
    loop.write(feeds, train=train, gates={"max_drop": 1.0, "sure": 0.0})
    two = loop()
    assert two["outcome"] == "promoted", two["reasons"]
    assert two["reasons"][0].startswith("anomaly.auroc ")
    compared = two["results"]["compare"]["all"]
    assert {"anomaly.auroc", "anomaly.sensitivity"} <= {gate["name"] for gate in compared["gates"]}
    assert "| anomaly.auroc |" in Path(two["report"], "report.md").read_text()
    loop.write([*feeds, (paint_feed(tmp_path / "third", honest(4), 3), {})])  # TINY, of whole photos
    refused = cli("retrain", loop.file)
    assert refused.code == Exit.INPUT
    assert "finds anomalies, the challenger predicts for whole photos" in refused.err


@pytest.mark.slow
def test_a_detector_is_retrained_by_evidence_on_boxes(loop, tmp_path, cli) -> None:
    feeds = []
    for seed in (1, 2):
        folder = tmp_path / f"trays{seed}"
        cli("dataset", "synth", folder, "--layout", "tray", "--images", 14, "--size", 128, "--seed", seed)
        feeds.append((str(folder), {"targets": [], "group_column": None}))
    train = {"task": "boxes", "backbone": "test_efficientnet", "pretrained": False, "epochs": 1, "batch_size": 4}
    settings = {"train": train, "group_by": r"tray-\d+", "gates": {"max_drop": 1.0, "sure": 0.0}}
    loop.write(feeds[:1], **settings)
    assert loop()["outcome"] == "promoted"
    loop.write(feeds, **settings, start="warm")
    two = loop()
    assert two["outcome"] == "promoted", two["reasons"]
    assert two["reasons"][0].startswith("boxes.macro_ap ")
    compared = two["results"]["compare"]["all"]
    assert {"boxes.ap", "boxes.f1"} <= {gate["name"] for gate in compared["gates"]}
    for name in ("challenger", "production"):
        table = pl.read_parquet(two["results"]["predict"][name]["files"][0])
        assert set(table["outcome"]) <= {"matched", "false", "missed"}
        assert table["name"].n_unique() == compared["photos"]
    assert "| boxes.ap50 |" in Path(two["report"], "report.md").read_text()
    # One of whole photos could not be compared, and is refused before it is trained.
    (tmp_path / "more").mkdir()
    feeds.append((str(tmp_path / "more"), {"targets": [], "group_column": None}))
    shutil.copytree(tmp_path / "trays1", tmp_path / "more", dirs_exist_ok=True)
    loop.write(feeds, **(settings | {"train": train | {"task": "image"}}))
    refused = cli("retrain", loop.file)
    assert refused.code == Exit.INPUT
    assert "task image cannot be compared" in refused.err
