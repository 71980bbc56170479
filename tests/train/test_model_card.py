"""The model card: what the hub reads of it, and what a reader must not miss."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from plantml.data.manifest import Version
from plantml.imaging import Fit
from plantml.metrics import report
from plantml.metrics.calibration import accept_thresholds
from plantml.model.contract import Architecture, Contract, Origin
from plantml.targets import Target
from plantml.train import calibration_report, model_card
from plantml.validate.scoring import Outcomes
from plantml.validate.selection import DATASET, groups_of
from plantml.validate.slices import slices

DISEASE = Target("disease", "class", ("none", "rust"))
SYMPTOMS = Target("symptoms", "multilabel", ("spots", "curl"))
SEVERITY = Target("severity", "value", unit="fraction")
TARGETS = (DISEASE, SYMPTOMS, SEVERITY)


@dataclass(frozen=True)
class Validated:
    rows: pl.DataFrame
    labels: dict[str, Any]
    answers: dict[str, Any]

    def slices(self, version):
        judged = Outcomes(TARGETS, self.labels, self.answers, groups_of(self.rows), {})
        learnt = {target.name: model_card.train_counts(version, target) for target in TARGETS}
        return slices(judged, self.rows, learnt, resamples=50, seed=0)


@pytest.fixture
def version(make_rows):
    """24 photos to learn from, 12 to judge by from two cameras, one of which is bad."""
    records = [
        {
            "split": "train" if number < 24 else "val",
            "disease": ("none", "rust")[number % 2],
            "symptoms": [["spots"], []][number % 2],
            "severity": number / 36,
            "camera": ("phone", "drone|2")[number % 3 == 0],
            "width": (300, 3000)[number % 4 == 0],
            "meta_folder": ("none", "rust")[number % 2],
        }
        for number in range(36)
    ]
    return Version("s3://bucket/my leaves", 3, make_rows(records, TARGETS), TARGETS)


@pytest.fixture
def validated(version):
    rows = version.usable("val")
    labels = {target.name: target.encode(rows[target.name].to_list()) for target in TARGETS}
    disease = np.eye(2, dtype=np.float32)[labels["disease"]] * 0.8 + 0.1
    wrong = (rows["camera"] == "drone|2").to_numpy()
    disease[wrong] = disease[wrong, ::-1]
    answers = {"disease": disease, "symptoms": labels["symptoms"] * 0.9, "severity": labels["severity"][:, None]}
    rows = rows.with_columns(pl.lit(version.ref).alias(DATASET))
    return Validated(rows, labels, answers)


@pytest.fixture
def text(version, validated):
    return written(version, validated)


def written(version, validated, **changes):
    reports = [report(target, validated.labels[target.name], validated.answers[target.name]) for target in TARGETS]
    thresholds = accept_thresholds(TARGETS, validated.answers, validated.labels, 0.05)
    contract = Contract(
        targets=TARGETS,
        input=Fit(64, 64),
        architecture=Architecture(backbone="resnet18", embedding=4, mean=(0.5,) * 3, std=(0.5,) * 3, bank=2),
        temperatures={"disease": 1.5, "symptoms": 1.0},
        thresholds={name: threshold.score for name, threshold in thresholds.items()},
        target_risk=0.05,
        acceptance=thresholds,
        unknown_threshold=0.3,
        dataset=Origin(url=version.url, version=3, fingerprint="ab" * 32),
        metrics={},
        seed=1,
        versions={"plantml": "0.1.0"},
    )
    plan = {
        "targets": TARGETS,
        "dataset": version.url,
        "dataset_version": 3,
        "fingerprint": "ab" * 32,
        "where": "",
        "crops": False,
        "unlabelled": "",
        "unlabelled_photos": 0,
        "backbone": "resnet18",
        "pretrained": True,
        "weights": "",
        "weights_sha256": "",
        "mode": "finetune",
        "epochs": 4,
        "batch_size": 8,
        "seed": 1,
        "device": "cpu",
        "target_risk": 0.05,
    }
    return model_card.model_card(
        contract,
        "d" * 64,
        plan=SimpleNamespace(**plan | changes),
        version=version,
        reports=reports,
        confidence=calibration_report.confidence_reports(
            TARGETS, validated.answers, validated.answers, validated.labels, thresholds
        ),
        slices=validated.slices(version),
    )


def header_of(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_the_header_is_one_that_the_hub_can_read(text):
    cards = pytest.importorskip("huggingface_hub")
    card = cards.ModelCard(text)
    results = {(one.task_name, one.metric_type): one.metric_value for one in card.data.eval_results}
    assert card.data.base_model == "timm/resnet18.a1_in1k"
    assert card.data.datasets == ["my-leaves"]
    assert results["severity", "r_squared"] == 1.0
    assert 0 < results["disease", "accuracy"] < 1
    assert {"accuracy", "f1", "mae"} <= set(card.data.metrics)


def test_licence_and_base_model_are_not_invented(version, validated):
    header = header_of(written(version, validated, pretrained=False))
    assert "license" not in header
    assert "base_model" not in header


def test_each_class_has_its_photos_by_split(version, text):
    assert model_card.class_counts(version, DISEASE)[1] == ("rust", {"train": 12, "val": 6, "test": 0})
    assert model_card.class_counts(version, SYMPTOMS)[0] == ("spots", {"train": 12, "val": 6, "test": 0})
    assert "| rust | 12 | 6 | 0 |" in text
    assert "| val | 12 photos, 0.6667 to 0.9722" in text


def test_classes_with_few_photos_are_named(text):
    assert "disease rust (12 train, 6 val)" in text


def test_the_worst_slice_comes_first_and_labels_are_no_slice(version, validated):
    slices = [one for one in validated.slices(version) if one.target == "disease"]
    cameras = [(one.value, one.number, one.photos) for one in slices if one.by == "camera"]
    assert cameras == [("drone|2", 0.0, 4), ("phone", 1.0, 8)] or cameras == [("phone", 1.0, 8), ("drone|2", 0.0, 4)]
    assert not {"folder"} & {one.by for one in slices}


def test_limits_are_listed_and_tables_are_escaped(text):
    assert "disease from 12 photos" in text
    assert "95 % confidence" in text
    assert "| camera | drone\\|2 | disease | accuracy | 0.000 |" in text
    assert "severity) has no confidence" in text
    assert "{{" not in text
    assert "\n\n\n\n" not in text


def test_a_model_that_accepts_nothing_says_so(version, validated):
    validated.answers["disease"][:] = [0.2, 0.8]
    validated.labels["disease"][:] = 0
    assert "so every prediction gets `review`" in written(version, validated)
