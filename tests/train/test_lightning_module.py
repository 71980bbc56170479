"""Training steps: learning rates by depth and time, blended photos, the moving average of the weights."""

import math

import pytest
import torch
from torch import nn

from plantml.imaging import Fit
from plantml.model.contract import Architecture
from plantml.model.network import PlantNet, bare_backbone
from plantml.targets import Target
from plantml.train.batches.mixup import mix
from plantml.train.lightning_module import PlantModule, depths

TARGETS = (Target("disease", "class", ("a", "b")), Target("severity", "value", unit="fraction"))


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.conv(image).mean(dim=(2, 3))


@pytest.fixture
def module(make_plan):
    """`module(**values)`: a tiny network with a plan of these values."""

    def make(backbone: nn.Module | None = None, size: int = 4, **values: object) -> PlantModule:
        torch.manual_seed(0)
        architecture = Architecture(backbone="x", embedding=size, mean=(0.5,) * 3, std=(0.5,) * 3, bank=1)
        return PlantModule(PlantNet(architecture, TARGETS, backbone or Tiny()), make_plan(targets=TARGETS, **values))

    return make


def test_the_learning_rate_warms_up_and_decays_to_zero(module) -> None:
    trained = module(epochs=4, warmup=0.2)
    rates = [trained.rate(step) for step in range(trained.steps)]
    peak = rates.index(max(rates))
    assert max(rates) == 1.0
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 0.2
    assert trained.rate(trained.steps) == pytest.approx(0)


def test_layers_near_the_pixels_learn_slower(module) -> None:
    backbone = bare_backbone("mobilenetv3_small_050", Fit(32, 32))
    stages = depths(backbone)
    assert stages["conv_stem.weight"] < stages["blocks.0.0.conv_dw.weight"] < stages["blocks.5.0.conv.weight"]
    trained = module(backbone, backbone.num_features, layer_decay=0.5, lr=1.0, backbone_lr=0.1)
    rates = {id(parameter): group["peak"] for group in trained.configure_optimizers().param_groups
             for parameter in group["params"]}  # fmt: skip
    named = {name: rates[id(parameter)] for name, parameter in trained.net.named_parameters()}
    assert named["heads.disease.weight"] == 1.0
    assert named["backbone.conv_stem.weight"] == pytest.approx(0.1 * 0.5 ** max(stages.values()))
    assert max(rate for name, rate in named.items() if name.startswith("backbone.")) == pytest.approx(0.1)


def test_norms_and_biases_do_not_decay(module) -> None:
    for group in module().configure_optimizers().param_groups:
        assert (group["weight_decay"] > 0) == all(parameter.ndim > 1 for parameter in group["params"])


def test_the_loss_of_a_blend_is_the_blend_of_losses(module, batch) -> None:
    trained = module(mixup=0.4)
    mixed = mix(batch, trained.plan, step=0)
    trained.eval()
    logits = trained.net(mixed.image)
    expected = sum(
        share * trained._loss(logits, truth) for truth, share in zip(mixed.labels, mixed.shares, strict=True)
    )
    torch.manual_seed(1)
    assert torch.isclose(trained.training_step(batch, 0), expected)


def test_dropout_is_a_function_of_seed_and_step(module, batch) -> None:
    trained = module()
    trained.net.dropout.p = 0.5
    losses = []
    for trained.step in (3, 4, 3):
        losses.append(float(trained.training_step(batch, 0).detach()))
    assert losses[0] == losses[2] != losses[1]


def test_the_moving_average_is_evaluated_once_there_is_one(module) -> None:
    trained = module(ema=0.5)
    assert trained.averaged_net is trained.net
    with torch.no_grad():
        for value in (1.0, 3.0):
            trained.net.heads["disease"].bias.fill_(value)
            trained.finish_step()
    assert trained.averaged_net is not trained.net
    assert trained.averaged_net.heads["disease"].bias.tolist() == [2.0, 2.0]
    assert module(ema=0.0).average is None


def test_missing_labels_and_shifts_reach_the_loss(module, batch) -> None:
    unlabelled = batch | {"severity": torch.full((4,), math.nan)}
    plain, shifted = module(), module(class_logits={"disease": (0.0, -3.0)})
    assert float(plain.training_step(unlabelled, 0).detach()) != float(shifted.training_step(unlabelled, 0).detach())


def test_sampled_classes_are_not_weighted_too(module, batch) -> None:
    """Class weights set either how often photos are drawn or their weight in the loss."""
    weights = {"disease": (1.0, 9.0)}
    even, drawn, weighed = (
        float(module(class_weights=weights, balance=balance).training_step(batch, 0).detach())
        for balance in ("off", "sampling", "weights")
    )
    assert drawn == even
    assert weighed != even
