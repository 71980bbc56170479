"""A detector and the classifier of its boxes."""

from plantml.imaging import Pixels
from plantml.model.bundle import Bundle
from plantml.model.covariates import Columns
from plantml.model.runtimes.interface import Outputs, Runtime


class TwoStageRuntime:
    """Runs a detector; whoever cuts the boxes from the photo runs the classifier on them.

    Args:
        detector: of the boxes.
        bundle: of the classifier.
        classifier: that predicts the targets of crops.
    """

    def __init__(self, detector: Runtime, bundle: Bundle, classifier: Runtime) -> None:
        self.name = classifier.name  # it may name added classes, and keys what is cached
        self.detector, self.bundle, self.classifier = detector, bundle, classifier

    def run(self, batch: Pixels, columns: Columns | None = None) -> Outputs:
        """Boxes; see `Runtime.run`."""
        return self.detector.run(batch, columns)
