"""What differs between kinds of training: the network, its photos, how they are judged and packaged."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plantml.concurrency import Progress, Stop
from plantml.data.manifest import Version
from plantml.model.contract import Contract
from plantml.model.network import PhotoNet
from plantml.settings import Machine
from plantml.train.history import History
from plantml.train.plan import Plan
from plantml.train.session import Session

EpochCallback = Callable[[Mapping[str, float], int], None]
"""Called with each row of the history and the planned number of epochs."""


@dataclass(frozen=True)
class PackagedModel:
    """A bundle's content, ready to publish, and what a run keeps beside it.

    Attributes:
        contract: of the model.
        digest: of the model.
        files: bytes by name, except `model.json`.
        model_json: the bytes of `model.json`.
        metrics: on the validation split, for `metrics.json`.
        plots: PNG by name.
    """

    contract: Contract
    digest: str
    files: Mapping[str, bytes]
    model_json: bytes
    metrics: Mapping[str, Any]
    plots: Mapping[str, bytes]


class Learner(ABC):
    """A network and the photos that it learns from.

    Attributes:
        plan: of the run; an epoch has no more photos than could be read.
        net: to train.
        left_out: names and reasons of photos that could not.
    """

    @abstractmethod
    def __init__(self, version: Version, plan: Plan, loading: "Loading") -> None: ...

    plan: Plan
    net: PhotoNet
    left_out: Sequence[tuple[str, str]]

    @staticmethod
    @abstractmethod
    def untrained(plan: Plan, *, offline: bool) -> PhotoNet:
        """The network with pretrained backbone and random heads, which depend on the seed only."""

    @abstractmethod
    def fit(self, session: Session, on_epoch: EpochCallback) -> History:
        """Train the network, which ends with the weights of the best epoch."""

    @abstractmethod
    def epoch_line(self, row: Mapping[str, float], epochs: int) -> str:
        """A row of the history, of so many, in words."""

    @abstractmethod
    def example(self) -> bytes:
        """A PNG of the first training batch, with labels."""

    @abstractmethod
    def package(self, version: Version) -> PackagedModel:
        """The bundle of the trained network, which is on the CPU and in evaluation mode.

        Raises:
            GateError: the ONNX file does not reproduce the network's predictions.
        """


@dataclass(frozen=True)
class Loading:
    """How photos are loaded for a learner.

    Attributes:
        machine: threads and cache.
        progress: display of a stage by its name.
        stop: checked after each photo.
    """

    machine: Machine
    progress: Callable[[str], Progress]
    stop: Stop | None = None
