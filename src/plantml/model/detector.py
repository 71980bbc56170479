"""The detection network as plain torch: a backbone, a top-down path to one fine map, and a centre head.

Each cell of the map says how likely the centre of an object lies in it, how far the object reaches to each side, and
what it is, as in "Objects as Points" (Zhou et al. 2019), with distances to the four sides as in "Training-Time-Friendly
Network for Real-Time Object Detection" (Liu et al. 2020). An object is a local maximum. Large objects may have two: a
box that lies on a better one is left out, inside the graph, which returns finished boxes.

Nothing here knows of Lightning. `CentreNet` is what is trained; `DeployedDetector` is what is exported and run.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from plantml.model import anomaly, network
from plantml.model.anomaly import DeployedAnomaly
from plantml.model.contract import Architecture, Combinations, Contract, Detection
from plantml.model.network import Calibrated, Deployed, PhotoNet, bare_features, load_checked
from plantml.targets import Target

STRIDE = 4
"""Pixels of the input per cell of the map."""

LEVELS = (4, 8, 16, 32)
"""Strides of the backbone's maps that are used."""

_RARE = -4.6
"""Logit of the centre score before training: one cell in a hundred."""

_HALF = 1.4
"""Logarithm of the distance to a side before training, in cells: boxes of about 32 pixels."""

_FARTHEST = 7.0
"""Largest logarithm of a distance in cells, so that an untrained network gives finite numbers."""


class CentreNet(PhotoNet):
    """A timm backbone, a top-down path, and a head per output.

    Args:
        architecture: `embedding` is the number of channels of the map.
        targets: what to predict of each box, in order; may be empty.
        backbone: the network itself; built by name, without weights, if not given.

    Attributes:
        has_fixed_statistics: batch statistics of the backbone stay as they are in training.
    """

    def __init__(
        self, architecture: Architecture, targets: Sequence[Target], backbone: nn.Module | None = None
    ) -> None:
        super().__init__(architecture, targets)
        self.has_fixed_statistics = False
        self.backbone = backbone if backbone is not None else bare_features(architecture.backbone, LEVELS)
        width = architecture.embedding
        # Attributes of timm's feature extractors, which nn.Module does not declare.
        channels: list[int] = self.backbone.feature_info.channels()  # type: ignore[union-attr, operator]
        self.laterals = nn.ModuleList(_convolution(each, width, 1) for each in channels)
        self.merges = nn.ModuleList(_separable(width) for _ in channels[1:])
        self.heads = nn.ModuleDict({"centre": _head(width, 1), "sides": _head(width, 4)})
        self.heads.update({f"target_{target.name}": _head(width, target.size) for target in targets})
        nn.init.constant_(_bias(self.heads["centre"]), _RARE)
        nn.init.constant_(_bias(self.heads["sides"]), _HALF)

    def train(self, mode: bool = True) -> "CentreNet":  # noqa: FBT001, FBT002 - torch's signature
        """Set training or evaluation mode; see `has_fixed_statistics`."""
        super().train(mode)
        if self.has_fixed_statistics:
            for module in self.backbone.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """The maps for photos, uint8 RGB [N, H, W, 3], where h = H / 4 and w = W / 4. See `maps`."""
        return self.maps(self.features(image))

    def features(self, image: Tensor) -> dict[str, Tensor]:
        """What the last layer of each head reads, by head: [N, channels, h, w], of photos as `forward` takes them."""
        maps: list[Tensor] = [
            lateral(level) for lateral, level in zip(self.laterals, self.backbone(self.normalised(image)), strict=True)
        ]
        merged = maps[-1]
        for lower, merge in zip(reversed(maps[:-1]), self.merges, strict=True):
            merged = merge(lower + functional.interpolate(merged, scale_factor=2.0, mode="nearest"))
        return {name: head[1](head[0](merged)) for name, head in self.heads.items()}  # type: ignore[index]

    def maps(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The maps of features.

        Returns:
            `centre` logits [N, 1, h, w]; `sides` [N, 4, h, w], distances from the cell's middle to the left, top, right
            and bottom of its object, in pixels of the input; and logits (values in their unit) `target.<name>`
            [N, classes, h, w].
        """
        last = {name: head[2](features[name]) for name, head in self.heads.items()}  # type: ignore[index]
        sides = last["sides"].clamp(max=_FARTHEST).exp() * STRIDE
        outputs = {"centre": last["centre"], "sides": sides}
        for target in self.targets:
            outputs[f"target.{target.name}"] = self.in_units(target, last[f"target_{target.name}"])
        return outputs


class DeployedDetector(Calibrated):
    """A trained detector and all post-processing of its maps, in one graph.

    Args:
        net: the trained network.
        detection: number of boxes, and the calibration of their scores.
        temperatures: see `Calibrated`; likewise the others.
        combinations: of classes that can be predicted.
        biases: by target and class.
    """

    net: CentreNet

    def __init__(
        self,
        net: CentreNet,
        detection: Detection,
        temperatures: Mapping[str, float],
        combinations: Combinations | None = None,
        biases: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        super().__init__(net, temperatures, combinations, biases)
        self.detection = detection

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs, in their order."""
        return ["boxes", "score", *(f"target.{target.name}" for target in self.net.targets)]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Boxes of photos, uint8 RGB [N, H, W, 3], best first.

        Returns:
            `boxes` float32 [N, K, 4]: x, y, width and height in pixels of the input, within it; `score` [N, K], the
            probability that there is such an object, 0 for rows without one; and probabilities or values
            [N, K, classes] of each target.
        """
        return self.finished(self.net(image), *image.shape[1:3])

    def finished(self, maps: Mapping[str, Tensor], height: int, width: int) -> tuple[Tensor, ...]:
        """The same of maps of photos of a size."""
        boxes, score, logits = self.decode(maps, height, width)
        answers = self.answers({name: each.flatten(0, 1) for name, each in logits.items()})
        return (boxes, score, *(answers[target.name].view(*score.shape, -1) for target in self.net.targets))

    def decode(self, maps: Mapping[str, Tensor], height: int, width: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Boxes [N, K, 4], scores [N, K] and logits [N, K, classes] by target, of the maps of photos of a size."""
        centre = maps["centre"]
        is_peak = functional.max_pool2d(centre, 3, stride=1, padding=1) == centre
        calibrated = (centre * self.detection.slope + self.detection.offset).sigmoid()
        scores = torch.where(is_peak, calibrated, torch.zeros_like(calibrated)).flatten(1)
        score, place = scores.topk(self.detection.boxes, dim=1)
        columns = centre.shape[3]
        x = (place % columns).to(score.dtype) * STRIDE + STRIDE / 2
        y = torch.div(place, columns, rounding_mode="floor").to(score.dtype) * STRIDE + STRIDE / 2
        left, top, right, bottom = _at(maps["sides"], place).unbind(dim=2)
        x1, y1 = (x - left).clamp(0, width), (y - top).clamp(0, height)
        x2, y2 = (x + right).clamp(0, width), (y + bottom).clamp(0, height)
        boxes = torch.stack([x1, y1, x2 - x1, y2 - y1], dim=2)
        if self.detection.overlap is not None:
            is_second = _overlap_with_better(boxes) >= self.detection.overlap
            score, order = torch.where(is_second, torch.zeros_like(score), score).topk(self.detection.boxes, dim=1)
            boxes, place = boxes.gather(1, order.unsqueeze(2).expand(-1, -1, 4)), place.gather(1, order)
        logits = {target.name: _at(maps[f"target.{target.name}"], place) for target in self.net.targets}
        return boxes, score, logits


def _overlap_with_better(boxes: Tensor) -> Tensor:
    """The largest IoU of each box [N, K, 4], best first, with one before it: [N, K] ("YOLACT", Bolya et al. 2019)."""
    low, sides = boxes[..., :2], boxes[..., 2:]
    high, area = low + sides, sides.prod(dim=2)
    shared = torch.minimum(high.unsqueeze(1), high.unsqueeze(2)) - torch.maximum(low.unsqueeze(1), low.unsqueeze(2))
    both = shared.clamp_min(0).prod(dim=3)
    overlaps = both / (area.unsqueeze(1) + area.unsqueeze(2) - both).clamp_min(1e-6)
    return overlaps.triu(1).amax(dim=1)


def _at(values: Tensor, place: Tensor) -> Tensor:
    """The values of a map [N, C, h, w] at places [N, K] of its flattened cells: [N, K, C]."""
    flat = values.flatten(2)
    return flat.gather(2, place.unsqueeze(1).expand(-1, flat.shape[1], -1)).transpose(1, 2)


def _convolution(inputs: int, outputs: int, size: int, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, padding=size // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)
    )


def _separable(width: int) -> nn.Sequential:
    """A 3 x 3 convolution in depth, then one across channels (MobileNet, Howard et al. 2017)."""
    return nn.Sequential(
        _convolution(width, width, 3, groups=width), nn.ReLU(), _convolution(width, width, 1), nn.ReLU()
    )


def _head(width: int, outputs: int) -> nn.Sequential:
    # A full convolution: with a separable one, boxes fit markedly worse (AP 0.26 instead of 0.30 on apples).
    return nn.Sequential(_convolution(width, width, 3), nn.ReLU(), nn.Conv2d(width, outputs, 1))


def _bias(head: nn.Module) -> Tensor:
    last = head[-1]  # type: ignore[index]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    return last.bias


def rebuild(contract: Contract, weights: Mapping[str, Tensor]) -> Deployed | DeployedDetector | DeployedAnomaly:
    """The deployed network of any contract and its weights, in evaluation mode. Raises as `network.rebuild`."""
    detection = contract.detection
    if contract.anomaly is not None:
        return anomaly.rebuild(contract, weights)
    if detection is None:
        return network.rebuild(contract, weights)

    def build() -> DeployedDetector:
        net = CentreNet(contract.architecture, contract.heads)
        return DeployedDetector(net, detection, contract.temperatures, contract.combinations, contract.biases)

    return load_checked(build, weights)
