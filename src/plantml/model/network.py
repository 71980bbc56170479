"""The network as plain torch: backbone, one head per target, and the calibrated outputs.

Nothing here knows of Lightning. `PlantNet` is what is trained; `Deployed` is what is exported and run. `detector` has
the same of boxes.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from plantml.errors import InputError
from plantml.imaging import Fit
from plantml.model.bundle import WEIGHTS
from plantml.model.contract import Architecture, Combinations, Contract
from plantml.model.covariates import Covariate
from plantml.targets import Target, tied, valid_combinations

_AGAIN = "Fetch the model again, or use the version of timm that it was trained with."

HIDDEN = 32
"""Width of the hidden layer of covariates."""

NEIGHBOURS = 5
"""Number of nearest training embeddings in the unknown score."""


class PhotoNet(nn.Module):
    """A network with uint8 photos as input, which it normalises itself, and with targets.

    Args:
        architecture: whose mean and deviation of pixels hold.
        targets: what to predict, in order.
    """

    backbone: nn.Module
    heads: nn.ModuleDict
    mean: Tensor
    std: Tensor

    def __init__(self, architecture: Architecture, targets: Sequence[Target]) -> None:
        super().__init__()
        self.targets = tuple(targets)
        scalar = len(set(architecture.mean)) == 1 and len(set(architecture.std)) == 1
        # One number instead of three keeps the graph's arithmetic a single multiply-add.
        mean = architecture.mean[:1] if scalar else architecture.mean
        std = architecture.std[:1] if scalar else architecture.std
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        for target in targets:
            if target.kind == "value":
                # Mean and deviation of the training labels, of which the head learns what remains, and
                # their smallest and largest, beyond which no answer would be more than a guess.
                scale = torch.tensor([0.0, 1.0, -torch.inf, torch.inf])
                self.register_buffer(f"scale_{target.name}", scale)

    def normalised(self, image: Tensor) -> Tensor:
        """Photos, uint8 RGB [N, H, W, 3], as input of a backbone: float32 [N, 3, H, W]."""
        pixels = image.permute(0, 3, 1, 2).to(self.mean.dtype)
        normal: Tensor = pixels * (1 / (255 * self.std)) - self.mean / self.std
        return normal

    def in_units(self, target: Target, output: Tensor) -> Tensor:
        """The output of a head; of a value, in its unit."""
        if target.kind != "value":
            return output
        mean, std, _, _ = self.get_buffer(f"scale_{target.name}")
        value: Tensor = output * std + mean
        return value

    def scales(self) -> dict[str, Tensor]:
        """Deviation of the training labels, a scalar, by value target."""
        values = (target.name for target in self.targets if target.kind == "value")
        return {name: self.get_buffer(f"scale_{name}")[1] for name in values}


class CovariateNet(nn.Module):
    """What covariates add to the logits of the photo: a hidden layer over them, and a linear layer per target.

    A number is clamped to its range in training and standardised; a class is one-hot; a missing one is all zeros. Where
    all are missing, nothing is added.

    Args:
        covariates: in the order of the columns.
        targets: what to predict.
    """

    def __init__(self, covariates: Sequence[Covariate], targets: Sequence[Target]) -> None:
        super().__init__()
        self.covariates = tuple(covariates)
        width = sum(len(covariate.classes) if covariate.classes else 2 for covariate in covariates)
        self.hidden = nn.Linear(width, HIDDEN)
        self.heads = nn.ModuleDict({target.name: nn.Linear(HIDDEN, target.size, bias=False) for target in targets})
        for head in self.heads.values():
            nn.init.zeros_(head.get_parameter("weight"))

    def encode(self, values: Tensor, known: Tensor) -> Tensor:
        """Encoded covariates [N, width], of values and known [N, C], see `covariates.VALUES` and `covariates.KNOWN`."""
        parts = []
        for at, covariate in enumerate(self.covariates):
            value, is_known = values[:, at : at + 1], known[:, at : at + 1]
            if covariate.classes:
                numbers = torch.arange(len(covariate.classes), device=values.device, dtype=values.dtype)
                parts.append((value == numbers).to(values.dtype) * is_known)
            else:
                assert covariate.mean is not None
                assert covariate.std is not None
                # OpenVINO joins a difference and a quotient into value / std - mean / std, whose digits cancel out
                # where the mean is large, as of coordinates; not with the clamp between them.
                low, mean, high = np.array([covariate.low, covariate.mean, covariate.high], np.float32)
                distance = (value - float(mean)).clamp(float(low - mean), float(high - mean))
                parts += [distance / covariate.std * is_known, is_known]
        return torch.cat(parts, dim=1)

    def forward(self, encoded: Tensor) -> dict[str, Tensor]:
        """What is added to the output of each head, by target, of encoded covariates [N, width]."""
        any_known = (encoded.abs().amax(dim=1, keepdim=True) > 0).to(encoded.dtype)
        hidden = self.hidden(encoded).relu() * any_known
        return {name: head(hidden) for name, head in self.heads.items()}


class PlantNet(PhotoNet):
    """A timm backbone, a linear head per target, and what covariates add to the heads.

    Args:
        architecture: see `contract.Architecture`.
        targets: what to predict, in order.
        backbone: the network itself, see `bare_backbone`.
        dropout: share of embedding features dropped before the heads while training.
        covariates: measured columns that may come with a photo.
    """

    def __init__(
        self,
        architecture: Architecture,
        targets: Sequence[Target],
        backbone: nn.Module,
        dropout: float = 0.0,
        covariates: Sequence[Covariate] = (),
    ) -> None:
        super().__init__(architecture, targets)
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleDict({target.name: nn.Linear(architecture.embedding, target.size) for target in targets})
        self.covariates = CovariateNet(covariates, targets) if covariates else None

    @property
    def layers_after_embedding(self) -> nn.ModuleList:
        """All that is not the backbone."""
        return nn.ModuleList([self.heads, *([self.covariates] if self.covariates else [])])

    def embed(self, image: Tensor) -> Tensor:
        """Embeddings, float32 [N, D], of photos, uint8 RGB [N, H, W, 3]."""
        features: Tensor = self.backbone(self.normalised(image))
        return features

    def encode(self, columns: Tensor) -> Tensor | None:
        """Encoded covariates of columns, float32 [N, C] with NaN where missing; `None` of a network without any."""
        if self.covariates is None:
            return None
        missing = columns.isnan()
        encoded: Tensor = self.covariates.encode(columns.masked_fill(missing, 0), (~missing).to(columns.dtype))
        return encoded

    def classify(self, embedding: Tensor, covariates: Tensor | None = None) -> dict[str, Tensor]:
        """Logits [N, classes], or values [N, 1] in their unit, by target.

        Args:
            embedding: of the photos, [N, D].
            covariates: encoded; `None` for the photos alone.
        """
        dropped = self.dropout(embedding)
        outputs = {target.name: self.heads[target.name](dropped) for target in self.targets}
        if self.covariates is not None and covariates is not None:
            added = self.covariates(covariates)
            outputs = {name: output + added[name] for name, output in outputs.items()}
        return {target.name: self.in_units(target, outputs[target.name]) for target in self.targets}

    def forward(self, image: Tensor, covariates: Tensor | None = None) -> dict[str, Tensor]:
        """Logits, float32 [N, classes] by target, of photos, uint8 RGB [N, H, W, 3]; see `classify`."""
        return self.classify(self.embed(image), covariates)


def probabilities(target: Target, logits: Tensor) -> Tensor:
    """Uncalibrated probabilities [N, classes], or values [N, 1], of one target's logits."""
    if target.kind == "value":
        return logits
    return logits.softmax(dim=1) if target.kind == "class" else logits.sigmoid()


class Calibrated(nn.Module):
    """A trained network with the post-processing of its heads.

    Probabilities are calibrated (see `temperature`), and health and disease are made consistent.

    Args:
        net: the trained network.
        temperatures: what logits are divided by, by target.
        combinations: the only ones that can be predicted; by default, consistent health and disease.
        biases: added to the divided logits, one number per class, by target.
    """

    combinations: Tensor

    def __init__(
        self,
        net: PhotoNet,
        temperatures: Mapping[str, float],
        combinations: Combinations | None = None,
        biases: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.temperatures = dict(temperatures)
        self.biased = tuple(biases or ())
        for name, numbers in (biases or {}).items():
            self.register_buffer(f"bias_{name}", torch.tensor(numbers, dtype=torch.float32), persistent=False)
        self.seen = Seen(net.targets, combinations) if combinations else None
        self.pair = None if self.seen else tied(net.targets)
        if self.pair:
            valid = torch.from_numpy(valid_combinations(*self.pair)).float()
            self.register_buffer("combinations", valid, persistent=False)

    def answers(self, logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Calibrated probabilities [N, classes], or values [N, 1] within the training labels' range, by target."""
        scaled = dict(logits)
        for target in self.net.targets:
            if target.kind != "value":
                scaled[target.name] = logits[target.name] / self.temperatures.get(target.name, 1.0)
            if target.name in self.biased:
                scaled[target.name] = scaled[target.name] + self.get_buffer(f"bias_{target.name}")
        return self.answers_of(scaled)

    def answers_of(self, scaled: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Predictions from scaled logits."""
        answers = {}
        for target in self.net.targets:
            if target.kind == "class":
                answers[target.name] = scaled[target.name].softmax(dim=1)
            elif target.kind == "multilabel":
                answers[target.name] = scaled[target.name].sigmoid()
            else:
                _, _, low, high = self.net.get_buffer(f"scale_{target.name}")
                answers[target.name] = torch.minimum(torch.maximum(scaled[target.name], low), high)
        if self.pair:
            health, disease = (target.name for target in self.pair)
            answers[health], answers[disease] = consistent(answers[health], answers[disease], self.combinations)
        return answers if self.seen is None else answers | self.seen(answers)


class Deployed(Calibrated):
    """A trained classifier and all post-processing of its logits, in one graph.

    `unknown` is one minus the mean cosine to the five nearest training embeddings (k-nearest neighbours, Sun et al.
    2022, "Out-of-distribution detection with deep nearest neighbors").

    Args:
        net: the trained network.
        temperatures: see `Calibrated`.
        bank: training embeddings [M, D].
        combinations: see `Calibrated`.
        biases: see `Calibrated`.
    """

    net: PlantNet
    bank: Tensor

    def __init__(
        self,
        net: PlantNet,
        temperatures: Mapping[str, float],
        bank: Tensor,
        combinations: Combinations | None = None,
        biases: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        super().__init__(net, temperatures, combinations, biases)
        self.register_buffer("bank", functional.normalize(bank.float(), dim=1))

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs, in their order."""
        return [*(f"target.{target.name}" for target in self.net.targets), "embedding", "unknown"]

    def forward(self, image: Tensor, values: Tensor | None = None, known: Tensor | None = None) -> tuple[Tensor, ...]:
        """Outputs for photos, uint8 RGB [N, H, W, 3]: one tensor per target, the embedding, `unknown` [N].

        `values` and `known` are `covariates.VALUES` and `covariates.KNOWN`, of a network that takes them.
        """
        embedding = self.net.embed(image)
        *answers, unknown = self.after_embedding(embedding, values, known)
        return (*answers, embedding, unknown)

    def after_embedding(
        self, embedding: Tensor, values: Tensor | None = None, known: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Outputs for embeddings [N, D]: one tensor per target, `unknown` [N]. `values` and `known` as in `forward`."""
        encoded = None
        if self.net.covariates is not None and values is not None and known is not None:
            encoded = self.net.covariates.encode(values, known)
        answers = self.answers(self.net.classify(embedding, encoded))
        return (*(answers[target.name] for target in self.net.targets), self.unknown(embedding))

    def unknown(self, embedding: Tensor) -> Tensor:
        """How unlike the training photos an embedding is: float32 [N], 0 (the same) to 2."""
        cosine = functional.normalize(embedding, dim=1) @ self.bank.T
        nearest = cosine.topk(min(NEIGHBOURS, self.bank.shape[0]), dim=1).values
        return 1 - _total(nearest) / nearest.shape[1]


class Seen(nn.Module):
    """Restricts class targets to known combinations, by renormalising their joint probability.

    The joint of K combinations is the product of their classes' probabilities; the answer for a class is the sum
    over the combinations that have it.

    Args:
        targets: of the model.
        combinations: names of classes, as the contract has them.
    """

    def __init__(self, targets: Sequence[Target], combinations: Combinations) -> None:
        super().__init__()
        by_name = {target.name: target for target in targets}
        self.names = combinations.targets
        for at, name in enumerate(self.names):
            numbers = [by_name[name].classes.index(combination[at]) for combination in combinations.seen]
            self.register_buffer(f"classes_{name}", torch.tensor(numbers), persistent=False)
            members = [
                [k for k, number_of_k in enumerate(numbers) if number_of_k == number]
                for number in range(by_name[name].size)
            ]
            # Rows of one length, filled up with the number of a column of zeros.
            longest = max(len(row) for row in members)
            filled = [row + [len(numbers)] * (longest - len(row)) for row in members]
            self.register_buffer(f"members_{name}", torch.tensor(filled), persistent=False)

    def forward(self, answers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Probabilities [N, classes] of the combined targets, each summing to one, from those of all targets."""
        each = [answers[name].index_select(1, self.get_buffer(f"classes_{name}")) for name in self.names]
        # As in `consistent`: never 0 / 0, however certain the network is of an unknown combination.
        joint = functools.reduce(torch.mul, each) + torch.finfo(each[0].dtype).tiny
        joint = joint / _total(joint).unsqueeze(1)
        joint = torch.cat([joint, torch.zeros_like(joint[:, :1])], dim=1)
        marginals = {}
        for name in self.names:
            members = self.get_buffer(f"members_{name}")
            parts = joint.index_select(1, members.flatten())
            marginals[name] = _total(parts.view(-1, *members.shape))
        return marginals


def consistent(health: Tensor, disease: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Marginals of the joint probability of health and disease, with impossible pairs taken out.

    Args:
        health: probabilities [N, H].
        disease: probabilities [N, D].
        valid: 1 where a pair can be true, else 0: [H, D].

    Returns:
        Health [N, H] and disease [N, D], each summing to one.
    """
    # The least of all numbers leaves every other as it is, and keeps a contradiction from being 0 / 0.
    joint = (health.unsqueeze(2) * disease.unsqueeze(1) + torch.finfo(health.dtype).tiny) * valid
    of_health, of_disease = _total(joint), _total(joint.transpose(1, 2))
    total = _total(of_health).unsqueeze(1)
    return of_health / total, of_disease / total


def _total(numbers: Tensor) -> Tensor:
    """The sum over the last axis, by additions one after the other.

    How a library's sum rounds depends on the size of the batch; this does not.
    """
    return functools.reduce(torch.add, numbers.unbind(dim=-1))


def check_backbone(name: str) -> None:
    """Raise `ValueError` if timm has no such model."""
    import timm

    if not timm.is_model(name):
        raise ValueError(name)


def bare_backbone(name: str, fit: Fit, *, drop_path: float = 0.0) -> nn.Module:
    """A timm backbone without classifier and without weights, for photos of a size.

    Raises:
        ValueError: timm has no such model.
        InputError: the model cannot take that size.
    """
    import timm

    check_backbone(name)
    options = {"num_classes": 0, "drop_path_rate": drop_path, **size_options(name, fit)}
    try:
        backbone: nn.Module = timm.create_model(name, pretrained=False, **options)
    except AssertionError as error:
        raise _unfit(name, fit, str(error)) from error
    patch = getattr(getattr(backbone, "patch_embed", None), "patch_size", (1, 1))
    if fit.height % patch[0] or fit.width % patch[1]:
        raise _unfit(name, fit, f"it cuts photos into patches of {patch[1]} x {patch[0]}")
    return backbone


def bare_features(name: str, levels: Sequence[int]) -> nn.Module:
    """A timm backbone that returns its maps at some strides, without weights.

    Raises:
        ValueError: timm has no such model.
        InputError: it has no maps at these strides.
    """
    import timm

    check_backbone(name)
    try:
        strides: list[int] = timm.create_model(name, pretrained=False, features_only=True).feature_info.reduction()  # type: ignore[union-attr, operator]
        places = [strides.index(stride) for stride in levels]
        backbone: nn.Module = timm.create_model(name, pretrained=False, features_only=True, out_indices=places)
    except (RuntimeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{name} has no maps of parts of a photo",
            f"boxes and anomalies need them at strides {', '.join(map(str, levels))}",
            "Choose a convolutional backbone.",
        ) from error
    return backbone


def size_options(name: str, fit: Fit) -> dict[str, Any]:
    """Arguments of `timm.create_model` for a size of photos: of transformers, whose positions are learnt by place."""
    import timm

    config: Any = timm.models.get_pretrained_cfg(name)
    return {"img_size": (fit.height, fit.width)} if getattr(config, "fixed_input_size", False) else {}


def _unfit(name: str, fit: Fit, why: str) -> InputError:
    return InputError(f"{name} cannot take photos of {fit.width} x {fit.height} pixels", why, "Choose another --size.")


def read_weights(data: bytes) -> dict[str, Tensor]:
    """The tensors of a bundle's weights by name. Raises `InputError` if they are no safetensors file."""
    try:
        return load(data)
    except (SafetensorError, ValueError, LookupError, RuntimeError) as error:  # a lookup of a type that torch lacks
        raise InputError(f"{WEIGHTS} is not a safetensors file", str(error), _AGAIN) from error


def rebuild(contract: Contract, weights: Mapping[str, Tensor]) -> Deployed:
    """The deployed classifier of a contract and its weights, in evaluation mode. Raises as `load_checked`."""

    def build() -> Deployed:
        backbone = bare_backbone(contract.architecture.backbone, contract.input)
        net = PlantNet(contract.architecture, contract.targets, backbone, covariates=contract.covariates or ())
        bank = torch.zeros(contract.architecture.bank, contract.architecture.embedding)
        return Deployed(net, contract.temperatures, bank, contract.combinations, contract.biases)

    return load_checked(build, weights)


N = TypeVar("N", bound=nn.Module)


def load_checked(build: Callable[[], N], weights: Mapping[str, Tensor]) -> N:
    """A network with the weights of a bundle, in evaluation mode.

    Raises:
        InputError: the weights do not fit the contract, or this timm has no such backbone.
    """
    try:
        network = build()
        network.load_state_dict(dict(weights))
    except (RuntimeError, ValueError, LookupError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError("The weights do not match the model's contract", why, _AGAIN) from error
    for name, tensor in network.state_dict().items():
        if weights[name].dtype != tensor.dtype:
            why = f"{name} is {weights[name].dtype}, and the network has {tensor.dtype}"
            raise InputError("The weights do not match the model's contract", why, _AGAIN)
    return network.eval()
