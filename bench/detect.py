"""Detection: images a second beside the bare model, the ceiling and a plain loop; S3, int8, cold start, flat memory."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench import store
from bench.help import program
from bench.material import Material
from bench.measure import Row, Sample, Side, compare, compare_whole, row, take_turns, tell
from plantml.model import bundle as bundles
from plantml.settings import usable_cores

LATENCIES = (0, 30)
"""Milliseconds that are added to every answer of the object store."""

TILE = 640
"""Side of the tiles of large photos, pixels."""

_SIDES = "bench.detect_sides"


def run(material: Material) -> list[Row]:
    """All rows of detection."""
    rows = []
    for photos, folder in {**material.small, **material.large}.items():
        rows += _speed(material, photos, folder)
    return [*rows, _int8(material), *_s3(material), *_cold(material), _memory(material)]


def _speed(material: Material, photos: str, folder: str) -> list[Row]:
    given = {"folder": folder, "model": material.bundle}
    loop = "bench.plain_loop:detect"
    sides = {
        "detect": partial(Side, f"{_SIDES}:library", **given, scratch=str(material.folder)),
        "model": partial(Side, f"{_SIDES}:model", **given),
        "decode": partial(Side, f"{_SIDES}:decoding", **given),
        "loop": partial(Side, loop, **given),
        "tuned": partial(Side, loop, **given, tuned=True),
    }
    what = f"detect, {photos}"
    found = take_turns(sides, material.size.rounds, what)
    detect, model = found["detect"], found["model"]
    plain = "a DataLoader loop with Pillow and torch"
    return [
        compare("detect", what, "the bare model from memory", detect, model),
        compare("detect", what, "its ceiling: bare decoding, then the bare model", detect, found["decode"], model),
        compare("detect", what, plain, detect, found["loop"], cpu=False),
        compare("detect", what, f"{plain}, the allocator tuned", detect, found["tuned"], cpu=False),
    ]


def boxes(material: Material) -> list[Row]:
    """Detection of boxes in whole photos and in tiles of large ones, beside its ceiling."""
    rows = []
    for photos, folder in material.trays.items():
        tile = TILE if photos == "large trays" else 0
        given = {"folder": folder, "model": material.detector, "tile": tile}
        sides = {
            "detect": partial(Side, f"{_SIDES}:library", **given, scratch=str(material.folder)),
            "model": partial(Side, f"{_SIDES}:model", **given),
            "decode": partial(Side, f"{_SIDES}:decoding", **given),
        }
        what = f"detect boxes, {photos}" + (f" in tiles of {tile} px" if tile else "")
        found = take_turns(sides, min(3, material.size.rounds), what)
        parts = found["decode"], found["model"]
        rows.append(
            compare("detect-boxes", what, "its ceiling: bare decoding, then the bare model", found["detect"], *parts)
        )
    return rows


def _int8(material: Material) -> Row:
    folder = next(iter(material.small.values()))
    given = {"folder": folder, "scratch": str(material.folder)}
    sides = {
        "int8": partial(Side, f"{_SIDES}:library", model=material.int8, **given),
        "fp32": partial(Side, f"{_SIDES}:library", model=material.bundle, **given),
    }
    what = "detect, 256 px, int8"
    found = take_turns(sides, material.size.rounds, what)
    return compare("detect", what, "detect with fp32", found["int8"], found["fp32"])


def _s3(material: Material) -> Iterator[Row]:
    """Beside what the processor time of all parts, each measured alone, allows on all cores."""
    if store.weed() is None or not Path("/proc/self/stat").exists():
        tell("no rows of S3: they need SeaweedFS and Linux")
        return
    local, rounds = material.objects, min(3, material.size.rounds)
    with ExitStack() as stack:
        near = stack.enter_context(store.serving("bench"))
        url = f"s3://{near.bucket}/photos"
        with Side(f"{_SIDES}:upload", folder=local, to=url, environment=near.environment) as side:
            side.wait()
        alone = {"folder": local, "model": material.bundle}
        sides = {
            "model": partial(Side, f"{_SIDES}:model", **alone),
            "decode": partial(Side, f"{_SIDES}:decoding", **alone),
        }
        for latency in LATENCIES:
            place = stack.enter_context(store.farther(near, latency)) if latency else near
            given = {"folder": url, "environment": place.environment, "helpers": place.processes}
            sides[f"fetch {latency}"] = partial(Side, f"{_SIDES}:fetching", **given)
            sides[f"detect {latency}"] = partial(
                Side, f"{_SIDES}:library", model=material.bundle, scratch=str(material.folder), **given
            )
        found = take_turns(sides, rounds, "detect, S3")
    for latency in LATENCIES:
        parts = found["model"], found["decode"], found[f"fetch {latency}"]
        yield _predicted(f"detect, S3, {latency} ms added", list(zip(found[f"detect {latency}"], *parts, strict=True)))


def _predicted(what: str, turns: list[tuple[Sample, ...]]) -> Row:
    """Images a second beside all cores divided by the processor time of the parts."""
    by_cpu = [(ours.cpu_rate, 1 / sum(1 / part.cpu_rate for part in parts)) for ours, *parts in turns]
    cores = usable_cores()
    by_time = [(ours.rate, cores * allowed) for (ours, *_), (_, allowed) in zip(turns, by_cpu, strict=True)]
    beside = "processor time of decoding, model, obstore and server"
    return row("detect", what, beside, by_time, "images/s", cpu=by_cpu)


def _cold(material: Material) -> list[Row]:
    one = min(Path(next(iter(material.small.values()))).iterdir())
    imports = "import onnxruntime, numpy, PIL"
    load = (
        f"{imports}; options = onnxruntime.SessionOptions();"
        " options.intra_op_num_threads = options.inter_op_num_threads = 1;"
        f" onnxruntime.InferenceSession({f'{material.bundle}/{bundles.ONNX}'!r}, options)"
    )
    # What the command line and the settings are built on, whatever plantml does with it.
    libraries = f"{load}; import PIL.JpegImagePlugin, pydantic, typer; pydantic.create_model('Settings', size=(int, 1))"
    commands = {
        "ours": [*program(), "detect", str(one), "--model", material.bundle],
        "imports": [sys.executable, "-c", imports],
        "load": [sys.executable, "-c", load],
        "libraries": [sys.executable, "-c", libraries],
    }
    beside = {
        "load": 'python -c "import onnxruntime, numpy, PIL" and the model\'s load',
        "libraries": "the same and import typer, pydantic and Pillow's JPEG",
        "imports": 'python -c "import onnxruntime, numpy, PIL"',
    }
    what = "plantml detect ONE.jpg, from a cold start"
    return compare_whole("detect", what, commands, 3 * material.size.rounds, beside)


def _memory(material: Material) -> Row:
    """With a very small network, beside which the number of images weighs most."""
    few, many = material.size.memory
    peaks = {}
    for images in (few, many):
        tell(f"detect, memory: {images} images")
        given = {"folder": material.many(images), "model": material.tiny_bundle, "scratch": str(material.folder)}
        with Side(f"{_SIDES}:library", **given, warm=False) as side:
            peaks[images] = side.turn().peak
    pairs = [(peaks[many], peaks[few])]
    return row("detect", f"detect, peak memory, {many} images", f"{few} images", pairs, "MiB", better="lower")
