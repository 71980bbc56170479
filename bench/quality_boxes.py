"""`python -m bench.quality_boxes`: how well boxes are found, beside torchvision's detectors on equal processor time.

Both sides start from the same weights of the same backbone, see the same photos at the same size, and are judged on the
same test photos by the same code. Ours is `plantml train` as a user types it. A detector of torchvision trains for the
processor time that ours took with the same seed, so that whoever else works on the machine takes nothing from it. Takes
an hour; each finished training is one line of `--out` (JSON Lines) and is not repeated.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any

from bench.material import PHOTOS
from bench.measure import tell
from bench.quality import Line, Results, commas, shown, timed
from bench.quality_torchvision import MODELS, RECIPES
from plantml import storage
from plantml.curate import clean
from plantml.data.formats import list_source
from plantml.data.importing import import_source
from plantml.data.manifest import Version
from plantml.data.splits import split_dataset
from plantml.parsing import parse_yaml
from plantml.settings import machine

DATA = "apple_boxes"
OURS = "ours"
SIDES = (OURS, *(f"{model}-{recipe}" for model in MODELS for recipe in RECIPES))
LIBRARIES = ("plantml", "torch", "torchvision", "timm")
SCORES = ("ap", "ap50", "ap75", "f1", "count_mae")

_PHOTO = r"^(.+)[_-]\d+\.\w+$"
"""A tile's name begins with that of its photo."""


def main() -> None:
    """Train what is missing, and print the table."""
    options = _arguments()
    photos = os.environ.get(PHOTOS)
    if not photos:
        sys.exit(f"{PHOTOS} names no folder of photos: it must have {DATA}/")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as plantml sets it; torchvision's side is given it too
    results = Results(options.out)
    settings = ["--size", str(options.size)] * bool(options.size) + ["--epochs", str(options.epochs)] * bool(
        options.epochs
    )
    with tempfile.TemporaryDirectory(prefix="plantml-boxes-") as folder:
        data = load(Path(photos), Path(folder))
        for seed in options.seeds:
            key = {"data": DATA, "fingerprint": data.fingerprint, "settings": settings, "seed": seed}
            for side in options.sides:
                if results.find(**key, side=side):
                    continue
                tell(f"{side} seed {seed}")
                with tempfile.TemporaryDirectory(dir=folder) as scratch:
                    ours = results.find(**key, side=OURS)
                    line = (
                        train_ours(data, settings, seed, scratch)
                        if side == OURS
                        else train_peer(data, side, ours, scratch)
                    )
                results.add(key | {"side": side} | line | {"versions": {name: version(name) for name in LIBRARIES}})
    print(table(results.lines))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.quality_boxes",
        description="Average precision on real photos, beside torchvision's detectors on equal processor time.",
        epilog=f"Sides: {', '.join(SIDES)}. {PHOTOS} names the folder of real photos.",
    )
    parser.add_argument("--sides", type=partial(commas, str), default=list(SIDES), metavar="A,B", help="what to train")
    parser.add_argument("--seeds", type=partial(commas, int), default=[0, 1, 2], metavar="0,1,2")
    parser.add_argument("--size", type=int, help="input of both sides, pixels; if not given, what ours chooses")
    parser.add_argument("--epochs", type=int, help="of ours; if not given, what it chooses")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON Lines; trainings there are kept")
    options = parser.parse_args()
    if unknown := [side for side in options.sides if side not in SIDES]:
        parser.error(f"no side is called {unknown[0]}; there are {', '.join(SIDES)}")
    options.sides.sort(key=SIDES.index)  # ours first: it sets the time of the others
    return options


def load(photos: Path, work: Path) -> Version:
    """The apples, split by photo: tiles of one photo never lie in two splits."""
    url, source = str(work / DATA), str(photos / DATA / "instances.json")
    import_source(source, url, list_source(source), reference=True)
    clean.clean(url, clean.codes("box-degenerate"), machine())
    return split_dataset(url, group_by=_PHOTO).version


def train_ours(data: Version, settings: list[str], seed: int, scratch: str) -> Line:
    """`plantml train` and `plantml validate`, as a user types them."""
    run, judged = f"{scratch}/run", f"{scratch}/judged"
    spent = timed(["-m", "plantml", "train", data.ref, "--task", "boxes", "--out", run, "--seed", str(seed), *settings])
    timed(["-m", "plantml", "validate", data.ref, "--model", run, "--split", "test", "--out", judged])
    scores = json.loads(Path(judged, "metrics.json").read_text())["scores"]
    plan = parse_yaml(storage.read(f"{run}/plan.yaml"), "plan.yaml")
    epochs = len(Path(run, "history.csv").read_text().splitlines()) - 1
    return spent | {
        "epochs": epochs,
        "size": plan["input"]["height"],
        "scores": {name: scores[f"boxes.{name}"] for name in SCORES},
    }


def train_peer(data: Version, side: str, ours: list[Line], scratch: str) -> Line:
    """A detector of torchvision, for the processor time and at the size of ours."""
    if not ours:
        sys.exit(f"{side}: {OURS} is not in the results yet with this seed; run that side first")
    model, recipe = side.split("-")
    out, line = Path(scratch, "peer.json"), ours[-1]
    options: dict[str, Any] = {
        "model": model,
        "recipe": recipe,
        "size": line["size"],
        "cpu": line["cpu"],
        "seed": line["seed"],
    }
    given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    spent = timed(["-m", "bench.quality_torchvision", data.ref, *given, "--out", str(out)])
    return spent | {"size": line["size"]} | json.loads(out.read_text())


def table(lines: Iterable[Line]) -> str:
    """All trainings as Markdown, a row a side; means over seeds, with their standard deviation."""
    newest = {(line["side"], line["seed"]): line for line in lines}
    rows = [["side", "seeds", "processor seconds", "epochs", *SCORES]]
    rows.append(["---"] * len(rows[0]))
    for side in SIDES:
        same = [line for (name, _), line in newest.items() if name == side]
        if same:
            cost = [f"{mean(line['cpu'] for line in same):.0f}", f"{mean(line['epochs'] for line in same):.0f}"]
            rows.append(
                [side, str(len(same)), *cost, *(shown([line["scores"][name] for line in same]) for name in SCORES)]
            )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    main()
