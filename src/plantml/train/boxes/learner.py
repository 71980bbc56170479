"""Learn to find boxes, and the targets of each."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import polars as pl
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
from plantml.targets import Target
from plantml.train import prepare, warm_start, weights
from plantml.train.batches.loader import Batch, StepSampler, step_loader
from plantml.train.boxes import packaging, preview, pseudo_boxes
from plantml.train.boxes.cells import loss_of
from plantml.train.boxes.evaluation import evaluate
from plantml.train.boxes.photos import BoxAugmentation, BoxDataset, BoxPhotos
from plantml.train.boxes.pseudo_boxes import OtherPhotos
from plantml.train.history import Evaluation
from plantml.train.learner import Loading, PackagedModel
from plantml.train.lightning_module import PhotoModule
from plantml.train.plan import Plan
from plantml.train.prepare import Decoded
from plantml.train.probe import EmbeddingJob
from plantml.train.run_folder import RunFolder
from plantml.train.step_learner import StepLearner
from plantml.train.unlabelled_photos import add_rows, select_unlabelled

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
        train: photos a little larger than the input, for augmentation; of its rows, those with boxes, or pseudo-boxes.
        val: photos as in detection.
    """

    shown: ClassVar[Sequence[str]] = ("boxes.ap50", "boxes.ap")
    net: CentreNet

    def __init__(self, version: Version, plan: Plan, loading: Loading) -> None:
        larger = round(plan.input.height * prepare.MARGIN)
        fit = Fit(larger, larger, plan.input.mode)
        rows = version.usable("train").sort("image_id", "source", "name")
        labelled, self._others = rows.height, None
        if plan.unlabelled:
            others = select_unlabelled(plan.unlabelled, version, ["boxes"])
            labelled, rows = add_rows(rows, others)
        decoded = prepare.decode(version, rows, fit, "decoding train", loading)
        self.train = _photos(rows, replace(decoded, rows=decoded.rows[decoded.rows < labelled]), fit, plan.targets)
        self._annotated = self.train.rows
        if plan.unlabelled:
            readable = decoded.rows[decoded.rows >= labelled]
            chosen = rows[readable.tolist()]
            seen = prepare.decode(version, chosen, plan.input, "decoding unlabelled photos", loading)
            ids, sizes = chosen["image_id"].to_list(), chosen.select("width", "height").rows()
            self._others = OtherPhotos(seen.pixels, readable, ids, sizes, fit)
        val = version.usable("val").sort("image_id", "source", "name")
        judged = prepare.decode(version, val, plan.input, "decoding val", loading)
        self.val = _photos(val, judged, plan.input, plan.targets)
        self.left_out = [*decoded.left_out, *judged.left_out]
        self._pseudo_boxes: dict[str, int] = {}
        if not len(self.train.rows) or not len(self.val.rows):
            raise prepare.unreadable(version, self.left_out)
        self._planned, self.plan = plan, plan.limited_to(len(self.train.rows))
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

    def label_others(self, run: RunFolder, job: EmbeddingJob) -> str:
        """See `StepLearner.label_others`: with the boxes that the model finds which this one starts from."""
        others = self._others
        if others is None:
            return ""

        def find() -> pl.DataFrame:
            return pseudo_boxes.find_boxes(warm_start.parent_detector(self.plan), others, self.plan, job)

        self.train, counts = pseudo_boxes.complete(self.train, others, self.plan, run, find)
        self._pseudo_boxes = counts
        self.plan = self._planned.limited_to(len(self.train.rows))
        return f"Pseudo-boxes in {len(others.rows)} unlabelled photos: {counts['boxes']} in {counts['photos']} photos."

    def module(self) -> PhotoModule:
        """See `StepLearner.module`."""
        return BoxModule(self.net, self.plan)

    def warm_up(self, job: EmbeddingJob) -> None:
        """Nothing: the map that the heads read is as new as they are."""

    def batches(self, start: int, epochs: int, rank: int, size: int) -> DataLoader[Batch]:
        """See `StepLearner.batches`."""
        sampler = StepSampler(self.train, self.plan, start, epochs, rank=rank, size=size, trusted=self._annotated)
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
        places = next(iter(StepSampler(self.train, self.plan, size=self.plan.world, trusted=self._annotated)))
        dataset = self._augmented()
        return preview.example_batch([dataset[place] for place in places], self.plan.targets)

    def package(self, version: Version) -> PackagedModel:
        """See `Learner.package`."""
        model = packaging.package(self.net, self.plan, architecture(self.plan), self.val, version)
        if not self._pseudo_boxes:
            return model
        return replace(model, metrics={**model.metrics, "pseudo_boxes": self._pseudo_boxes})


def augmentation(plan: Plan) -> BoxAugmentation:
    """The augmentation of a plan."""
    return BoxAugmentation(plan.input.height, plan.augment, plan.mosaic)


def architecture(plan: Plan) -> Architecture:
    """The description of a plan's network."""
    mean, std = weights.statistics(plan.backbone)
    return Architecture(backbone=plan.backbone, embedding=CHANNELS, mean=mean, std=std, bank=0)


def _photos(rows: pl.DataFrame, decoded: Decoded, fit: Fit, targets: Sequence[Target]) -> BoxPhotos:
    """Photos with the boxes of their rows."""
    drawn, labels, sizes = [], [], []
    for width, height, annotated in rows.select("width", "height", "boxes").iter_rows():
        of_photo = boxes.from_rows(annotated) or ()
        sides = np.array([[box.x, box.y, box.w, box.h] for box in of_photo], np.float64).reshape(-1, 4)
        sizes.append((width, height))
        drawn.append(fit.placement(width, height).to_input(sides))
        labels.append(pseudo_boxes.encoded(targets, of_photo))
    return BoxPhotos(decoded.pixels, decoded.keys, decoded.rows, drawn, labels, sizes)
