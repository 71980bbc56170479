"""How fast this machine trains: a few real steps of the real network, before the plan is made."""

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
from plantml.train import pixel_cache, prepare
from plantml.train.batches import augmentation
from plantml.train.config import Precision
from plantml.train.lightning_module import PlantModule
from plantml.train.plan import Plan
from plantml.train.planning import Hardware, Speed

_STEPS, _SECONDS, _SOME = 6, 4.0, 8
_PROBED = 16
_MOST_GAIN = 1000


def check_device(device: str) -> None:
    """Raise `InputError` if torch cannot use a device here."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device, True):
        raise InputError(
            f"The device {device} cannot be used", "torch finds none on this machine", "Use --device cpu, or auto."
        )


def hardware(cores: int) -> Hardware:
    """The machine that this is."""
    if torch.cuda.is_available():
        return Hardware(cores, "cuda", torch.cuda.get_device_properties(0).total_memory)
    return Hardware(cores, "mps" if torch.backends.mps.is_available() else "cpu")


def has_bf16(device: str) -> bool:
    """True if bf16 is computed by the processor itself, not emulated."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - torch has no public name for it


def measure(version: Version, plan: Plan, machine: Machine) -> Speed:
    """The speed of steps, of embedding a photo, and of decoding one.

    Medians of up to 6 steps in 4 seconds, after two that warm up; without pretrained weights, which do not
    change the speed. How much faster bf16 is, is measured once a machine, steps of both in turns, and kept in
    the cache: the same command must not come to another plan because something else was running.
    """
    # A probe's batches are vectors: what it takes is the time to embed photos.
    count = min(plan.batch_size, _PROBED) if plan.mode == "probe" else plan.batch_size
    pixels = np.random.default_rng(0).integers(0, 256, (count, *_larger(plan), 3), np.uint8)
    step = _Step(plan, pixels)
    notes = machine.measured(*_facts(plan))
    asked = plan.asked.get("precision")
    seconds = gain = None
    if asked == "bf16" or (asked == "auto" and has_bf16(plan.device)):
        gain = _kept_gain(notes)
        if gain is None:
            seconds, short = _medians([functools.partial(step, "32"), functools.partial(step, "bf16")])
            gain = round(seconds / short, 3)
            storage.write(str(notes), json.dumps(gain).encode())
    if seconds is None:
        [seconds] = _medians([functools.partial(step, "32")])
    photos = torch.from_numpy(pixels[:, : plan.input.height, : plan.input.width].copy()).to(plan.device)
    [see] = _medians([functools.partial(step.look, photos)])
    return Speed(seconds, see / len(photos), _decoding(version, plan, machine), gain)


def _kept_gain(notes: Path) -> float | None:
    """What was measured earlier; `None` if nothing that makes sense is there."""
    try:
        gain = parse_json(notes.read_bytes(), str(notes))
    except (OSError, PlantmlError):
        return None
    return float(gain) if isinstance(gain, (int, float)) and 0 < gain < _MOST_GAIN else None


class _Step:
    """A training step on random photos, of a network with random weights."""

    def __init__(self, plan: Plan, pixels: Pixels) -> None:
        self.plan, self.pixels = plan, pixels[: max(1, plan.batch_size // plan.world)]
        self.module = PlantModule(prepare.fresh(plan.model_copy(update={"pretrained": False}), offline=True), plan)
        self.module.to(plan.device)
        self.optimiser = self.module.configure_optimizers()
        self.change = augmentation(plan)

    def __call__(self, precision: Precision) -> None:
        device, net = torch.device(self.plan.device), self.module.net
        made = torch.stack([torch.from_numpy(self.change(photo, seed)) for seed, photo in enumerate(self.pixels)])
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            # No labels are needed for the time that a gradient takes.
            loss = torch.stack([found.float().square().mean() for found in net(made.to(device)).values()]).sum()
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        self.optimiser.step()
        if self.module.average is not None:
            self.module.average.update_parameters(net)
        _synchronise(self.plan.device)

    def look(self, photos: Tensor) -> None:
        """Embed some photos."""
        with torch.inference_mode():
            self.module.net.eval().embed(photos)
        _synchronise(self.plan.device)


def _facts(plan: Plan) -> tuple[object, ...]:
    """What the gain of bf16 depends on."""
    return (plan.backbone, plan.input.height, plan.input.width, plan.batch_size, plan.device, torch.__version__,
            platform.processor(), torch.get_num_threads())  # fmt: skip


def _decoding(version: Version, plan: Plan, machine: Machine) -> float:
    """Seconds to read and decode a photo: the mean of some, 0 if none can be read."""
    rows, cache = version.usable("train").head(_SOME), machine.cache()
    began, done = time.perf_counter(), 0
    for image_id, path in rows.select("image_id", "path").iter_rows():
        try:
            imaging.decode(pixel_cache.fetch(pixel_cache.Photo(image_id, version.image_url(path)), cache), plan.input)
        except PlantmlError:
            continue
        done += 1
    return (time.perf_counter() - began) / max(1, done) / machine.threads


def _larger(plan: Plan) -> tuple[int, int]:
    return round(plan.input.height * prepare.ROOM), round(plan.input.width * prepare.ROOM)


def _medians(works: Sequence[Callable[[], object]]) -> list[float]:
    """Seconds of each piece of work, all in turns."""
    times: list[list[float]] = [[] for _ in works]
    for work in [*works, *works]:
        work()
    began = time.perf_counter()
    while len(times[0]) < _STEPS and (len(times[0]) < 3 or time.perf_counter() - began < _SECONDS):
        for work, found in zip(works, times, strict=True):
            start = time.perf_counter()
            work()
            found.append(time.perf_counter() - start)
    return [statistics.median(found) for found in times]


def _synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
