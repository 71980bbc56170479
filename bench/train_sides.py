"""The sides of training: the library's call, and a bare loop, tuned or not."""

import os
from collections.abc import Mapping
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from bench.side import Clock, Rounds
from plantml.concurrency import Listener, Stop, silent
from plantml.settings import Machine
from plantml.train import allocator, prepare, weights
from plantml.train.config import TrainConfig
from plantml.train.learner import Loading
from plantml.train.lightning_module import PlantModule
from plantml.train.losses import total_loss
from plantml.train.network_training import make_plan
from plantml.train.selection import select
from plantml.train.train import train

_EPOCHS = 1000
"""More than are ever reached."""

_WARM = 3
"""Epochs before the first turn: until then memory still grows, by new pages at every step."""


def library(rounds: Rounds, *, ref: str, out: str, cache: str, size: int, backbone: str) -> None:
    """`plantml train`; a turn is the middle of an epoch, so that validation and checkpoints fall between."""
    config, machine = _asked(size, backbone), _machine(cache)
    batch = make_plan(select(ref, config), config, machine, measured=False).batch_size
    turns = _Turns(rounds, batch)
    listener = Listener(progress=lambda stage: turns.step if stage == "training" else silent)
    train(ref, out, config, machine=machine, stop=Stop(), listener=listener)


class _Turns:
    """Told of each step: the first epochs warm up, and each later one is a turn.

    The clock runs from the end of an epoch's first step to the end of its last but one, which may be the
    last full batch.
    """

    def __init__(self, rounds: Rounds, batch: int) -> None:
        self._rounds, self._batch = rounds, batch
        self._clock: Clock | None = None

    def step(self, done: int, total: int) -> None:
        """Called after each optimiser step."""
        steps = total // _EPOCHS
        place = (done - 1) % steps + 1
        if place == 1 and done > _WARM * steps:
            if self._clock is None:
                self._rounds.ready()
            else:
                # Not before: validation would run into another side's turn.
                self._rounds.report((steps - 2) * self._batch, self._clock)
            if not self._rounds.wait():
                raise SystemExit
            self._clock = Clock()
        elif place == steps - 1 and self._clock is not None:
            self._clock.stop()


def epoch(rounds: Rounds, *, ref: str, scratch: str, size: int, backbone: str, environment: Mapping[str, str]) -> None:
    """A training of one epoch, from photos that are not decoded yet, and not in the cache if they are far away."""
    os.environ.update(environment)
    config = _asked(size, backbone).model_copy(update={"epochs": 1})

    def work() -> int:
        with TemporaryDirectory(dir=scratch) as folder:
            train(ref, f"{folder}/run", config, machine=_machine(f"{folder}/cache"), stop=Stop(), listener=Listener())
        return select(ref, config).rows.height

    rounds.run(work)


def bare(rounds: Rounds, *, ref: str, cache: str, size: int, backbone: str, tuned: bool) -> None:
    """Forward, backward and step on batches that are ready in memory.

    Args:
        rounds: see `side.Rounds`.
        ref: dataset.
        cache: folder of decoded photos.
        size: of the input, pixels.
        backbone: name of the network.
        tuned: channels last and the allocator's settings, as `plantml train` has them; else neither.
    """
    if tuned:
        allocator.keep_freed_memory()
    machine = _machine(cache)
    config = _asked(size, backbone)
    version = select(ref, config)
    plan = make_plan(version, config, machine, measured=False)
    data = prepare.load(version, plan, Loading(machine, lambda _: silent))
    net = prepare.network(plan, data.train, offline=True).train()
    if not tuned:
        net = net.to(memory_format=torch.contiguous_format)
    optimiser: torch.optim.Optimizer = PlantModule(net, plan).configure_optimizers()
    labels = {name: torch.as_tensor(found[data.train.rows]) for name, found in data.train.labels.items()}
    pixels = torch.from_numpy(data.bank)

    def batch(start: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        image = pixels[start : start + plan.batch_size].clone()
        if not tuned:
            image = ((image.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5).contiguous()
        return image, {name: found[start : start + plan.batch_size] for name, found in labels.items()}

    batches = [batch(start) for start in range(0, len(pixels) - plan.batch_size + 1, plan.batch_size)]

    def work() -> int:
        for image, known in batches:
            logits = net(image) if tuned else net.classify(net.backbone(image))
            loss = total_loss(logits, known, plan.targets, smoothing=plan.label_smoothing, scales=net.scales())
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimiser.step()
        return len(batches) * plan.batch_size

    rounds.run(work)


def _asked(size: int, backbone: str) -> TrainConfig:
    pretrained = backbone == weights.DEFAULT  # only its weights are there without a network
    return TrainConfig.model_validate(
        {"epochs": _EPOCHS, "device": "cpu", "size": size, "backbone": backbone, "pretrained": pretrained}
    )


def _machine(cache: str) -> Machine:
    return Machine.model_validate({"cache_dir": cache})
