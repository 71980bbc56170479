"""The whole workflow on synthetic photos: each step is a command that a user would type."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from plantml.errors import InputError

_STEPS = """
Synthetic photos, close up, with advanced diseases
    dataset synth {0}/photos --images {1} --seed 1 --severity 0.4 0.6 --zoom 1.9 --size 192
A dataset with four targets; photos of one plant form a group
    dataset import {0}/photos/labels.csv {0}/leaves --target severity:value:fraction --group-column plant
Train, val and test splits, no plant in two of them
    dataset split {0}/leaves
A model for all four targets
    train {0}/leaves --out {0}/run --size 112 --epochs {2} --set precision=32
Its scores on plants that it has not seen
    validate {0}/leaves --model {0}/run --out {0}/validation
One file that needs only onnxruntime, verified against the model
    export {0}/run --to {0}/leaf.onnx
New photos of other plants
    dataset synth {0}/new --images 24 --seed 2 --severity 0.4 0.6 --zoom 1.9 --size 192
One record per photo, and a contact sheet
    detect {0}/new --model {0}/leaf.onnx --out {0}/records.jsonl --sheet {0}/sheet.png
"""


@dataclass(frozen=True)
class Step:
    """One command line of the demo, after `plantml`, and what it shows."""

    why: str
    arguments: list[str]


def steps(folder: Path, images: int, epochs: int) -> list[Step]:
    """The commands of the demo, in order, writing under `folder`."""
    lines = _STEPS.strip().splitlines()
    place = shlex.quote(str(folder))
    return [
        Step(why, shlex.split(command.format(place, images, epochs)))
        for why, command in zip(lines[::2], lines[1::2], strict=True)
    ]


def run(folder: Path, images: int, epochs: int, call: Callable[[Step], int]) -> int:
    """Run all steps until one fails; its exit code, or 0.

    Raises:
        InputError: the folder holds other files than a demo's.
    """
    _check_place(folder, steps(folder, images, epochs))
    for step in steps(folder, images, epochs):
        code = call(step)
        if code:
            return code
    return 0


def _check_place(folder: Path, planned: Sequence[Step]) -> None:
    places = [Path(word) for step in planned for word in step.arguments]
    ours = {place.relative_to(folder).parts[0] for place in places if folder in place.parents}
    ours |= {f"{name}.journal" for name in ours}  # which a detection keeps beside its records
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    others = [name for name in names if name not in ours and not name.startswith(".")]
    if others:
        raise InputError(
            f"{folder} holds other files than a demo's",
            f"such as {others[0]}",
            "Name a new folder: plantml demo DIR",
        )
