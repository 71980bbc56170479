"""`python -m bench.labelling DATASET …`: which photos to label next.

Labelling is simulated: 5 % of the training photos have labels, a probe learns from them, a strategy chooses the next
5 %, ten times. Printed is how many labels each strategy needs for 95 % of the score with all of them, on the photos
that are not in the training split. The backbone is frozen, so that a round takes a fraction of a second.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.measure import tell
from plantml import settings
from plantml.curate import embeddings
from plantml.curate.nearest_neighbours import principal
from plantml.data import versions
from plantml.targets import Target
from plantml.validate.review import most_valuable

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_SHARE, _ROUNDS, _GOAL = 0.05, 10, 0.95
_STEPS, _RATE, _DECAY, _SMOOTHING, _LENGTH = 250, 2e-2, 0.02, 0.05, 20.0
"""Of the probe: full batches, Adam with a cosine schedule; embeddings have this length."""

_COMPONENTS = 192
"""Principal components of the embeddings: a probe of all would take five times as long."""


@dataclass(frozen=True)
class Round:
    """What a strategy chooses from: `take` indices into the candidates.

    Attributes:
        embeddings: of the candidates, float32 [N, D] of length 1.
        known: of the labelled photos, float32 [M, D] of length 1.
        scores: of the candidates, float32 [N, classes] by target.
        take: number of photos.
        random: of this seed and round.
    """

    embeddings: Floats
    known: Floats
    scores: Sequence[Floats]
    take: int
    random: np.random.Generator

    @property
    def margins(self) -> Floats:
        """The smallest margin over targets between the best two classes."""
        ordered = [np.sort(each, axis=1) for each in self.scores]
        return np.min([each[:, -1] - each[:, -2] for each in ordered], axis=0)

    @property
    def novelty(self) -> Floats:
        """One minus the mean cosine to the five nearest labelled photos."""
        return 1 - np.sort(self.embeddings @ self.known.T, axis=1)[:, -5:].mean(axis=1)


def random(these: Round) -> Ints:
    """Any photos."""
    return these.random.choice(len(these.embeddings), these.take, replace=False)


def in_turn(these: Round) -> Ints:
    """The least certain and the most novel in turn."""
    orders = np.argsort(these.margins, kind="stable"), np.argsort(-these.novelty, kind="stable")
    return np.array(list(dict.fromkeys(np.stack(orders, axis=1).ravel().tolist()))[: these.take])


def margin(these: Round) -> Ints:
    """The least certain: the smallest margin between the best two classes (Scheffer et al. 2001)."""
    return np.argsort(these.margins, kind="stable")[: these.take]


def by_class(these: Round) -> Ints:
    """The least certain of every predicted combination of classes in turn."""
    combinations = np.stack([each.argmax(axis=1) for each in these.scores], axis=1)
    _, group = np.unique(combinations, axis=0, return_inverse=True)
    place = np.zeros(len(group))
    for number in range(group.max() + 1):
        members = np.flatnonzero(group == number)
        place[members[np.argsort(these.margins[members], kind="stable")]] = np.arange(len(members))
    return np.lexsort((these.margins, place))[: these.take]


def core_set(these: Round) -> Ints:
    """Each farthest from all that are labelled or chosen (Sener and Savarese 2018, k-centre greedy)."""
    return _farthest(these, np.arange(len(these.embeddings)))


def uncertain_core_set(these: Round) -> Ints:
    """The same among the least certain, four times as many as are taken."""
    return _farthest(these, np.argsort(these.margins, kind="stable")[: 4 * these.take])


def valuable(these: Round) -> Ints:
    """Distances weighted by uncertainty, as `validate --review` has it."""
    alone = np.arange(len(these.embeddings))
    return np.array(most_valuable(these.embeddings, 1 - these.margins, these.novelty, alone, these.take))


def clusters(these: Round) -> Ints:
    """The least certain of each cluster of the five times as many least certain (Zhdanov 2019)."""
    from sklearn.cluster import KMeans

    top = np.argsort(these.margins, kind="stable")[: 5 * these.take]
    if len(top) <= these.take:
        return top
    weights = 1 - these.margins[top] + 1e-6
    model = KMeans(these.take, n_init=1, random_state=int(these.random.integers(2**31)))
    found = model.fit(these.embeddings[top], sample_weight=weights).labels_
    first = [int(top[np.flatnonzero(found == number)[0]]) for number in np.unique(found)]
    return np.array(list(dict.fromkeys([*first, *top.tolist()]))[: these.take])


def badge(these: Round) -> Ints:
    """k-means++ on the gradients of the heads, were the predicted class the label (Ash et al. 2020, BADGE)."""
    rows = np.arange(len(these.embeddings))
    residual = np.concatenate([each - np.eye(each.shape[1])[each.argmax(axis=1)] for each in these.scores], axis=1)
    size = (residual**2).sum(axis=1)
    chosen = [int(size.argmax())]
    distance = np.full(len(rows), np.inf)
    while len(chosen) < these.take:
        last = chosen[-1]
        products = (residual @ residual[last]) * (these.embeddings @ these.embeddings[last])
        distance = np.minimum(distance, np.maximum(size + size[last] - 2 * products, 0))
        distance[chosen] = 0
        chosen.append(int(these.random.choice(rows, p=distance / distance.sum())))
    return np.array(chosen)


def _farthest(these: Round, rows: Ints) -> Ints:
    vectors = these.embeddings[rows]
    distance = 1 - (vectors @ these.known.T).max(axis=1)
    chosen: list[int] = []
    for _ in range(min(these.take, len(rows))):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, 1 - vectors @ vectors[chosen[-1]])
        distance[chosen] = -1
    return rows[chosen]


STRATEGIES: Sequence[Callable[[Round], Ints]] = (
    random, in_turn, margin, by_class, core_set, uncertain_core_set, valuable, clusters, badge
)  # fmt: skip


@dataclass(frozen=True)
class Photos:
    """A dataset's photos: embeddings of length 1, encoded labels by target, and which are to be labelled."""

    embeddings: Floats
    labels: Mapping[str, Ints]
    targets: Sequence[Target]
    pool: Ints
    judged: Ints


def load(ref: str) -> Photos:
    """The photos of a dataset with all class labels, and their embeddings, which are kept in the dataset."""
    version, machine = versions.load(ref), settings.machine()
    ids, vectors = embeddings.embed(version, embeddings.open_embedder(None, machine), machine)
    targets = [target for target in version.targets if target.kind == "class" and target.size > 1]
    rows = version.usable().drop_nulls(["split", *(target.name for target in targets)])
    rows = rows.unique("image_id", keep="first", maintain_order=True).filter(pl.col("image_id").is_in(ids))
    place = {image_id: number for number, image_id in enumerate(ids)}
    reduced, _ = principal(vectors[[place[image_id] for image_id in rows["image_id"]]], 1.0)
    train = (rows["split"] == "train").to_numpy()
    return Photos(
        embeddings.unit(reduced[:, :_COMPONENTS]),
        {target.name: target.encode(rows[target.name].to_list()) for target in targets},
        targets,
        np.flatnonzero(train),
        np.flatnonzero(~train),
    )


def learn(photos: Photos, rows: Ints, seed: int) -> Sequence[Floats]:
    """Scores of all photos, float32 [N, classes] by target, after learning from some."""
    inputs = np.concatenate([photos.embeddings * _LENGTH, np.ones((len(photos.embeddings), 1), np.float32)], axis=1)
    goals = []
    for target in photos.targets:
        hot = np.eye(target.size, dtype=np.float32)[photos.labels[target.name][rows]]
        goals.append((1 - _SMOOTHING) * hot + _SMOOTHING / target.size)
    ends = np.cumsum([target.size for target in photos.targets])[:-1]
    random = np.random.default_rng(seed)
    weights = random.normal(0, 0.01, (inputs.shape[1], sum(t.size for t in photos.targets))).astype(np.float32)
    first, second, goal, here = np.zeros_like(weights), np.zeros_like(weights), np.concatenate(goals, 1), inputs[rows]
    for step in range(1, _STEPS + 1):
        slope = here.T @ (np.concatenate(_softmaxes(here @ weights, ends), axis=1) - goal) / len(rows)
        first += 0.1 * (slope - first)
        second += 0.001 * (slope**2 - second)
        rate = _RATE * (1 + np.cos(np.pi * (step - 1) / _STEPS)) / 2
        move = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        weights -= np.float32(rate) * (move + _DECAY * weights)
    return _softmaxes(inputs @ weights, ends)


def _softmaxes(logits: Floats, ends: Ints) -> Sequence[Floats]:
    powers = [np.exp(part - part.max(axis=1, keepdims=True)) for part in np.split(logits, ends, axis=1)]
    return [each / each.sum(axis=1, keepdims=True) for each in powers]


def score(photos: Photos, scores: Sequence[Floats]) -> float:
    """Macro-F1 on the judged photos, mean over targets."""
    means = []
    for target, each in zip(photos.targets, scores, strict=True):
        truth, predicted = photos.labels[target.name][photos.judged], each[photos.judged].argmax(axis=1)
        matrix = np.zeros((target.size, target.size))
        np.add.at(matrix, (truth, predicted), 1)
        there = matrix.sum(axis=1) > 0
        means.append((2 * matrix.diagonal() / (matrix.sum(axis=0) + matrix.sum(axis=1)).clip(1))[there].mean())
    return float(np.mean(means))


def simulate(photos: Photos, strategy: Callable[[Round], Ints], seed: int) -> list[float]:
    """The score after each round, the first one with random photos."""
    take = max(1, round(_SHARE * len(photos.pool)))
    known = np.random.default_rng(seed).choice(photos.pool, take, replace=False)
    scores = learn(photos, known, seed)
    curve = [score(photos, scores)]
    for number in range(_ROUNDS):
        rest = np.setdiff1d(photos.pool, known)
        these = Round(
            photos.embeddings[rest],
            photos.embeddings[known],
            [each[rest] for each in scores],
            min(take, len(rest)),
            np.random.default_rng([seed, number]),
        )
        known = np.concatenate([known, rest[strategy(these)]])
        scores = learn(photos, known, seed)
        curve.append(score(photos, scores))
    return curve


def needed(curve: Sequence[float], goal: float) -> float:
    """Share of the labels from which on a curve is above a goal; one round more than there were if it never is."""
    for number, value in enumerate(curve):
        if value >= goal:
            before = curve[number - 1] if number else 0.0
            return _SHARE * (number + (goal - before) / (value - before))
    return _SHARE * (len(curve) + 1)


def main() -> None:
    """Simulate, and print a row per strategy."""
    parser = argparse.ArgumentParser(prog="python -m bench.labelling", description="Which photos to label next.")
    parser.add_argument("datasets", nargs="+", metavar="DATASET", help="with splits, and labels of all photos")
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON of all curves")
    asked = parser.parse_args()
    lines: list[dict[str, Any]] = []
    for ref in asked.datasets:
        photos = load(ref)
        print(f"{ref}: {len(photos.pool)} photos to label, {len(photos.judged)} to judge")
        full = [score(photos, learn(photos, photos.pool, seed)) for seed in range(asked.seeds)]
        for strategy in STRATEGIES:
            tell(f"{ref} {strategy.__name__}")
            curves = [simulate(photos, strategy, seed) for seed in range(asked.seeds)]
            shares = [needed(curve, _GOAL * goal) for curve, goal in zip(curves, full, strict=True)]
            area = [mean(curve[1:]) for curve in curves]
            print(f"  {strategy.__name__:20} {_shown(shares)} of the labels, mean score {_shown(area)}", flush=True)
            lines.append({"data": ref, "strategy": strategy.__name__, "full": full, "curves": curves})
    if asked.out:
        asked.out.write_text(json.dumps(lines, indent=1) + "\n")


def _shown(values: Sequence[float]) -> str:
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
