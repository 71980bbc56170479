"""The steps of a validation of models that find boxes."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from plantml.model.contract import Contract
from plantml.targets import Target
from plantml.validate import slices
from plantml.validate.boxes import compare, report, review, scoring, selection, tables
from plantml.validate.predictions import Predictions
from plantml.validate.results import Validation
from plantml.validate.selection import Photos
from plantml.validate.slices import Slice
from plantml.validate.task import Files, Task


class BoxTask(Task):
    """For models that find boxes."""

    compare = staticmethod(compare.compare)
    pictures = staticmethod(report.pictures)
    render = staticmethod(report.render)
    tables = staticmethod(tables.write)

    def select(self, refs: Sequence[str], models: Sequence[Sequence[Target]]) -> Photos:
        """See `Task`."""
        return selection.select(refs, models, self.config)

    def outcomes(
        self, model: Contract, targets: Sequence[Target], photos: Photos, predicted: Predictions, places: Sequence[int]
    ) -> Any:
        """See `Task`."""
        return scoring.outcomes(model, targets, photos, predicted, places)

    def evaluate(self, outcomes: Any) -> Any:
        """See `Task`."""
        return scoring.evaluate(outcomes, self.config)

    def slices(self, outcomes: Any, evaluation: Any, rows: pl.DataFrame, trained: pl.DataFrame) -> list[Slice]:
        """See `Task`."""
        bootstrap = {"resamples": self.config.resamples, "seed": self.config.seed}
        return slices.box_slices(evaluation.counts, outcomes.groups, rows, **bootstrap)

    def attributes(self, photos: Photos, evaluation: Any) -> dict[str, Any]:
        """See `Task`."""
        return {"detections": evaluation.detections}

    def to_review(self, validation: Validation[Any]) -> Files:
        """See `Task`: photos without annotation, if there are any."""
        unannotated = review.candidates(validation.photos.versions)
        rows, items = self.with_predictions(unannotated, validation, "photos without annotation")
        picks = review.choose(rows, items, self.contract, self.config.review)
        return review.files(
            rows, items, self.contract, picks, model=validation.result.model, photo_cache=self.machine.photos
        )
