"""What a training learns from rows without a photo, and that predictions from photos stay what they are."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from tests.train.test_covariates import DISEASE, VARIETY, Mean, network

from plantml.data import versions
from plantml.data.manifest import NO_PHOTO
from plantml.errors import Exit
from plantml.model.contract import Architecture
from plantml.model.network import PlantNet
from plantml.targets import Target
from plantml.train import bare_rows, covariates, selection
from plantml.train.bare_rows import BareRows
from plantml.train.config import TrainConfig
from plantml.train.covariates import COVARIATES
from plantml.train.lightning_module import PlantModule
from plantml.train.plan import Plan
from plantml.train.plan_inputs import Hardware, PlanInputs, Speed
from plantml.train.planning import throughput
from plantml.train.planning.planner import plan
from plantml.train.selection import Selection

SEVERITY = Target("severity", "value")
SYMPTOMS = Target("symptoms", "multilabel", ("curl", "spots"))


def manifest_rows(make_rows, diseases, varieties, targets=(DISEASE,), **columns) -> pl.DataFrame:
    """Rows of the train split without a photo."""
    bare = {"status": NO_PHOTO, "image_id": None, "path": None, "width": None, "height": None, "split": "train"}
    return make_rows(
        [
            {
                **bare,
                "disease": disease,
                "meta_variety": variety,
                **{key: values[at] for key, values in columns.items()},
            }
            for at, (disease, variety) in enumerate(zip(diseases, varieties, strict=True))
        ],
        targets,
    )


def telling(make_rows, number: int = 64) -> BareRows:
    """Rows whose variety decides between rust and blight."""
    diseases = ["rust", "blight"] * (number // 2)
    varieties = ["Roma", "Moneymaker"] * (number // 2)
    rows = bare_rows.of(manifest_rows(make_rows, diseases, varieties), (DISEASE,), (VARIETY,))
    assert rows is not None
    return rows


def test_priors_are_the_shares_of_labels(make_rows) -> None:
    rows = manifest_rows(
        make_rows, ["rust", "rust", None], [None] * 3, (DISEASE, SEVERITY, SYMPTOMS), severity=[0.2, None, 0.6],
        symptoms=[["curl"], [], None],
    )  # fmt: skip
    bare = bare_rows.of(rows, (DISEASE, SEVERITY, SYMPTOMS), (VARIETY,))
    assert bare is not None
    assert bare.priors["disease"].exp().tolist() == pytest.approx([1 / 5, 1 / 5, 3 / 5])
    assert bare.priors["severity"].tolist() == pytest.approx([0.4])
    assert bare.priors["symptoms"].tolist() == pytest.approx([0, math.log(1 / 3)])


def test_there_is_nothing_to_learn_without_rows_or_covariates(make_rows) -> None:
    rows = manifest_rows(make_rows, ["rust"], ["Roma"])
    assert bare_rows.of(rows, (DISEASE,), ()) is None
    assert bare_rows.of(rows.clear(), (DISEASE,), (VARIETY,)) is None


def test_before_columns_say_anything_the_loss_is_that_of_the_shares(make_rows, make_plan) -> None:
    bare, net = telling(make_rows), network()
    settings = make_plan(targets=(DISEASE,), train_photos=64, label_smoothing=0.0)
    shares = bare.priors["disease"].exp()
    expected = -(shares[0].log() + shares[2].log()) / 2
    assert float(bare.loss(net, settings, [0], 64).detach()) == pytest.approx(
        float(expected) / 2 / 2
    )  # half of all rows
    few = settings.model_copy(update={"train_photos": 6})
    assert float(bare.loss(net, few, [0], 64).detach()) == pytest.approx(float(expected) / 2 * 64 / 70)


def test_they_teach_the_covariates_and_nothing_else(make_rows, make_plan) -> None:
    bare, net, settings = telling(make_rows), network(), make_plan(targets=(DISEASE,), train_photos=6)
    photo = torch.zeros(1, 3)
    alone = net.classify(photo)["disease"]
    optimiser = torch.optim.Adam(net.parameters(), lr=0.02)
    for step in range(80):
        optimiser.zero_grad()
        bare.loss(net, settings, [step], 16).backward()
        assert all(each.grad is None for each in net.heads.parameters())
        optimiser.step()
    assert torch.equal(net.classify(photo)["disease"], alone)
    with torch.no_grad():
        added = {name: net.covariates(net.encode(torch.tensor([[number]])))["disease"][0]
                 for name, number in (("Moneymaker", 0.0), ("Roma", 1.0))}  # fmt: skip
    blight, rust = DISEASE.classes.index("blight"), DISEASE.classes.index("rust")
    assert added["Roma"][rust] - added["Roma"][blight] > 2
    assert added["Moneymaker"][blight] - added["Moneymaker"][rust] > 2


def test_of_a_value_they_learn_the_distance_from_the_mean_in_its_unit(make_rows, make_plan) -> None:
    severity = [10.0, 30.0] * 32
    rows = manifest_rows(make_rows, [None] * 64, ["Roma", "Moneymaker"] * 32, (SEVERITY,), severity=severity)
    bare = bare_rows.of(rows, (SEVERITY,), (VARIETY,))
    assert bare is not None
    architecture = Architecture(backbone="x", embedding=3, mean=(0.5,) * 3, std=(0.5,) * 3, bank=1)
    net = PlantNet(architecture, (SEVERITY,), Mean(), covariates=(VARIETY,))
    net.get_buffer("scale_severity").copy_(torch.tensor([15.0, 5.0, 0.0, 40.0]))
    optimiser = torch.optim.Adam(net.covariates.parameters(), lr=0.05)
    for step in range(150):
        optimiser.zero_grad()
        bare.loss(net, make_plan(targets=(SEVERITY,)), [step], 64).backward()
        optimiser.step()
    with torch.no_grad():
        added = net.covariates(net.encode(torch.tensor([[1.0], [0.0]])))["severity"].flatten() * 5
    assert added.tolist() == pytest.approx([-10, 10], abs=2)


def test_a_batch_depends_on_seed_and_step_only(make_rows, make_plan) -> None:
    bare, net, settings = telling(make_rows), network(), make_plan(targets=(DISEASE,))
    torch.nn.init.normal_(net.covariates.heads["disease"].weight)
    losses = [float(bare.loss(net, settings, [step], 8).detach()) for step in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("size", [2, 3, 11])
def test_processes_share_a_batch(make_rows, make_plan, size) -> None:
    """The mean over processes is the loss of one process, also where there are more of them than rows."""
    bare, net, settings = telling(make_rows), network(), make_plan(targets=(DISEASE,))
    torch.nn.init.normal_(net.covariates.heads["disease"].weight)
    whole = float(bare.loss(net, settings, [5], 10).detach())
    parts = [float(bare.loss(net, settings, [5], 10, rank=rank, size=size).detach()) for rank in range(size)]
    assert sum(parts) / size == pytest.approx(whole, rel=1e-5)


def test_a_step_adds_their_loss_to_that_of_the_photos(make_rows, make_plan) -> None:
    batch = {
        "image": torch.zeros(4, 8, 8, 3, dtype=torch.uint8),
        "disease": torch.tensor([0, 1, 2, 0]),
        COVARIATES: torch.tensor([[1.0], [0.0], [torch.nan], [1.0]]),
    }
    settings = make_plan(targets=(DISEASE,))
    bare = telling(make_rows)
    without, beside = (PlantModule(network(), settings, each).loss(batch) for each in (None, bare))
    theirs = bare.loss(network(), settings, [0], settings.batch_size)
    assert float((beside - without).detach()) == pytest.approx(float(theirs.detach()), abs=1e-6)


# --- which rows -------------------------------------------------------------------------------


@pytest.fixture
def dataset(make_rows) -> Selection:
    """Six photos and five rows without one: two to learn from, one without a label, one of val, one without a split."""
    photos = make_rows(
        [{"disease": ["rust", "none"][at % 2], "meta_temperature": str(10 + at), "split": "train" if at < 4 else "val",
          "group": f"p{at}"} for at in range(6)], [DISEASE],
    )  # fmt: skip
    bare = manifest_rows(
        make_rows, ["rust", "blight", None, "rust", "rust"], [None] * 5, name=[f"no-photo/{at}" for at in range(5)],
        meta_temperature=["40", None, "50", "60", "70"], split=["train", "train", "train", "val", None],
        group=[None, "p1", None, None, None],
    )  # fmt: skip
    rows = pl.concat([photos, bare.drop("meta_variety")])
    return Selection("leaves", 1, rows, (DISEASE,))


def made(dataset: Selection, **settings: object) -> Plan:
    hardware = Hardware(device="cpu", cores=2, gpu_memory=0)
    return plan(TrainConfig.model_validate(settings), PlanInputs(dataset, hardware, None, None, None))


def test_labelled_rows_of_train_are_learnt_from_with_covariates_only(dataset) -> None:
    assert covariates.rows_without_photo(dataset, (DISEASE,))["name"].to_list() == ["no-photo/0", "no-photo/1"]
    planned = made(dataset, covariates=["temperature"])
    assert (planned.train_photos, planned.val_photos, planned.rows_without_photo) == (4, 2, 2)
    (temperature,) = planned.covariates
    assert (temperature.low, temperature.high, temperature.mean) == (10, 40, (10 + 11 + 12 + 13 + 40) / 5)
    off = made(dataset, covariates=["temperature"], without_photo=False)
    assert (off.rows_without_photo, off.covariates[0].high) == (0, 13)
    assert made(dataset).rows_without_photo == 0


def test_a_sentence_says_what_becomes_of_them(dataset) -> None:
    planned = made(dataset, covariates=["temperature"])
    assert covariates.used_without_photo(dataset, planned) == (
        "Learning from 2 rows without a photo, too. Left out: 3 rows without a photo; they are not in train, or have no"
        " label to learn."
    )
    assert "Left out: 5 rows without a photo; name columns that they have" in covariates.used_without_photo(
        dataset, made(dataset)
    )
    off = made(dataset, covariates=["temperature"], without_photo=False)
    assert "without_photo is false" in covariates.used_without_photo(dataset, off)
    photos = Selection("leaves", 1, dataset.usable(), (DISEASE,))
    assert covariates.used_without_photo(photos, made(photos)) == ""


@pytest.mark.parametrize("task", ["boxes", "tray", "anomaly"])
def test_other_tasks_say_that_they_leave_them_out(dataset, task) -> None:
    drawn = pl.when(pl.col("status") != NO_PHOTO).then(pl.lit([{"x": 1, "y": 2, "w": 20, "h": 30, "labels": "{}"}]))
    version = versions.Version(
        "leaves", 1, dataset.rows.with_columns(boxes=drawn.cast(dataset.rows.schema["boxes"])), dataset.targets
    )
    config = TrainConfig.model_validate({"task": task, "anomaly": {"normal": "disease=none"}})
    chosen = selection.select(version, config)
    planned = plan(config, PlanInputs(chosen, Hardware(device="cpu", cores=2, gpu_memory=0), None, None, None))
    assert (planned.task, planned.train_photos, planned.val_photos) == (task, 2 if task == "anomaly" else 4, 2)
    assert covariates.used_without_photo(chosen, planned) == (
        f"Left out: 5 rows without a photo; --task {task} learns from photos alone."
    )


def test_a_group_that_is_judged_and_learnt_from_is_a_leak(dataset) -> None:
    assert selection.leaks(dataset) == ""
    assert selection.leaks(dataset, dataset.without_photo("train")) == ""
    torn = dataset.rows.with_columns(group=pl.when(pl.col("group") == "p1").then(pl.lit("p5")).otherwise("group"))
    torn = torn.with_columns(group=pl.when(pl.col("name") == "00001.jpg").then(None).otherwise("group"))
    shared = Selection("leaves", 1, torn, (DISEASE,))
    assert selection.leaks(shared) == ""
    assert "Leak: 1 group of train" in selection.leaks(shared, shared.without_photo("train"))


# --- from the table to the model --------------------------------------------------------------


@pytest.fixture(scope="module")
def log(cli, tmp_path_factory) -> Path:
    """A folder with a dataset `leaves`: 24 photos of noise with a variety that tells the disease, and 200 rows."""
    home = tmp_path_factory.mktemp("bare")
    random, lines = np.random.default_rng(0), ["image,disease,variety,temperature,split"]
    kinds = [("rust", "Roma"), ("none", "Moneymaker")]
    for number in range(24):
        picture = random.normal(120, 30, (32, 32, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(picture).save(home / f"{number:02d}.png")
        disease, variety = kinds[number % 2]
        split = ("train", "val", "test")[number // 2 % 3]
        lines.append(f"{number:02d}.png,{disease},{variety},{random.uniform(10, 30):.1f},{split}")
    lines += [f",{disease},{variety},{random.uniform(10, 30):.1f},train" for disease, variety in kinds * 100]
    lines += [",rust,Roma,20,test"] * 3
    (home / "table.csv").write_text("\n".join(lines) + "\n")
    result = cli("dataset", "import", home / "table.csv", home / "leaves", "--target", "disease")
    assert result.code == Exit.DONE, result.err
    return home


TINY = ("--size", 32, "--epochs", 12, "--targets", "disease", "--set", "backbone=test_efficientnet", "--set", "views=1",
        "--set", "pretrained=false", "--set", "mode=probe")  # fmt: skip


@pytest.fixture(scope="module")
def runs(cli, log) -> Path:
    """The folder of `log` with the runs `with`, `without` and `photos`."""
    for name, more in (
        ("with", ("--covariates", "variety,temperature")),
        ("without", ("--covariates", "variety,temperature", "--set", "without_photo=false")),
        ("photos", ()),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(throughput, "measure", lambda *_: Speed(step=0.01, embed=0.001, decode=0.001))
            result = cli("train", log / "leaves", "--out", log / name, *TINY, *more)
        assert result.code == Exit.DONE, result.err
        used = "Learning from 200 rows without a photo, too. Left out: 3 rows" in result.err
        assert used == (name == "with")
        assert "Left out: " in result.err
    return log


def test_few_photos_and_many_rows_teach_what_the_column_says(runs) -> None:
    scores = {name: json.loads((runs / name / "metrics.json").read_text())["scores"] for name in ("with", "without")}
    assert scores["with"]["disease.accuracy"] == 1.0
    assert scores["with"]["disease.accuracy"] > scores["without"]["disease.accuracy"]
    card = (runs / "with" / "bundle" / "README.md").read_text()
    assert "also learnt from 200 rows of labels and measurements without a photo" in card


def test_the_contract_does_not_tell_how_covariates_were_learnt(runs) -> None:
    with_, without = (
        json.loads((runs / name / "bundle" / "model.json").read_text())["contract"] for name in ("with", "without")
    )
    assert with_.keys() == without.keys()
    assert with_["dataset"] == without["dataset"]
    assert with_["architecture"] == without["architecture"]


def test_validate_and_detect_take_photos_alone(cli, runs, tmp_path) -> None:
    judged = cli("validate", runs / "leaves", "--model", runs / "with", "--split", "test", "--out", tmp_path / "val")
    assert judged.code == Exit.DONE, judged.err
    assert "Left out: 3 rows without a photo" in judged.out
    metrics = json.loads((tmp_path / "val" / "metrics.json").read_text())
    assert (metrics["photos"], metrics["without_photo"]) == (8, 3)
    photos = versions.load(str(runs / "leaves")).usable().height
    found = cli("detect", runs / "leaves", "--model", runs / "with", "--out", tmp_path / "all.jsonl", "--json")
    assert found.code == Exit.DONE, found.err
    assert len((tmp_path / "all.jsonl").read_text().splitlines()) == photos == 24
    assert found.json["skipped"] == {"row without a photo": 203}
    listed = cli("detect", runs / "table.csv", "--model", runs / "with", "--out", tmp_path / "list.jsonl")
    assert listed.code == Exit.DONE, listed.err
    assert len((tmp_path / "list.jsonl").read_text().splitlines()) == photos
