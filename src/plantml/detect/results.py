"""What a detection returns, and what its records hold beyond predictions."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a detection without these options does not wait for them
    from plantml.detect.advice import Advice
    from plantml.detect.similar import Similar


@dataclass(frozen=True)
class Extras:
    """Optional content of records."""

    similar: "Similar | None" = None
    advice: "Advice | None" = None


@dataclass(frozen=True)
class DetectionResult:
    """Result of a detection.

    Attributes:
        out: URL of the output.
        images: images that have a record.
        failures: failed images by reason code.
        decisions: records by decision.
        labels: by class target, records by label; of a detector, boxes by label.
        boxes: found in all images; `None` for models of whole images.
        resumed: records from an earlier run.
        skipped: files that were skipped, by reason.
        seconds: duration of processing the new images.
        allowed: failures tolerated before the exit code is 5.
        written: records in the output; fewer than `images` with a condition or `changed_only`.
        annotated: photos drawn.
        sorted: photos added to each label's folder.
        warnings: a sentence each.
        covariates: by name, photos that have each covariate of the model, see `covariates.Coverage`.
    """

    out: str
    images: int
    failures: Mapping[str, int]
    decisions: Mapping[str, int]
    labels: Mapping[str, Mapping[str, int]]
    boxes: int | None
    resumed: int
    skipped: Mapping[str, int]
    seconds: float
    allowed: int
    written: int
    annotated: int = 0
    sorted: Mapping[str, int] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    covariates: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """Number of failed images."""
        return sum(self.failures.values())


class Tally:
    """Counts of records by failure, decision and label, and of a detector's boxes."""

    def __init__(self) -> None:
        self.images = 0
        self.failures: Counter[str] = Counter()
        self.decisions: Counter[str] = Counter()
        self.labels: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.boxes: int | None = None

    def add(self, record: Mapping[str, Any]) -> None:
        """Count a record."""
        self.images += 1
        if record["failure"] is not None:
            self.failures[record["failure"].split(":")[0]] += 1
            return
        self.decisions[record["decision"]] += 1
        for name, prediction in record["targets"].items():
            if "label" in prediction:
                self.labels[name][prediction["label"]] += 1
        if "counts" in record:
            self.boxes = (self.boxes or 0) + record["counts"]["boxes"]
            for name, labels in record["counts"].items():
                if name != "boxes":
                    self.labels[name].update(labels)
