"""The loop that everybody writes first: a DataLoader of Pillow images and a torch network."""

import multiprocessing
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.data import create_dataset, create_loader, resolve_data_config
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from bench.side import Rounds
from plantml.model import bundle as bundles
from plantml.model import network
from plantml.registry import references
from plantml.settings import usable_cores
from plantml.train.allocator import keep_freed_memory

_MEAN, _STD = torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.5)


class Files(Dataset[Tensor]):
    """Photos, float32 [3, 224, 224]."""

    def __init__(self, folder: str) -> None:
        self.paths = sorted(Path(folder).iterdir())

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        image = Image.open(self.paths[index]).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        return (pixels.float() / 255 - _MEAN) / _STD


class Uint8Files(Files):
    """Photos, uint8 [3, 224, 224], by torchvision v2."""

    def __getitem__(self, index: int) -> Tensor:
        image = decode_image(str(self.paths[index]), ImageReadMode.RGB)
        return resize(image, [224, 224], InterpolationMode.BICUBIC, antialias=True)


class Classifier(nn.Module):
    """Backbone and heads, float32 [N, 3, H, W] in."""

    def __init__(self, net: network.PlantNet) -> None:
        super().__init__()
        self.backbone, self.heads = net.backbone, net.heads

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.backbone(images)
        return [head(features) for head in self.heads.values()]


def _normalised(batch: Tensor) -> Tensor:
    return batch if batch.is_floating_point() else (batch.float() / 255 - _MEAN) / _STD


def detect(rounds: Rounds, *, folder: str, model: str, tuned: bool = False, reader: str = "Pillow") -> None:
    """All photos of the folder through the network of the bundle.

    Args:
        rounds: the conversation.
        folder: of photos.
        model: a bundle.
        tuned: the allocator's settings that `plantml train` makes; else nothing.
        reader: of photos, `Pillow` or `torchvision`.
    """
    if tuned:
        keep_freed_memory()
    contract = references.find(model).contract
    net = Classifier(network.rebuild(contract, load_file(f"{model}/{bundles.WEIGHTS}")).net).eval()
    files = {"Pillow": Files, "torchvision": Uint8Files}[reader](folder)
    loader = DataLoader(files, 32, num_workers=usable_cores(), persistent_workers=True)

    def work() -> int:
        batches = iter(loader)
        rounds.helpers = [worker.pid or 0 for worker in multiprocessing.active_children()]
        with torch.no_grad():
            return sum(len(net(_normalised(batch))[0]) for batch in batches)

    rounds.run(work)


def timm_inference(rounds: Rounds, *, folder: str, model: str) -> None:
    """All photos of the folder through timm's loader and the network of the bundle.

    The loop of `inference.py` of huggingface/pytorch-image-models, which is not in the package: dataset, transforms,
    loader with its prefetching, and the centre crop are the package's, in batches of 32, channels-last.

    Args:
        rounds: the conversation.
        folder: of photos.
        model: a bundle.
    """
    keep_freed_memory()
    contract = references.find(model).contract
    net = Classifier(network.rebuild(contract, load_file(f"{model}/{bundles.WEIGHTS}")).net).eval()
    net.to(memory_format=torch.channels_last)
    config = resolve_data_config({}, model=timm.create_model(contract.architecture.backbone))
    loader = create_loader(
        create_dataset("", root=folder, class_map=""), config["input_size"], 32, is_training=False,
        interpolation=config["interpolation"], mean=config["mean"], std=config["std"], crop_pct=config["crop_pct"],
        num_workers=usable_cores(), persistent_workers=True, device=torch.device("cpu"),
    )  # fmt: skip

    def work() -> int:
        batches = iter(loader)
        rounds.helpers = [worker.pid or 0 for worker in multiprocessing.active_children()]
        with torch.inference_mode():
            return sum(len(net(batch.contiguous(memory_format=torch.channels_last))[0]) for batch, _ in batches)

    rounds.run(work)
