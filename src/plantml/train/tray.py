"""Train a model of two stages: a detector that finds every plant, and a classifier that judges a crop of each.

On farms that it has not seen, a detector of diseases falls further than a detector of leaves with a classifier of crops
("Plant disease detection in the wild", arXiv:1910.11506).
"""

import functools
import json
import time
from collections.abc import Sequence
from dataclasses import replace

from plantml import storage
from plantml.concurrency import Listener, Stop
from plantml.data.manifest import Version
from plantml.errors import InputError
from plantml.export.onnx import annotated, notes_of
from plantml.model import bundle as bundles
from plantml.model import file_formats
from plantml.model.bundle import CARD, CLASSIFIER, MODEL_JSON, ONNX, WEIGHTS
from plantml.settings import Machine
from plantml.train import network_training, warm_start
from plantml.train.artifacts import METRICS_FORMAT
from plantml.train.boxes import crops
from plantml.train.boxes.packaging import box_card
from plantml.train.config import TrainConfig
from plantml.train.network_training import TrainingResult
from plantml.train.plan import Plan
from plantml.train.run_folder import METRICS, RunFolder
from plantml.train.selection import Selection, select

DETECTOR, JUDGE, CROPS = "detector", "classifier", "crops"
"""Folders of a run: both stages, each a run, and the dataset of crops."""


def train_tray(
    version: Selection,
    out: str,
    config: TrainConfig,
    machine: Machine,
    *,
    fresh: bool,
    config_lines: Sequence[str],
    stop: Stop,
    listener: Listener,
) -> TrainingResult | None:
    """Train both stages as runs in `out`, and join them. The same call again resumes. See `train.train`."""
    started, out = time.monotonic(), storage.absolute(out)
    halved = of_stage(config)
    both = functools.partial(
        network_training.train_network,
        machine=machine,
        fresh=fresh,
        config_lines=config_lines,
        stop=stop,
        listener=listener,
    )
    listener.say("Stage 1 of 2: finding plants.")
    detector = both(version, storage.join(out, DETECTOR), halved)
    listener.say("Stage 2 of 2: judging a crop of each.")
    cut = crops.crop_dataset(version, storage.join(out, CROPS), machine, listener.progress("cutting crops"), stop)
    for_crops = halved.model_copy(
        update={"task": "image", "size": "auto", "tile": "auto", "where": "", "fold": 0, "folds": 0, "unlabelled": "",
                "warm_start": _start_of_classifier(detector.plan) if detector else ""}
    )  # fmt: skip
    selected = replace(select(cut, for_crops), origin=version)
    classifier = both(selected, storage.join(out, JUDGE), for_crops)
    if detector is None or classifier is None:
        return None
    run = RunFolder(out, machine, listener.say)
    bundle = run.finished_bundle()
    joined = _join(detector, classifier, version)
    changed = bundle is None or bundle.digest != joined[0]
    if changed:
        bundle = run.publish(*joined[1:])
        content = {"plantml_metrics": METRICS_FORMAT, "split": "val", "model": bundle.digest,
                   "dataset": bundle.contract.dataset.model_dump(mode="json"),
                   "scores": dict(bundle.contract.metrics)}  # fmt: skip
        run.write(METRICS, (json.dumps(content, indent=2) + "\n").encode())
    assert bundle is not None
    seconds, resumed = time.monotonic() - started, detector.resumed or classifier.resumed
    plots = [*detector.plots, *classifier.plots]
    return TrainingResult(run.url, bundle, detector.plan, bundle.contract.metrics, seconds, resumed, changed, plots)


def _start_of_classifier(plan: Plan) -> str:
    """The model that the second stage starts from, where the first one starts by `plan`; empty for none."""
    if not plan.warm_start:
        return ""
    parent = warm_start.parent_bundle(plan)
    if parent.contract.task == "tray":
        return parent.classifier().url
    return plan.warm_start if parent.contract.task == "image" else ""


def of_stage(config: TrainConfig) -> TrainConfig:
    """The configuration of one stage, which has half of the budget."""
    return config.model_copy(update={"task": "tray", "budget": config.budget and config.budget / 2})


def _join(finding: TrainingResult, judging: TrainingResult, version: Version) -> tuple[str, dict[str, bytes], bytes]:
    """Digest, files and `model.json` of the bundle of both stages, trained on a version's boxes."""
    detector, classifier = finding.bundle, judging.bundle
    ours, theirs = detector.contract, classifier.contract
    if ours.detection is None:
        raise InputError(f"{detector.url} finds no boxes", "it was trained on whole photos", "Start over with --fresh.")
    contract = ours.judged_by(theirs).model_copy(
        update={
            "detection": ours.detection.model_copy(update={"classifier": classifier.digest}),
            "metrics": {**ours.metrics, **theirs.metrics},
        }
    )
    weights = detector.read(WEIGHTS)
    digest = bundles.digest(contract, file_formats.tensors(detector.url, weights))
    files = {
        WEIGHTS: weights,
        ONNX: annotated(detector.read(ONNX), notes_of(contract, digest)),
        CARD: box_card(contract, digest, plan=finding.plan, version=version).encode(),
        **{CLASSIFIER + name: classifier.read(name) for name in classifier.files},
        CLASSIFIER + MODEL_JSON: storage.read(storage.join(classifier.url, MODEL_JSON)),
    }
    return digest, files, bundles.model_json(contract, digest, files)
