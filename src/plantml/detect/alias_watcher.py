"""`--watch` with a registry alias: switch to the new model when the alias moves."""

import time
from collections.abc import Callable
from typing import Any

from plantml.detect import writers
from plantml.detect.config import DetectConfig
from plantml.detect.results import Extras
from plantml.errors import InputError, PlantmlError
from plantml.model.bundle import Bundle
from plantml.model.pipeline import Pipeline
from plantml.registry import ledger

_NUMBERED = frozenset({"coco", "megadetector", "yolo"})
"""Formats that number the classes."""

LoadedModel = tuple[Pipeline, Extras]


def watched_alias(bundle: Bundle, config: DetectConfig) -> str:
    """The alias, `REGISTRY/leaf@production`, that a watch follows; empty if the model is fixed."""
    url, version = ledger.parse_reference(bundle.ref)
    return f"{url}@{version}" if config.watch and version and not version.isdecimal() else ""


def output_schema(bundle: Bundle, config: DetectConfig) -> list[Any]:
    """What all models that write to one output must share: targets, and what the output format needs."""
    is_detector = bundle.contract.detection is not None
    # A detector's tables have a column per class.
    fixes_classes = config.format in _NUMBERED or (is_detector and not writers.is_jsonl(config))
    targets = [
        [target.name, target.kind, target.unit, *(target.classes if fixes_classes else ())]
        for target in bundle.contract.targets
    ]
    schema: list[Any] = [targets, bundle.contract.architecture.embedding if config.embeddings else None]
    return [*schema, "boxes"] if is_detector else schema


class AliasWatcher:
    """Detects that an alias has moved, and loads the model that it now points to.

    Args:
        bundle: the model in use.
        config: options; `config.interval` is the polling interval.
        load: loads the model of a reference.
        say: receives status lines.
    """

    def __init__(
        self,
        bundle: Bundle,
        config: DetectConfig,
        load: Callable[[str], LoadedModel],
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._config, self._load, self._say = config, load, say
        self._alias, self._schema = watched_alias(bundle, config), output_schema(bundle, config)
        self._digest = bundle.source_digest
        self._url, self._name = ledger.parse_reference(self._alias)
        self._history = ledger.History(self._url)
        self._next_poll, self._last_line, self._is_current = 0.0, "", False

    def __call__(self) -> LoadedModel | None:
        """The new model if the alias has moved, else `None`.

        If the registry cannot be reached or the new version is damaged, the current model stays in use until the next
        poll.

        Raises:
            InputError: the new model has other targets, so its records cannot go to the same output.
        """
        if not self._alias or time.monotonic() < self._next_poll:
            return None
        self._next_poll = time.monotonic() + self._config.interval
        try:
            if self._is_current and not self._history.log.grown():
                return None
            self._is_current = False
            entry = self._history.ledger().entry(str(self._name))
            if entry.digest == self._digest:
                self._is_current = True
                return None
            loaded = self._load(f"{self._url}@{entry.number}")
        except PlantmlError as error:
            self._say_once(f"Could not check {self._alias}; model {self._digest[:12]} stays in use: {error}")
            return None
        if output_schema(loaded[0].bundle, self._config) != self._schema:
            raise InputError(
                f"{self._alias} moved to version {entry.number}, which predicts other targets",
                "one output cannot hold the records of both",
                "Restart with another --out, or promote a model with the same targets.",
            )
        self._digest, self._is_current = entry.digest, True
        self._say_once(f"{self._alias} moved to version {entry.number}: using model {entry.digest[:12]} from now on")
        return loaded

    def _say_once(self, line: str) -> None:
        if line != self._last_line:
            self._say(line)
            self._last_line = line
