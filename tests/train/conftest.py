"""Fixtures of training: a complete plan, a batch, and trainings without measurement or export."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from plantml.imaging import Fit
from plantml.targets import Target
from plantml.train.config import TrainConfig
from plantml.train.plan import Plan


@pytest.fixture(scope="session")
def make_plan():
    """`make_plan(**values)`: a plan for nine photos in batches of four, with some values replaced."""

    def make(**values: object) -> Plan:
        defaults = {
            "dataset": "", "dataset_version": 1, "fingerprint": "", "asked": {}, "reasons": {}, "preset": "balanced",
            "budget": None, "task": "image", "tile": 0, "mode": "finetune",
            "targets": (Target("disease", "class", ("a", "b")),), "train_photos": 9, "val_photos": 1, "backbone": "x",
            "parent": "", "input": Fit(32, 32), "epochs": 3, "patience": 3,
            "epoch_photos": 9, "batch_size": 4, "lr": 1e-3, "backbone_lr": 1e-3, "layer_decay": 1.0, "ema": 0.0,
            "mixup": 0.0, "augment": 1.0, "views": 6, "balance": "off", "class_weights": {}, "class_logits": {},
            "precision": "32", "workers": 0,
            "device": "cpu", "step_seconds": 0.0, "seconds": 0.0, "versions": {},
        }  # fmt: skip
        fixed = TrainConfig().model_dump()
        return Plan.model_validate({key: fixed[key] for key in Plan.model_fields if key in fixed} | defaults | values)

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
    """Skip the ONNX export: tracing takes longer than training a tiny network.

    The bundle is complete except for an empty `model.onnx`. Its digest is right, as it covers contract and tensors.
    """
    from plantml.model import bundle
    from plantml.train import packaging

    compare = packaging.proof.compare
    monkeypatch.setattr(packaging, "to_onnx", lambda *_: b"")
    monkeypatch.setattr(packaging, "OnnxRuntime", lambda _: SimpleNamespace(run=lambda *_: {}))
    monkeypatch.setattr(bundle, "_check_contract", lambda *_: None)  # as there is no contract in an empty file
    monkeypatch.setattr(packaging.proof, "compare", lambda contract, expected, _: compare(contract, expected, expected))


@pytest.fixture
def unmeasured(monkeypatch):
    """Skip measuring the speed: it takes longer than training a tiny network."""
    from plantml.train.plan_inputs import Speed
    from plantml.train.planning import throughput

    monkeypatch.setattr(throughput, "measure", lambda *_: Speed(step=0.01, embed=0.001, decode=0.001))
