"""`python -m bench.backbones`: which backbone and size, and what photos without labels add, by linear classifiers.

Ridge regression of the labels on embeddings of a frozen backbone takes a hundredth of a second, so that many random
splits (by group, 70 % to learn from) can be compared pair by pair. Embeddings stay in `--folder`.
"""

import argparse
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from bench import quality_data
from bench.material import PHOTOS
from plantml import imaging, metrics, storage
from plantml.data import versions
from plantml.imaging import Fit
from plantml.model.contract import Architecture
from plantml.model.network import PlantNet
from plantml.targets import Target
from plantml.train import embedder, weights
from plantml.train.label_propagation import propagate

Floats = NDArray[np.float32]
Labels = Mapping[str, NDArray[np.int64]]

NETWORKS = ("tf_efficientnet_lite0-224", "tf_efficientnet_lite2-224", "tf_efficientnet_lite0-288",
            "tf_efficientnet_lite2-288")  # fmt: skip
_RIDGE, _THRESHOLD, _TEST = 0.03, 0.6, 0.3


def embeddings(name: str, network: str, version: versions.Version, rows: pl.DataFrame, folder: Path) -> Floats:
    """Embeddings [N, D] of photos; printed is the processor time of one."""
    file = folder / f"{name}-{network}.npy"
    if not file.exists():
        backbone, side = network.rsplit("-", 1)
        fit = Fit(int(side), int(side), "squash")
        layers = weights.backbone(backbone, weights.Weights(), fit, drop_path=0.0, offline=True).eval()
        with torch.inference_mode():
            length = layers(torch.zeros(1, 3, fit.height, fit.width)).shape[1]
        scale = weights.statistics(backbone)
        architecture = Architecture(backbone=backbone, embedding=length, mean=scale[0], std=scale[1], bank=0)
        runtime = embedder.frozen(PlantNet(architecture, (), layers), fit)
        vectors, seconds = [], 0.0
        for path in rows["path"]:
            pixels = imaging.decode(storage.read(version.image_url(path)), fit)
            started = time.process_time()
            vectors.append(runtime.run(pixels[None])["embedding"][0])
            seconds += time.process_time() - started
        print(f"{network}: {1000 * seconds / rows.height:.1f} ms of processor time a photo", flush=True)
        np.save(file, np.stack(vectors))
    return np.load(file)


def classifier(vectors: Floats, labels: NDArray[np.int64], classes: int) -> Callable[[Floats], Floats]:
    """Ridge regression on one-hot labels of standardised embeddings: gives scores [N, classes]."""
    centre, scale = vectors.mean(axis=0), vectors.std(axis=0) + 1e-3
    inputs, outputs = (vectors - centre) / scale, np.eye(classes, dtype=np.float32)[labels]
    kernel = inputs @ inputs.T + _RIDGE * inputs.shape[1] * np.eye(len(inputs), dtype=np.float32)
    slopes = inputs.T @ np.linalg.solve(kernel, outputs - outputs.mean(axis=0))
    return lambda others: ((others - centre) / scale) @ slopes + outputs.mean(axis=0)


def score(targets: list[Target], vectors: Floats, learnt: Labels, truth: Labels, test: NDArray[np.int64]) -> float:
    """Macro-F1 on the test photos, mean over targets; labels that are missing in `learnt` are -1."""
    scores = []
    for target in targets:
        known = np.flatnonzero(learnt[target.name] >= 0)
        answers = classifier(vectors[known], learnt[target.name][known], target.size)(vectors[test])
        report = metrics.report(target, truth[target.name][test], np.eye(target.size)[answers.argmax(axis=1)])
        assert report is not None
        scores.append(report.scores["macro_f1"])
    return mean(scores)


def split(rows: pl.DataFrame, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to learn from and to judge by; a group is on one side."""
    group = np.array([group or image_id for group, image_id in rows.select("group", "image_id").iter_rows()])
    names = np.unique(group)
    np.random.default_rng(seed).shuffle(names)
    is_test = np.isin(group, names[: int(_TEST * len(names))])
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def few(rows: NDArray[np.int64], truth: Labels, share: float, seed: int) -> NDArray[np.int64]:
    """A share of the rows, at random, with one of each combination of labels."""
    order, first = np.random.default_rng(100 + seed).permutation(rows), dict[tuple[int, ...], int]()
    for row in order:
        first.setdefault(tuple(int(labels[row]) for labels in truth.values()), row)
    return np.array(list(dict.fromkeys([*first.values(), *order]))[: max(len(first), round(share * len(rows)))])


def only(truth: Labels, rows: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """The labels of some rows; those of the others are missing."""
    chosen = np.isin(np.arange(len(next(iter(truth.values())))), rows)
    return {name: np.where(chosen, labels, -1) for name, labels in truth.items()}


def with_others(targets: list[Target], vectors: Floats, rows: NDArray[np.int64], labels: Labels) -> Labels:
    """Labels after they have spread among the rows to learn from."""
    spread = propagate(targets, vectors[rows], {name: each[rows] for name, each in labels.items()}, _THRESHOLD)
    learnt = {name: np.full_like(each, -1) for name, each in labels.items()}
    for name, each in spread.items():
        learnt[name][rows] = each
    return learnt


def line(title: str, scores: list[float], base: list[float]) -> None:
    """Print the mean and the gain over `base`, split by split."""
    gains = [ours - theirs for ours, theirs in zip(scores, base, strict=True)]
    better = sum(gain > 0 for gain in gains)
    print(f"{title}: macro-F1 {mean(scores):.3f} ± {stdev(scores):.3f}, gain {mean(gains):+.3f} ± {stdev(gains):.3f}"
          f", better in {better} of {len(gains)}", flush=True)  # fmt: skip


def main() -> None:
    """Embed what is missing, and print the comparisons."""
    parser = argparse.ArgumentParser(prog="python -m bench.backbones", description=(__doc__ or "").split(": ", 1)[1])
    parser.add_argument("--folder", type=Path, required=True, help="for datasets and embeddings")
    parser.add_argument("--splits", type=int, default=12)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    for name, load in quality_data.SETS.items():
        if not (asked.folder / name).exists():
            load(Path(os.environ[PHOTOS]), asked.folder)
        version = versions.load(str(asked.folder / name))
        rows = version.usable().unique("image_id", keep="first", maintain_order=True).sort("image_id")
        targets = [target for target in version.targets if target.size > 1]
        truth = {target.name: np.asarray(target.encode(rows[target.name].to_list())) for target in targets}
        vectors = {each: embeddings(name, each, version, rows, asked.folder) for each in NETWORKS}
        for share in (1.0, 0.1):
            scores: dict[str, list[float]] = {each: [] for each in (*NETWORKS, "unlabelled")}
            for seed in range(asked.splits):
                train, test = split(rows, seed)
                labels = only(truth, train if share == 1 else few(train, truth, share, seed))
                for each in NETWORKS:
                    scores[each].append(score(targets, vectors[each], labels, truth, test))
                spread = with_others(targets, vectors[NETWORKS[0]], train, labels)
                scores["unlabelled"].append(score(targets, vectors[NETWORKS[0]], spread, truth, test))
            for each, values in scores.items():
                line(f"{name}, {share:.0%} of labels, {each}", values, scores[NETWORKS[0]])


if __name__ == "__main__":
    main()
