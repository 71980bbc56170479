"""What differs between kinds of training: the network, its photos, how they are judged and packaged."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from torch.utils.data import DataLoader

from plantml.concurrency import Progress, Stop
from plantml.data.manifest import Version
from plantml.imaging import Pixels
from plantml.model.bundle import Bundle
from plantml.model.contract import Contract
from plantml.model.network import PhotoNet
from plantml.settings import Machine
from plantml.train.history import Evaluation
from plantml.train.lightning_module import PhotoModule
from plantml.train.plan import Plan
from plantml.train.probe import EmbeddingJob
from plantml.train.run_folder import RunFolder


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
    def example(self) -> bytes:
        """A PNG of the first training batch, with labels."""

    @abstractmethod
    def package(self, version: Version) -> PackagedModel:
        """The bundle of the trained network, which is on the CPU and in evaluation mode.

        Raises:
            GateError: the ONNX file does not reproduce the network's predictions.
        """


class StepLearner(Learner):
    """A learner that trains by gradient steps."""

    shown: ClassVar[Sequence[str]] = ()
    """Scores of every epoch that are shown, beside those of the targets."""

    @staticmethod
    @abstractmethod
    def augmenter(plan: Plan) -> Callable[[Pixels, int], Pixels]:
        """What augments a training photo, given a seed; to measure its speed."""

    @abstractmethod
    def start_from(self, parent: Bundle) -> list[str]:
        """Load the weights of a parent bundle, and return what it lacks, as text. Raises as `warm_start`."""

    def label_others(self, run: RunFolder, job: EmbeddingJob) -> str:  # noqa: ARG002 - most have no others
        """Label the unlabelled photos, and return what came of it, as text; empty without such photos.

        The labels are a file of the run, so that a resumed run has the same.
        """
        return ""

    @abstractmethod
    def module(self) -> PhotoModule:
        """The network as Lightning trains it."""

    @abstractmethod
    def warm_up(self, job: EmbeddingJob) -> None:
        """Prepare the network before the first step, where that helps."""

    @abstractmethod
    def batches(self, start: int, epochs: int, rank: int, size: int) -> DataLoader[dict[str, Tensor]]:
        """Training batches from step `start` on, this process's share; see `batches.StepSampler`."""

    @abstractmethod
    def evaluate(self, net: PhotoNet, stop: Stop) -> Evaluation | None:
        """Evaluate a network on the validation split; `None` if a signal stopped it. It is left in training mode."""


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
