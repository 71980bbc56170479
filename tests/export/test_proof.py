from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from plantml import runtime
from plantml.bundle import Architecture, Contract, Origin
from plantml.errors import GateError, PlantmlError
from plantml.export import proof
from plantml.export import run as exporting
from plantml.images import Fit
from plantml.targets import Target

CONTRACT = Contract(
    targets=(
        Target("disease", "class", ("none", "rust")),
        Target("symptoms", "multilabel", ("spots",)),
        Target("weight", "value", unit="g"),
    ),
    input=Fit(8, 8),
    architecture=Architecture(backbone="none", embedding=1, mean=(0.5,) * 3, std=(0.5,) * 3, bank=1),
    temperatures={},
    thresholds={},
    unknown_threshold=0.3,
    dataset=Origin(url="data", version=1, fingerprint=""),
    metrics={},
    seed=0,
    versions={},
)
BATCHES = [np.zeros((2, 8, 8, 3), np.uint8), np.zeros((1, 8, 8, 3), np.uint8)]
ANSWERS = {
    "target.disease": [0.6, 0.4],
    "target.symptoms": [0.5],
    "target.weight": [1.0],
    "embedding": [1.0],
    "unknown": 0.3,
}


class Says:
    """A runtime that says the same of every photo; an answer of `None` is not given."""

    name = "parrot"

    def __init__(self, **changes):
        outputs = {name if name in ANSWERS else f"target.{name}": answer for name, answer in changes.items()}
        self.answers = {name: answer for name, answer in (ANSWERS | outputs).items() if answer is not None}

    def run(self, batch):
        return {name: np.array([answer] * len(batch), np.float32) for name, answer in self.answers.items()}


def compared(reference=None, **changes):
    return proof.compare(CONTRACT, reference or Says(), Says(**changes), BATCHES)


# --- the comparison ---------------------------------------------------------------------------


def test_the_same_answers_are_the_same_model():
    found = compared()
    assert (found.photos, found.agreement, found.difference) == (3, 1.0, 0.0)
    assert proof.require(found, "model.onnx") is found


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"disease": [0.4, 0.6]}, 0.2),
        ({"symptoms": [0.49]}, 0.01),
        ({"unknown": 0.31}, 0.01),
        ({"disease": [0.61, 0.39]}, 0.01),
        ({"weight": [1.01]}, 0.01),
    ],
)
def test_any_other_number_is_another_model(changes, difference):
    found = compared(**changes)
    assert found.difference == pytest.approx(difference, rel=1e-4)
    assert not found.holds
    with pytest.raises(GateError, match="is not the same model"):
        proof.require(found, "model.onnx")


def test_another_label_counts_even_where_the_numbers_are_near():
    level = Says(disease=[0.5, 0.49999])
    found = compared(level, disease=[0.49999, 0.5])
    assert found.difference < proof.MAX_DIFFERENCE
    assert found.agreement == 0
    assert not found.holds


def test_agreement_is_a_share_of_photos():
    class Wavering(Says):
        def run(self, batch):
            return Says(disease=[0.4, 0.6]).run(batch) if len(batch) == 1 else super().run(batch)

    assert proof.compare(CONTRACT, Says(), Wavering(), BATCHES).agreement == pytest.approx(2 / 3)


def test_rounding_is_allowed():
    assert compared(disease=[0.60005, 0.39995]).holds
    assert not compared(disease=[0.6002, 0.3998]).holds


def test_rounding_of_values_is_measured_by_their_size():
    heavy = Says(weight=[5000.0])
    assert compared(heavy, weight=[5000.002]).holds
    assert not compared(heavy, weight=[5005.0]).holds


@pytest.mark.parametrize(
    "changes",
    [{"disease": [np.nan, np.nan]}, {"disease": [0.6, np.nan]}, {"weight": [np.nan]}, {"unknown": np.nan}],
)
def test_what_is_not_a_number_is_never_the_same(changes):
    assert not compared(**changes).holds
    assert not compared(Says(**changes), **changes).holds


@pytest.mark.parametrize(
    "changes", [{"disease": None}, {"disease": [1.0]}, {"weight": None}, {"unknown": None}, {"embedding": None}]
)
def test_an_output_that_is_not_there_is_another_model(changes):
    with pytest.raises(GateError, match="no output"):
        compared(**changes)


def test_no_photos_prove_nothing():
    assert not proof.compare(CONTRACT, Says(), Says(), []).holds


# --- sabotage of a real export ----------------------------------------------------------------


def tensor(model, name):
    return next(entry for entry in model.graph.initializer if entry.name == name)


def set_tensor(model, name, numbers):
    tensor(model, name).CopyFrom(numpy_helper.from_array(np.ascontiguousarray(numbers), name))


def swap_classes(model):
    for part in ("weight", "bias"):
        name = f"net.heads.category.{part}"
        set_tensor(model, name, numpy_helper.to_array(tensor(model, name))[::-1])


def lose_a_class(model):
    for part in ("weight", "bias"):
        name = f"net.heads.category.{part}"
        set_tensor(model, name, numpy_helper.to_array(tensor(model, name))[:1])
    answer = next(output for output in model.graph.output if output.name == "target.category")
    answer.type.tensor_type.shape.dim[1].dim_value = 1
    del model.graph.value_info[:]


def wrong_mean(model):
    subtraction = next(node for node in model.graph.node if node.op_type == "Sub")
    numbers = numpy_helper.to_array(tensor(model, subtraction.input[1]))
    set_tensor(model, subtraction.input[1], numbers * np.float32(0.98))


def swap_channels(model):
    stem = next(node for node in model.graph.node if node.op_type == "Conv").input[1]
    set_tensor(model, stem, numpy_helper.to_array(tensor(model, stem))[:, ::-1])


def answer_no_number(model):
    set_tensor(model, "net.heads.severity.bias", np.array([np.nan], np.float32))


SABOTAGE = [swap_classes, lose_a_class, wrong_mean, swap_channels, answer_no_number]


@pytest.fixture(scope="module")
def original(trained):
    return Path(trained.run, "bundle", "model.onnx").read_bytes()


@pytest.fixture
def export_of(trained, tmp_path, monkeypatch):
    """`export_of(data)`: an export in which the exporter makes these bytes; returns the published file."""

    def export(data):
        monkeypatch.setattr(exporting, "to_onnx", lambda contract, weights, digest: data)
        exporting.export(trained.run, str(tmp_path / "out" / "leaf.onnx"), data=trained.data)
        return tmp_path / "out" / "leaf.onnx"

    return export


def test_what_the_exporter_made_is_published_as_it_is(export_of, original):
    assert export_of(original).read_bytes() == original


@pytest.mark.parametrize("sabotage", SABOTAGE)
def test_a_sabotaged_export_is_not_published(export_of, original, tmp_path, sabotage):
    model = onnx.load_from_string(original)
    sabotage(model)
    data = model.SerializeToString()
    runtime.OnnxRuntime(data)  # it runs: only its answers give it away
    with pytest.raises(GateError):
        export_of(data)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_export_is_not_published(export_of, original, tmp_path, share):
    with pytest.raises(PlantmlError):
        export_of(original[: int(len(original) * share)])
    assert not list(tmp_path.iterdir())


def test_a_refused_export_leaves_the_earlier_one(export_of, original, tmp_path):
    published = export_of(original)
    model = onnx.load_from_string(original)
    swap_classes(model)
    with pytest.raises(GateError):
        export_of(model.SerializeToString())
    assert published.read_bytes() == original
