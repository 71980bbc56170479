"""`python -m bench.shift`: how a model fares on photos of another origin of the same classes.

Two pairs: synthetic leaves on plain backgrounds against the same plants in the field, for every target; and, where
there are real photos, PlantVillage against bean leaves in the field, for health. Each model is trained on the first
origin as it is, with strong augmentation, and with other backgrounds, and judged on held-out photos of both.
"""

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

import plantml
from bench.material import PHOTOS
from bench.measure import tell
from plantml import storage, synth
from plantml.data.formats import list_source
from plantml.data.importing import import_source
from plantml.data.splits import split_dataset
from plantml.synth import SynthSpec

Interval = Sequence[float] | None

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "as planned": {},
    "augment=2": {"augment": 2.0},
    "background=0.75": {"background": 0.75},
}
"""Settings of the trainings that are compared."""


@dataclass(frozen=True)
class Origin:
    """Photos of one origin: a dataset, the split that is judged, and a condition on its rows."""

    name: str
    dataset: str
    split: str = "test"
    where: str = ""


@dataclass(frozen=True)
class Line:
    """One model, judged on one origin.

    Attributes:
        trained: the origin and the variant that it was trained on.
        judged: the origin that it is judged on.
        target: that is predicted.
        photos: that were judged.
        macro_f1: with `macro_f1_interval`.
        accuracy: with `accuracy_interval`.
        ece: calibration error, with `ece_interval`.
        unknown: share called unknown, with `unknown_interval`.
    """

    trained: str
    judged: str
    target: str
    photos: int
    macro_f1: float
    macro_f1_interval: Interval | None
    accuracy: float
    accuracy_interval: Interval | None
    ece: float
    ece_interval: Interval | None
    unknown: float
    unknown_interval: Interval


def judge(run: str, trained: str, origins: Sequence[Origin]) -> Iterator[Line]:
    """A finished training on each origin."""
    for origin in origins:
        result = plantml.validate(run, origin.dataset, split=origin.split, where=origin.where or None)
        unknown, photos = result.decisions["unknown"], result.photos
        for report in result.reports:
            of = {name: f"{report.target}.{name}" for name in ("macro_f1", "accuracy", "ece")}
            values = {name: round(result.scores[key], 4) for name, key in of.items()}
            intervals = {f"{name}_interval": result.intervals.get(key) for name, key in of.items()}
            share = binomtest(unknown, photos).proportion_ci()
            yield Line(trained=trained, judged=origin.name, target=report.target, photos=photos, **values, **intervals,
                       unknown=round(unknown / photos, 4), unknown_interval=(share.low, share.high))  # fmt: skip


def synthetic(folder: Path, images: int) -> tuple[str, str, list[Origin]]:
    """Dataset, condition of the training photos, and origins: the same plants in a laboratory and in the field."""
    photos, dataset = folder / "synth-photos", str(folder / "synth")
    classes = ("tomato___healthy", "tomato___rust", "bean___healthy", "bean___rust")
    if not storage.exists(dataset):
        synth.write(SynthSpec(images, classes=classes, seed=5, severity=(0.1, 0.5)), str(photos))
        table = str(photos / "labels.csv")  # the folder itself would be read as boxes
        import_source(table, dataset, list_source(table, group_column="plant"))
        split_dataset(dataset, ratios="0.5/0.15/0.35")
    lab, field = (f'background == "{name}"' for name in ("lab", "field"))
    return dataset, lab, [Origin("synth lab", dataset, where=lab), Origin("synth field", dataset, where=field)]


def real(folder: Path, photos: Path) -> tuple[str, str, list[Origin]]:
    """As `synthetic`: PlantVillage's leaves on a table, and bean leaves in the field."""
    datasets = []
    for name in ("plantvillage", "bean"):
        dataset, source = str(folder / name), str(photos / name)
        if not storage.exists(dataset):
            import_source(source, dataset, list_source(source), reference=True)
            if name == "plantvillage":
                split_dataset(dataset, ratios="0.6/0.15/0.25")
        datasets.append(dataset)
    return datasets[0], "", [Origin("PlantVillage", datasets[0]), Origin("bean, field", datasets[1], split="all")]


def main() -> None:
    """Train and judge; a repeated call goes on where it was."""
    parser = argparse.ArgumentParser(prog="python -m bench.shift", description=(__doc__ or "").split(": ", 1)[1])
    parser.add_argument("--folder", required=True, help="for datasets, runs and the table")
    parser.add_argument("--images", type=int, default=1600, help="synthetic photos, a quarter of them in a laboratory")
    parser.add_argument("--size", type=int, default=160, help="pixels of the models' input")
    parser.add_argument("--preset", default="quick", help="of the trainings")
    asked = parser.parse_args()
    folder, photos = Path(asked.folder), Path(os.environ.get(PHOTOS, "nowhere"))
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [("synth", ["category", "disease"], synthetic(folder, asked.images))]
    if (photos / "plantvillage").is_dir():
        pairs.append(("plantvillage", ["health"], real(folder, photos)))
    lines: list[Line] = []
    for name, targets, (dataset, where, origins) in pairs:
        for variant, settings in VARIANTS.items():
            tell(f"{name}, {variant}")
            run = str(folder / f"{name}-{asked.preset}-{asked.size}-{variant.replace(' ', '-')}")
            plantml.train(dataset, run, where=where, targets=targets, size=asked.size, preset=asked.preset, **settings)
            for line in judge(run, f"{origins[0].name}, {variant}", origins):
                lines.append(line)
                print(
                    f"{line.trained:24} {line.judged:14} {line.target:9} {line.photos:4} photos"
                    f"  macro-F1 {line.macro_f1:.3f} {_text(line.macro_f1_interval)}"
                    f"  accuracy {line.accuracy:.3f} {_text(line.accuracy_interval)}"
                    f"  ECE {line.ece:.3f} {_text(line.ece_interval)}"
                    f"  unknown {line.unknown:.1%} {_text(line.unknown_interval)}",
                    flush=True,
                )
    (folder / "shift.json").write_text(json.dumps([asdict(line) for line in lines], indent=2) + "\n")


def _text(interval: Interval) -> str:
    return f"({interval[0]:.2f}-{interval[1]:.2f})" if interval else ""


if __name__ == "__main__":
    main()
