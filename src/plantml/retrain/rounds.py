"""Rounds in the work folder, the results of their steps, each created exclusively, and what a step works with.

WORK/
  events/000001.json            begin and end of rounds, the lease
  rounds/000001/01-add.json …   results of the steps, numbered
  rounds/000001/challenger/     the run
  rounds/000001/report.html …   and other outputs of the steps
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plantml import storage
from plantml.concurrency import Listener, Stop
from plantml.data import boxes, versions
from plantml.data.manifest import Version
from plantml.errors import AlreadyExistsError, InputError, NotFoundError
from plantml.model.pipeline import Pipeline
from plantml.model.tiled_pipeline import build_pipeline
from plantml.registry.references import open_model
from plantml.retrain.class_alignment import align_classes
from plantml.retrain.config import RetrainConfig
from plantml.settings import Machine
from plantml.storage import checksums
from plantml.storage.event_log import Event, Events

EVENTS, ROUNDS = "events", "rounds"
BEGIN, END = "begin", "end"
STEPS = ("add", "clean", "split", "production", "train", "predict", "compare", "choose", "register", "report")
"""Names of the steps, in the order in which they run."""

CHALLENGER = "challenger"
"""Folder of the run of a round; the name of its model in results."""


@dataclass(frozen=True)
class Rounds:
    """All rounds, as a fold over the events: by number, content of `begin`, and time and content of `end`."""

    begun: Mapping[int, Mapping[str, Any]]
    ended: Mapping[int, tuple[str, Mapping[str, Any]]]

    @property
    def open(self) -> int:
        """The unfinished round; 0 for none."""
        last = max(self.begun, default=0)
        return 0 if last in self.ended else last

    @property
    def last(self) -> int:
        """The last finished round that was not abandoned; 0 for none."""
        done = [number for number, (_, content) in self.ended.items() if content["outcome"] != "abandoned"]
        return max(done, default=0)


def fold(events: Sequence[Event]) -> Rounds:
    """The rounds of these events."""
    begun: dict[int, Mapping[str, Any]] = {}
    ended: dict[int, tuple[str, Mapping[str, Any]]] = {}
    for event in events:
        act, number = event.content.get("act"), event.content.get("round")
        if act not in (BEGIN, END):
            continue
        key, kind = ("config", dict) if act == BEGIN else ("outcome", str)
        if type(number) is not int or not isinstance(event.content.get(key), kind):
            raise event.damaged(f"it is not the {act} of a round")
        if act == BEGIN:
            begun[number] = event.content
        else:
            ended.setdefault(number, (event.time, event.content))
    return Rounds(begun, ended)


def log(work: str) -> str:
    """URL of the events of a work folder."""
    return storage.join(storage.absolute(work), EVENTS)


def begin(work: str, content: Mapping[str, Any]) -> int:
    """Begin the next round, unless one is open. Returns the number of the open round."""

    def decide(events: Sequence[Event]) -> Mapping[str, Any] | None:
        state = fold(events)
        return None if state.open else {"act": BEGIN, "round": max(state.begun, default=0) + 1, **content}

    events = Events(log(work))
    events.append(decide)
    return fold(events.read()).open


def end(work: str, number: int, content: Mapping[str, Any]) -> None:
    """End a round, unless it has ended."""

    def decide(events: Sequence[Event]) -> Mapping[str, Any] | None:
        return {"act": END, "round": number, **content} if fold(events).open == number else None

    Events(log(work)).append(decide)


def state(work: str) -> Rounds:
    """The current state of all rounds."""
    return fold(Events(log(work)).read())


def folder(work: str, number: int) -> str:
    """URL of the folder of a round."""
    return storage.join(storage.absolute(work), ROUNDS, f"{number:06d}")


class Round:
    """One round and the results of its steps."""

    def __init__(self, work: str, number: int, begun: Mapping[str, Any]) -> None:
        self.number, self.begun = number, begun
        self.url = folder(work, number)
        self.results: dict[str, Mapping[str, Any]] = {}
        files = {storage.join(self.url, _file(name)): name for name in STEPS}
        for url, data in storage.read_many(files):
            if isinstance(data, NotFoundError):
                continue
            if isinstance(data, Exception):
                raise data
            self.results[files[url]] = _result(url, data)

    @property
    def next(self) -> str | None:
        """The first step without a result; `None` if all are finished."""
        return next((name for name in STEPS if name not in self.results), None)

    def place(self, *parts: str) -> str:
        """URL of a file or folder of the round."""
        return storage.join(self.url, *parts)

    def record(self, name: str, result: Mapping[str, Any], about: Mapping[str, Any]) -> Mapping[str, Any]:
        """Store the result of a step; if another machine was faster, its result counts."""
        content = {"step": name, "time": storage.now_utc(), **about, "result": result}
        url = self.place(_file(name))
        with contextlib.suppress(AlreadyExistsError):
            storage.create(url, checksums.to_json(content, indent=2))
        self.results[name] = _result(url, storage.read(url))
        return self.results[name]


Result = Mapping[str, Any]
"""Result of a step as JSON types; repeating the step gives the same."""


@dataclass(frozen=True)
class Work:
    """A round in progress, with the configuration that was fixed when it began."""

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

    @property
    def model(self) -> str:
        """Reference of the version in service; empty if there was none."""
        number = self.result("production")["number"]
        return f"{self.config.model}@{number}" if number else ""

    def pipeline(self, ref: str) -> Pipeline:
        """The pipeline of a model, aligned to all classes of the dataset, or of its boxes."""
        bundle, runtime = open_model(ref, cache=self.machine.cache())
        version = versions.load(self.result("split")["dataset"])
        targets = version.targets
        if bundle.contract.detection is not None:
            targets = boxes.targets_of(version.rows["boxes"].explode().drop_nulls(), targets)
        bundle, runtime = align_classes(bundle, runtime, targets)
        return build_pipeline(bundle, runtime, threads=self.machine.threads)


def _file(name: str) -> str:
    return f"{STEPS.index(name) + 1:02d}-{name}.json"


def _result(url: str, data: bytes) -> Mapping[str, Any]:
    hint = "Restore it from a backup; or delete it, and this step and those after it run again."
    result = checksums.from_json(data, url, hint).get("result")
    if not isinstance(result, dict):
        raise InputError(f"{url} is damaged", "it does not hold the result of a step", hint)
    return result
