"""From what was learnt of normal photos to a bundle: set the thresholds, export, verify the export, write the card."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

from plantml.data.manifest import SPLITS, Version
from plantml.imaging import Pixels
from plantml.imaging.drawing import grid
from plantml.imaging.heat import heat_pixels
from plantml.metrics import bootstrap
from plantml.metrics.anomaly import AnomalyStatistic
from plantml.model.anomaly import DeployedAnomaly, scored
from plantml.model.contract import ANOMALY, Anomaly, Architecture, Contract, FalseAlarms, Origin
from plantml.parsing import dump_yaml
from plantml.reporting import anomaly_charts, documents
from plantml.train import weights
from plantml.train.learner import PackagedModel
from plantml.train.model_card import header
from plantml.train.packaging import export, photo_batches
from plantml.train.plan import Plan
from plantml.train.prepare import Decoded
from plantml.validate.selection import DATASET, groups_of

_BATCH = 8
_SHOWN = 8
"""Photos of each sort that are drawn with their heat maps."""

_RARE_CELLS = 0.01
"""Share of the cells of normal photos that a heat map marks."""


@dataclass(frozen=True)
class JudgedPhotos:
    """The readable photos of the validation split, as a fitted network sees them.

    Attributes:
        photos: decoded.
        rows: of the manifest.
        truth: 0 where normal, 1 where anomalous, -1 where not labelled: [N].
        kinds: what they show.
        distances: of the photos: [N].
        cell_distances: of all cells of the normal ones: [K].
    """

    photos: Decoded
    rows: pl.DataFrame
    truth: NDArray[np.int64]
    kinds: Sequence[str]
    distances: NDArray[np.float32]
    cell_distances: NDArray[np.float32]


def package(
    deployed: DeployedAnomaly, plan: Plan, classes: Sequence[str], judged: JudgedPhotos, version: Version
) -> PackagedModel:
    """Make the bundle of a fitted network, and set its thresholds.

    Args:
        deployed: the network.
        plan: of the run.
        classes: of the normal photos that differ by a target; may be empty.
        judged: of which the normal photos set the thresholds; the others are reported on, and nothing else.
        version: of the dataset.

    Raises:
        GateError: the ONNX file does not reproduce the network's scores.
    """
    truth, is_normal = judged.truth, judged.truth == 0
    distance = threshold(judged.distances[is_normal], plan.false_alarms)
    scores = scored(judged.distances, distance)
    groups = groups_of(judged.rows.with_columns(pl.lit(version.ref).alias(DATASET)).filter(is_normal)).count
    alarms = false_alarms(judged.distances[is_normal] > distance, groups, plan.false_alarms)
    deployed.distance = distance
    deployed.cell_distance = max(float(np.quantile(judged.cell_distances, 1 - _RARE_CELLS)), 1e-6)
    measured = AnomalyStatistic(scores, truth, judged.kinds, 0.5)
    results = measured.of_all()
    bank = len(deployed.bank)
    contract = Contract(
        targets=(ANOMALY,),
        input=plan.input,
        architecture=architecture(plan, sum(deployed.net.channels), bank),
        temperatures={},
        thresholds={},
        unknown_threshold=0.5,
        anomaly=Anomaly(
            normal=plan.normal,
            by=plan.by if classes else None,
            classes=tuple(classes) or None,
            levels=plan.anomaly.levels,
            distance=deployed.distance,
            cell_distance=deployed.cell_distance,
            false_alarms=alarms,
        ),
        dataset=Origin(url=plan.dataset, version=plan.dataset_version, fingerprint=plan.fingerprint),
        metrics={name: round(value, 6) for name, value in results.items() if "[" not in name},
        seed=plan.seed,
        versions=plan.versions,
    )
    exported = export(deployed, contract, lambda: photo_batches(judged.photos.pixels, judged.photos.rows, _BATCH))
    card = documents.fill(
        "plantml.train",
        "anomaly_card.md.jinja",
        filters={"cell": documents.cell},
        header=dump_yaml(header(contract, exported.digest, plan, ())),
        contract=contract,
        anomaly=contract.anomaly,
        digest=exported.digest,
        plan=plan,
        results=results,
        kinds=list(zip(measured.kinds, measured.support, strict=True)),
        photos={split: version.usable(split).height for split in SPLITS},
        normal_val=int(is_normal.sum()),
        size=len(exported.onnx) / 2**20,
    )
    plots = {"scores.png": anomaly_charts.histogram(scores, truth, judged.kinds)}
    if "anomaly.auroc" in results:
        plots["roc.png"] = anomaly_charts.roc(scores, truth, results["anomaly.auroc"])
    order = np.argsort(-scores, kind="stable")
    for name, places in {
        "anomalous.png": order[truth[order] != 0][:_SHOWN],
        "missed.png": [at for at in order[::-1] if truth[at] == 1 and scores[at] <= 0.5][:_SHOWN],
        "normal.png": order[truth[order] == 0][:_SHOWN],
    }.items():
        if len(places):
            plots[name] = _heat_maps(deployed, judged.photos, places)
    content = {"scores": results, "threshold": {"distance": distance, **alarms.model_dump()}}
    return exported.packaged(card, content, plots)


def architecture(plan: Plan, features: int, bank: int = 0) -> Architecture:
    """The network's description: features of a cell, and cells of the bank."""
    mean, std = weights.statistics(plan.backbone)
    return Architecture(backbone=plan.backbone, embedding=features, mean=mean, std=std, bank=bank)


def threshold(normal: NDArray[np.float32], share: float) -> float:
    """The distance that at most `share` of normal photos exceed, also of others than these.

    Of n photos, one more exceeds the k-th distance with a probability of 1 - k / (n + 1) (split conformal prediction;
    Vovk et al. 2005). Where there are too few photos for that, it is the largest distance.
    """
    place = min(len(normal), math.ceil((len(normal) + 1) * (1 - share) - 1e-9))
    return max(float(np.sort(normal)[place - 1]), 1e-6)


def false_alarms(alarms: NDArray[np.bool_], groups: int, wanted: float) -> FalseAlarms:
    """The share of normal photos above the threshold, with its interval.

    Args:
        alarms: of normal photos: [N].
        groups: of these photos.
        wanted: largest share that the threshold was set for.
    """
    share = float(alarms.mean())
    interval = bootstrap.exact(share, groups)
    numbers = {"share": share, "low": interval.low, "high": interval.high}
    rounded = {name: round(number, 6) for name, number in numbers.items()}
    return FalseAlarms(wanted=wanted, **rounded, photos=len(alarms), groups=groups)


def sheet(pixels: Sequence[Pixels]) -> bytes:
    """A PNG of photos."""
    return grid([Image.fromarray(np.array(each)) for each in pixels])


def _heat_maps(deployed: DeployedAnomaly, decoded: Decoded, places: Sequence[Any] | NDArray[Any]) -> bytes:
    """A PNG of validation photos with their heat maps."""
    import torch

    photos = [np.array(decoded.pixels[decoded.rows[at]]) for at in places]
    with torch.inference_mode():
        _, heat = deployed(torch.from_numpy(np.stack(photos)))
    return grid([heat_pixels(photo, cells) for photo, cells in zip(photos, heat.numpy(), strict=True)])
