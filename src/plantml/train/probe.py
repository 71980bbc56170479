"""Training in seconds: the backbone stays as it is, its embeddings are computed once, only the heads learn."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from plantml import metrics
from plantml.network import PlantNet
from plantml.train.augment import Training
from plantml.train.data import PhotoDataset, Photos
from plantml.train.keeper import History
from plantml.train.losses import total_loss
from plantml.train.module import probabilities
from plantml.train.recipe import Plan
from plantml.work import Progress, Stop

VIEWS = 6
"""Augmented views of each training photo."""

_BATCH, _STEP = 32, 256
_RATE = 5e-3


def fit(
    net: PlantNet,
    plan: Plan,
    train: Photos,
    val: Photos,
    *,
    stop: Stop,
    progress: Progress,
    told: Callable[[dict[str, float]], None],
) -> History:
    """Train the heads of `net`, which are left as they were in the best epoch.

    The same seed gives the same weights: views depend on (seed, view, photo), the order of steps on (seed, epoch).
    """
    net.eval()
    seen = _features(net, plan, train, stop, progress)
    judged, truth = _plain(net, val, stop)
    optimiser = torch.optim.AdamW(net.heads.parameters(), lr=_RATE, weight_decay=plan.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, plan.epochs)
    history, best = History(), net.heads.state_dict()
    for epoch in range(plan.epochs):
        loss = _epoch(net, plan, seen, epoch, optimiser)
        schedule.step()
        with torch.no_grad():
            logits = net.classify(judged)
            val_loss = float(total_loss(logits, truth, plan.targets, scales=net.scales()))
        found = [
            metrics.report_encoded(
                target, truth[target.name].numpy(), probabilities(target, logits[target.name]).numpy()
            )
            for target in plan.targets
        ]
        row = history.add(epoch, loss, val_loss, [report for report in found if report is not None])
        if history.best_epoch == epoch:
            best = {name: value.clone() for name, value in net.heads.state_dict().items()}
        if (epoch + 1) % 10 == 0:
            told(row)
    net.heads.load_state_dict(best)
    return history


def _epoch(
    net: PlantNet, plan: Plan, seen: tuple[Tensor, dict[str, Tensor]], epoch: int, optimiser: torch.optim.Optimizer
) -> float:
    """One pass over the views in steps of 256; the mean loss."""
    features, labels = seen
    order = np.random.default_rng([plan.seed, epoch]).permutation(len(features))
    losses = []
    for start in range(0, len(order), _STEP):
        rows = torch.from_numpy(order[start : start + _STEP])
        some = {name: found[rows] for name, found in labels.items()}
        loss = total_loss(
            net.classify(features[rows]),
            some,
            plan.targets,
            smoothing=plan.label_smoothing,
            scales=net.scales(),
            weights=plan.class_weights,
        )
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    return sum(losses) / len(losses)


def _features(
    net: PlantNet, plan: Plan, photos: Photos, stop: Stop, progress: Progress
) -> tuple[Tensor, dict[str, Tensor]]:
    """Embeddings [views * N, D] of augmented views, and their labels."""
    change = Training(plan.input.height, plan.input.width, plan.augment)
    dataset = PhotoDataset(photos, plan.seed, change)
    views = VIEWS if plan.augment else 1
    places = [(view, int(row)) for view in range(views) for row in photos.rows]
    found = []
    for start in range(0, len(places), _BATCH):
        if stop:
            raise KeyboardInterrupt
        some = [dataset[place]["image"] for place in places[start : start + _BATCH]]
        with torch.inference_mode():
            found.append(net.embed(torch.stack(some)))
        progress(min(start + _BATCH, len(places)), len(places))
    rows = np.array([row for _, row in places])
    # Cloned, because what is made in inference mode cannot be learned from.
    return torch.cat(found).clone(), {name: torch.as_tensor(held[rows]) for name, held in photos.labels.items()}


def _plain(net: PlantNet, photos: Photos, stop: Stop) -> tuple[Tensor, dict[str, Tensor]]:
    """Embeddings [N, D] of photos exactly as detection sees them, and their labels."""
    found = []
    for batch in _batches(photos):
        if stop:
            raise KeyboardInterrupt
        with torch.inference_mode():
            found.append(net.embed(batch))
    return torch.cat(found).clone(), {name: torch.as_tensor(held[photos.rows]) for name, held in photos.labels.items()}


def _batches(photos: Photos) -> Iterator[Tensor]:
    for start in range(0, len(photos.rows), _BATCH):
        yield torch.from_numpy(np.ascontiguousarray(photos.pixels[photos.rows[start : start + _BATCH]]))
