"""A probe: train the heads only, in seconds, on embeddings that the frozen backbone computes once."""

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plantml.concurrency import Progress, Stop, batched, in_threads, silent
from plantml.imaging import Pixels
from plantml.model.network import PlantNet
from plantml.storage.segments import Segments, pack, unpack
from plantml.train import embedder
from plantml.train.bare_rows import BareRows
from plantml.train.batches.loader import PhotoDataset, Photos, augmentation
from plantml.train.budget import WARM_UP_PHOTOS
from plantml.train.covariates import COVARIATES, RATE, hidden_at_random, thinned_at_random
from plantml.train.evaluation import evaluate_logits
from plantml.train.history import History
from plantml.train.losses import total_loss
from plantml.train.plan import Plan

SAVED = "*.embeddings-*.jsonl"
"""Names of the files of saved embeddings."""

_BATCH = 32
"""Batch size of embedding."""

_AT_ONCE = 8
"""Batch size of embedding in onnxruntime, where each thread has a batch of its own."""

_WORTH = 1000
"""Photos to embed from which it saves time to convert the network for onnxruntime first, which takes 6 s."""

Embed = Callable[[Iterable[Pixels]], Tensor]
"""Embeddings, float32 [N, D], of photos, uint8 RGB [H, W, 3] each."""

_WARM_UP_EPOCHS, _WARM_UP_BATCH, _WARM_UP_RATE = 30, 256, 5e-3
"""For the heads, on embeddings without augmentation, before the backbone is tuned."""


@dataclass(frozen=True)
class EmbeddingJob:
    """How to embed photos.

    Attributes:
        device: for the backbone.
        folder: local folder of the checkpoints, where embeddings are saved meanwhile.
        every: longest time between two saves in seconds, as far as batches allow.
        on_save: called after a save.
        stop: checked before each batch.
        progress: called with (done, total) photos.
        writes: false in a process that computes the same embeddings as the one that saves them.
        threads: that embed at the same time, on a processor.
    """

    device: str
    folder: Path
    every: float
    on_save: Callable[[], None]
    stop: Stop
    progress: Progress = silent
    writes: bool = True
    threads: int = 1


def embedding(net: PlantNet, plan: Plan, total: int, job: EmbeddingJob) -> Embed:
    """What embeds `total` photos with a network that stays as it is: onnxruntime; torch for few, and on a GPU.

    They differ by roundings, by 1e-5 in embeddings whose mean is 0.1.
    """
    if job.device != "cpu" or total < _WORTH:
        return in_torch(net, job.device)
    runtime = functools.cache(lambda: embedder.frozen(net, plan.input))

    def embed(photos: Iterable[Pixels]) -> Tensor:
        opened = runtime()
        batches = map(np.stack, batched(photos, _AT_ONCE))
        parts = in_threads(lambda batch: opened.run(batch)["embedding"], batches, job.threads)
        return torch.from_numpy(np.concatenate(list(parts)))

    return embed


def in_torch(net: PlantNet, device: str) -> Embed:
    """What embeds photos with a network as it is then."""

    def embed(photos: Iterable[Pixels]) -> Tensor:
        net.to(device)
        batches = (torch.from_numpy(np.stack(batch)) for batch in batched(photos, _BATCH))
        vectors = torch.cat([net.embed(batch.to(device)).cpu() for batch in batches])
        net.to("cpu")
        return vectors

    return embed


def fit(
    net: PlantNet,
    plan: Plan,
    train: Photos,
    val: Photos,
    *,
    bare: BareRows | None = None,
    embed: Embed,
    job: EmbeddingJob,
    on_epoch: Callable[[dict[str, float]], None],
) -> History:
    """Train the heads of `net`, which end with the weights of the best epoch; with `bare`, also on columns alone.

    The same seed gives the same weights: views depend on (seed, view, photo), the order of steps on (seed, epoch).
    """
    net.eval()
    examples = _views(embed, plan, train, train.rows, job)
    val_embeddings, truth = _as_detected(embed, val, replace(job, progress=silent))
    encoded = net.encode(truth[COVARIATES]) if COVARIATES in truth else None
    layers = net.layers_after_embedding
    history, best = History(), layers.state_dict()
    losses = _epochs(net, plan, examples, bare, epochs=plan.epochs, rate=plan.lr, batch=plan.batch_size)
    for epoch, loss in enumerate(losses):
        with torch.no_grad():
            evaluation = evaluate_logits(net, plan.targets, net.classify(val_embeddings, encoded), truth)
        row = history.add(epoch, loss, evaluation)
        if history.best_epoch == epoch:
            best = {name: value.clone() for name, value in layers.state_dict().items()}
        if (epoch + 1) % 10 == 0:
            on_epoch(row)
        if epoch - history.best_epoch >= plan.patience:
            break
    layers.load_state_dict(best)
    return history


def warm_up_heads(net: PlantNet, plan: Plan, train: Photos, job: EmbeddingJob, bare: BareRows | None = None) -> None:
    """Train new heads on embeddings of the training photos, or of a sample, without augmentation.

    Otherwise their large first gradients would distort the pretrained backbone (Kumar et al. 2022, "Fine-tuning can
    distort pretrained features").
    """
    net.eval()
    rows = train.rows
    if len(rows) > WARM_UP_PHOTOS:
        rows = np.sort(np.random.default_rng(plan.seed).permutation(rows)[:WARM_UP_PHOTOS])
    examples = _views(embedding(net, plan, len(rows), job), _one_view(plan), train, rows, job)
    for _ in _epochs(net, plan, examples, bare, epochs=_WARM_UP_EPOCHS, rate=_WARM_UP_RATE, batch=_WARM_UP_BATCH):
        pass
    net.train()


def embed_plain(
    net: PlantNet, plan: Plan, photos: Photos, rows: NDArray[np.int64], job: EmbeddingJob
) -> NDArray[np.float32]:
    """Embeddings, float32 [N, D], of training photos without augmentation. The network is left in training mode."""
    net.eval()
    embeddings, _ = _views(embedding(net, plan, len(rows), job), _one_view(plan), photos, rows, job)
    net.train()
    vectors: NDArray[np.float32] = embeddings.numpy()
    return vectors


def _one_view(plan: Plan) -> Plan:
    return plan.model_copy(update={"views": 1})


def _epochs(
    net: PlantNet,
    plan: Plan,
    examples: tuple[Tensor, dict[str, Tensor]],
    bare: BareRows | None,
    *,
    epochs: int,
    rate: float,
    batch: int,
) -> Iterator[float]:
    """Train the heads epoch by epoch over all views, and yield each epoch's mean loss."""
    embeddings, labels = examples
    groups = [{"params": net.heads.parameters(), "lr": rate}]
    if net.covariates is not None:
        groups.append({"params": net.covariates.parameters(), "lr": RATE * rate})
    optimiser = torch.optim.AdamW(groups, weight_decay=plan.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    for epoch in range(epochs):
        order = np.random.default_rng([plan.seed, epoch]).permutation(len(embeddings))
        losses = []
        for start in range(0, len(order), batch):
            rows = torch.from_numpy(order[start : start + batch])
            batch_labels = {name: values[rows] for name, values in labels.items()}
            # As in `PlantModule.loss`.
            outputs = [net.classify(embeddings[rows])]
            if COVARIATES in labels:
                columns = hidden_at_random(batch_labels[COVARIATES], plan.seed, epoch, start)
                thinned = thinned_at_random(embeddings[rows], plan.seed, epoch, start)
                outputs.append(net.classify(thinned, net.encode(columns)))
            losses_of_outputs = [
                total_loss(
                    logits,
                    batch_labels,
                    plan.targets,
                    smoothing=plan.label_smoothing,
                    scales=net.scales(),
                    weights=plan.class_weights,
                    shifts=plan.class_logits,
                )
                for logits in outputs
            ]
            loss = torch.stack(losses_of_outputs).mean()
            if bare is not None:
                loss = loss + bare.loss(net, plan, [epoch, start], batch)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(float(loss.detach()))
        schedule.step()
        yield sum(losses) / len(losses)


def _views(
    embed: Embed, plan: Plan, photos: Photos, rows: NDArray[np.int64], job: EmbeddingJob
) -> tuple[Tensor, dict[str, Tensor]]:
    """Embeddings [views * rows, D], and their labels: first of the photos themselves, then of augmented views."""
    plain = PhotoDataset(photos, plan.seed, augmentation(plan.model_copy(update={"augment": 0.0})))
    augmented = PhotoDataset(photos, plan.seed, augmentation(plan))

    def image(number: int) -> Pixels:
        view, row = divmod(number, len(rows))
        pixels: Pixels = (augmented if view else plain)[view, int(rows[row]), 0]["image"].numpy()
        return pixels

    def compute(numbers: Sequence[int]) -> Tensor:
        return embed(map(image, numbers))

    labels = {
        name: torch.as_tensor(np.concatenate([values[rows]] * plan.views)) for name, values in photos.labels.items()
    }
    key = key_of(f"{plan.views}-views", photos.keys[rows])
    return saved_vectors(key, plan.views * len(rows), compute, job), labels


def _as_detected(embed: Embed, photos: Photos, job: EmbeddingJob) -> tuple[Tensor, dict[str, Tensor]]:
    """Embeddings [N, D] of photos preprocessed exactly as in detection, and their labels."""

    def compute(numbers: Sequence[int]) -> Tensor:
        return embed(photos.pixels[row] for row in photos.rows[numbers])

    labels = {name: torch.as_tensor(values[photos.rows]) for name, values in photos.labels.items()}
    return saved_vectors(key_of("plain", photos.keys[photos.rows]), len(photos.rows), compute, job), labels


def saved_vectors(key: str, total: int, compute: Callable[[Sequence[int]], Tensor], job: EmbeddingJob) -> Tensor:
    """Vectors of images 0 to `total`: float32 [total, D], on the CPU. Those that were saved are not computed again.

    Args:
        key: identifies the images.
        total: number of images.
        compute: gives the vectors of the images of some numbers: [N, D].
        job: folder, stop and progress.
    """
    if job.writes:
        for partial in job.folder.glob(".*.part"):
            partial.unlink(missing_ok=True)  # left by a killed write
    segments = Segments(str(job.folder), f".embeddings-{key}.jsonl", seconds=job.every)
    rows = (row.decode().split("\t") for row in segments)
    vectors = {int(number): unpack(vector, "<f4") for number, vector in rows}
    for numbers in batched((number for number in range(total) if number not in vectors), _BATCH):
        if job.stop:
            if segments.flush():
                job.on_save()
            raise job.stop.error(
                f"Training stopped while embedding photos: {len(vectors)} of {total}",
                "The embeddings are saved. Repeat the same command to resume.",
            )
        with torch.inference_mode():
            vectors.update(zip(numbers, compute(numbers).cpu().numpy(), strict=True))
        lines = (f"{number}\t{pack(vectors[number], '<f4')}".encode() for number in numbers)
        if job.writes and segments.add(*lines):
            job.on_save()
        job.progress(len(vectors), total)
    if segments.flush():
        job.on_save()
    return torch.from_numpy(np.stack([vectors[number] for number in range(total)]))


def key_of(name: str, keys: NDArray[np.uint64]) -> str:
    """What identifies vectors of one kind of the photos with these numbers."""
    return f"{name}-{hashlib.sha256(keys.tobytes()).hexdigest()[:16]}"
