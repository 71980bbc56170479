"""`--watch` with an alias of a registry: the model changes over when the alias moves, and the records say so."""

import time
from collections.abc import Callable
from typing import Any

from plantml.detect.config import DetectConfig
from plantml.detect.detect import Extras
from plantml.errors import InputError, PlantmlError
from plantml.model.bundle import Bundle
from plantml.model.pipeline import Pipeline
from plantml.registry import ledger

Opened = tuple[Pipeline, Extras]


def followed(bundle: Bundle, config: DetectConfig) -> str:
    """The alias, `REGISTRY/leaf@production`, that a watch follows; empty where the model stays the same."""
    url, at = ledger.parse(bundle.ref)
    return f"{url}@{at}" if config.watch and at and not at.isdecimal() else ""


def shape(bundle: Bundle, config: DetectConfig) -> list[Any]:
    """What the models of one output must have in common, as JSON: targets, and what the output's form needs."""
    classes = config.format in {"coco", "megadetector"}
    targets = [
        [target.name, target.kind, target.unit, *(target.classes if classes else ())]
        for target in bundle.contract.targets
    ]
    return [targets, bundle.contract.architecture.embedding if config.embeddings else None]


class Follower:
    """Tells when an alias has moved, and brings the model that it points to.

    Args:
        bundle: the model in use.
        config: what is asked; `config.interval` is the time between two looks.
        open_: gives what a reference needs to answer.
        tell: gets a line when something happened.
    """

    def __init__(
        self,
        bundle: Bundle,
        config: DetectConfig,
        open_: Callable[[str], Opened],
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._config, self._open, self._tell = config, open_, tell
        self._alias, self._shape, self._digest = followed(bundle, config), shape(bundle, config), bundle.digest
        self._url, self._at = ledger.parse(self._alias)
        self._acts = ledger.Acts(self._url)
        self._due, self._said, self._seen = 0.0, "", False

    def __call__(self) -> Opened | None:
        """The model that is in service now if it is another one than before.

        What cannot be reached or is damaged changes nothing: the model in use goes on, and it is tried again.

        Raises:
            InputError: the other model has other targets, which do not belong into the same output.
        """
        if not self._alias or time.monotonic() < self._due:
            return None
        self._due = time.monotonic() + self._config.interval
        try:
            if self._seen and not self._acts.log.grown():
                return None
            self._seen = False
            entry = self._acts.ledger().entry(str(self._at))
            if entry.digest == self._digest:
                self._seen = True
                return None
            opened = self._open(f"{self._url}@{entry.number}")
        except PlantmlError as error:
            self._once(f"Cannot look at {self._alias} now, model {self._digest[:12]} goes on: {error}")
            return None
        if shape(opened[0].bundle, self._config) != self._shape:
            raise InputError(
                f"{self._alias} is version {entry.number} now, which predicts other targets",
                "records of both do not belong into one output",
                "Start again with another --out, or promote a model with the same targets.",
            )
        self._digest, self._seen = entry.digest, True
        self._once(f"{self._alias} is version {entry.number} now: model {entry.digest[:12]} from here on")
        return opened

    def _once(self, text: str) -> None:
        if text != self._said:
            self._tell(text)
            self._said = text
