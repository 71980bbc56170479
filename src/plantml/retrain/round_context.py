"""The context of a step: configuration, results so far, and machine."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plantml.concurrency import Listener, Stop
from plantml.data import versions
from plantml.data.manifest import Version
from plantml.model.pipeline import Pipeline
from plantml.retrain.config import RetrainConfig
from plantml.retrain.rounds import Round
from plantml.settings import Machine

Result = Mapping[str, Any]
"""Result of a step as JSON types; repeating the step gives the same."""


@dataclass(frozen=True)
class Work:
    """A round in progress.

    Attributes:
        config: fixed when the round began.
        round: results so far.
        machine: threads and cache.
        by: author, for the registry's history.
        stop: checked regularly.
        listener: receives status lines, progress and warnings.
    """

    config: RetrainConfig
    round: Round
    machine: Machine
    by: str
    stop: Stop
    listener: Listener

    def result(self, step: str) -> Result:
        """The result of a finished step."""
        return self.round.results[step]

    def base(self) -> Version | None:
        """The dataset at the start of the round; `None` if there was none."""
        number = self.round.begun["base"]
        return versions.load(f"{self.config.dataset}@{number}") if number else None

    def version(self) -> Version:
        """The dataset after `split`, for training and evaluation."""
        return versions.load(self.result("split")["dataset"])

    @property
    def model(self) -> str:
        """Reference of the version in service; empty if there was none."""
        number = self.result("production")["number"]
        return f"{self.config.model}@{number}" if number else ""

    def pipeline(self, ref: str) -> Pipeline:
        """The pipeline of a model, aligned to all classes of the dataset."""
        from plantml.registry.references import open_model
        from plantml.retrain.class_alignment import align_classes

        bundle, runtime = open_model(ref, cache=self.machine.cache())
        bundle, runtime = align_classes(bundle, runtime, self.version().targets)
        return Pipeline(bundle, runtime, threads=self.machine.threads)
