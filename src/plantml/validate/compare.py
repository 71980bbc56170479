"""Two models on the same photos: which one to keep, and with what probability."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plantml import metrics
from plantml.metrics import Groups, Interval, Paired, Replicates, ValueReport, bootstrap
from plantml.targets import Target
from plantml.validate.gates import Gate
from plantml.validate.scoring import JOINT, Evaluation, Outcomes, class_groups

Bools = NDArray[np.bool_]

SURE = 0.975
"""The probability from which a model is called better: its two-sided 95 % interval is then on one side of 0."""


@dataclass(frozen=True)
class Difference:
    """One score of both models.

    The interval is of this minus the other. `probability` is the share of resamples in which this model is better,
    where ties count half; `None` with too few groups.
    """

    name: str
    other: float
    value: float
    interval: Interval | None
    probability: float | None

    @property
    def difference(self) -> float:
        """This minus the other."""
        return self.value - self.other

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `no significant difference`."""
        if self.probability is None:
            return "no significant difference"
        if self.probability >= SURE:
            return "better"
        return "worse" if self.probability <= 1 - SURE else "no significant difference"


def percent(probability: float) -> str:
    """A probability in words; resampling never gives certainty."""
    return "over 99.9 %" if probability > 0.999 else f"{probability * 100:.1f} %"


@dataclass(frozen=True)
class Duel:
    """Photos of one class, or of a whole target, that only one of the models gets right.

    `target` is `joint_accuracy` where all targets must be right; `label` is empty for the whole target.
    """

    target: str
    label: str
    paired: Paired


@dataclass(frozen=True)
class Comparison:
    """This model against another.

    The deciding difference comes first. `changed` has places of photos with the targets whose predictions differ.
    """

    model: str
    ref: str
    differences: Sequence[Difference]
    duels: Sequence[Duel]
    changed: Mapping[int, Sequence[str]]
    names: Sequence[str]
    gates: Sequence[Gate]

    @property
    def verdict(self) -> str:
        """Which model to keep, and with what probability, in a sentence."""
        first = self.differences[0]
        scores = f"{first.name} {first.value:.4f} against {first.other:.4f}"
        if first.probability is None:
            return f"Too few groups of photos to compare the models: {scores}."
        better = first.probability if first.probability >= 0.5 else 1 - first.probability
        if first.verdict == "no significant difference":
            ahead = "this one" if first.probability > 0.5 else "the other one"
            lean = (
                "neither is ahead"
                if first.probability == 0.5
                else f"{ahead} is ahead, with {percent(better)} probability"
            )
            return f"No significant difference: {scores}; {lean}."
        keep = "this model" if first.verdict == "better" else "the other model"
        return f"Keep {keep}, better with {percent(better)} probability: {scores}."


@dataclass(frozen=True)
class Terms:
    """What two models are compared by, and for; `same_model` says that both are forms of one."""

    ref: str
    model: str
    names: Sequence[str]
    max_drop: float | None
    same_model: bool = False


def compare(ours: tuple[Outcomes, Evaluation], theirs: tuple[Outcomes, Evaluation], terms: Terms) -> Comparison:
    """Compare two models on the same photos in the same order, resampled with the same seed."""
    (mine, this), (others, other) = ours, theirs
    same = {target.name for target in mine.targets} == {target.name for target in others.targets}
    # Means over targets can be compared where they are over the same ones.
    both = _decisive([name for name in this.scores if name in other.scores and (same or "." in name)])
    return Comparison(
        model=terms.model,
        ref=terms.ref,
        differences=[difference(name, this, other) for name in both],
        duels=_duels(mine, others),
        changed=_changed(mine, others),
        names=terms.names,
        gates=_label_gates(mine, this, other, terms),
    )


def _decisive(names: Sequence[str]) -> list[str]:
    """Names of scores, what decides first: macro-F1, or R2 where only values are predicted."""
    for ending in ("macro_f1", ".r2"):
        for first in names:
            if first.endswith(ending):
                return [first, *(name for name in names if name != first)]
    return list(names)


def difference(name: str, this: Evaluation, other: Evaluation) -> Difference:
    """A score of both models, with the interval of its difference."""
    drawn = _paired(name, this.replicates, other.replicates)
    probability = None
    if drawn is not None:
        gain = drawn if metrics.higher_is_better(name) else -drawn
        probability = float((gain > 1e-9).mean() + (np.abs(gain) <= 1e-9).mean() / 2)
    point = this.scores[name] - other.scores[name]
    return Difference(
        name, other.scores[name], this.scores[name], metrics.interval("difference", point, drawn), probability
    )


def _paired(name: str, this: Replicates, other: Replicates) -> NDArray[np.floating[Any]] | None:
    if name not in this or name not in other:
        return None
    drawn: NDArray[np.floating[Any]] = this[name] - other[name]
    drawn = drawn[~np.isnan(drawn)]
    return drawn if len(drawn) else None


def _duels(mine: Outcomes, others: Outcomes) -> list[Duel]:
    duels = []
    by_name = {target.name: target for target in others.targets}
    pairs = [(target, by_name[target.name]) for target in mine.targets if target.name in by_name]
    pairs = [(target, theirs) for target, theirs in pairs if target.kind != "value"]
    right = {target.name: (mine.right(target), others.right(theirs)) for target, theirs in pairs}
    known = {target.name: mine.known(target) & others.known(theirs) for target, theirs in pairs}
    if len(pairs) > 1:
        everywhere = np.logical_and.reduce(list(known.values()))
        first, second = (np.logical_and.reduce([both[side] for both in right.values()]) for side in (0, 1))
        duels.append(Duel(JOINT, "", metrics.mcnemar(first[everywhere], second[everywhere])))
    for target, _ in pairs:
        first, second = right[target.name]
        duels.append(Duel(target.name, "", metrics.mcnemar(first[known[target.name]], second[known[target.name]])))
    for target, _ in pairs:
        if target.kind == "class":
            for number, label in enumerate(target.classes):
                there = (mine.truth[target.name] == number) & known[target.name]
                if there.any():
                    paired = metrics.mcnemar(right[target.name][0][there], right[target.name][1][there])
                    duels.append(Duel(target.name, label, paired))
    return duels


def _changed(mine: Outcomes, others: Outcomes) -> dict[int, list[str]]:
    changed: dict[int, list[str]] = {}
    by_name = {target.name: target for target in others.targets}
    for target in mine.targets:
        if target.kind != "value" and target.name in by_name:
            pairs = zip(predicted_labels(target, mine), predicted_labels(by_name[target.name], others), strict=True)
            for at, (first, second) in enumerate(pairs):
                if first != second:
                    changed.setdefault(at, []).append(target.name)
    return dict(sorted(changed.items()))


def predicted_labels(target: Target, outcomes: Outcomes) -> list[Any]:
    """The predicted labels by photo: a class, classes joined by `|`, or a number."""
    outputs = outcomes.outputs[target.name]
    if target.kind == "class":
        return [target.classes[number] for number in outputs.argmax(axis=1)]
    if target.kind == "value":
        return [float(number) for number in outputs[:, 0]]
    return [
        "|".join(name for name, number in zip(target.classes, row, strict=True) if number >= 0.5) for row in outputs
    ]


def _label_gates(mine: Outcomes, this: Evaluation, other: Evaluation, terms: Terms) -> list[Gate]:
    """The mean over classes may not drop by more than the bound, nor the F1 of a class; nor the R2 of a value."""
    names = []
    if not this.reports:  # of anomalies, which have scores of their own
        names = [(name, len(mine.groups.number)) for name in this.scores if metrics.higher_is_better(name)]
    for report in this.reports:
        name = f"{report.target}.{'r2' if isinstance(report, ValueReport) else 'macro_f1'}"
        names.append((name, report.photos))
        if not isinstance(report, ValueReport):
            rows = report.per_class.items()
            names += [(f"{report.target}.f1[{label}]", int(row["support"])) for label, row in rows if row["support"]]
    return drop_gates(names, (mine.groups, class_groups(mine)), (this, other), terms)


def drop_gates(
    names: Sequence[tuple[str, int]],
    groups: tuple[Groups, Mapping[str, int]],
    models: tuple[Evaluation, Evaluation],
    terms: Terms,
) -> list[Gate]:
    """Scores, each with its number of photos, may not drop by more than the bound; `groups`: all, and those of classes.

    A class in too few groups has no interval, and its drop is not resolvable. Where two models, unless they are the
    same one, differ on no photo, the interval is that of a share that was not seen once in so many groups.
    """
    if terms.max_drop is None:
        return []
    (this, other), (everyone, sizes), judged = models, groups, []
    for name, photos in names:
        if name in this.every and name in other.every:
            drop = other.every[name] - this.every[name]
            count = sizes.get(name, everyone.count)
            drawn = _paired(name, other.replicates, this.replicates) if count >= bootstrap.FEW else None
            interval = metrics.interval("difference", drop, drawn)
            if interval and drawn is not None and not drawn.any() and not terms.same_model:
                unseen = 1 - ((1 - bootstrap.LEVEL) / 2) ** (1 / count)
                interval = Interval(-unseen, unseen)
            judged.append(Gate(name, "max_drop", terms.max_drop, drop, interval, photos))
    return judged


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON types."""
    return {
        "model": comparison.model,
        "ref": comparison.ref,
        "verdict": comparison.verdict,
        "differences": [
            {
                "name": each.name,
                "other": each.other,
                "this": each.value,
                "difference": each.difference,
                "interval": each.interval,
                "sure": each.probability,
                "verdict": each.verdict,
            }
            for each in comparison.differences
        ],
        "mcnemar": [
            {
                "target": duel.target,
                "class": duel.label or None,
                "photos": duel.paired.photos,
                "wins": duel.paired.wins,
                "losses": duel.paired.losses,
                "p": duel.paired.p,
            }
            for duel in comparison.duels
        ],
        "changed": [[comparison.names[at], list(targets)] for at, targets in comparison.changed.items()],
    }
