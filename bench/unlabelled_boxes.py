"""`python -m bench.unlabelled_boxes`: what photos without boxes add to few photos with boxes.

A share of the training tiles of apples keeps its boxes. A detector learns from these alone; from it starts a second
training, with the same tiles, or with those without boxes beside, for as many steps. Both are judged on the same test
tiles. A training that is finished is a line of `--out` (JSON Lines) and is not repeated.
"""

import argparse
import math
import os
import sys
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from bench import quality_data
from bench.material import PHOTOS
from bench.measure import tell
from bench.quality import Line, Results, commas, shown
from bench.quality_boxes import DATA, load, train_ours
from plantml.data import versions

FIRST, AGAIN, OTHERS = "few", "few, twice as long", "few, then with the others"
_BATCH = 4


def run(results: Results, photos: Path, *, seed: int, share: float, settings: list[str], steps: int) -> None:
    """All sides of a seed that are not there yet; what the first one learnt is not kept, so it is trained again."""
    given = {"data": DATA, "seed": seed, "share": share, "settings": settings, "steps": steps}
    if all(results.find(**given, side=side) for side in (FIRST, AGAIN, OTHERS)):
        return
    with tempfile.TemporaryDirectory(prefix="plantml-bench-") as folder:
        data = load(photos, Path(folder))
        few, everything = quality_data.few_labels(data.url, share, seed)
        version = versions.load(few)
        count, others = version.usable("train").height, data.usable("train").height
        teacher = Path(folder, FIRST)
        for side, tiles, more in (
            (FIRST, count, []),
            (AGAIN, count, ["--from", f"{teacher}/run"]),
            (OTHERS, others, ["--from", f"{teacher}/run", "--unlabelled", everything]),
        ):
            key = given | {"side": side}
            if results.find(**key) and side != FIRST:
                continue
            tell(f"{side}, seed {seed}")
            epochs = math.ceil(steps / max(1, tiles // _BATCH + (tiles % _BATCH >= 2)))  # as `Plan.epoch_steps`
            scratch = Path(folder, side)
            options = [*settings, "--batch-size", str(_BATCH), "--epochs", str(epochs), *more]
            line = train_ours(version, options, seed, str(scratch))
            if not results.find(**key):
                results.add(key | {"tiles": count} | line)


def table(lines: Iterable[Line]) -> str:
    """A row per side: scores over seeds, and the gain in AP50 over the same time without the others."""
    lines = list(lines)
    rows = ["| side | seeds | AP | AP50 | F1 | AP50 beside " + AGAIN + " |", "|---|---|---|---|---|---|"]
    base = {line["seed"]: line["scores"]["ap50"] for line in lines if line["side"] == AGAIN}
    for side in (FIRST, AGAIN, OTHERS):
        found = [line for line in lines if line["side"] == side]
        if not found:
            continue
        gains = [
            line["scores"]["ap50"] - base[line["seed"]] for line in found if line["seed"] in base and side != AGAIN
        ]
        scores = (shown([line["scores"][name] for line in found]) for name in ("ap", "ap50", "f1"))
        rows.append(f"| {side} | {len(found)} | {' | '.join(scores)} | {shown(gains) if gains else ''} |")
    return "\n".join(rows)


def main() -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.unlabelled_boxes",
        description="Few photos with boxes, with and without the photos that have none.",
        epilog=f"{PHOTOS} names the folder of real photos.",
    )
    parser.add_argument("--seeds", type=partial(commas, int), default=[0, 1, 2], metavar="0,1,2")
    parser.add_argument("--share", type=float, default=0.15, help="of the training tiles that keep their boxes")
    parser.add_argument("--size", default="352", metavar="PIXELS", help="input size")
    parser.add_argument("--steps", type=int, default=320, help="of each training")
    parser.add_argument("--threshold", default="0.6", help="pseudo_threshold")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON Lines; trainings there are kept")
    asked = parser.parse_args()
    if not os.environ.get(PHOTOS):
        sys.exit(f"{PHOTOS} names no folder of photos: it must have apple_boxes/")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    results = Results(asked.out)
    settings = ["--size", asked.size, "--set", f"pseudo_threshold={asked.threshold}"]
    for seed in asked.seeds:
        run(results, Path(os.environ[PHOTOS]), seed=seed, share=asked.share, settings=settings, steps=asked.steps)
    print(table(results.lines))


if __name__ == "__main__":
    main()
