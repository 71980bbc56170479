"""The network that finds what is unlike normal photos, by the features that a frozen backbone has of them.

The photo as a whole is judged by the Mahalanobis distance of the mean of each map to those of normal photos (Rippel et
al. 2021, "Modeling the distribution of normal data in pre-trained deep features for anomaly detection"), of whichever
class of them, such as a crop, is nearest, in units of how far normal photos of that class lie from their mean (Lee et
al. 2018, "A simple unified framework for detecting out-of-distribution samples and adversarial attacks").

Its parts are judged as in PatchCore (Roth et al. 2022, "Towards total recall in industrial anomaly detection"): each
cell of the maps, averaged with its neighbours, is compared with a bank of cells of normal photos. PatchCore judges a
photo by its farthest cell; in photos of plants that is often soil or a shadow, and the first way is right far more
often (docs/anomaly.md).

Nothing here knows of Lightning. `PatchNet` gives the features; `DeployedAnomaly` is what is exported and run.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from plantml.model.contract import Architecture, Contract
from plantml.model.network import PhotoNet, bare_features, load_checked

_CHUNK = 1000
"""Cells of the bank that are compared at a time, so that memory does not grow with the bank."""


class PatchNet(PhotoNet):
    """A timm backbone whose maps of several levels are joined, cell by cell.

    Args:
        architecture: `embedding` is the number of features of a cell.
        levels: strides of the maps, rising; cells have the first one.
        backbone: the network itself; built by name, without weights, if not given.

    Attributes:
        channels: features of each level.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, architecture: Architecture, levels: Sequence[int], backbone: nn.Module | None = None) -> None:
        super().__init__(architecture, ())
        self.backbone = backbone if backbone is not None else bare_features(architecture.backbone, levels)
        # An attribute of timm's feature extractors, which nn.Module does not declare.
        self.channels: list[int] = self.backbone.feature_info.channels()  # type: ignore[union-attr, operator]
        # Mean and inverse deviation of each feature in normal cells: some channels of a backbone are far larger.
        self.register_buffer("centre", torch.zeros(architecture.embedding))
        self.register_buffer("scale", torch.ones(architecture.embedding))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Features of photos, uint8 RGB [N, H, W, 3].

        Returns:
            `whole`, the mean of each map: float32 [N, D]; `cells`, of each cell: [N, h, w, D].
        """
        maps: list[Tensor] = self.backbone(self.normalised(image))
        whole = torch.cat([each.mean(dim=(2, 3)) for each in maps], dim=1)
        averaged = [functional.avg_pool2d(each, 3, stride=1, padding=1, count_include_pad=False) for each in maps]
        size = averaged[0].shape[2:]
        finer = [functional.interpolate(each, size, mode="bilinear", align_corners=False) for each in averaged[1:]]
        cells = torch.cat([averaged[0], *finer], dim=1).permute(0, 2, 3, 1)
        return {"whole": whole, "cells": (cells - self.centre) * self.scale}


class DeployedAnomaly(nn.Module):
    """A `PatchNet`, what it knows of normal photos, and the thresholds, in one graph.

    Args:
        net: gives the features.
        bank: normal cells [M, D].
        distance: of a photo at which its score is one half.
        cell_distance: of a cell, likewise.
        classes: K, of normal photos; each has a mean of its own.

    Attributes:
        means: of `whole` over the normal photos of each class: [K, D].
        spread: by level, the distance of these from their mean: [K, L].
        whitening_0, …: by level, what makes differences from a mean Mahalanobis distances: [C, C].
    """

    bank: Tensor
    means: Tensor
    spread: Tensor

    def __init__(
        self, net: PatchNet, bank: Tensor, distance: float = 1.0, cell_distance: float = 1.0, classes: int = 1
    ) -> None:
        super().__init__()
        self.net, self.distance, self.cell_distance = net, distance, cell_distance
        self.register_buffer("bank", bank)
        self.register_buffer("means", torch.zeros(classes, sum(net.channels)))
        self.register_buffer("spread", torch.ones(classes, len(net.channels)))
        for level, channels in enumerate(net.channels):
            self.register_buffer(f"whitening_{level}", torch.eye(channels))

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs, in their order."""
        return ["score", "heat_map"]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs for photos, uint8 RGB [N, H, W, 3], between 0 (normal) and 1, where 0.5 is the threshold.

        Returns:
            `score` float32 [N], of each photo as a whole; `heat_map` [N, h, w], of each of its cells.
        """
        features = self.net(image)
        photo, cells = self.photo_distances(features["whole"]), self.cell_distances(features["cells"])
        return scored(photo, self.distance), scored(cells, self.cell_distance)

    def photo_distances(self, whole: Tensor) -> Tensor:
        """Distance of photos to the nearest class of normal ones [N], from the means of their maps [N, D]."""
        levels, middle = [], self.means.mean(dim=0)
        parts, means = (torch.split(each - middle, self.net.channels, dim=1) for each in (whole, self.means))
        for level, (part, mean) in enumerate(zip(parts, means, strict=True)):
            whitening = self.get_buffer(f"whitening_{level}")
            # Divided before the sum: OpenVINO 2026 computes sqrt(sum) / spread wrongly for all rows but the first.
            white = ((part @ whitening)[:, None] - mean @ whitening) / self.spread[:, level, None]
            levels.append((white * white).sum(dim=2).sqrt())
        return torch.stack(levels).mean(dim=0).amin(dim=1)

    def cell_distances(self, cells: Tensor) -> Tensor:
        """Euclidean distance of cells [N, h, w, D] to the nearest of the bank: [N, h, w]."""
        nearest = None
        for normal in torch.split(self.bank, _CHUNK):
            # |a - b|² less |a|², which is the same for all of the bank
            relative = ((normal * normal).sum(dim=1) - 2 * (cells @ normal.T)).amin(dim=-1)
            nearest = relative if nearest is None else torch.minimum(nearest, relative)
        assert nearest is not None  # a bank has cells
        distances: Tensor = (nearest + (cells * cells).sum(dim=-1)).clamp(min=0).sqrt()
        return distances


F = TypeVar("F", Tensor, NDArray[np.float32])


def scored(distances: F, threshold: float) -> F:
    """Distances as scores from 0 to 1, which are one half at the threshold: d² / (d² + threshold²)."""
    ratio = distances / threshold
    squares: F = ratio * ratio
    return squares / (squares + 1)


def rebuild(contract: Contract, weights: Mapping[str, Tensor]) -> DeployedAnomaly:
    """The deployed network of a contract and its weights, in evaluation mode. Raises as `network.load_checked`."""
    anomaly, architecture = contract.anomaly, contract.architecture
    assert anomaly is not None

    def build() -> DeployedAnomaly:
        net = PatchNet(architecture, anomaly.levels)
        bank = torch.zeros(architecture.bank, architecture.embedding)
        return DeployedAnomaly(net, bank, anomaly.distance, anomaly.cell_distance, len(anomaly.classes or [""]))

    return load_checked(build, weights)
