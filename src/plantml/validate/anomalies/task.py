"""The steps of a validation of models that score how unlike normal photos a photo is."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from plantml.model.contract import Anomaly, Contract
from plantml.targets import Target
from plantml.validate.anomalies import report, scoring
from plantml.validate.predictions import Predictions
from plantml.validate.selection import Photos
from plantml.validate.task import Task


class AnomalyTask(Task):
    """For models that score how unlike normal photos a photo is."""

    pictures = staticmethod(report.pictures)
    render = staticmethod(report.render)

    @property
    def _anomaly(self) -> Anomaly:
        assert self.contract.anomaly is not None
        return self.contract.anomaly

    def select(self, refs: Sequence[str], models: Sequence[Sequence[Target]]) -> Photos:
        """See `Task`."""
        return scoring.select(refs, self._anomaly, self.config)

    def outcomes(
        self, model: Contract, targets: Sequence[Target], photos: Photos, predicted: Predictions, places: Sequence[int]
    ) -> Any:
        """See `Task`."""
        return scoring.outcomes(photos, predicted, places)

    def evaluate(self, outcomes: Any) -> Any:
        """See `Task`."""
        return scoring.evaluate(outcomes, self.config)

    def learnt_from(self, rows: pl.DataFrame) -> pl.DataFrame:
        """See `Task`."""
        return scoring.normal_rows(rows, self._anomaly.normal)

    def attributes(self, photos: Photos, evaluation: Any) -> dict[str, Any]:
        """See `Task`."""
        return {"anomalies": evaluation.kinds}
