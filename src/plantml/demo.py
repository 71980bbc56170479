"""The main job, end to end, on photos that it makes itself: each step is a command that a user would type."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Step:
    """One command line of the demo, after `plantml`, and what it shows."""

    why: str
    arguments: Sequence[str]


def steps(folder: Path, images: int) -> list[Step]:
    """The commands of the demo, in order, writing under `folder`."""
    photos, data, run = str(folder / "photos"), str(folder / "leaves"), str(folder / "run")
    onnx, records = str(folder / "leaf.onnx"), str(folder / "records.jsonl")
    return [
        Step("Photos of plants that no one took", ("dataset", "synth", photos, "--images", str(images), "--seed", "1")),
        Step(
            "A dataset of them: labels by column, photos of one plant in one group",
            ("dataset", "import", f"{photos}/labels.csv", data, "--target", "severity:value:fraction", "--group-column", "plant"),
        ),
        Step("Train, val and test, no plant in two of them", ("dataset", "split", data)),
        Step("A model for all four targets", ("train", data, "--out", run, "--size", "160", "--epochs", "6")),
        Step("How good it is on photos it has not seen", ("validate", data, "--model", run, "--out", str(folder / "validation"))),
        Step("One file that needs onnxruntime only, proven equal", ("export", run, "--to", onnx)),
        Step(
            "What it says of new photos",
            ("dataset", "synth", str(folder / "new"), "--images", "24", "--seed", "2"),
        ),
        Step(
            "One record a photo, and a sheet to look at",
            ("detect", str(folder / "new"), "--model", onnx, "--out", records, "--sheet", str(folder / "sheet.png")),
        ),
    ]  # fmt: skip


def run(folder: Path, images: int, call: Callable[[Step], int]) -> int:
    """Run all steps until one fails; its exit code, or 0."""
    for step in steps(folder, images):
        code = call(step)
        if code:
            return code
    return 0
