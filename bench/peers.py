"""`detect` beside other tools: torchvision's reading in a DataLoader, timm's loader, and Ultralytics' classifier."""

from functools import partial

from bench.environments import ULTRALYTICS, environment
from bench.material import Material
from bench.measure import Row, Side, compare, take_turns


def run(material: Material) -> list[Row]:
    """All rows."""
    python = environment(material.folder / "ultralytics", ULTRALYTICS)
    rows = []
    for photos, folder in material.sizes.items():
        given = {"folder": folder, "model": material.bundle}
        sides = {
            "detect": partial(Side, "bench.detect_sides:library", **given, scratch=str(material.folder)),
            "torchvision": partial(Side, "bench.plain_loop:detect", **given, tuned=True, reader="torchvision"),
            "timm": partial(Side, "bench.plain_loop:timm_inference", **given),
            "ultralytics": partial(Side, "bench.ultralytics_side:classify", folder=folder, python=python),
        }
        turns = take_turns(sides, min(3, material.size.rounds), f"peers, {photos}")
        for name, beside in (
            ("torchvision", "a DataLoader of torchvision v2 on uint8, and torch, the allocator tuned"),
            ("timm", "timm's loader and the same network, as its inference.py does it, the allocator tuned"),
            ("ultralytics", "Ultralytics' classifier yolo11n-cls in torch, another and smaller network"),
        ):
            rows.append(compare("peers", f"detect, {photos}", beside, turns["detect"], turns[name]))
    return rows
