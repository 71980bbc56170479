"""A training run in Python."""

import io
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from plantml import settings, storage
from plantml.api import html
from plantml.api.model import Model, load
from plantml.registry import references

if TYPE_CHECKING:
    import polars as pl

    from plantml.train.plan import Plan


class Run:
    """What one training wrote: plan, history, scores and model.

    Args:
        url: of the run's folder.

    Raises:
        NotFoundError: there is no finished run.
    """

    def __init__(self, url: str | Path) -> None:
        self.url = storage.absolute(str(url))
        self._bundle = references.find(self.url, settings.machine().cache())

    def __repr__(self) -> str:
        return f"<Run {self.url}: model {self._bundle.digest[:12]}>"

    @cached_property
    def model(self) -> Model:
        """The trained model."""
        return load(self.url)

    @cached_property
    def plan(self) -> "Plan":
        """Every choice of the training, with its reasons. Needs the extra `train`."""
        from plantml.train.run_folder import RunFolder

        return RunFolder(self.url, settings.machine()).plan()

    @property
    def history(self) -> "pl.DataFrame":
        """One row per epoch: losses and scores."""
        import polars as pl

        return pl.read_csv(io.BytesIO(storage.read(storage.join(self.url, "history.csv"))))

    @property
    def scores(self) -> Mapping[str, float]:
        """Scores of the validation split, calibrated."""
        return self._bundle.contract.metrics

    def _repr_html_(self) -> str:
        rows = [("run", self.url), ("model", self._bundle.digest[:12]), *self.scores.items()]
        return html.table(("", "validation split"), rows)


ModelInput: TypeAlias = Model | Run | str | Path
"""A model, the run that made it, or a reference to one."""


def model_ref(model: ModelInput) -> str:
    """The reference of a model."""
    if isinstance(model, Run):
        return model.url
    return model.ref if isinstance(model, Model) else str(model)
