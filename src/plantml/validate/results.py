"""What a validation produces: scores, intervals, slices and gates, and the data that its reports are drawn from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from plantml import metrics, storage
from plantml.about import __version__
from plantml.metrics import Interval, Report
from plantml.metrics.bootstrap import LEVEL
from plantml.metrics.detection import DetectionReport
from plantml.model.contract import Contract
from plantml.model.pipeline import Pipeline
from plantml.targets import Target
from plantml.validate import compare, covariates, leaks, robustness, slices
from plantml.validate.compare import Comparison
from plantml.validate.config import ValidateConfig
from plantml.validate.covariates import Contributions
from plantml.validate.gates import Gate
from plantml.validate.leaks import Leaks
from plantml.validate.predictions import Predictions
from plantml.validate.robustness import Robustness
from plantml.validate.selection import Photos
from plantml.validate.slices import Slice

METRICS_FORMAT = 2


@dataclass(frozen=True)
class ValidationResult:
    """The result of a validation.

    `versions` are reference, fingerprint and number of photos of each dataset. `failed` photos have no prediction and
    do not count in the scores. `left_out` are photos, or boxes, whose class a model does not know, by target;
    `unannotated` are photos that nobody drew boxes on, `without_photo` rows of the split that have none. Intervals are
    over `groups` of photos. `leaks` is `None` if the training photos are unknown, `form` for float32. `new` counts
    predictions that were computed now.
    """

    versions: Sequence[tuple[str, str, int]]
    split: str
    model: str
    contract: Contract
    photos: int
    failed: Sequence[tuple[str, str]]
    reports: Sequence[Report]
    scores: Mapping[str, float]
    intervals: Mapping[str, Interval]
    groups: int
    decisions: Mapping[str, int]
    slices: Sequence[Slice]
    leaks: Leaks | None
    comparison: Comparison | None
    gates: Sequence[Gate]
    left_out: Mapping[str, int]
    out: str | None
    allowed: int
    new: int
    config: ValidateConfig
    unannotated: int = 0
    without_photo: int = 0
    review: int = 0
    written: Sequence[str] = ()
    robustness: Robustness | None = None
    contributions: Contributions | None = None
    detections: Mapping[str, DetectionReport] = field(default_factory=dict)
    anomalies: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    form: Mapping[str, str] | None = None

    @property
    def dataset(self) -> str:
        """References of the versions."""
        return ", ".join(ref for ref, _, _ in self.versions)

    @property
    def passed(self) -> bool:
        """True if no gate failed."""
        return all(gate.passed for gate in self.gates)

    @property
    def unit(self) -> str:
        """What scores of targets are about: `photos` or `boxes`."""
        return "boxes" if self.detections else "photos"


OutcomesT_co = TypeVar("OutcomesT_co", covariant=True)
"""Labels and outputs of photos: `Outcomes`, or `BoxOutcomes` of a model that finds boxes."""


@dataclass(frozen=True)
class OtherModel(Generic[OutcomesT_co]):
    """The model that `--against` names: its predictions for the same photos, and common targets with its classes."""

    predictions: Predictions
    targets: Sequence[Target]
    outcomes: OutcomesT_co


@dataclass(frozen=True)
class Validation(Generic[OutcomesT_co]):
    """A finished validation: its result, and the data that reports and tables are made from.

    `readable` are places of photos with a prediction of every model; the outcomes are theirs.
    """

    result: ValidationResult
    pipeline: Pipeline
    photos: Photos
    predictions: Predictions
    readable: Sequence[int]
    outcomes: OutcomesT_co
    other: OtherModel[OutcomesT_co] | None
    photo_cache: storage.Cache | None


def as_json(result: ValidationResult) -> dict[str, Any]:
    """The result as the content of `metrics.json`."""
    return {
        "plantml_metrics": METRICS_FORMAT,
        "plantml": __version__,
        "datasets": [
            {"ref": ref, "fingerprint": fingerprint, "photos": number} for ref, fingerprint, number in result.versions
        ],
        "split": result.split,
        "where": result.config.where,
        "model": result.model,
        **({"form": result.form} if result.form else {}),
        "model_ref": result.config.model,
        "photos": result.photos,
        "left_out": dict(result.left_out),
        **({"unannotated": result.unannotated} if result.detections else {}),
        **({"without_photo": result.without_photo} if result.without_photo else {}),
        "failed": [list(pair) for pair in result.failed],
        "allowed_failures": result.allowed,
        "scores": dict(result.scores),
        "intervals": dict(result.intervals),
        "bootstrap": {
            "level": LEVEL,
            "over": "groups",
            "groups": result.groups,
            "resamples": result.config.resamples,
            "seed": result.config.seed,
        },
        **({"boxes": {name: each.as_json() for name, each in result.detections.items()}} if result.detections else {}),
        **({"anomalies": {kind: dict(row) for kind, row in result.anomalies.items()}} if result.anomalies else {}),
        "targets": {report.target: metrics.as_json(report) for report in result.reports},
        "decisions": dict(result.decisions),
        "slices": slices.as_json(result.slices),
        "leaks": leaks.as_json(result.leaks) if result.leaks else None,
        "robustness": robustness.as_json(result.robustness) if result.robustness else None,
        **({"covariates": covariates.as_json(result.contributions)} if result.contributions else {}),
        "against": compare.as_json(result.comparison) if result.comparison else None,
        "gates": [gate.as_json() for gate in result.gates],
    }
