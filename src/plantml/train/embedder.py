"""`python -m plantml.train.embedder OUT`: export the pretrained backbone as an ONNX file that returns embeddings.

Curation runs this in a subprocess, once per machine, and so never imports torch itself.
"""

import json
import sys

import torch
from torch import Tensor, nn

from plantml import storage
from plantml.export.onnx import trace
from plantml.imaging import Fit
from plantml.model.contract import Architecture
from plantml.model.network import PlantNet
from plantml.train import weights

FIT = Fit(224, 224)


class _Embedder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        backbone = weights.backbone(weights.DEFAULT, weights.Weights(), FIT, drop_path=0.0, offline=True)
        mean, std = weights.statistics(weights.DEFAULT)
        architecture = Architecture(backbone=weights.DEFAULT, embedding=1, mean=mean, std=std, bank=0)
        self.net = PlantNet(architecture, (), backbone)

    def forward(self, image: Tensor) -> Tensor:
        return self.net.embed(image)


def main(out: str) -> None:
    """Write the file atomically."""
    with torch.inference_mode():
        metadata = {"plantml_backbone": weights.DEFAULT, "plantml_fit": json.dumps([FIT.height, FIT.width, FIT.mode])}
        storage.write(out, trace(_Embedder().eval(), FIT, ["embedding"], metadata))


if __name__ == "__main__":
    main(sys.argv[1])
