"""Networks that only embed, in onnxruntime: on a processor it needs 0.6 of torch's time.

`python -m plantml.train.embedder OUT` exports the pretrained backbone. Curation runs this in a subprocess, once per
machine, and so never imports torch itself.
"""

import copy
import json
import sys

import torch
from torch import Tensor, nn

from plantml import storage
from plantml.export.onnx import trace
from plantml.imaging import Fit
from plantml.model.contract import Architecture
from plantml.model.network import PlantNet
from plantml.model.runtimes import OnnxRuntime
from plantml.train import weights

FIT = Fit(224, 224)


class _Embedder(nn.Module):
    def __init__(self, net: PlantNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        return self.net.embed(image)


def frozen(net: PlantNet, fit: Fit) -> OnnxRuntime:
    """What computes the output `embedding` of a network as it is now, for photos at the size of `fit`."""
    # The exporter changes the module that it is given.
    alone = copy.deepcopy(net).to(memory_format=torch.contiguous_format)
    with torch.inference_mode():
        return OnnxRuntime(trace(_Embedder(alone).eval(), fit, ["embedding"], {}))


def _pretrained() -> PlantNet:
    backbone = weights.backbone(weights.DEFAULT, weights.Weights(), FIT, drop_path=0.0, offline=True)
    mean, std = weights.statistics(weights.DEFAULT)
    architecture = Architecture(backbone=weights.DEFAULT, embedding=1, mean=mean, std=std, bank=0)
    return PlantNet(architecture, (), backbone)


def main(out: str) -> None:
    """Write the file atomically."""
    with torch.inference_mode():
        metadata = {"plantml_backbone": weights.DEFAULT, "plantml_fit": json.dumps([FIT.height, FIT.width, FIT.mode])}
        storage.write(out, trace(_Embedder(_pretrained()).eval(), FIT, ["embedding"], metadata))


if __name__ == "__main__":
    main(sys.argv[1])
