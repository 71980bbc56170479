"""Training with measured columns: which there are, and that they decide what a photo cannot."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import plantml
from plantml import imaging
from plantml.concurrency import Stop
from plantml.errors import Exit, InputError, PlantmlError
from plantml.export.onnx import example_inputs
from plantml.imaging import Fit
from plantml.model.contract import Architecture
from plantml.model.covariates import Covariate
from plantml.model.network import CovariateNet, PlantNet
from plantml.model.runtimes import open_model
from plantml.targets import Target
from plantml.train import covariates, probe, warm_start
from plantml.train.batches.loader import Photos
from plantml.train.covariates import COVARIATES
from plantml.train.lightning_module import PlantModule
from plantml.train.plan_inputs import Speed
from plantml.train.planning import throughput
from plantml.train.selection import Selection

DISEASE = Target("disease", "class", ("blight", "none", "rust"))
VARIETY = Covariate(name="variety", kind="class", classes=("Moneymaker", "Roma"))
TEMPERATURE = Covariate(name="temperature", kind="number", mean=20.0, std=5.0, low=10.0, high=30.0)

# --- which columns ----------------------------------------------------------------------------


@pytest.fixture
def dataset(make_rows) -> Selection:
    """Four training photos with columns, and a val photo with other values."""
    columns = {
        "meta_temperature": ["10", "20", None, " 30 ", "99"],
        "meta_code": ["01", "02", "01", "02", "03"],
        "meta_site": ["north"] * 5,
        "meta_note": [None] * 5,
        "category": ["bean", "tomato", "bean", "tomato", "bean"],
        "disease": ["rust", "none", "rust", "none", "none"],
    }
    targets = (Target("category", "class", ("bean", "tomato")), DISEASE)
    records = [{name: values[at] for name, values in columns.items()} for at in range(5)]
    rows = make_rows([{**record, "split": "train" if at < 4 else "val"} for at, record in enumerate(records)], targets)
    return Selection("leaves", 1, rows, targets)


def test_kind_range_and_classes_are_those_of_the_training_photos(dataset) -> None:
    temperature, code, category = covariates.resolve(["temperature", "code", "category"], dataset, [DISEASE], "image")
    assert (temperature.kind, temperature.mean, temperature.low, temperature.high) == ("number", 20.0, 10.0, 30.0)
    assert code.classes == ("01", "02")
    assert category.classes == ("bean", "tomato")
    assert covariates.resolve(["temperature:class"], dataset, [DISEASE], "image")[0].classes == ("10", "20", "30")
    assert covariates.resolve([], dataset, [DISEASE], "boxes") == ()


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["temprature"], "no column 'temprature'"),
        (["split"], "no column 'split'"),
        (["disease"], "it is predicted"),
        (["site"], "fewer than two different values"),
        (["note"], "fewer than two different values"),
        (["code", "code"], "named twice"),
        (["code:text"], "Unknown kind"),
        (["category:number"], "not numeric"),
    ],
)
def test_a_column_that_says_nothing_is_refused(dataset, names, match) -> None:
    with pytest.raises(InputError, match=match) as error:
        covariates.resolve(names, dataset, [DISEASE], "image")
    assert error.value.hint


def test_boxes_take_no_covariates(dataset) -> None:
    with pytest.raises(InputError, match="whole photos"):
        covariates.resolve(["code"], dataset, [DISEASE], "boxes")


def test_values_are_hidden_by_the_seed_alone() -> None:
    columns = torch.ones(400, 2)
    hidden = covariates.hidden_at_random(columns, 1, 5)
    assert torch.equal(hidden.isnan(), covariates.hidden_at_random(columns, 1, 5).isnan())
    assert not torch.equal(hidden.isnan(), covariates.hidden_at_random(columns, 1, 6).isnan())
    assert 0.1 < hidden.isnan().float().mean() < 0.3


# --- what they add ----------------------------------------------------------------------------


class Mean(nn.Module):
    """Embeds a photo as the means of its colours."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.mean(dim=(2, 3))


def network(columns: tuple[Covariate, ...] = (VARIETY,)) -> PlantNet:
    torch.manual_seed(0)
    architecture = Architecture(backbone="x", embedding=3, mean=(0.5,) * 3, std=(0.5,) * 3, bank=1)
    return PlantNet(architecture, (DISEASE,), Mean(), covariates=columns)


def photos_of(number: int, seed: int, *, measured: bool) -> Photos:
    """Dark photos are healthy; which disease a bright one has, only the variety says."""
    random = np.random.default_rng(seed)
    is_spotted, variety = random.integers(0, 2, (2, number))
    truth = np.where(is_spotted, 2 * variety, 1)
    pixels = np.clip(random.normal(60 + 120 * is_spotted, 10, (8, 8, 3, number)), 0, 255).astype(np.uint8)
    labels = {"disease": truth}
    if measured:
        labels[COVARIATES] = variety[:, None].astype(np.float32)
    return Photos(
        np.moveaxis(pixels, -1, 0), random.integers(0, 2**60, number).astype(np.uint64), labels, np.arange(number)
    )


@pytest.mark.parametrize("measured", [True, False])
def test_a_column_decides_what_the_photo_cannot_and_the_photo_alone_stays_as_it_was(
    make_plan, tmp_path, measured
) -> None:
    train, val = (photos_of(number, number, measured=measured) for number in (200, 100))
    net = network((VARIETY,) if measured else ())
    plan = make_plan(targets=(DISEASE,), mode="probe", augment=0.0, views=1, epochs=25, patience=25, batch_size=50,
                     lr=3e-2)  # fmt: skip
    probe.fit(net, plan, train, val, embed=probe.in_torch(net, "cpu"),
              job=probe.EmbeddingJob("cpu", tmp_path, 0.0, lambda: None, Stop()), on_epoch=lambda _: None)  # fmt: skip
    embedding = net.embed(torch.from_numpy(np.ascontiguousarray(val.pixels)))
    truth = torch.from_numpy(val.labels["disease"])

    def accuracy(columns: torch.Tensor | None) -> float:
        encoded = None if columns is None else net.encode(columns)
        return float((net.classify(embedding, encoded)["disease"].argmax(1) == truth).float().mean())

    assert 0.65 < accuracy(None) < 0.85  # a half is healthy, and of the other half every second guess is right
    if measured:
        columns = torch.from_numpy(val.labels[COVARIATES])
        assert accuracy(columns) > 0.97
        assert accuracy(torch.full_like(columns, torch.nan)) == accuracy(None)


def test_a_step_depends_on_seed_and_number_only_and_mixes_covariates(make_plan) -> None:
    batch = {
        "image": torch.randint(0, 256, (4, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),
        "disease": torch.tensor([0, 1, 2, 0]),
        COVARIATES: torch.tensor([[1.0], [0.0], [torch.nan], [1.0]]),
    }

    def losses(step: int) -> tuple[float, float]:
        module = PlantModule(network(), make_plan(targets=(DISEASE,), mixup=0.5))
        nn.init.ones_(module.net.covariates.heads["disease"].weight)
        module.step = step
        loss = module.loss(batch)
        loss.backward()
        return float(loss.detach()), float(module.net.covariates.hidden.weight.grad.abs().sum())

    assert losses(3) == losses(3)
    assert losses(3) != losses(4)


def test_covariates_learn_faster_than_heads(make_plan) -> None:
    module = PlantModule(network(), make_plan(targets=(DISEASE,), lr=1.0))
    rates = {
        id(each): group["peak"] for group in module.configure_optimizers().param_groups for each in group["params"]
    }
    named = {name: rates[id(parameter)] for name, parameter in module.net.named_parameters()}
    assert named["covariates.hidden.weight"] == covariates.RATE * named["heads.disease.weight"]


# --- from the table to the records ------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(cli, tmp_path_factory):
    """A folder with a dataset `leaves`, a table `table.csv` of its photos, and a finished run `run` with covariates."""
    home = tmp_path_factory.mktemp("measured")
    random, lines = np.random.default_rng(0), ["image,disease,variety,temperature,split"]
    for number in range(48):
        picture = random.normal(120, 30, (32, 32, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(picture).save(home / f"{number:02d}.png")
        disease, variety = [("rust", "Roma"), ("none", "Moneymaker")][number % 2]
        temperature = "" if number % 5 == 0 else f"{random.uniform(10, 30):.1f}"
        lines.append(f"{number:02d}.png,{disease},{variety},{temperature},{('train', 'train', 'val')[number // 2 % 3]}")
    (home / "table.csv").write_text("\n".join(lines) + "\n")
    settings = {"backbone": "test_efficientnet", "views": 1, "mode": "probe", "pretrained": "false", "lr": 0.02}
    for command in (
        ("dataset", "import", home / "table.csv", home / "leaves", "--target", "disease"),
        ("train", home / "leaves", "--out", home / "run", "--size", 32, "--epochs", 40, "--targets", "disease",
         "--covariates", "variety,temperature",
         *(part for key, value in settings.items() for part in ("--set", f"{key}={value}"))),
    ):  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(throughput, "measure", lambda *_: Speed(step=0.01, embed=0.001, decode=0.001))
            result = cli(*command)
        assert result.code == Exit.DONE, result.err
    return home


def test_the_bundle_names_its_covariates_and_what_photos_alone_are_worth(measured) -> None:
    contract = json.loads((measured / "run" / "bundle" / "model.json").read_text())["contract"]
    origin = contract["dataset"]
    assert len(origin["with_covariates"]) == len(origin["fingerprint"]) == 64
    assert origin["with_covariates"] != origin["fingerprint"]
    assert [each["name"] for each in contract["covariates"]] == ["variety", "temperature"]
    metrics = json.loads((measured / "run" / "metrics.json").read_text())
    assert metrics["scores"]["disease.accuracy"] > 0.9
    assert metrics["photos_alone"]["disease.accuracy"] < 0.9
    card = (measured / "run" / "bundle" / "README.md").read_text()
    assert "| variety | class | Moneymaker, Roma |" in card


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_all_runtimes_agree_with_and_without_covariates(measured, runtime) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    bundle, fast = open_model(str(measured / "run"))
    _, other = open_model(str(measured / "run"), runtime=runtime)
    batch = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    for columns in (None, np.array([[0, 20], [1, np.nan], [np.nan, np.nan]], np.float32)):
        ours, theirs = fast.run(batch, columns), other.run(batch, columns)
        np.testing.assert_allclose(ours["target.disease"], theirs["target.disease"], atol=2e-5)
    assert len(bundle.contract.covariates) == 2
    alone, known = fast.run(batch)["target.disease"], fast.run(batch, columns)["target.disease"]
    assert np.array_equal(alone[2], known[2])
    assert np.abs(alone[:2] - known[:2]).max() > 0.05


def test_detect_takes_columns_of_a_table_and_of_a_dataset(cli, measured, tmp_path) -> None:
    (measured / "other.csv").write_text((measured / "table.csv").read_text().replace("Moneymaker", "Sungold"))
    labels = {}
    for source in ("table.csv", "leaves", "other.csv"):
        out = tmp_path / f"{source}.jsonl"
        result = cli("detect", measured / source, "--model", measured / "run", "--out", out, "--json")
        assert result.code == Exit.DONE, result.err
        records = [json.loads(line) for line in out.read_text().splitlines()]
        labels[source] = {record["image_id"]: record["targets"]["disease"]["label"] for record in records}
        counts = result.json["covariates"]
        assert counts["temperature"]["missing"] == 10
        assert counts["variety"]["unknown"] == (24 if source == "other.csv" else 0)
        assert any("counts as missing" in warning for warning in result.json["warnings"]) == (source == "other.csv")
    assert labels["table.csv"] == labels["leaves"]
    assert labels["table.csv"] != labels["other.csv"]
    again = cli("detect", measured / "table.csv", "--model", measured / "run", "--out", tmp_path / "table.csv.jsonl",
                "--json")  # fmt: skip
    assert again.json["resumed"] == 48


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["finetune", "full"])
def test_a_whole_training_of_the_backbone_learns_what_a_column_adds(cli, measured, tmp_path, mode) -> None:
    run, seen = tmp_path / "run", {"backbone": "test_efficientnet", "pretrained": "false", "mode": mode, "lr": 0.02}
    settings = (part for key, value in seen.items() for part in ("--set", f"{key}={value}"))
    result = cli("train", measured / "leaves", "--out", run, "--size", 32, "--epochs", 25, "--targets", "disease",
                 "--covariates", "variety,temperature", *settings)  # fmt: skip
    assert result.code == Exit.DONE, result.err
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["scores"]["disease.accuracy"] > 0.9
    assert metrics["photos_alone"]["disease.accuracy"] < 0.9  # noise shows nothing
    out = tmp_path / "val"
    judged = cli("validate", measured / "leaves", "--model", run, "--split", "val", "--out", out)
    assert judged.code == Exit.DONE, judged.err
    drops = json.loads((out / "metrics.json").read_text())["covariates"]["drops"]
    drop = {each["covariate"]: each["drop"] for each in drops}
    assert drop["variety"] > 0.2
    assert abs(drop["temperature"]) < drop["variety"]


def test_a_changed_measurement_is_predicted_anew(cli, measured, tmp_path) -> None:
    table, out = measured / "one.csv", tmp_path / "one.jsonl"
    scores = []
    for variety in ("Roma", "Moneymaker"):
        table.write_text(f"image,variety\n00.png,{variety}\n")
        result = cli("detect", table, "--model", measured / "run", "--out", out)
        assert result.code == Exit.DONE, result.err
        (record,) = [json.loads(line) for line in out.read_text().splitlines()]
        scores.append(record["targets"]["disease"]["label"])
    assert scores == ["rust", "none"]


def test_validate_says_what_each_covariate_adds(cli, measured, tmp_path) -> None:
    outputs = ("--out", tmp_path / "val", "--report", tmp_path / "report.html", "--markdown", tmp_path / "summary.md")
    result = cli("validate", measured / "leaves", "--model", measured / "run", "--split", "val", *outputs)
    assert result.code == Exit.DONE, result.err
    content = json.loads((tmp_path / "val" / "metrics.json").read_text())["covariates"]
    drops = {each["covariate"]: each for each in content["drops"]}
    assert list(drops) == ["all covariates", "variety", "temperature"]
    assert drops["variety"]["drop"] > 0.2
    assert drops["variety"]["interval"][0] > 0
    assert abs(drops["temperature"]["drop"]) < drops["variety"]["drop"]
    assert "temperature is missing for" in content["warnings"][0]
    assert "<h2>Covariates</h2>" in (tmp_path / "report.html").read_text()
    assert "| all covariates |" in (tmp_path / "summary.md").read_text()


def test_in_python_covariates_come_as_dictionaries(measured) -> None:
    model = plantml.load(measured / "run")
    photo = measured / "00.png"
    rows = [{"variety": "Roma"}, {"variety": "Moneymaker", "temperature": 20}, None]
    for images in ([photo] * 3, [photo.read_bytes()] * 3):
        labels = [each.targets["disease"]["label"] for each in model.predict(images, covariates=rows)]
        assert labels[:2] == ["rust", "none"]
    with pytest.raises(PlantmlError, match="2 images"):
        model.predict([photo] * 2, covariates=rows)
    with pytest.raises(PlantmlError, match="varieti"):
        model.predict(photo, covariates=[{"varieti": "Roma"}])


def test_an_int8_form_takes_covariates_too(cli, measured, tmp_path) -> None:
    result = cli("export", measured / "run", "--to", tmp_path / "leaf.onnx", "--format", "onnx-int8", "--json")
    assert result.code == Exit.DONE, result.err
    bundle, quantised = open_model(str(tmp_path / "leaf.onnx"))
    _, exact = open_model(str(measured / "run"))
    assert bundle.contract.derived_from == result.json["rows"][0]["model"]
    assert [each.name for each in bundle.contract.covariates] == ["variety", "temperature"]
    batch = np.stack([imaging.decode((measured / f"{number:02d}.png").read_bytes(), Fit(32, 32)) for number in (0, 1)])
    for columns in (None, np.array([[0, 20], [1, np.nan]], np.float32)):
        ours, theirs = quantised.run(batch, columns), exact.run(batch, columns)
        assert set(ours) == set(theirs)
        np.testing.assert_allclose(ours["embedding"], theirs["embedding"], atol=0.3 * np.abs(theirs["embedding"]).max())
    assert quantised.run(batch, columns)["target.disease"].argmax(axis=1).tolist() == [0, 1]


@pytest.mark.slow
def test_it_exports_as_a_torch_program(cli, measured, tmp_path) -> None:
    result = cli("export", measured / "run", "--to", tmp_path / "leaf.pt2")
    assert result.code == Exit.DONE, result.err
    _, program = open_model(str(tmp_path / "leaf.pt2"))
    _, fast = open_model(str(measured / "run"))
    batch = np.zeros((2, 32, 32, 3), np.uint8)
    columns = np.array([[0, 20], [np.nan, np.nan]], np.float32)
    np.testing.assert_allclose(
        program.run(batch, columns)["target.disease"], fast.run(batch, columns)["target.disease"], atol=2e-5
    )


def test_example_inputs_have_a_row_per_photo() -> None:
    from plantml.imaging import Fit

    assert {name: tuple(each.shape) for name, each in example_inputs(Fit(8, 8), 3).items()} == {
        "image": (2, 8, 8, 3),
        "covariates": (2, 3),
        "covariates_known": (2, 3),
    }


# --- from an earlier model --------------------------------------------------------------------


def start(net, plan, parent, covariates_of_parent, monkeypatch):
    """Start `net` from the network `parent`, and return what is new."""
    contract = SimpleNamespace(
        targets=parent.targets, covariates=covariates_of_parent, dataset=SimpleNamespace(url="other", version=1)
    )
    state = {f"net.{name}": values for name, values in parent.state_dict().items()}
    monkeypatch.setattr(warm_start, "_state", lambda *_: state)
    return warm_start.load_parent_weights(net, SimpleNamespace(contract=contract), plan)


@pytest.mark.parametrize("covariate", [VARIETY, Covariate(name="variety", kind="class", classes=("Roma", "Sprite"))])
def test_what_columns_say_is_taken_over_by_class(covariate, make_plan, monkeypatch) -> None:
    parent = network()
    for values in parent.covariates.parameters():
        nn.init.normal_(values)
    more = Target("disease", "class", ("blight", "mildew", "none", "rust"))
    architecture = Architecture(backbone="x", embedding=3, mean=(0.5,) * 3, std=(0.5,) * 3, bank=1)
    net = PlantNet(architecture, (more,), Mean(), covariates=(covariate,))
    plan = make_plan(targets=(more,), covariates=(covariate,))
    new = start(net, plan, parent, (VARIETY,), monkeypatch)
    head = net.covariates.heads["disease"].weight
    if covariate is VARIETY:
        assert new == ["disease mildew"]
        assert torch.equal(head[[0, 2, 3]], parent.covariates.heads["disease"].weight)
        assert torch.equal(net.covariates.hidden.weight, parent.covariates.hidden.weight)
    else:
        assert new == ["covariates", "disease mildew"]
        assert not head.any()
    assert not head[1].any()


def test_what_columns_say_stays_the_same_where_photos_have_another_mean() -> None:
    """A temperature of 21 degrees means the same, whatever the other photos of a training measured."""

    def number(mean: float, std: float) -> Covariate:
        return Covariate(name="temperature", kind="number", mean=mean, std=std, low=-50, high=90)

    variety = Covariate(name="variety", kind="class", classes=("a", "b", "c"))
    disease = (Target("disease", "class", ("none", "rust")),)
    old, new = (CovariateNet([variety, number(*scale)], disease) for scale in ((12.0, 4.0), (25.0, 7.0)))
    state = {name: value.clone() for name, value in old.hidden.state_dict().items()}
    state["weight"] = warm_start.rescaled(state["weight"], old.covariates, new.covariates)
    new.hidden.load_state_dict(state)
    values = torch.tensor([[1.0, 21.0], [2.0, -3.0], [0.0, 0.0]])
    known = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    torch.testing.assert_close(new.hidden(new.encode(values, known)), old.hidden(old.encode(values, known)))
