"""What every step of a round gets: the configuration, the results so far, and the machine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from plantml.concurrency import Progress, Stop
from plantml.data import versions
from plantml.data.manifest import Version
from plantml.model.pipeline import Pipeline
from plantml.retrain.config import RetrainConfig
from plantml.retrain.rounds import Round
from plantml.settings import Machine

Result = Mapping[str, Any]
"""Of a step: JSON types, the same again if the step is done again."""


@dataclass(frozen=True)
class Work:
    """A round under way.

    Attributes:
        config: pinned when the round began.
        round: results so far.
        machine: whose threads and cache are used.
        by: who acts, for the registry's history.
        stop: asked now and then.
        say: told what happens.
        progress: gives a progress for a named part of the work.
        warn: told what somebody must see.
    """

    config: RetrainConfig
    round: Round
    machine: Machine
    by: str
    stop: Stop
    say: Callable[[str], None]
    progress: Callable[[str], Progress]
    warn: Callable[[str], None] = lambda _: None

    def result(self, step: str) -> Result:
        """Of a step that is done."""
        return self.round.results[step]

    def base(self) -> Version | None:
        """The dataset as it was when the round began; `None` if there was none."""
        number = self.round.begun["base"]
        return versions.load(f"{self.config.dataset}@{number}") if number else None

    def version(self) -> Version:
        """The dataset as `split` left it: what is trained and judged on."""
        return versions.load(self.result("split")["dataset"])

    @property
    def model(self) -> str:
        """Reference of the version in service; empty if there was none."""
        found = self.result("production")
        return f"{self.config.model}@{found['number']}" if found["number"] else ""

    def pipeline(self, ref: str) -> Pipeline:
        """A model, ready to answer, which knows all classes of the dataset."""
        from plantml.registry.references import open_model
        from plantml.retrain.class_alignment import align_classes

        bundle, runtime = open_model(ref, cache=self.machine.cache())
        bundle, runtime = align_classes(bundle, runtime, self.version().targets)
        return Pipeline(bundle, runtime, threads=self.machine.threads)
