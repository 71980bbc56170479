"""Training in seconds: the backbone stays as it is, its embeddings are computed once, only the heads learn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plantml.concurrency import Progress, Stop, batched, silent
from plantml.model.network import PlantNet
from plantml.train.batches import PhotoDataset, Photos, augmentation
from plantml.train.embedding_store import Parts, Rows
from plantml.train.evaluation import judge
from plantml.train.history import History
from plantml.train.losses import total_loss
from plantml.train.plan import Plan
from plantml.train.planning import HEADS_FIRST

_BATCH = 32
"""Photos that are embedded at once."""

_FIRST_EPOCHS, _FIRST_BATCH, _FIRST_RATE = 30, 256, 5e-3
"""Of the heads on plain embeddings, before a backbone is tuned."""


@dataclass(frozen=True)
class Looking:
    """How photos are embedded.

    Attributes:
        device: that makes embeddings.
        parts: where they are kept until all are there.
        stop: asked after each batch.
        progress: called with (done, total) photos.
    """

    device: str
    parts: Parts
    stop: Stop
    progress: Progress = silent


def fit(
    net: PlantNet,
    plan: Plan,
    train: Photos,
    val: Photos,
    *,
    looking: Looking,
    told: Callable[[dict[str, float]], None],
) -> History:
    """Train the heads of `net`, which are left as they were in the best epoch.

    The same seed gives the same weights: views depend on (seed, view, photo), the order of steps on (seed, epoch).
    """
    net.eval()
    seen = _features(net, plan, train, train.rows, looking)
    judged, truth = _plain(net, val, replace(looking, progress=silent))
    optimiser, schedule = _optimiser(net, plan, plan.epochs, plan.lr)
    history, best = History(), net.heads.state_dict()
    for epoch in range(plan.epochs):
        loss = _epoch(net, plan, seen, epoch, optimiser, batch=plan.batch_size)
        schedule.step()
        with torch.no_grad():
            found = judge(net, plan.targets, net.classify(judged), truth)
        row = history.add(epoch, loss, found.loss, found.reports)
        if history.best_epoch == epoch:
            best = {name: value.clone() for name, value in net.heads.state_dict().items()}
        if (epoch + 1) % 10 == 0:
            told(row)
        if epoch - history.best_epoch >= plan.patience:
            break
    net.heads.load_state_dict(best)
    return history


def fit_heads_first(net: PlantNet, plan: Plan, train: Photos, looking: Looking) -> None:
    """Give fresh heads a start on embeddings of the training photos as they are, of some where they are many.

    Else their first, large gradients would spoil what the backbone knows (Kumar et al. 2022, "Fine-tuning can
    distort pretrained features").
    """
    net.eval()
    rows = train.rows
    if len(rows) > HEADS_FIRST:
        rows = np.sort(np.random.default_rng(plan.seed).permutation(rows)[:HEADS_FIRST])
    seen = _features(net, plan.model_copy(update={"augment": 0.0, "views": 1}), train, rows, looking)
    optimiser, schedule = _optimiser(net, plan, _FIRST_EPOCHS, _FIRST_RATE)
    for epoch in range(_FIRST_EPOCHS):
        _epoch(net, plan, seen, epoch, optimiser, batch=_FIRST_BATCH)
        schedule.step()
    net.train()


def _optimiser(
    net: PlantNet, plan: Plan, epochs: int, rate: float
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimiser = torch.optim.AdamW(net.heads.parameters(), lr=rate, weight_decay=plan.weight_decay)
    return optimiser, torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)


def _epoch(
    net: PlantNet,
    plan: Plan,
    seen: tuple[Tensor, dict[str, Tensor]],
    epoch: int,
    optimiser: torch.optim.Optimizer,
    *,
    batch: int,
) -> float:
    """One pass over the views; the mean loss."""
    features, labels = seen
    order = np.random.default_rng([plan.seed, epoch]).permutation(len(features))
    losses = []
    for start in range(0, len(order), batch):
        rows = torch.from_numpy(order[start : start + batch])
        some = {name: found[rows] for name, found in labels.items()}
        loss = total_loss(
            net.classify(features[rows]),
            some,
            plan.targets,
            smoothing=plan.label_smoothing,
            scales=net.scales(),
            weights=plan.class_weights,
            shifts=plan.class_logits,
        )
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    return sum(losses) / len(losses)


def _features(
    net: PlantNet, plan: Plan, photos: Photos, rows: NDArray[np.int64], looking: Looking
) -> tuple[Tensor, dict[str, Tensor]]:
    """Embeddings [views * rows, D] of augmented views, and their labels."""
    dataset = PhotoDataset(photos, plan.seed, augmentation(plan))

    def images(numbers: Sequence[int]) -> Tensor:
        places = [(view, int(rows[row]), 0) for view, row in (divmod(number, len(rows)) for number in numbers)]
        return torch.stack([dataset[place]["image"] for place in places])

    labels = {name: torch.as_tensor(np.concatenate([held[rows]] * plan.views)) for name, held in photos.labels.items()}
    found = looking.parts.of(f"{plan.views}-views", photos.keys[rows].tobytes())
    return _embedded(net, found, plan.views * len(rows), images, looking), labels


def _plain(net: PlantNet, photos: Photos, looking: Looking) -> tuple[Tensor, dict[str, Tensor]]:
    """Embeddings [N, D] of photos exactly as detection sees them, and their labels."""

    def images(numbers: Sequence[int]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(photos.pixels[photos.rows[numbers]]))

    labels = {name: torch.as_tensor(held[photos.rows]) for name, held in photos.labels.items()}
    found = looking.parts.of("plain", photos.keys[photos.rows].tobytes())
    return _embedded(net, found, len(photos.rows), images, looking), labels


def _embedded(
    net: PlantNet, found: Rows, total: int, images: Callable[[Sequence[int]], Tensor], looking: Looking
) -> Tensor:
    """Embeddings of numbered photos: [total, D], on the CPU.

    Args:
        net: makes them.
        found: those that were kept; the others come to it.
        total: numbers there are.
        images: uint8 [N, H, W, 3] of some numbers.
        looking: see there.
    """
    net.to(looking.device)
    for some in batched(range(len(found), total), _BATCH):
        if looking.stop:
            found.keep()
            raise looking.stop.error(
                f"Training stopped while it looked at the photos: {len(found)} of {total}",
                "What it has seen is kept. Repeat the same command to go on.",
            )
        with torch.inference_mode():
            found.add(net.embed(images(some).to(looking.device)).cpu().numpy())
        looking.progress(len(found), total)
    found.keep()
    net.to("cpu")
    return torch.from_numpy(found.vectors())
