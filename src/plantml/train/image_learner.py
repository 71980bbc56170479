"""Learn the targets of whole photos."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from plantml.concurrency import Stop
from plantml.data.manifest import Version
from plantml.imaging import Pixels
from plantml.model.bundle import Bundle
from plantml.model.network import PhotoNet, PlantNet
from plantml.train import distributed, packaging, prepare, probe, pseudo_labels, warm_start
from plantml.train.batches.loader import augmentation, evaluation_loader, training_loader
from plantml.train.batches.preview import example_batch
from plantml.train.evaluation import evaluate
from plantml.train.history import Evaluation, History
from plantml.train.learner import EpochCallback, Loading, PackagedModel
from plantml.train.lightning_module import PlantModule
from plantml.train.plan import Plan
from plantml.train.run_folder import RunFolder
from plantml.train.session import Session
from plantml.train.step_learner import StepLearner


class ImageLearner(StepLearner):
    """Learns the targets of whole photos. Raises as `prepare.load`.

    Attributes:
        data: the photos.
        photos: that are trained on: the labelled ones, and the unlabelled ones that got a pseudo-label.
    """

    net: PlantNet

    def __init__(self, version: Version, plan: Plan, loading: Loading) -> None:
        self.data = prepare.load(version, plan, loading)
        self.photos, self._pseudo_labels = self.data.train, dict[str, int]()
        self._planned, self.plan = plan, plan.limited_to(len(self.photos.rows))
        self.left_out = self.data.left_out
        self.net = prepare.network(plan, self.data.train, offline=loading.machine.offline)
        self._embed = probe.in_torch(self.net, "cpu")

    @staticmethod
    def untrained(plan: Plan, *, offline: bool) -> PlantNet:
        """See `Learner.untrained`."""
        return prepare.untrained(plan, offline=offline)

    @staticmethod
    def augmenter(plan: Plan) -> Callable[[Pixels, int], Pixels]:
        """See `StepLearner.augmenter`."""
        return augmentation(plan)

    def start_from(self, parent: Bundle) -> list[str]:
        """See `StepLearner.start_from`."""
        return warm_start.load_parent_weights(self.net, parent, self.plan)

    def label_others(self, run: RunFolder, job: probe.EmbeddingJob) -> str:
        """See `StepLearner.label_others`."""
        data, others = self.data, len(self.data.unlabelled)
        if not others:
            return ""

        def embed(rows: NDArray[np.int64]) -> NDArray[np.float32]:
            return probe.embed_plain(self.net, self.plan, data.train, rows, job)

        self.photos, self._pseudo_labels = pseudo_labels.complete(data, self.plan, run, embed)
        self.plan = self._planned.limited_to(len(self.photos.rows))
        counts = ", ".join(f"{name} {number}" for name, number in self._pseudo_labels.items())
        return f"Pseudo-labels of {others} unlabelled photos: {counts}."

    def module(self) -> PlantModule:
        """See `StepLearner.module`."""
        return PlantModule(self.net, self.plan, self.data.bare)

    def batches(self, start: int, epochs: int, rank: int, size: int) -> DataLoader[dict[str, Tensor]]:
        """See `StepLearner.batches`."""
        return training_loader(self.photos, self.plan, start, epochs, rank=rank, size=size)

    def fit(self, session: Session, on_epoch: EpochCallback) -> History:
        """See `Learner.fit`; of a plan in mode `probe`, the heads only."""
        if self.plan.mode != "probe":
            return super().fit(session, on_epoch)
        data, job = self.data, session.embedding_job("embedding", self.plan.device)
        total = self.plan.views * len(self.photos.rows) + len(data.val.rows) + len(data.bank)
        self._embed = probe.embedding(self.net, self.plan, total, job)
        return probe.fit(
            self.net,
            self.plan,
            self.photos,
            data.val,
            bare=data.bare,
            embed=self._embed,
            job=job,
            on_epoch=lambda row: on_epoch(row, self.plan.epochs),
        )

    def warm_up(self, job: probe.EmbeddingJob) -> None:
        """See `StepLearner.warm_up`."""
        if self.plan.mode == "finetune":
            probe.warm_up_heads(self.net, self.plan, self.photos, job, self.data.bare)

    def evaluate(self, net: PhotoNet, stop: Stop) -> Evaluation | None:
        """See `StepLearner.evaluate`."""
        assert isinstance(net, PlantNet)
        batches = evaluation_loader(self.data.val, distributed.rank(), distributed.world_size())
        return evaluate(net, batches, self.plan, stop)

    def example(self) -> bytes:
        """See `Learner.example`."""
        return example_batch(self.photos, self.plan)

    def package(self, version: Version) -> PackagedModel:
        """See `Learner.package`."""
        model = packaging.package(self.net, self.plan, self.data, version, self._embed)
        if not self._pseudo_labels:
            return model
        return replace(model, metrics={**model.metrics, "pseudo_labels": self._pseudo_labels})
