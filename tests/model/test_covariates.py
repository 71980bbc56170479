"""Measured columns as numbers for the network."""

import numpy as np
import pytest
import torch
from tests.contracts import make_contract
from torch import nn

from plantml.errors import InputError, UsageError
from plantml.export.onnx import convert
from plantml.model.contract import Architecture, parse_contract
from plantml.model.covariates import KNOWN, VALUES, Covariate, CovariateCounter, check_names, encode, network_inputs
from plantml.model.network import CovariateNet, PlantNet
from plantml.targets import Target

TEMPERATURE = Covariate(name="temperature", kind="number", mean=20.0, std=5.0, low=10.0, high=30.0)
VARIETY = Covariate(name="variety", kind="class", classes=("Moneymaker", "Roma"))
BOTH = (TEMPERATURE, VARIETY)
DISEASE = Target("disease", "class", ("none", "rust"))


def test_values_become_numbers_and_what_is_missing_or_unknown_becomes_nan():
    rows = [
        {"temperature": "21.5", "variety": "Roma"},
        {"temperature": 25, "variety": " Moneymaker "},
        {"temperature": "", "variety": None},
        {"temperature": "warm", "variety": "Sungold"},
        {"temperature": float("inf")},
        None,
    ]
    expected = [[21.5, 1], [25, 0], *[[np.nan, np.nan]] * 4]
    np.testing.assert_array_equal(encode(BOTH, rows), np.array(expected, np.float32))


def test_the_network_gets_zeros_where_a_value_is_missing():
    inputs = network_inputs(np.array([[21.5, np.nan]], np.float32), 1, 2)
    assert inputs[VALUES].tolist() == [[21.5, 0.0]]
    assert inputs[KNOWN].tolist() == [[1.0, 0.0]]
    assert {name: values.tolist() for name, values in network_inputs(None, 1, 2).items()} == {
        VALUES: [[0.0, 0.0]],
        KNOWN: [[0.0, 0.0]],
    }
    assert network_inputs(None, 3, 0) == {}


def test_numbers_are_standardised_within_their_range_and_classes_are_one_hot():
    net = CovariateNet(BOTH, [DISEASE])
    values = torch.tensor([[25.0, 1.0], [99.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    known = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
    expected = [[1.0, 1.0, 0.0, 1.0], [2.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    assert net.encode(values, known).tolist() == expected


def test_a_photo_without_covariates_gets_the_answer_of_the_photo_alone():
    torch.manual_seed(0)
    architecture = Architecture(backbone="x", embedding=3, mean=(0.5,) * 3, std=(0.5,) * 3, bank=1)
    net = PlantNet(architecture, [DISEASE], nn.Identity(), covariates=BOTH).eval()
    nn.init.normal_(net.covariates.heads["disease"].weight)
    embedding = torch.rand(2, 3)
    alone = net.classify(embedding)["disease"]
    missing = net.encode(torch.full((2, 2), torch.nan))
    known = net.encode(torch.tensor([[15.0, 1.0], [torch.nan, 0.0]]))
    assert torch.equal(net.classify(embedding, missing)["disease"], alone)
    assert ((net.classify(embedding, known)["disease"] - alone).abs().amax(dim=1) > 1e-3).all()


class Encoding(torch.nn.Module):
    """Encodes a coordinate in metres, of places a kilometre apart."""

    def __init__(self) -> None:
        super().__init__()
        northing = Covariate(name="northing", kind="number", mean=5.4e6, std=300.0, low=5.399e6, high=5.401e6)
        self.net = CovariateNet([northing], (DISEASE,))

    def forward(self, values, known):
        return self.net.encode(values, known)


def test_a_large_mean_costs_no_digits_in_openvino():
    openvino = pytest.importorskip("openvino")
    values = torch.linspace(5.398e6, 5.402e6, 33)[:, None]
    known, encoding = torch.ones_like(values), Encoding().eval()
    examples = {VALUES: values[:2], KNOWN: known[:2]}
    graph = convert(encoding, examples, ["encoded"]).SerializeToString()
    compiled = openvino.Core().compile_model(
        openvino.Core().read_model(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    expected = encoding(values, known).numpy()
    assert expected[:, 0].min() == pytest.approx(-1000 / 300)
    assert expected[:, 0].max() == pytest.approx(1000 / 300)
    np.testing.assert_allclose(compiled([values.numpy(), known.numpy()])[0], expected, atol=1e-6)


@pytest.mark.filterwarnings("error")
def test_a_number_that_32_bits_cannot_hold_is_beyond_any_range():
    assert encode([BOTH[0]], [{"temperature": value} for value in ("1e300", "-1e300")]).tolist() == [
        [pytest.approx(1e38)], [pytest.approx(-1e38)]
    ]  # fmt: skip
    counter = CovariateCounter(BOTH[:1])
    counter.add({"temperature": "1e300"})
    assert counter.as_json()["temperature"]["outside"] == 1


def test_photos_are_counted_by_what_is_known_of_them():
    counter = CovariateCounter(BOTH)
    counter.add_all([{"temperature": 12, "variety": "Roma"}, {"temperature": 35, "variety": "Sungold"}, None])
    assert counter.as_json() == {
        "temperature": {"known": 2, "missing": 1, "unknown": 0, "outside": 1},
        "variety": {"known": 1, "missing": 1, "unknown": 1, "outside": 0},
    }
    warnings = counter.warnings()
    assert len(warnings) == 4
    assert "temperature of 1 of 3 photos is outside the range in training, 10 to 30" in warnings[1]
    assert "the model knows Moneymaker, Roma" in warnings[3]


def test_a_name_that_the_model_lacks_is_an_error_that_names_it():
    check_names(BOTH, [{"variety": "Roma"}, None])
    with pytest.raises(UsageError, match="temprature"):
        check_names(BOTH, [{"temprature": 20}])


@pytest.mark.parametrize(
    "change",
    [
        {"covariates": []},
        {"covariates": [{"name": "t", "kind": "number", "mean": 1.0, "std": 0.0, "low": 0.0, "high": 2.0}]},
        {"covariates": [{"name": "t", "kind": "number", "mean": 1.0, "std": 1.0, "low": 3.0, "high": 2.0}]},
        {"covariates": [{"name": "t", "kind": "number"}]},
        {"covariates": [{"name": "v", "kind": "class", "classes": ["a", "a"]}]},
        {"covariates": [{"name": "v", "kind": "class", "classes": ["a"]}] * 2},
        {"covariates": [{"name": "disease", "kind": "class", "classes": ["a"]}]},
    ],
)
def test_a_contract_with_impossible_covariates_is_refused(change):
    content = make_contract(DISEASE).as_json()
    assert parse_contract("here", content).covariates is None
    with pytest.raises(InputError, match="not a valid model contract"):
        parse_contract("here", content | change)


def test_a_contract_keeps_its_covariates_and_one_without_keeps_its_bytes():
    contract = make_contract(DISEASE, covariates=BOTH)
    assert parse_contract("here", contract.as_json()).covariates == BOTH
    assert "covariates" not in make_contract(DISEASE).as_json()
