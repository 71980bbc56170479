"""Learn to find boxes, and the targets of each."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from plantml.concurrency import Stop
from plantml.data import boxes
from plantml.data.manifest import Version
from plantml.imaging import Fit, Pixels
from plantml.model.bundle import Bundle
from plantml.model.contract import Architecture
from plantml.model.detector import LEVELS, CentreNet
from plantml.model.network import PhotoNet
from plantml.train import box_packaging, box_preview, prepare, warm_start, weights
from plantml.train.batches import Batch, StepSampler, step_loader
from plantml.train.box_cells import loss_of
from plantml.train.box_evaluation import evaluate
from plantml.train.box_photos import BoxAugmentation, BoxDataset, BoxPhotos
from plantml.train.history import Evaluation
from plantml.train.learner import Loading, PackagedModel, StepLearner
from plantml.train.lightning_module import PhotoModule
from plantml.train.plan import Plan
from plantml.train.probe import EmbeddingJob

CHANNELS = 64
"""Of the detector's map."""

_FEW_PHOTOS = 2000
"""Training photos below which batch statistics of the backbone stay those of its pretraining."""


class BoxModule(PhotoModule):
    """Trains a `CentreNet`."""

    net: CentreNet

    def loss(self, batch: Batch) -> Tensor:
        """See `PhotoModule.loss`."""
        return loss_of(
            self.net(batch["image"]),
            batch,
            self.plan.targets,
            scales=self.net.scales(),
            weights=self.plan.class_weights,  # where photos would be sampled, too: they cannot balance their boxes
            shifts=self.plan.class_logits,
            smoothing=self.plan.label_smoothing,
        ).total


class BoxLearner(StepLearner):
    """Learns boxes and their targets. Raises `InputError` if no photo of a split can be read.

    Attributes:
        train: photos a little larger than the input, for augmentation.
        val: photos as in detection.
    """

    shown: ClassVar[Sequence[str]] = ("boxes.ap50", "boxes.ap")
    net: CentreNet

    def __init__(self, version: Version, plan: Plan, loading: Loading) -> None:
        larger = round(plan.input.height * prepare.MARGIN)
        fit = Fit(larger, larger, plan.input.mode)
        self.train, unreadable = _photos(version, plan, "train", fit, loading)
        self.val, more = _photos(version, plan, "val", plan.input, loading)
        self.left_out = [*unreadable, *more]
        if not len(self.train.rows) or not len(self.val.rows):
            raise prepare.unreadable(version, self.left_out)
        self.plan = plan.model_copy(update={"epoch_photos": min(plan.epoch_photos, len(self.train.rows))})
        self.net = self.untrained(plan, offline=loading.machine.offline)
        labels = {name: np.concatenate([each[name] for each in self.train.labels]) for name in self.train.labels[0]}
        prepare.scale_values(self.net, labels)

    @staticmethod
    def untrained(plan: Plan, *, offline: bool) -> CentreNet:
        """See `Learner.untrained`."""
        torch.manual_seed(plan.seed)
        backbone = weights.features(plan.backbone, weights.of(plan), plan.input, LEVELS, offline=offline)
        net = CentreNet(architecture(plan), plan.targets, backbone)
        net.has_fixed_statistics = plan.train_photos < _FEW_PHOTOS and (plan.pretrained or bool(plan.parent))
        return net.train().to(memory_format=torch.channels_last)

    @staticmethod
    def augmenter(plan: Plan) -> Callable[[Pixels, int], Pixels]:
        """See `StepLearner.augmenter`."""

        def augment(pixels: Pixels, seed: int) -> Pixels:
            photos = BoxPhotos(
                pixels[None],
                np.zeros(1, np.uint64),
                np.zeros(1, np.int64),
                [np.empty((0, 4), np.float32)],
                [{}],
                [pixels.shape[1::-1]],
            )
            dataset = BoxDataset(photos, (), plan.input.height, seed, augmentation(plan))
            augmented: Pixels = dataset[(0, 0, 0)]["image"].numpy()
            return augmented

        return augment

    def start_from(self, parent: Bundle) -> list[str]:
        """See `StepLearner.start_from`."""
        return warm_start.load_detector_weights(self.net, parent, self.plan)

    def module(self) -> PhotoModule:
        """See `StepLearner.module`."""
        return BoxModule(self.net, self.plan)

    def warm_up(self, job: EmbeddingJob) -> None:
        """Nothing: the map that the heads read is as new as they are."""

    def batches(self, start: int, epochs: int, rank: int, size: int) -> DataLoader[Batch]:
        """See `StepLearner.batches`."""
        sampler = StepSampler(self.train, self.plan, start, epochs, rank=rank, size=size)
        return step_loader(self._augmented(), sampler, self.plan)

    def _augmented(self) -> BoxDataset:
        plan = self.plan
        return BoxDataset(self.train, plan.targets, plan.input.height, plan.seed, augmentation(plan))

    def evaluate(self, net: PhotoNet, stop: Stop) -> Evaluation | None:
        """See `StepLearner.evaluate`."""
        assert isinstance(net, CentreNet)
        return evaluate(net, self.val, self.plan, stop)

    def example(self) -> bytes:
        """See `Learner.example`."""
        places = next(iter(StepSampler(self.train, self.plan, size=self.plan.world)))
        dataset = self._augmented()
        return box_preview.example_batch([dataset[place] for place in places], self.plan.targets)

    def package(self, version: Version) -> PackagedModel:
        """See `Learner.package`."""
        return box_packaging.package(self.net, self.plan, architecture(self.plan), self.val, version)


def augmentation(plan: Plan) -> BoxAugmentation:
    """The augmentation of a plan."""
    return BoxAugmentation(plan.input.height, plan.augment, plan.mosaic)


def architecture(plan: Plan) -> Architecture:
    """The description of a plan's network."""
    mean, std = weights.statistics(plan.backbone)
    return Architecture(backbone=plan.backbone, embedding=CHANNELS, mean=mean, std=std, bank=0)


def _photos(
    version: Version, plan: Plan, split: str, fit: Fit, loading: Loading
) -> tuple[BoxPhotos, Sequence[tuple[str, str]]]:
    """The photos of a split, decoded, with their boxes; and those that could not be read."""
    rows = version.usable(split).sort("image_id", "source", "name")
    decoded = prepare.decode(version, rows, fit, f"decoding {split}", loading)
    drawn, labels, sizes = [], [], []
    for width, height, annotated in rows.select("width", "height", "boxes").iter_rows():
        of_photo = boxes.from_rows(annotated) or ()
        sides = np.array([[box.x, box.y, box.w, box.h] for box in of_photo], np.float64).reshape(-1, 4)
        sizes.append((width, height))
        drawn.append(fit.placement(width, height).to_input(sides))
        labels.append(
            {target.name: target.encode([box.labels.get(target.name) for box in of_photo]) for target in plan.targets}
        )
    return BoxPhotos(decoded.pixels, decoded.keys, decoded.rows, drawn, labels, sizes), decoded.left_out
