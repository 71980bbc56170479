"""`python -m bench.unlabelled`: what photos without labels add to few labels.

A share of the training photos keeps its labels; the others take part as unlabelled photos, or not at all. Every side
is judged on the same test photos. A training that is finished is a line of `--out` (JSON Lines) and is not repeated,
so that the command can be ended and goes on later.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, stdev

from bench import quality, quality_data
from bench.material import PHOTOS
from bench.measure import tell
from bench.quality import Line

SIDES: Mapping[str, tuple[bool, bool]] = {
    "few": (True, False),
    "few-unlabelled": (True, True),
    "all": (False, False),
}
"""By name: are labels taken away, and are those photos used without?"""


def run(name: str, data: quality_data.Data, side: str, share: float, *, seed: int, options: Sequence[str]) -> Line:
    """Train one side with options of `plantml train`, and judge it on the test photos."""
    fewer, others = SIDES[side]
    with tempfile.TemporaryDirectory(prefix="plantml-bench-") as folder:
        # Every training has a dataset of its own: all versions are of the same photos.
        ref = quality_data.SETS[name](Path(os.environ[PHOTOS]), Path(folder))
        part, everything = quality_data.few_labels(ref, share, seed) if fewer else (ref, ref)
        more = ("--unlabelled", everything) if others else ()
        return quality.train_and_judge(part, data.targets, (*options, *more, "--seed", str(seed)), folder)


def table(lines: Sequence[Line]) -> str:
    """A row per set, preset and side: mean macro-F1 over targets, and the gain over few labels, seed by seed."""
    rows = ["| photos, preset | side | seeds | macro-F1 | gain |", "|---|---|---|---|---|"]
    for name, preset in dict.fromkeys((line["data"], line["preset"]) for line in lines):
        by_side = {
            side: {
                line["seed"]: line["mean"]["macro_f1"]
                for line in lines
                if (line["data"], line["preset"], line["side"]) == (name, preset, side)
            }
            for side in SIDES
        }
        base = by_side["few"]
        for side, scores in by_side.items():
            gains = [score - base[seed] for seed, score in scores.items() if seed in base and side != "few"]
            if scores:
                shown = _spread(list(scores.values()))
                rows.append(f"| {name}, {preset} | {side} | {len(scores)} | {shown} | {_spread(gains)} |")
    return "\n".join(rows)


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "") if values else ""


def main() -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.unlabelled",
        description="Few labels with and without the photos that have none.",
        epilog=f"{PHOTOS} names the folder of real photos.",
    )
    commas = partial(str.split, sep=",")
    parser.add_argument("--data", type=commas, default=list(quality_data.SETS), metavar="A,B", help="sets of photos")
    parser.add_argument("--presets", type=commas, default=["quick"], metavar="A,B")
    parser.add_argument("--seeds", type=commas, default=["0", "1", "2"], metavar="0,1,2")
    parser.add_argument("--sides", type=commas, default=list(SIDES), metavar="A,B", help="; ".join(SIDES))
    parser.add_argument("--size", default="224", metavar="PIXELS", help="input size")
    parser.add_argument("--share", type=float, default=0.1, help="of the training photos that keep their labels")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON Lines; trainings there are kept")
    asked = parser.parse_args()
    if not os.environ.get(PHOTOS):
        sys.exit(f"{PHOTOS} names no folder of photos: it must have bean/ and plantvillage/")
    results = quality.Results(asked.out)
    with tempfile.TemporaryDirectory(prefix="plantml-bench-") as folder:
        for name in asked.data:
            data = quality_data.load(name, Path(os.environ[PHOTOS]), Path(folder))
            for seed in map(int, asked.seeds):
                for preset in asked.presets:
                    for side in asked.sides:
                        key = {"data": name, "preset": preset, "side": side, "seed": seed, "share": asked.share}
                        key |= {"size": asked.size}
                        if not results.find(**key):
                            tell(f"{name} {preset} {side} seed {seed}")
                            options = ("--preset", preset, "--size", asked.size)
                            results.add(key | run(name, data, side, asked.share, seed=seed, options=options))
    print(table(results.lines))


if __name__ == "__main__":
    main()
