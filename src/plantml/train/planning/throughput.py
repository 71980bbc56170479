"""Measure how fast this machine trains: a few real steps of the real network, before planning."""

import contextlib
import functools
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from plantml import imaging, storage
from plantml.data.manifest import Version
from plantml.errors import InputError, PlantmlError
from plantml.imaging import Pixels
from plantml.parsing import parse_json
from plantml.settings import Machine
from plantml.train import prepare
from plantml.train.batches import pixel_cache
from plantml.train.config import Precision
from plantml.train.learners import LEARNERS
from plantml.train.lightning_module import PhotoModule
from plantml.train.mixed_precision import depthwise_in_float32
from plantml.train.plan import Plan
from plantml.train.plan_inputs import Hardware, Speed
from plantml.train.step_learner import StepLearner

_STEPS, _FEWEST, _SECONDS, _DECODED = 6, 3, 4.0, 8
_MAX_SPEED_UP = 1000


def check_device(device: str) -> None:
    """Raise `InputError` if torch cannot use a device here."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device, True):
        raise InputError(
            f"The device {device} cannot be used", "torch finds none on this machine", "Use --device cpu or auto."
        )


def hardware(cores: int) -> Hardware:
    """This machine, with `cores` usable cores."""
    if torch.cuda.is_available():
        return Hardware(cores, "cuda", torch.cuda.get_device_properties(0).total_memory)
    return Hardware(cores, "mps" if torch.backends.mps.is_available() else "cpu")


def has_bf16(device: str) -> bool:
    """True if the processor computes in bf16 natively."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - torch has no public function for it


def measure(version: Version, plan: Plan, machine: Machine) -> Speed:
    """Measure training steps, embedding and decoding.

    Medians of up to 6 steps in 4 seconds, after two warm-up steps, with random weights, which are as fast. 3 steps are
    enough where no budget is to be kept.
    The speed-up of bf16 is measured once per machine, alternating steps of both precisions, and cached, so that
    the same command always gives the same plan.
    """
    if plan.task == "anomaly" or plan.mode == "probe":  # which take no steps
        return Speed(0.0, _embed_seconds(plan), _decode_seconds(version, plan, machine))
    pixels = np.random.default_rng(0).integers(0, 256, (plan.batch_size, *_training_size(plan), 3), np.uint8)
    step = _Step(plan, pixels)
    cached = machine.measured(*_speed_up_key(plan))
    precision, steps = plan.asked.get("precision"), _STEPS if plan.budget else _FEWEST
    seconds = speed_up = None
    if precision == "bf16" or (precision == "auto" and has_bf16(plan.device)):
        speed_up = _cached_speed_up(cached)
        if speed_up is None:
            seconds, bf16_seconds = _medians([functools.partial(step, "32"), functools.partial(step, "bf16")])
            speed_up = round(seconds / bf16_seconds, 3)
            storage.write(str(cached), json.dumps(speed_up).encode())
    if seconds is None:
        [seconds] = _medians([functools.partial(step, "32")], steps)
    photos = torch.from_numpy(pixels[:, : plan.input.height, : plan.input.width].copy()).to(plan.device)
    [embed_seconds] = _medians([functools.partial(step.embed, photos)], steps)
    return Speed(seconds, embed_seconds / len(photos), _decode_seconds(version, plan, machine), speed_up)


def _embed_seconds(plan: Plan) -> float:
    """Seconds of one photo through the network of a plan, with random weights, on random pixels."""
    net = LEARNERS[plan.task].untrained(plan.model_copy(update={"pretrained": False}), offline=True)
    pixels = np.random.default_rng(0).integers(0, 256, (_DECODED, plan.input.height, plan.input.width, 3), np.uint8)
    photos = torch.from_numpy(pixels).to(plan.device)
    net.to(plan.device).eval()

    def embed() -> None:
        with torch.inference_mode():
            net(photos)
        _synchronise(plan.device)

    [seconds] = _medians([embed], _FEWEST)
    return seconds / len(photos)


def _cached_speed_up(file: Path) -> float | None:
    """The speed-up that was measured earlier; None without a sensible one."""
    try:
        speed_up = parse_json(file.read_bytes(), str(file))
    except (OSError, PlantmlError):
        return None
    return float(speed_up) if isinstance(speed_up, (int, float)) and 0 < speed_up < _MAX_SPEED_UP else None


class _Step:
    """A training step of a network with random weights on random photos."""

    def __init__(self, plan: Plan, pixels: Pixels) -> None:
        self.plan, self.pixels = plan, pixels[: max(1, plan.batch_size // plan.world)]
        learner = LEARNERS[plan.task]
        assert issubclass(learner, StepLearner)
        net = learner.untrained(plan.model_copy(update={"pretrained": False}), offline=True)
        self.module = PhotoModule(net, plan)
        self.module.to(plan.device)
        self.optimiser = self.module.configure_optimizers()
        self.augment = learner.augmenter(plan)

    def __call__(self, precision: Precision) -> None:
        device, net = torch.device(self.plan.device), self.module.net
        images = torch.stack([torch.from_numpy(self.augment(photo, seed)) for seed, photo in enumerate(self.pixels)])
        with contextlib.ExitStack() as stack:
            if precision == "bf16":
                stack.enter_context(torch.autocast(device.type, torch.bfloat16))
                stack.enter_context(depthwise_in_float32(net, device.type))
            # Any loss will do: the time of a gradient does not depend on labels.
            loss = torch.stack([logits.float().square().mean() for logits in net(images.to(device)).values()]).sum()
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        self.optimiser.step()
        if self.module.average is not None:
            self.module.average.update_parameters(net)
        _synchronise(self.plan.device)

    def embed(self, photos: Tensor) -> None:
        """Embed photos, uint8 [N, H, W, 3]."""
        with torch.inference_mode():
            self.module.net.eval()(photos)
        _synchronise(self.plan.device)


def _speed_up_key(plan: Plan) -> tuple[object, ...]:
    """What the speed-up of bf16 depends on."""
    return (
        "depthwise in float32",
        plan.backbone,
        plan.input.height,
        plan.input.width,
        plan.batch_size,
        plan.device,
        torch.__version__,
        platform.processor(),
        torch.get_num_threads(),
    )


def _decode_seconds(version: Version, plan: Plan, machine: Machine) -> float:
    """Mean seconds to read and decode a photo; 0 if none of the first ones can be read."""
    rows, cache = version.usable("train").head(_DECODED), machine.cache()
    started, done = time.perf_counter(), 0
    for image_id, path in rows.select("image_id", "path").iter_rows():
        try:
            imaging.decode(pixel_cache.fetch(pixel_cache.Photo(image_id, version.image_url(path)), cache), plan.input)
        except PlantmlError:
            continue
        done += 1
    return (time.perf_counter() - started) / max(1, done) / machine.threads


def _training_size(plan: Plan) -> tuple[int, int]:
    return round(plan.input.height * prepare.MARGIN), round(plan.input.width * prepare.MARGIN)


def _medians(calls: Sequence[Callable[[], object]], steps: int = _STEPS) -> list[float]:
    """Median seconds of each call, made `steps` times, or less often if they are slow; all calls alternate."""
    times: list[list[float]] = [[] for _ in calls]
    for call in [*calls, *calls]:
        call()
    started = time.perf_counter()
    while len(times[0]) < steps and (len(times[0]) < _FEWEST or time.perf_counter() - started < _SECONDS):
        for call, seconds in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in times]


def _synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
