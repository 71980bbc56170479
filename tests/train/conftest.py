"""What tests of training need: a complete plan, and trainings that end where the test ends."""

import numpy as np
import pytest
import torch

from plantml.imaging import Fit
from plantml.targets import Target
from plantml.train.config import TrainConfig
from plantml.train.plan import Plan


@pytest.fixture(scope="session")
def make_plan():
    """`make_plan(**values)`: the plan of nine photos in batches of four, but for some values."""

    def make(**values: object) -> Plan:
        chosen = {
            "dataset": "", "dataset_version": 1, "fingerprint": "", "asked": {}, "reasons": {}, "preset": "balanced",
            "budget": None, "mode": "finetune", "targets": (Target("disease", "class", ("a", "b")),), "train_photos": 9,
            "val_photos": 1, "backbone": "x", "parent": "", "input": Fit(32, 32), "epochs": 3, "patience": 3,
            "epoch_photos": 9, "batch_size": 4, "lr": 1e-3, "backbone_lr": 1e-3, "layer_decay": 1.0, "ema": 0.0,
            "mixup": 0.0, "augment": 1.0, "views": 6, "balance": "off", "class_weights": {}, "class_logits": {},
            "precision": "32", "workers": 0,
            "device": "cpu", "step_seconds": 0.0, "seconds": 0.0, "versions": {},
        }  # fmt: skip
        fixed = TrainConfig().model_dump()
        return Plan.model_validate({key: fixed[key] for key in Plan.model_fields if key in fixed} | chosen | values)

    return make


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Four photos with a class and a value each."""
    random = np.random.default_rng(0)
    return {
        "image": torch.from_numpy(random.integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)),
        "disease": torch.tensor([0, 1] * 2),
        "severity": torch.linspace(0, 1, 4),
    }


@pytest.fixture
def unexported(monkeypatch):
    """The ONNX file is not what the test is about: tracing the network takes longer than to train a tiny one.

    The bundle is complete but for an empty `model.onnx`; its digest, which is that of contract and tensors, is its own.
    """
    from plantml.train import packaging

    compare = packaging.proof.compare
    monkeypatch.setattr(packaging, "to_onnx", lambda *_: b"")
    monkeypatch.setattr(packaging, "OnnxRuntime", lambda _: None)
    monkeypatch.setattr(
        packaging.proof, "compare", lambda contract, net, _, batches: compare(contract, net, net, batches)
    )


@pytest.fixture
def unmeasured(monkeypatch):
    """Speed is not what the test is about: measuring it takes longer than to train a tiny network."""
    from plantml.train import train
    from plantml.train.planning import Speed

    monkeypatch.setattr(train.speed, "measure", lambda *_: Speed(step=0.01, see=0.001, decode=0.001))
