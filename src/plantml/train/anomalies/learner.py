"""Learn what normal photos look like: where the means of their maps lie, and a bank of their parts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plantml.concurrency import Progress, Stop, batched
from plantml.data import normality
from plantml.data.manifest import Version
from plantml.metrics.anomaly import AnomalyStatistic
from plantml.model.anomaly import DeployedAnomaly, PatchNet
from plantml.model.contract import ANOMALY
from plantml.train import prepare, probe, weights
from plantml.train.anomalies import packaging
from plantml.train.anomalies.packaging import JudgedPhotos
from plantml.train.history import Evaluation, History
from plantml.train.learner import EpochCallback, Learner, Loading, PackagedModel
from plantml.train.plan import Plan
from plantml.train.probe import EmbeddingJob
from plantml.train.session import Session

CANDIDATES = 10
"""Cells of normal photos that are looked at for each one that is kept."""

_SHOWN = 16

_WHOLE = 256
"""Photos whose distances are computed at a time."""

_LEAST_SPREAD = 0.5
"""Spread of a class, whose mean over all photos is one, below which its photos are too much alike to tell."""


class AnomalyLearner(Learner):
    """Learns what normal photos look like. Raises `InputError` if no photo of a split can be read.

    Attributes:
        train: normal photos.
        val: photos of the validation split; all but the normal ones are only reported on.
        rows: of the manifest, in the order of the readable ones of `val`.
        truth: of these, 0 where normal, 1 where anomalous, -1 where not labelled: [N].
        kinds: what these show.
        classes: of the normal photos that differ by a target.
        of_class: number of the class of each training photo, -1 without one: [N].
        deployed: the network, whose thresholds `package` sets.
        judged: what it says of `val`, after `fit`.
    """

    net: PatchNet
    judged: JudgedPhotos

    def __init__(self, version: Version, plan: Plan, loading: Loading) -> None:
        rows = version.usable("train").sort("image_id", "source", "name")
        if plan.epoch_photos < rows.height:
            chosen = np.random.default_rng(plan.seed).permutation(rows.height)[: plan.epoch_photos]
            rows = rows[sorted(chosen.tolist())]
        val = version.usable("val").sort("image_id", "source", "name")
        self.train = prepare.decode(version, rows, plan.input, "decoding train", loading)
        self.val = prepare.decode(version, val, plan.input, "decoding val", loading)
        self.left_out = [*self.train.left_out, *self.val.left_out]
        self.rows = val[self.val.rows]
        self.truth = ANOMALY.encode(normality.labels_of(self.rows, version, plan.normal).to_list())
        self.kinds = normality.kinds(self.rows, plan.normal).to_list()
        if len(self.train.rows) < 2 or not (self.truth == 0).any():
            raise prepare.unreadable(version, self.left_out)
        self.plan = plan.model_copy(update={"epoch_photos": len(self.train.rows)})
        self.net = self.untrained(plan, offline=loading.machine.offline)
        names = rows[self.train.rows][plan.by].to_list() if plan.by else []
        self.classes = tuple(sorted({name for name in names if name is not None}))
        numbers = {name: number for number, name in enumerate(self.classes)}
        self.of_class = torch.tensor(
            [numbers.get(name, -1) for name in names] if numbers else [0] * len(self.train.rows)
        )
        bank, count = torch.zeros(1, sum(self.net.channels)), max(1, len(self.classes))
        self.deployed = DeployedAnomaly(self.net, bank, classes=count).eval()

    @staticmethod
    def untrained(plan: Plan, *, offline: bool) -> PatchNet:
        """See `Learner.untrained`."""
        torch.manual_seed(plan.seed)  # of weights that are not pretrained
        levels = plan.anomaly.levels
        backbone = weights.features(plan.backbone, weights.of(plan), plan.input, levels, offline=offline)
        channels: list[int] = backbone.feature_info.channels()  # type: ignore[union-attr, operator]
        return PatchNet(packaging.architecture(plan, sum(channels)), levels, backbone).eval()

    def fit(self, session: Session, on_epoch: EpochCallback) -> History:
        """See `Learner.fit`: look at every photo once. The history has one row.

        The same seed gives the same network, also after an interruption: what is random depends on seed and photo.
        """
        job = session.embedding_job("looking at photos", self.plan.device)
        self.net.to(job.device)
        whole, cells = self._features(job)
        self.net.to("cpu")
        self.net.centre.copy_(cells.mean(dim=0))
        self.net.scale.copy_(1 / cells.std(dim=0).clamp(min=1e-6))
        cells = (cells - self.net.centre) * self.net.scale
        self.deployed.bank = coreset(cells, self.plan.anomaly.cells, self.plan.seed, job.stop, job.progress)
        learn_photos(self.deployed, whole, self.of_class)
        train = torch.cat([self.deployed.photo_distances(part) for part in torch.split(whole, _WHOLE)])
        self.judged = self._judge(job)
        distances = self.judged.distances
        normal = float(distances[self.truth == 0].mean())
        scores = AnomalyStatistic(distances, self.truth, self.kinds, np.inf).of_all()
        shown: dict[str, float] = {
            name: scores[name] for name in ("anomaly.auroc", "anomaly.average_precision") if name in scores
        }
        history = History()
        on_epoch(history.add(0, float(train.mean()), Evaluation(normal, -normal, shown)), self.plan.epochs)
        return history

    def epoch_line(self, row: Mapping[str, float], epochs: int) -> str:  # noqa: ARG002 - there is one
        """See `Learner.epoch_line`."""
        words = (
            f"distance of training photos {row['train_loss']:.3f}  of normal validation photos {row['val_loss']:.3f}"
        )
        return f"{words}  anomaly.auroc {row['anomaly.auroc']:.3f}" if "anomaly.auroc" in row else words

    def example(self) -> bytes:
        """See `Learner.example`: normal photos."""
        return packaging.sheet([self.train.pixels[row] for row in self.train.rows[:_SHOWN]])

    def package(self, version: Version) -> PackagedModel:
        """See `Learner.package`."""
        return packaging.package(self.deployed, self.plan, self.classes, self.judged, version)

    def _features(self, job: EmbeddingJob) -> tuple[Tensor, Tensor]:
        """Of the training photos, the means of the maps [N, D], and of each as many cells, drawn at random [C, D]."""
        photos, size, seed = self.train.rows, sum(self.net.channels), self.plan.seed
        stride = self.plan.anomaly.levels[0]
        total = (self.plan.input.height // stride) * (self.plan.input.width // stride)
        each = min(total, -(-CANDIDATES * self.plan.anomaly.cells // len(photos)))

        def compute(numbers: Sequence[int]) -> Tensor:
            places = photos[list(numbers)]
            features = {name: part.cpu() for name, part in self.net(_batch(self.train.pixels[places], job)).items()}
            cells = features["cells"].flatten(1, 2)
            drawn = [
                np.random.default_rng([seed, int(key)]).permutation(total)[:each] for key in self.train.keys[places]
            ]
            chosen = torch.stack([part[torch.from_numpy(at)] for part, at in zip(cells, drawn, strict=True)])
            return torch.cat([features["whole"], chosen.flatten(1)], dim=1)

        key = probe.key_of(f"{each}-cells", self.train.keys[photos])
        vectors = probe.saved_vectors(key, len(photos), compute, job)
        return vectors[:, :size], vectors[:, size:].reshape(-1, size)

    def _judge(self, job: EmbeddingJob) -> JudgedPhotos:
        """Measure the distances of the validation photos."""
        self.deployed.to(job.device)
        photos, normal_cells = [], []
        for places in batched(range(len(self.val.rows)), self.plan.batch_size):
            _check(job.stop)
            with torch.inference_mode():
                features = self.net(_batch(self.val.pixels[self.val.rows[places]], job))
                photos.append(self.deployed.photo_distances(features["whole"]).cpu().numpy())
                cells = self.deployed.cell_distances(features["cells"]).cpu().numpy()
            normal_cells.append(cells[self.truth[places] == 0].ravel())
        self.deployed.to("cpu")
        distances = np.concatenate(photos), np.concatenate(normal_cells)
        return JudgedPhotos(self.val, self.rows, self.truth, self.kinds, *distances)


def coreset(cells: Tensor, size: int, seed: int, stop: Stop, progress: Progress) -> Tensor:
    """Cells that cover all: each is the one farthest from those before it (greedy k-center; Gonzalez 1985).

    Args:
        cells: float32 [C, D].
        size: number of cells to choose; all are taken if there are fewer.
        seed: of the first one.
        stop: checked now and then.
        progress: called with (done, total) cells.

    Returns:
        The cells [M, D] in the order of their choice.
    """
    size = min(size, len(cells))
    squares = (cells * cells).sum(dim=1)
    chosen = [int(np.random.default_rng(seed).integers(len(cells)))]
    nearest = torch.full((len(cells),), torch.inf)
    while len(chosen) < size:
        if len(chosen) % 50 == 0:
            progress(len(chosen), size)
            _check(stop)
        last = cells[chosen[-1]]
        nearest = torch.minimum(nearest, squares + last @ last - 2 * (cells @ last))
        chosen.append(int(nearest.argmax()))
    progress(size, size)
    return cells[chosen].clone()


def learn_photos(deployed: DeployedAnomaly, whole: Tensor, of_class: Tensor) -> None:
    """Learn where normal photos of each class lie, and how far apart.

    The covariance is that of all classes, as each may have few photos; the spread is of each, as a class of varied
    photos would otherwise look more anomalous than the diseased photos of another.

    Args:
        deployed: that learns.
        whole: means of the maps of normal photos: [N, D].
        of_class: numbers of their classes; photos with -1 are left out: [N].
    """
    known = of_class >= 0
    whole, of_class = whole[known], of_class[known]
    places = [of_class == number for number in range(len(deployed.means))]
    deployed.means.copy_(torch.stack([whole[own].mean(dim=0) for own in places]))
    for level, part in enumerate(torch.split(whole - deployed.means[of_class], deployed.net.channels, dim=1)):
        white = torch.from_numpy(whitening(part.double().numpy()))
        deployed.get_buffer(f"whitening_{level}").copy_(white)
        distances = torch.linalg.vector_norm(part @ white, dim=1)
        for number, own in enumerate(places):
            count = int(own.sum())
            if count > 1:  # photos are nearer to their own mean than others are
                typical = float(distances[own].mean()) * (count / (count - 1)) ** 0.5
                deployed.spread[number, level] = max(typical, _LEAST_SPREAD)


def whitening(samples: NDArray[np.float64]) -> NDArray[np.float32]:
    """What makes differences of samples [N, C] Mahalanobis distances, whose mean over the samples is one: [C, C].

    The covariance is shrunk towards a multiple of the identity, as there may be fewer samples than features (Ledoit and
    Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices").
    """
    count, size = samples.shape
    centred = samples - samples.mean(axis=0)
    covariance = centred.T @ centred / count
    scale = np.trace(covariance) / size
    spread = ((covariance - scale * np.eye(size)) ** 2).sum()
    squares = centred**2
    noise = ((squares.T @ squares / count - covariance**2) / count).sum()
    share = min(1.0, noise / max(spread, 1e-30))
    values, vectors = np.linalg.eigh((1 - share) * covariance + share * scale * np.eye(size))
    white = vectors / np.sqrt(np.maximum(values, 1e-12))
    typical = np.linalg.norm(centred @ white, axis=1).mean()
    return np.asarray(white / max(typical, 1e-12), np.float32)


def _batch(pixels: Any, job: EmbeddingJob) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).to(job.device)


def _check(stop: Stop) -> None:
    if stop:
        raise stop.error("Training stopped before the model was made", "Repeat the same command to resume.")
