"""The steps of a validation, which differ by what a model does."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import polars as pl

from plantml.model.contract import Contract
from plantml.model.pipeline import Pipeline, Prediction
from plantml.targets import Target
from plantml.validate import (
    compare,
    covariates,
    prediction_tables,
    predictions,
    report,
    review,
    robustness,
    scoring,
    selection,
    slices,
)
from plantml.validate.compare import Comparison
from plantml.validate.config import ValidateConfig
from plantml.validate.prediction_cache import PredictionCache
from plantml.validate.predictions import Machine, Predictions
from plantml.validate.results import Validation
from plantml.validate.selection import Photos
from plantml.validate.slices import Slice

Files = Mapping[str, bytes]
"""Contents by file name."""


class Task:
    """The steps for models that predict classes and values of whole photos; `AnomalyTask` and `BoxTask` override some.

    Outcomes are labels and outputs of photos, an evaluation the scores of outcomes, of the types that a task has.
    """

    compare: ClassVar[Callable[..., Comparison]] = staticmethod(compare.compare)
    pictures: ClassVar[Callable[..., Files]] = staticmethod(report.pictures)
    render: ClassVar[Callable[..., bytes]] = staticmethod(report.render)
    tables: ClassVar[Callable[..., Files]] = staticmethod(prediction_tables.write)

    def __init__(self, pipeline: Pipeline, config: ValidateConfig, machine: Machine) -> None:
        self.pipeline, self.config, self.machine = pipeline, config, machine
        self.contract = pipeline.bundle.contract

    @property
    def finds_boxes(self) -> bool:
        """Whether predictions are boxes."""
        return self.contract.detection is not None

    def select(self, refs: Sequence[str], models: Sequence[Sequence[Target]]) -> Photos:
        """The photos of the datasets that models with these targets are validated on."""
        return selection.select(refs, models, self.config)

    def predict(self, pipeline: Pipeline, rows: pl.DataFrame, name: str) -> Predictions:
        """A model's predictions for the photos of `rows`; progress is shown under this name."""
        what, config = "boxes" if self.finds_boxes else "photos", self.config
        cache = PredictionCache.of(pipeline, what, self.machine.settings, device=config.device, fresh=config.fresh)
        return predictions.predict(pipeline, rows, cache, self.machine, name)

    def outcomes(
        self, model: Contract, targets: Sequence[Target], photos: Photos, predicted: Predictions, places: Sequence[int]
    ) -> Any:
        """Labels and outputs of the photos at `places`, all readable; targets have the predicting model's classes."""
        return scoring.outcomes(model, targets, photos, predicted, places)

    def evaluate(self, outcomes: Any) -> Any:
        """Scores with their intervals."""
        return scoring.evaluate(outcomes, self.config)

    def learnt_from(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Those of the photos to train on that the model has learnt from."""
        return rows

    def slices(self, outcomes: Any, evaluation: Any, rows: pl.DataFrame, trained: pl.DataFrame) -> list[Slice]:
        """Scores of parts of the photos, given what the model has learnt from."""
        counts = {
            target.name: dict(trained[target.name].drop_nulls().value_counts().iter_rows())
            for target in outcomes.targets
            if target.kind == "class" and target.name in trained.columns
        }
        return slices.slices(outcomes, rows, counts, resamples=self.config.resamples, seed=self.config.seed)

    def attributes(self, photos: Photos, evaluation: Any) -> dict[str, Any]:
        """The attributes of a result that only this task has."""
        of_model = self.pipeline, photos, self.config, self.machine
        return {
            "robustness": robustness.robustness(*of_model) if self.config.robustness else None,
            "contributions": covariates.contributions(*of_model),
        }

    def to_review(self, validation: Validation[Any]) -> Files:
        """Photos that a person should label next, as Label Studio tasks: unlabelled ones, if there are any."""
        unlabelled = review.candidates(validation.photos.versions, validation.photos.targets)
        rows, items = self.with_predictions(unlabelled, validation, "unlabelled photos")
        picks = review.choose(rows, items, self.contract.targets, self.config.review)
        return review.label_files(
            rows, items, self.contract.targets, picks, model=validation.result.model, photo_cache=self.machine.photos
        )

    def with_predictions(
        self, rows: pl.DataFrame, validation: Validation[Any], name: str
    ) -> tuple[pl.DataFrame, Sequence[Prediction]]:
        """Rows to choose from with their predictions: these, or, where there are none, those of the validation."""
        if rows.is_empty():
            return validation.photos.rows, validation.predictions.items
        return rows, self.predict(self.pipeline, rows, name).items
