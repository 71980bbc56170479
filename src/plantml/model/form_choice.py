"""`--speed`: the form of a model's network to use.

`exact` is float32 and the default, for other forms change records. `auto` takes the fastest form whose proof is in the
bundle and that was measured to be faster on this machine: once per model and machine, in a second or two, on random
pixels. The records name the form. See `docs/decisions/0010-speed-is-asked-for.md`.
"""

import json
import platform
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from plantml import storage
from plantml.about import __version__
from plantml.errors import MissingExtraError, PlantmlError, UsageError
from plantml.model import autotune, runtimes
from plantml.model.bundle import Bundle
from plantml.model.pipeline import BATCH
from plantml.model.runtimes import Runtime, TwoStageRuntime
from plantml.parsing import parse_json_object
from plantml.settings import Machine, Speed

FLOAT32 = "float32"
CLEARLY = 1.1
"""Speed-up over float32 that a form must reach: measurements are noisy, and float32 has the exact records."""

_BOXES = 16
"""Boxes of a photo that the second stage judges while forms are compared."""

_ROUNDS = 5
_AT_MOST = 3.0
"""Seconds after which no new round begins."""


def open_form(
    bundle: Bundle, speed: Speed, machine: Machine, *, runtime: str = "auto", device: str = "cpu"
) -> tuple[Bundle, Runtime]:
    """Open a model in the form that `--speed` asks for.

    Args:
        bundle: the model.
        speed: see `Speed`. `auto` takes float32 where no form is faster, and on other devices than the CPU.
        machine: with the caches of remote files and of measurements.
        runtime: `auto`, or the only one whose forms are taken.
        device: as for `runtimes.open_model`.

    Raises:
        InputError: the bundle does not hold the form that is named.
        UsageError: the form does not run in that runtime, or not here.
        MissingExtraError: its runtime is not installed.
    """
    cache = machine.cache()
    if speed not in {"exact", "auto"}:
        needed = runtimes.FORM_RUNTIMES[speed][0]
        if runtime not in {"auto", needed} or device != "cpu":
            raise UsageError(
                f"{speed} runs only in {needed} on the CPU",
                "",
                "Leave --runtime and --device out, or use --speed auto.",
            )
        return runtimes.open_form(bundle, speed, cache)
    if speed == "auto" and device == "cpu":
        names = [name for name in bundle.forms if runtime in {"auto", runtimes.FORM_RUNTIMES[name][0]}]
        name = fastest(bundle, names, machine) if names else FLOAT32
        if name != FLOAT32:
            return runtimes.open_form(bundle, name, cache)
    return runtimes.open_model(bundle, runtime=runtime, device=device, cache=cache)


def fastest(bundle: Bundle, names: list[str], machine: Machine) -> str:
    """The fastest of some forms, or `FLOAT32` if none is clearly faster; an earlier measurement is reused."""
    place = machine.measured(*_facts(bundle, names, machine.threads))
    if (known := _cached(place, names)) is not None:
        return known
    speeds = measure(bundle, names, machine)
    best = max(speeds, key=lambda name: speeds[name])
    name = best if speeds[best] >= CLEARLY * speeds[FLOAT32] else FLOAT32
    with suppress(PlantmlError):  # a cache that cannot be written costs a second each time, no more
        storage.write(str(place), json.dumps({"form": name, "images_per_s": speeds}).encode())
    return name


def measure(bundle: Bundle, names: list[str], machine: Machine) -> Mapping[str, float]:
    """Images per second of float32 and of each form that runs here, with all threads: the best of some rounds."""
    _, exact = runtimes.open_model(bundle, cache=machine.cache())
    opened = {FLOAT32: exact}
    for name in names:
        with suppress(MissingExtraError, UsageError):  # not installed, or the processor cannot compute it
            opened[name] = runtimes.open_form(bundle, name, machine.cache())[1]
    works = {name: _work_of(bundle, runtime) for name, runtime in opened.items()}
    for work in works.values():
        work(BATCH)  # the first call prepares what later ones reuse
    speeds, began = dict.fromkeys(works, 0.0), time.perf_counter()
    for number in range(_ROUNDS):
        if number and time.perf_counter() - began > _AT_MOST:
            break
        for name, work in works.items():  # in turns, so that other load on the machine affects all alike
            speeds[name] = max(speeds[name], autotune.rate(work, machine.threads, BATCH))
    return speeds


def _work_of(bundle: Bundle, runtime: Runtime) -> Callable[[int], object]:
    """All networks on so many random photos."""
    detect = autotune.work_of(bundle, runtime)
    if not isinstance(runtime, TwoStageRuntime):
        return detect
    judge = autotune.work_of(runtime.bundle, runtime.classifier)
    return lambda batch: (detect(batch), [judge(BATCH) for _ in range(batch * _BOXES // BATCH)])


def _facts(bundle: Bundle, names: list[str], threads: int) -> tuple[object, ...]:
    """Cache key of the measurement."""
    forms = {name: bundle.forms[name].model for name in names}
    return "form", bundle.digest, forms, threads, platform.node(), __version__, _versions()


def _versions() -> dict[str, str]:
    """Versions of the runtimes that are installed: a new one is measured anew."""
    from importlib import metadata

    versions = {}
    for name in ("onnxruntime", "openvino"):
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _cached(place: Path, names: list[str]) -> str | None:
    """An earlier measurement's choice; `None` if there is no valid one."""
    with suppress(OSError, PlantmlError):
        name = parse_json_object(place.read_bytes(), str(place)).get("form")
        return name if name in {FLOAT32, *names} else None
    return None
