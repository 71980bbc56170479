"""`python -m bench.quality_anomaly`: healthy plants against diseased ones, beside PatchCore as anomalib has it.

Both sides learn from the same healthy photos with the same weights of the same backbone at the same size, and are
judged on the same test photos by the same code: the AUROC over all photos, and within each crop. anomalib is installed
in an environment of its own. What is finished is a line of `--out` (JSON Lines) and is not repeated.
"""

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.torch import save_file

import plantml
from bench.environments import environment
from bench.material import PHOTOS
from bench.measure import tell
from bench.quality import Line, Results, commas, timed
from bench.quality_data import SETS
from plantml import storage, synth
from plantml.data import versions
from plantml.data.formats import list_source
from plantml.data.importing import import_source
from plantml.data.manifest import Version
from plantml.data.splits import split_dataset
from plantml.imaging import Fit
from plantml.metrics.anomaly import NAME, AnomalyStatistic
from plantml.synth import SynthSpec
from plantml.train import weights

ANOMALIB = "anomalib==2.7.0"
PATCHCORES: Mapping[str, tuple[Sequence[int], float]] = {
    "anomalib 8+16": ((8, 16), 0.01),
    "anomalib 16+32": ((16, 32), 0.02),
}
"""Strides of the maps and share of the cells that the core-set keeps; those of the paper, and those that ours takes."""

OURS = "ours"
SIDES = (OURS, *PATCHCORES)


def synthetic(photos: Path, work: Path) -> str:
    """Three synthetic crops, healthy and with three diseases, in the laboratory and in the field."""
    del photos
    source, url = work / "synth-photos", str(work / "synth")
    crops = {"tomato": ("healthy", "rust"), "bean": ("healthy", "rust"), "pepper": ("healthy", "bacterial_spot")}
    classes = tuple(f"{crop}___{state}" for crop, states in crops.items() for state in states)
    synth.write(SynthSpec(480, classes=classes, seed=7, severity=(0.1, 0.5)), str(source))
    table = str(source / "labels.csv")  # the folder itself would be read as boxes
    import_source(table, url, list_source(table, group_column="plant"))
    split_dataset(url, ratios="0.6/0.2/0.2")
    return url


DATA: Mapping[str, Callable[[Path, Path], str]] = {**SETS, "synth": synthetic}


def ours(version: Version, size: int, folder: Path) -> tuple[pl.DataFrame, float]:
    """The test photos with `score`, and the processor seconds of training and validation."""
    run, out = folder / "run", folder / "out"
    train = ["-m", "plantml", "train", version.ref, "--out", str(run), "--task", "anomaly", "--size", str(size)]
    validate = ["-m", "plantml", "validate", version.ref, "--model", str(run), "--out", str(out)]
    cpu = float(timed([*train, "--quiet"])["cpu"] + timed([*validate, "--quiet"])["cpu"])
    scores = pl.read_csv(out / "predictions.csv").select("image_id", score="anomaly[anomalous]").unique("image_id")
    return version.usable("test").join(scores, on="image_id", how="left"), cpu


def theirs(side: str, version: Version, size: int, folder: Path, python: str) -> tuple[pl.DataFrame, float]:
    """As `ours`."""
    levels, share = PATCHCORES[side]
    network = weights.features(weights.DEFAULT, weights.Weights(), Fit(size, size, "squash"), levels, offline=True)
    save_file(network.state_dict(), folder / "weights.safetensors")
    mean, std = weights.statistics(weights.DEFAULT)
    train, test = version.usable("train").filter(pl.col("health") == "healthy"), version.usable("test")
    job = {
        "backbone": weights.DEFAULT,
        "weights": str(folder / "weights.safetensors"),
        "levels": levels,
        "share": share,
        "size": size,
        "mean": mean,
        "std": std,
        **{name: [str(storage.local_path(version.image_url(path))) for path in rows["path"]]
           for name, rows in (("train", train), ("test", test))},
    }  # fmt: skip
    (folder / "job.json").write_text(json.dumps(job))
    script = Path(__file__).with_name("quality_anomalib.py")
    quiet = {**os.environ, "TQDM_DISABLE": "1"}
    done = subprocess.run([python, script, folder / "job.json"], stdout=subprocess.PIPE, check=True, env=quiet)
    answer = json.loads(done.stdout.splitlines()[-1])
    return test.with_columns(score=pl.Series(answer["scores"])), answer["cpu"]


def judged(photos: pl.DataFrame) -> dict[str, float]:
    """The AUROC over all photos, and within each crop that has healthy and diseased ones."""

    def auroc(rows: pl.DataFrame) -> float:
        truth = (rows["health"] != "healthy").cast(pl.Int64).to_numpy()
        return AnomalyStatistic(rows["score"].to_numpy(), truth, rows["health"].to_list(), np.inf).of_all()[
            f"{NAME}.auroc"
        ]

    scores = {"all": auroc(photos)}
    if "category" in photos.columns:
        crops = {str(name): rows for (name,), rows in photos.sort("category").group_by("category", maintain_order=True)}
        scores |= {name: auroc(rows) for name, rows in crops.items() if rows["health"].n_unique() == 2}
    return {name: round(score, 4) for name, score in scores.items()}


def table(lines: Sequence[Line]) -> str:
    """A row per set and side."""
    rows = [
        "| photos, size | side | AUROC | by crop | healthy photos, test photos | CPU s |",
        "|---|---|---|---|---|---|",
    ]
    for line in lines:
        crops = ", ".join(f"{name} {score:.3f}" for name, score in line["auroc"].items() if name != "all")
        rows.append(f"| {line['data']}, {line['size']} | {line['side']} | {line['auroc']['all']:.3f} | {crops}"
                    f" | {line['train']}, {line['test']} | {line['cpu']:.0f} |")  # fmt: skip
    return "\n".join(rows)


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.quality_anomaly",
        description="Healthy plants against diseased ones, beside anomalib's PatchCore.",
        epilog=f"{PHOTOS} names the folder of real photos.",
    )
    names = partial(commas, str)
    parser.add_argument("--data", type=names, default=list(DATA), metavar="A,B", help=f"of {', '.join(DATA)}")
    parser.add_argument("--sides", type=names, default=list(SIDES), metavar="A,B", help=f"of {', '.join(SIDES)}")
    parser.add_argument("--size", type=int, default=256, help="pixels of the input")
    parser.add_argument("--python", help=f"Python of an environment with {ANOMALIB}; else one is made")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON Lines; what is there is kept")
    asked = parser.parse_args()
    results, photos = Results(asked.out), Path(os.environ.get(PHOTOS, "nowhere"))
    with tempfile.TemporaryDirectory(prefix="plantml-bench-") as name:
        work = Path(name)
        for data in asked.data:
            missing = [side for side in asked.sides if not results.find(data=data, side=side, size=asked.size)]
            if not missing:
                continue
            version = versions.load(DATA[data](photos, work))
            for side in missing:
                tell(f"{data}, {side}")
                folder = work / f"{data}-{SIDES.index(side)}"
                folder.mkdir()
                if side == OURS:
                    scored, cpu = ours(version, asked.size, folder)
                else:
                    asked.python = asked.python or environment(work / "anomalib", ANOMALIB)
                    scored, cpu = theirs(side, version, asked.size, folder, asked.python)
                train = version.usable("train").filter(pl.col("health") == "healthy").height
                line: dict[str, Any] = {"data": data, "side": side, "size": asked.size, "auroc": judged(scored),
                                        "train": train, "test": scored.height, "cpu": round(cpu, 1),
                                        "plantml": plantml.__version__, "anomalib": ANOMALIB}  # fmt: skip
                results.add(line)
    print(table(results.lines))


if __name__ == "__main__":
    main()
