"""Proof that two runtimes run the same model: their predictions for the same photos are compared."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plantml import metrics
from plantml.errors import GateError
from plantml.export.box_proof import alike_boxes, same_boxes
from plantml.export.samples import AnnotatedBoxes
from plantml.imaging import Pixels
from plantml.metrics import Groups
from plantml.metrics.detection import DetectionStatistic, of_one_class
from plantml.metrics.statistics import of_target
from plantml.model.contract import Contract
from plantml.model.covariates import Columns
from plantml.model.records import Reader
from plantml.model.runtimes import Outputs, Runtime
from plantml.settings import RESAMPLES
from plantml.targets import Target

MAX_DIFFERENCE = 1e-4
"""Largest difference of a probability that counts as rounding."""

MAX_NOISE = 0.2
"""Squared error of a quantised form's embedding, in parts of its square, that is no longer rounding.

Eight bits give the default backbone 0.01; swapped channels give it 0.35. Few photos may give another network the
same labels; not the same embeddings.
"""

BOX_RESAMPLES = 200
"""Resamples for an interval of average precision, which takes longer than other scores."""

_LEAST = 0.01
"""Score of the weakest boxes that average precision looks at."""

_WORSE = {"accept": 0, "review": 1, "unknown": 2}


@dataclass(frozen=True)
class Change:
    """The change of the score by another form, on labelled photos.

    Attributes:
        photos: labelled for at least one target.
        before: score of the model: the mean over targets of macro-F1, of R2 for values.
        after: of its other form.
        low: the change is at least this with 97.5 % confidence; `None` where there are fewer than two groups.
        high: the change is at most this with 97.5 % confidence.
        ece: calibration error of the model, the mean over its class and multilabel targets; `None` of boxes.
        ece_after: likewise of its other form.
    """

    photos: int
    before: float
    after: float
    low: float | None
    high: float | None
    ece: float | None = None
    ece_after: float | None = None

    @property
    def change(self) -> float:
        """Positive if the other form is better."""
        return self.after - self.before

    @property
    def interval(self) -> str:
        """As text; empty if it is unknown."""
        return "" if self.low is None or self.high is None else f"{self.low:+.4f} to {self.high:+.4f}"


@dataclass(frozen=True)
class Proof:
    """How far two runtimes agree.

    Attributes:
        photos: compared.
        agreement: share of photos with the same labels for all targets, or with the same boxes; of a form of a detector
            with thresholds of its own, share of boxes, see `box_proof.alike_boxes`.
        decisions: share of photos with the same decision (accept, review or unknown), each by its own
            thresholds; a score within rounding of its threshold may fall on either side. Of boxes likewise.
        difference: largest difference of any probability, value or unknown score.
        noise: squared error of the embedding, in parts of its square.
        change: of the score; `None` without labels.
    """

    photos: int
    agreement: float
    decisions: float
    difference: float
    noise: float = 0.0
    change: Change | None = None

    @property
    def holds(self) -> bool:
        """True if both are the same model."""
        return not self.unequal

    @property
    def unequal(self) -> str:
        """Why the two are not the same model; empty if they are."""
        if self.photos and self.agreement == self.decisions == 1.0 and self.difference <= MAX_DIFFERENCE:
            return ""
        return (
            f"of {self.photos} photos {self.agreement:.1%} have the same labels and {self.decisions:.1%} the same"
            f" decision, and scores differ by up to {self.difference:.2g}; required are 100 %, 100 % and at most"
            f" {MAX_DIFFERENCE:g}"
        )

    @property
    def cause(self) -> str:
        """Why two files of one network are unequal, and what to do."""
        if self.difference <= MAX_DIFFERENCE:
            return (
                "All scores are the same but for rounding, and labels or neighbouring boxes are tied, as they are in a"
                " model that has hardly learnt yet. Train it for longer; if it is trained, please report this."
            )
        return "This is a bug in the exporter or a broken installation; please report it."

    def costs_too_much(self, max_drop: float) -> str:
        """Why a form that may lose `max_drop` of the score is refused; empty if it is not."""
        if self.change is None:
            return "the compared photos have no labels for the model's targets; name other photos with --data"
        if not np.isfinite(self.difference):
            return "a prediction is not a number"
        if self.noise > MAX_NOISE:
            return f"the relative squared error of the embedding is {self.noise:.2f}; at most {MAX_NOISE:g} is allowed"
        if self.change.change >= -max_drop - 1e-9:
            return ""
        interval = f" (95 % interval of the change {self.change.interval})" if self.change.interval else ""
        return (
            f"on {self.change.photos} photos the score is {self.change.after:.4f} instead of {self.change.before:.4f}"
            f"{interval}; the allowed drop is {max_drop:g}"
        )


def outputs(runtime: Runtime, batches: Iterable[Pixels], columns: Columns | None = None) -> Outputs:
    """All outputs for photos, uint8 RGB [n, H, W, 3] each; none without photos.

    Of covariates, [N, C], every second photo goes without, so that both ways are compared.
    """
    parts: list[Outputs] = []
    if columns is not None:
        columns = columns.copy()
        columns[1::2] = np.nan
    at = 0
    for batch in batches:
        parts.append(runtime.run(batch) if columns is None else runtime.run(batch, columns[at : at + len(batch)]))
        at += len(batch)
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}


def compare(
    contract: Contract,
    expected: Outputs,
    actual: Outputs,
    *,
    served: Contract | None = None,
    labels: Mapping[str, NDArray[Any]] | None = None,
    groups: NDArray[np.int64] | None = None,
    boxes: AnnotatedBoxes | None = None,
) -> Proof:
    """Compare the outputs of two runtimes for the same photos.

    Args:
        contract: of the model.
        expected: by the model as it is.
        actual: by its other form.
        served: contract of the other form, if it has one of its own: then its boxes need only be alike.
        labels: by target, encoded, of all photos; targets may be missing.
        groups: [N], what is resampled as a whole; each photo alone if not given.
        boxes: annotated ones of the photos, of a model that finds boxes.

    Raises:
        GateError: the other form lacks an output of the contract.
    """
    if not expected:
        return Proof(0, 0.0, 0.0, 0.0)
    for name, answer in expected.items():
        if name not in actual or actual[name].shape != answer.shape:
            shape = ("N", *answer.shape[1:])
            raise GateError(
                f"The export has no output {name} of shape {shape}",
                "the file holds a different model",
                "Export it again.",
            )
    if contract.detection is not None:
        agreement, decisions, difference = (
            same_boxes(contract, expected, actual)
            if served is None
            else alike_boxes(contract, expected, served, actual)
        )
        gain = change_of_boxes(contract, boxes, expected, actual, groups) if boxes is not None else None
        return Proof(len(expected["score"]), agreement, decisions, difference, change=gain)
    if contract.anomaly is not None:
        return _of_anomalies(contract, expected, actual)
    photos = len(expected["unknown"])
    same = np.ones(photos, bool)
    for target in contract.targets:
        if target.kind != "value":
            same &= _same_labels(target, expected[f"target.{target.name}"], actual[f"target.{target.name}"])
    compared = ["unknown", *(f"target.{target.name}" for target in contract.targets)]
    return Proof(
        photos,
        float(same.mean()),
        float(_same_decisions(contract, expected, served or contract, actual, photos).mean()),
        max(_difference(expected[name], actual[name]) for name in compared),
        noise(expected["embedding"], actual["embedding"]),
        change(contract.targets, labels, expected, actual, groups) if labels else None,
    )


def _of_anomalies(contract: Contract, expected: Outputs, actual: Outputs) -> Proof:
    """Agreement of the labels and of the heat maps' marks: both but for rounding at the threshold."""
    limit, photos = contract.unknown_threshold, len(expected["score"])
    same = {
        name: ((expected[name] > limit) == (actual[name] > limit)) | (np.abs(expected[name] - limit) <= MAX_DIFFERENCE)
        for name in ("score", "heat_map")
    }
    return Proof(
        photos,
        float(same["heat_map"].reshape(photos, -1).all(axis=1).mean()),
        float(same["score"].mean()),
        max(_difference(expected[name], actual[name]) for name in same),
    )


def change(
    targets: Sequence[Target],
    labels: Mapping[str, NDArray[Any]],
    before: Outputs,
    after: Outputs,
    groups: NDArray[np.int64] | None = None,
) -> Change:
    """How the score changes, with a 95 % interval by the paired bootstrap over groups.

    Whole groups are drawn, as photos of one plant are not independent, and both forms are judged on the same draw;
    see `metrics.bootstrap`.
    """
    judged = [target for target in targets if target.name in labels]
    known = np.logical_or.reduce([target.labelled(labels[target.name]) for target in judged])
    together = Groups((np.arange(len(known)) if groups is None else groups).tolist())
    scores = [score(judged, labels, outputs) for outputs in (before, after)]
    worse, better = [_replicates(judged, labels, outputs, together) for outputs in (before, after)]
    errors = [_calibration_error(judged, labels, outputs) for outputs in (before, after)]
    return replace(_change(int(known.sum()), scores, better - worse), ece=errors[0], ece_after=errors[1])


def change_of_boxes(
    contract: Contract,
    truth: AnnotatedBoxes,
    before: Outputs,
    after: Outputs,
    groups: NDArray[np.int64] | None = None,
) -> Change:
    """As `change`, of `score_of_boxes`.

    Args:
        contract: of the model.
        truth: annotated boxes of the photos.
        before: outputs of the model as it is.
        after: outputs of its other form.
        groups: see `change`.
    """
    together = Groups((np.arange(len(truth.sides)) if groups is None else groups).tolist())
    statistics = [_of_boxes(contract, truth, outputs) for outputs in (before, after)]
    scores = [_average_precision(each) for each in statistics]
    worse, better = (
        np.nanmean([metrics.replicate([one], together, resamples=BOX_RESAMPLES, seed=0)["ap"] for one in each], axis=0)
        if together.count > 1
        else np.array([])
        for each in statistics
    )
    return _change(len(truth.sides), scores, better - worse)


def _change(photos: int, scores: Sequence[float], gains: NDArray[np.float64]) -> Change:
    """The change from the first to the second score, with the interval of its replicates."""
    interval = metrics.interval("change", scores[1] - scores[0], gains)
    return Change(photos, scores[0], scores[1], interval and interval.low, interval and interval.high)


def score_of_boxes(contract: Contract, truth: AnnotatedBoxes, outputs: Outputs) -> float:
    """The mean of average precisions: of boxes whatever their class, and of those of each target with classes."""
    return _average_precision(_of_boxes(contract, truth, outputs))


def _average_precision(statistics: Sequence[DetectionStatistic]) -> float:
    return float(np.mean([statistic.of_all()[0].get("ap", 0.0) for statistic in statistics]))


def _of_boxes(contract: Contract, truth: AnnotatedBoxes, outputs: Outputs) -> list[DetectionStatistic]:
    """The statistics of all boxes, and of each target with labels of several classes."""
    counts = (outputs["score"] >= _LEAST).sum(axis=1)  # the best come first
    every = of_one_class(
        [boxes[:count] for boxes, count in zip(outputs["boxes"], counts, strict=True)],
        [scores[:count] for scores, count in zip(outputs["score"], counts, strict=True)],
        truth.sides,
    )
    detections = [every]
    for target in contract.heads:
        true = np.concatenate([target.encode([]), *(labels[target.name] for labels in truth.labels)])
        if target.kind == "class" and target.size > 1 and (true >= 0).any():
            named = outputs[f"target.{target.name}"].argmax(axis=2)
            labels = np.concatenate([row[:count] for row, count in zip(named, counts, strict=True)])
            detections.append(replace(every, classes=target.classes, labels=labels, true_labels=true))
    return [DetectionStatistic(each, threshold=0.5) for each in detections]


def score(targets: Sequence[Target], labels: Mapping[str, NDArray[Any]], outputs: Outputs) -> float:
    """The mean over targets of macro-F1 (R2 for values); 0 where nothing is labelled."""
    answers = {target.name: outputs[f"target.{target.name}"] for target in targets}
    return metrics.selection_score(metrics.reports_of(targets, labels, answers))


def _calibration_error(targets: Sequence[Target], labels: Mapping[str, NDArray[Any]], outputs: Outputs) -> float | None:
    """The mean over targets of the expected calibration error; `None` if they are all values."""
    answers = {target.name: outputs[f"target.{target.name}"] for target in targets}
    errors = [each.scores["ece"] for each in metrics.reports_of(targets, labels, answers) if "ece" in each.scores]
    return float(np.mean(errors)) if errors else None


def noise(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> float:
    """Squared error of embeddings [N, D], in parts of their square."""
    return float(((candidate - reference) ** 2).sum() / np.maximum((reference**2).sum(), 1e-12))


def require(proof: Proof, what: str) -> Proof:
    """The proof if it holds. Raises `GateError` if not."""
    if not proof.holds:
        raise GateError(
            f"{what} is not the same model",
            proof.unequal,
            f"Nothing was published. {proof.cause}",
        )
    return proof


def _same_labels(target: Target, a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.bool_]:
    if target.kind == "class":
        return np.asarray(a.argmax(axis=1) == b.argmax(axis=1), bool)
    return np.asarray(((a >= 0.5) == (b >= 0.5)).all(axis=1), bool)


def _same_decisions(
    contract: Contract, first: Outputs, served: Contract, second: Outputs, photos: int
) -> NDArray[np.bool_]:
    expected = _decisions(contract, first, photos)
    easiest = _decisions(_shifted(served, MAX_DIFFERENCE), second, photos)
    hardest = _decisions(_shifted(served, -MAX_DIFFERENCE), second, photos)
    return np.asarray((easiest <= expected) & (expected <= hardest), bool)


def _shifted(contract: Contract, by: float) -> Contract:
    thresholds = {name: value - by for name, value in contract.thresholds.items()}
    changed = {"thresholds": thresholds, "unknown_threshold": contract.unknown_threshold + by}
    return contract.model_copy(update=changed)


def _decisions(contract: Contract, outputs: Outputs, photos: int) -> NDArray[np.int64]:
    reader = Reader(contract, top_k=1)
    return np.array([_WORSE[reader.read(outputs, row)[1]] for row in range(photos)])


def _difference(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> float:
    """The largest difference, of large values in parts of their size; infinite where one is not a number."""
    gaps = np.abs(reference - candidate) / np.maximum(1, np.abs(reference))
    return float(gaps.max(initial=0)) if np.isfinite(gaps).all() else np.inf


def _replicates(
    targets: Sequence[Target], labels: Mapping[str, NDArray[Any]], outputs: Outputs, groups: Groups
) -> NDArray[np.floating[Any]]:
    """`score` of every resample: float64 [R]; empty where fewer than two groups say nothing of others."""
    statistics = [of_target(target, labels[target.name], outputs[f"target.{target.name}"]) for target in targets]
    replicates = metrics.replicate(statistics, groups, resamples=RESAMPLES, seed=0)
    names = [f"{target.name}.{'r2' if target.kind == 'value' else 'macro_f1'}" for target in targets]
    return np.mean([replicates[name] for name in names], axis=0) if replicates else np.array([])
