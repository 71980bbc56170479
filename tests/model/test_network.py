import itertools

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from plantml.errors import InputError
from plantml.imaging import Fit
from plantml.model import network
from plantml.model.contract import Architecture, Combinations, Contract, Origin
from plantml.model.network import Deployed, PlantNet
from plantml.targets import Target, valid_combinations

CATEGORY = Target("category", "class", ("bean", "tomato", "maize"))
HEALTH = Target("health", "class", ("diseased", "healthy"))
DISEASE = Target("disease", "class", ("blight", "none", "rust"))
SYMPTOMS = Target("symptoms", "multilabel", ("spots", "curl"))
SEVERITY = Target("severity", "value", unit="fraction")
TARGETS = (CATEGORY, HEALTH, DISEASE, SYMPTOMS, SEVERITY)
VALID = torch.from_numpy(valid_combinations(HEALTH, DISEASE)).float()
many = settings(max_examples=200, deadline=None)


class MeanColour(nn.Module):
    """A backbone whose embedding is the mean of each channel that it is fed."""

    def forward(self, pixels):
        return pixels.mean(dim=(2, 3))


def architecture(mean=(0.5,) * 3, std=(0.5,) * 3, *, backbone="", embedding=3, bank=1):
    return Architecture(backbone=backbone, embedding=embedding, mean=mean, std=std, bank=bank)


def net(targets=TARGETS, **of_architecture):
    torch.manual_seed(0)
    return PlantNet(architecture(**of_architecture), targets, MeanColour()).eval()


def photos(count=4, height=6, width=5, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8))


# --- pixels in --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mean", "std", "numbers"),
    [((0.5,) * 3, (0.5,) * 3, 1), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 3), ((0.5,) * 3, (0.2, 0.3, 0.4), 3)],
)
def test_normalisation_is_that_of_the_textbook(mean, std, numbers):
    image = photos()
    textbook = (image.numpy().astype(np.float64) / 255 - np.array(mean)) / np.array(std)
    made = net(mean=mean, std=std)
    assert_close(made.embed(image).double(), torch.from_numpy(textbook.mean(axis=(1, 2))), atol=1e-6, rtol=0)
    # One number where one is enough keeps the graph's arithmetic a single multiply-add.
    assert made.std.numel() == numbers


def test_photos_come_as_bytes_with_the_channels_last():
    image = torch.zeros((1, 6, 5, 3), dtype=torch.uint8)
    image[..., 0], image[..., 2] = 255, 51
    assert_close(net(mean=(0.0,) * 3, std=(1.0,) * 3).embed(image), torch.tensor([[1.0, 0.0, 0.2]]))


def test_rows_stay_rows(monkeypatch):
    made = net(mean=(0.0,) * 3, std=(1.0,) * 3)
    monkeypatch.setattr(made.backbone, "forward", lambda pixels: pixels[:, :, 4, 1])
    image = photos(2)
    assert_close(made.embed(image), image[:, 4, 1] / 255)


def test_a_name_without_a_network_is_refused():
    with pytest.raises(ValueError, match="resnet_of_dreams"):
        network.bare_backbone("resnet_of_dreams", Fit(64, 64))


# --- answers ----------------------------------------------------------------------------------


def test_values_are_scaled_to_their_unit():
    made = net([SEVERITY])
    raw = made.heads["severity"](torch.ones(2, 3))
    made.get_buffer("scale_severity")[:2] = torch.tensor([100.0, 25.0])
    assert_close(made.classify(torch.ones(2, 3))["severity"], raw * 25 + 100)
    assert made.scales() == {"severity": torch.tensor(25.0)}


def test_values_stay_within_the_range_of_the_training_labels():
    made = net([SEVERITY])
    made.get_buffer("scale_severity")[2:] = torch.tensor([0.0, 1.0])
    deployed = Deployed(made, {}, torch.ones(1, 3))
    predicted = deployed.answers({"severity": torch.tensor([[-0.2], [0.4], [7.0]])})["severity"]
    assert predicted.tolist() == [[0.0], [pytest.approx(0.4)], [1.0]]


def test_temperatures_and_biases_calibrate_classes_and_sets_and_leave_values():
    temperatures, biases = {"category": 2.0, "symptoms": 0.5, "severity": 9.0}, {"category": (0.5, 0.0, -1.0)}
    deployed = Deployed(net(), temperatures, torch.ones(1, 3), biases=biases)
    logits = {
        target.name: torch.randn(4, target.size, generator=torch.Generator().manual_seed(1)) for target in TARGETS
    }
    answers = deployed.answers(logits)
    assert_close(answers["category"], (logits["category"] / 2 + torch.tensor([0.5, 0.0, -1.0])).softmax(dim=1))
    assert_close(answers["symptoms"], (logits["symptoms"] * 2).sigmoid())
    assert_close(answers["severity"], logits["severity"])


def test_outputs_are_in_the_order_of_their_names():
    deployed = Deployed(net(), {}, torch.ones(1, 3))
    assert deployed.output_names == [
        "target.category", "target.health", "target.disease", "target.symptoms", "target.severity",
        "embedding", "unknown",
    ]  # fmt: skip
    outputs = dict(zip(deployed.output_names, deployed(photos(7)), strict=True))
    shapes = {name: tuple(part.shape) for name, part in outputs.items()}
    assert shapes == {
        **{f"target.{target.name}": (7, target.size) for target in TARGETS},
        "embedding": (7, 3),
        "unknown": (7,),
    }
    answers = deployed.answers(deployed.net(photos(7)))
    for name, answer in answers.items():
        assert_close(outputs[f"target.{name}"], answer)


# --- health and disease -----------------------------------------------------------------------


def distribution(size):
    weights = st.lists(st.sampled_from([0.0, 1e-30, 1e-6, 0.1, 0.3, 1.0]), min_size=size, max_size=size)
    return weights.filter(any).map(lambda found: torch.tensor([found]) / sum(found))


@given(distribution(2), distribution(3))
@example(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 0.0, 1.0]]))
@many
def test_consistent_probabilities_sum_to_one(health, disease):
    for marginal in network.consistent(health, disease, VALID):
        assert (marginal >= 0).all()
        assert_close(marginal.sum(dim=1), torch.ones(1))


@given(distribution(2), distribution(3))
@many
def test_healthy_implies_no_disease(health, disease):
    health, disease = network.consistent(health, disease, VALID)
    # With two states of health, each is exactly as probable as what it says of the disease.
    assert_close(health[0, 1], disease[0, 1])
    if HEALTH.classes[health.argmax()] == "healthy" and health.max() > 0.501:
        assert DISEASE.classes[disease.argmax()] == "none"


@given(distribution(3), distribution(3))
@many
def test_other_states_of_health_take_nothing_from_healthy(health, disease):
    stressed = Target("health", "class", ("diseased", "healthy", "stressed"))
    valid = torch.from_numpy(valid_combinations(stressed, DISEASE)).float()
    health, disease = network.consistent(health, disease, valid)
    assert disease[0, 1] >= health[0, 1] - 1e-6


@given(distribution(2), distribution(3))
@many
def test_nothing_changes_where_everything_can_be_true(health, disease):
    for before, after in zip((health, disease), network.consistent(health, disease, torch.ones(2, 3)), strict=True):
        assert_close(after, before)


def test_consistency_by_hand():
    health, disease = network.consistent(torch.tensor([[0.4, 0.6]]), torch.tensor([[0.5, 0.3, 0.2]]), VALID)
    # Left: diseased with blight 0.20, diseased with rust 0.08, healthy with none 0.18.
    assert_close(health, torch.tensor([[0.28, 0.18]]) / 0.46)
    assert_close(disease, torch.tensor([[0.20, 0.18, 0.08]]) / 0.46)


def test_health_alone_is_not_touched():
    deployed = Deployed(net([HEALTH, CATEGORY]), {}, torch.ones(1, 3))
    logits = {"health": torch.tensor([[0.3, 0.9]]), "category": torch.tensor([[0.1, 0.2, 0.3]])}
    assert_close(deployed.answers(logits)["health"], logits["health"].softmax(dim=1))


# --- combinations that were seen --------------------------------------------------------------

THREE = (CATEGORY, HEALTH, DISEASE)
EVERYTHING = list(itertools.product(*(target.classes for target in THREE)))


def restricted(seen):
    return network.Seen(THREE, Combinations(targets=("category", "health", "disease"), seen=tuple(seen)))


def answered(category, health, disease):
    return {"category": category, "health": health, "disease": disease}


@given(
    distribution(3), distribution(2), distribution(3), st.lists(st.sampled_from(EVERYTHING), min_size=1, unique=True)
)
@many
def test_seen_combinations_have_the_marginals_of_their_renormalised_joint(category, health, disease, seen):
    joint = np.einsum("a,b,c->abc", *(part[0].double().numpy() for part in (category, health, disease)))
    mask = np.zeros_like(joint)
    for names in seen:
        mask[tuple(target.classes.index(name) for target, name in zip(THREE, names, strict=True))] = 1
    joint = (joint + np.finfo(np.float32).tiny) * mask
    joint /= joint.sum()
    result = restricted(seen)(answered(category, health, disease))
    for axis, target in enumerate(THREE):
        wanted = joint.sum(axis=tuple({0, 1, 2} - {axis}))
        np.testing.assert_allclose(result[target.name][0].numpy(), wanted, atol=1e-5)
        assert result[target.name].sum().item() == pytest.approx(1, abs=1e-5)


def test_a_class_that_no_seen_combination_has_is_never_answered():
    sure = answered(torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0, 1.0]]))
    result = restricted([("bean", "healthy", "none"), ("tomato", "diseased", "rust")])(sure)
    assert result["category"][0, 2] == 0
    assert result["disease"][0, 0] == 0


def test_seen_answers_do_not_depend_on_the_batch():
    torch.manual_seed(1)
    some = answered(*(torch.randn(9, target.size).softmax(dim=1) for target in THREE))
    module = restricted(EVERYTHING[::2])
    together = module(some)
    for row in range(9):
        alone = module({name: part[row : row + 1] for name, part in some.items()})
        assert all(torch.equal(alone[name][0], together[name][row]) for name in alone)


def test_what_is_not_combined_is_left_as_it_is():
    combinations = Combinations(targets=("health", "disease"), seen=(("healthy", "none"),))
    image = photos(3)
    free, content = (Deployed(net(), {}, torch.ones(1, 3), result)(image) for result in (None, combinations))
    assert torch.equal(free[0], content[0])
    assert_close(content[1], torch.tensor([[0.0, 1.0]]).repeat(3, 1))


# --- unknown ----------------------------------------------------------------------------------


def test_a_photo_of_the_bank_is_known_and_its_opposite_is_not():
    made = net()
    image = photos(1)
    embedding = made.embed(image).detach()
    away = embedding.new_tensor([[-1.0, 0.5, 0.2]]).repeat(3, 1)
    deployed = Deployed(made, {}, torch.cat([embedding.repeat(network.NEIGHBOURS, 1), away]))
    assert_close(deployed(image)[-1], torch.zeros(1), atol=1e-6, rtol=0)
    assert_close(deployed.unknown(7 * embedding), torch.zeros(1), atol=1e-6, rtol=0)
    assert deployed.unknown(-embedding)[0] > 1


@pytest.mark.parametrize("size", [1, 3, 5, 40])
def test_unknown_is_one_minus_the_mean_cosine_to_the_five_nearest(size):
    rng = np.random.default_rng(size)
    bank, embedding = rng.normal(size=(size, 3)), rng.normal(size=(4, 3))
    cosine = (embedding / np.linalg.norm(embedding, axis=1, keepdims=True)) @ (
        bank / np.linalg.norm(bank, axis=1, keepdims=True)
    ).T
    nearest = np.sort(cosine, axis=1)[:, -min(5, size) :]
    deployed = Deployed(net(), {}, torch.from_numpy(bank))
    result = deployed.unknown(torch.from_numpy(embedding).float())
    assert_close(result.double(), torch.from_numpy(1 - nearest.mean(axis=1)), atol=1e-6, rtol=0)


# --- from files -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made():
    """A contract, and a network of it whose every tensor is its own."""
    torch.manual_seed(3)
    backbone = network.bare_backbone("test_efficientnet", Fit(64, 64))
    described = architecture((0.4, 0.5, 0.6), backbone="test_efficientnet", embedding=backbone.num_features, bank=6)
    plain = PlantNet(described, TARGETS, backbone)
    plain.get_buffer("scale_severity").copy_(torch.tensor([3.0, 2.0, 0.0, 9.0]))
    plain(photos(8, 64, 64))  # in training mode, so that the statistics of its layers are its own
    contract = Contract(
        targets=TARGETS,
        input=Fit(64, 64),
        architecture=described,
        temperatures={"category": 1.7},
        thresholds={},
        unknown_threshold=0.5,
        dataset=Origin(url="data", version=1, fingerprint=""),
        metrics={},
        seed=3,
        versions={},
    )
    return contract, Deployed(plain, contract.temperatures, torch.randn(6, described.embedding)).eval()


def test_a_network_is_rebuilt_from_its_contract_and_weights(made):
    contract, deployed = made
    again = network.rebuild(contract, deployed.state_dict())
    assert not again.training
    image = photos(3, 64, 64, seed=1)
    for before, after in zip(deployed(image), again(image), strict=True):
        assert torch.equal(before, after)


def test_a_restricted_network_is_rebuilt_from_its_contract_and_weights(made):
    contract, deployed = made
    combinations = Combinations(
        targets=("category", "health", "disease"),
        seen=(("bean", "healthy", "none"), ("bean", "diseased", "rust"), ("maize", "diseased", "blight")),
    )
    content = Deployed(deployed.net, contract.temperatures, deployed.bank, combinations).eval()
    again = network.rebuild(contract.model_copy(update={"combinations": combinations}), content.state_dict())
    image = photos(3, 64, 64, seed=1)
    for before, after in zip(content(image), again(image), strict=True):
        assert torch.equal(before, after)
    assert not torch.equal(content(image)[0], deployed(image)[0])


@pytest.mark.parametrize("lost", ["bank", "net.heads.disease.weight", "net.scale_severity", "net.mean"])
def test_weights_that_lack_a_tensor_are_refused(made, lost):
    contract, deployed = made
    weights = {name: tensor for name, tensor in deployed.state_dict().items() if name != lost}
    with pytest.raises(InputError, match="do not match the model's contract") as caught:
        network.rebuild(contract, weights)
    assert lost in str(caught.value.__cause__)
