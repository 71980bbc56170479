"""Detection: images a second beside the bare model, the ceiling and a plain loop; and flat memory."""

from functools import partial

from bench.material import Material
from bench.measure import Row, Side, compare, row, take_turns, tell


def run(material: Material) -> list[Row]:
    """All rows of detection."""
    rows = []
    for photos, folder in {**material.small, **material.large}.items():
        rows += _speed(material, photos, folder)
    return [*rows, _memory(material)]


def _speed(material: Material, photos: str, folder: str) -> list[Row]:
    given = {"folder": folder, "model": material.bundle}
    sides = {
        "detect": partial(Side, "bench.detect_sides:library", **given),
        "model": partial(Side, "bench.detect_sides:model", **given),
        "decode": partial(Side, "bench.detect_sides:decoding", **given),
        "loop": partial(Side, "bench.plain_loop:detect", **given),
    }
    found = take_turns(sides, material.size.rounds, f"detect, {photos}")
    what, detect, model = f"detect, {photos}", found["detect"], found["model"]
    ceiling, loop = "its ceiling: bare decoding, then the bare model", "a DataLoader loop with Pillow and torch"
    return [
        compare("detect", what, "the bare model from memory", detect, model),
        compare("detect", what, ceiling, detect, found["decode"], model),
        compare("detect", what, loop, detect, found["loop"], cpu=False),
    ]


def _memory(material: Material) -> Row:
    few, many = material.size.memory
    folders = {number: material.many(number) for number in (few, many)}
    peaks: dict[int, list[float]] = {few: [], many: []}
    for number in range(min(3, material.size.rounds)):
        tell(f"detect, memory: round {number + 1}")
        for images, folder in folders.items():
            with Side("bench.detect_sides:library", folder=folder, model=material.bundle, warm=False) as side:
                peaks[images].append(side.turn().peak)
    pairs = list(zip(peaks[many], peaks[few], strict=True))
    return row("detect", f"detect, peak memory, {many} images", f"{few} images", pairs, "MiB", better="lower")
