"""What differs in the validation of models that judge whole photos, score anomalies, or find boxes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import polars as pl

from plantml.model.contract import Anomaly, Contract
from plantml.model.pipeline import Pipeline, Prediction
from plantml.targets import Target
from plantml.validate import (
    anomalies,
    box_report,
    box_review,
    box_scoring,
    box_selection,
    box_tables,
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
    """The steps of a validation, for models that predict classes and values of whole photos; others override some.

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
        return scoring.outcomes(targets, photos, predicted, places)

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
        rows, items = self._with_predictions(unlabelled, validation, "unlabelled photos")
        picks = review.choose(rows, items, self.contract.targets, self.config.review)
        return review.label_files(
            rows, items, self.contract.targets, picks, model=validation.result.model, photo_cache=self.machine.photos
        )

    def _with_predictions(
        self, rows: pl.DataFrame, validation: Validation[Any], name: str
    ) -> tuple[pl.DataFrame, Sequence[Prediction]]:
        if rows.is_empty():
            return validation.photos.rows, validation.predictions.items
        return rows, self.predict(self.pipeline, rows, name).items


class AnomalyTask(Task):
    """For models that score how unlike normal photos a photo is."""

    pictures = staticmethod(anomalies.pictures)
    render = staticmethod(anomalies.render)

    @property
    def _anomaly(self) -> Anomaly:
        assert self.contract.anomaly is not None
        return self.contract.anomaly

    def select(self, refs: Sequence[str], models: Sequence[Sequence[Target]]) -> Photos:
        """See `Task`."""
        return anomalies.select(refs, self._anomaly, self.config)

    def outcomes(
        self, model: Contract, targets: Sequence[Target], photos: Photos, predicted: Predictions, places: Sequence[int]
    ) -> Any:
        """See `Task`."""
        return anomalies.outcomes(photos, predicted, places)

    def evaluate(self, outcomes: Any) -> Any:
        """See `Task`."""
        return anomalies.evaluate(outcomes, self.config)

    def learnt_from(self, rows: pl.DataFrame) -> pl.DataFrame:
        """See `Task`."""
        return anomalies.normal_rows(rows, self._anomaly.normal)

    def attributes(self, photos: Photos, evaluation: Any) -> dict[str, Any]:
        """See `Task`."""
        return {"anomalies": evaluation.kinds}


class BoxTask(Task):
    """For models that find boxes."""

    compare = staticmethod(compare.compare_boxes)
    pictures = staticmethod(box_report.pictures)
    render = staticmethod(box_report.render)
    tables = staticmethod(box_tables.write)

    def select(self, refs: Sequence[str], models: Sequence[Sequence[Target]]) -> Photos:
        """See `Task`."""
        return box_selection.select(refs, models, self.config)

    def outcomes(
        self, model: Contract, targets: Sequence[Target], photos: Photos, predicted: Predictions, places: Sequence[int]
    ) -> Any:
        """See `Task`."""
        return box_scoring.outcomes(model, targets, photos, predicted, places)

    def evaluate(self, outcomes: Any) -> Any:
        """See `Task`."""
        return box_scoring.evaluate(outcomes, self.config)

    def slices(self, outcomes: Any, evaluation: Any, rows: pl.DataFrame, trained: pl.DataFrame) -> list[Slice]:
        """See `Task`."""
        bootstrap = {"resamples": self.config.resamples, "seed": self.config.seed}
        return slices.box_slices(evaluation.counts, outcomes.groups, rows, **bootstrap)

    def attributes(self, photos: Photos, evaluation: Any) -> dict[str, Any]:
        """See `Task`."""
        return {"detections": evaluation.detections}

    def to_review(self, validation: Validation[Any]) -> Files:
        """See `Task`: photos without annotation, if there are any."""
        unannotated = box_review.candidates(validation.photos.versions)
        rows, items = self._with_predictions(unannotated, validation, "photos without annotation")
        picks = box_review.choose(rows, items, self.contract, self.config.review)
        return box_review.files(
            rows, items, self.contract, picks, model=validation.result.model, photo_cache=self.machine.photos
        )
