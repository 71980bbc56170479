"""`python -m bench.quality`: how good the models are, beside a plain timm training of the same wall time.

Takes hours, so that it is a command of its own and goes on where it was ended: each finished training is one line
of `--out` (JSON Lines), and is not repeated while dataset, side, seed and epochs are the same. Both sides start
from the same weights and are judged on the same test photos by the same code. The time of a timm training is given
in epochs, seconds times its rate, so that whoever else works on the machine meanwhile takes nothing from it.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench import quality_data
from bench.material import PHOTOS
from bench.measure import ROOT, Side, take_turns, tell
from bench.quality_data import Data
from bench.quality_recipes import BACKBONE, RECIPES, Speed
from plantml import metrics, storage
from plantml.metrics import calibration
from plantml.targets import Target

Line = dict[str, Any]

PRESETS = ("quick", "balanced", "best")
SECONDS: Mapping[str, Mapping[str, float]] = {
    "bean": {"quick": 45, "balanced": 200, "best": 420},
    "plantvillage": {"quick": 60, "balanced": 350, "best": 1000},
}
"""Wall time of a timm training by preset, where ours was not measured; `--seconds measured` takes ours."""

SIDES = tuple(f"ours-{preset}" for preset in PRESETS) + tuple(
    f"timm-{recipe}-{preset}" for recipe in RECIPES for preset in PRESETS
)
_ROUNDS = 3


class Results:
    """Finished trainings, a line each, in a file that only grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.lines: list[Line] = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def add(self, line: Line) -> None:
        """Keep a line, in memory and on disk."""
        line = {"time": storage.now_utc(), **line}
        self.lines.append(line)
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def find(self, **wanted: Any) -> list[Line]:
        """Lines that have all these values."""
        return [line for line in self.lines if all(line.get(key) == value for key, value in wanted.items())]


def main() -> None:
    """Train what is missing, and print the table."""
    asked = _arguments()
    results = Results(asked.out)
    photos = os.environ.get(PHOTOS)
    if not photos:
        sys.exit(
            f"{PHOTOS} names no folder of photos: it must have bean/, plantvillage/ and plantvillage_leaf_groups.csv"
        )
    # Terminated, it ends as usual: the scratch folder and the training go with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as plantml sets it; timm's side is given it too
    with tempfile.TemporaryDirectory(prefix="plantml-quality-") as folder:
        bench = Bench(results, asked.seconds, asked.rate, Path(folder))
        for name in asked.data:
            data = quality_data.load(name, Path(photos), Path(folder))
            for seed in asked.seeds:
                for side in asked.sides:
                    bench.run(name, data, side, seed)
    print(table(results.lines))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.quality",
        description="Accuracy and macro-F1 on real photos, beside timm's recipe for the same wall time.",
        epilog=f"Sides: {', '.join(SIDES)}. {PHOTOS} names the folder of real photos.",
    )
    names = partial(commas, str)
    parser.add_argument("--data", type=names, default=list(quality_data.SETS), metavar="A,B", help="sets of photos")
    parser.add_argument("--sides", type=names, default=list(SIDES), metavar="A,B", help="what to train")
    parser.add_argument("--seeds", type=partial(commas, int), default=[0, 1, 2], metavar="0,1,2")
    parser.add_argument(
        "--seconds",
        metavar="WHAT",
        help="wall time of timm's trainings: quick=45,balanced=200,best=420, or measured: what ours took in --out",
    )
    parser.add_argument(
        "--rate",
        type=float,
        metavar="PHOTOS/S",
        help="timm's rate with the cores to itself, validation included; measured beside ours if not given",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON Lines; trainings there are kept")
    asked = parser.parse_args()
    for what, given, known in (("set", asked.data, quality_data.SETS), ("side", asked.sides, SIDES)):
        if unknown := [name for name in given if name not in known]:
            parser.error(f"no {what} is called {unknown[0]}; there are {', '.join(known)}")
    return asked


def commas(kind: Callable[[str], Any], text: str) -> list[Any]:
    return [kind(part) for part in text.split(",")]


@dataclass(frozen=True)
class Bench:
    """One call of the command.

    Attributes:
        results: what is there already.
        seconds: `--seconds`.
        rate: `--rate`.
        folder: for scratch.
    """

    results: Results
    seconds: str | None
    rate: float | None
    folder: Path

    def run(self, name: str, data: Data, side: str, seed: int) -> None:
        """Train one side with one seed, unless it is there."""
        key: Line = {"data": name, "fingerprint": data.fingerprint, "side": side, "seed": seed}
        owner, *recipe, preset = side.split("-")
        how: Line = {}
        if owner == "timm":
            budget, rate = self._budget(name, data, preset), self.rate or self.rates(name, data)["timm"]
            key["epochs"] = max(1, round(budget * rate / data.train_photos))
            how = {"budget": budget, "rate": round(rate, 2)}
        if self.results.find(**key):
            return
        tell(f"{name} {side} seed {seed}" + (f": {key['epochs']} epochs" if "epochs" in key else ""))
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            if owner == "timm":
                found = _timm(data, recipe[0], key["epochs"], seed, Path(scratch))
            else:
                found = _ours(data, preset, seed, Path(scratch))
        self.results.add(key | how | found | {"versions": {lib: version(lib) for lib in ("plantml", "torch", "timm")}})

    def _budget(self, name: str, data: Data, preset: str) -> float:
        """Seconds that timm's side may take."""
        if self.seconds == "measured":
            ours = self.results.find(data=name, fingerprint=data.fingerprint, side=f"ours-{preset}")
            if not ours:
                sys.exit(f"--seconds measured: {name} ours-{preset} is not in the results yet; run that side first")
            return round(mean(float(line["seconds"]) for line in ours), 1)
        given = dict(part.split("=") for part in self.seconds.split(",")) if self.seconds else {}
        return float(given.get(preset, SECONDS[name][preset]))

    def rates(self, name: str, data: Data) -> Line:
        """Photos a second of both sides, measured in turns once and kept."""
        if known := self.results.find(data=name, fingerprint=data.fingerprint, side="rates"):
            return known[-1]
        scratch = self.folder / f"{name}-rates"
        speed = asdict(Speed())
        ours = {"ref": data.ref, "out": str(scratch / "run"), "cache": str(scratch / "cache"), "size": 224}
        theirs = {"folder": str(data.folder), "recipe": "adamw", "speed": speed}
        sides = {
            "ours": partial(Side, "bench.train_sides:library", backbone=BACKBONE, **ours),
            "timm": partial(Side, "bench.quality_timm:epochs", **theirs),
        }
        turns = take_turns(sides, _ROUNDS, f"rates of {name}")
        found: Line = {side: median(turn.rate for turn in taken) for side, taken in turns.items()}
        rounds = {f"{side}_rounds": [round(turn.rate, 2) for turn in taken] for side, taken in turns.items()}
        line = {"data": name, "fingerprint": data.fingerprint, "side": "rates", **found, **rounds, "speed": speed}
        self.results.add({**line, "load": os.getloadavg()[0]})
        return line


def _ours(data: Data, preset: str, seed: int, scratch: Path) -> Line:
    return train_and_judge(data.ref, data.targets, ("--preset", preset, "--seed", str(seed)), str(scratch))


def train_and_judge(ref: str, targets: Sequence[Target], options: Sequence[str], scratch: str) -> Line:
    """`plantml train` and `plantml validate`, as a user types them."""
    run, judged = f"{scratch}/run", f"{scratch}/judged"
    spent = timed(["-m", "plantml", "train", ref, "--out", run, *options])
    timed(["-m", "plantml", "validate", ref, "--model", run, "--split", "test", "--out", judged])
    table = pl.read_parquet(f"{judged}/predictions.parquet")
    answers = {
        target.name: table.select(f"{target.name}[{name}]" for name in target.classes).to_numpy() for target in targets
    }
    labels = {target.name: table[f"{target.name}_true"].to_list() for target in targets}
    return spent | _scores(targets, labels, answers)


def _timm(data: Data, recipe: str, epochs: int, seed: int, scratch: Path) -> Line:
    """timm's recipe on folders; what it says of each target is the sum over the classes that have its label."""
    command = ["-m", "bench.quality_timm", str(data.folder), "--recipe", recipe, "--epochs", str(epochs)]
    spent = timed([*command, "--seed", str(seed), "--out", str(scratch)])
    content = json.loads((scratch / "run.json").read_text())
    found = np.load(scratch / "answers.npz")
    labels, answers = read_off(data, found["test_y"], found["test_p"])
    history = content["val_accuracy"]
    told = {"best_epoch": int(np.argmax(history)) + 1, "val_accuracy": max(history), "recipe": content["recipe"]}
    return spent | told | _scores(data.targets, labels, answers)


def read_off(
    data: Data, truth: NDArray[np.int64], probabilities: NDArray[np.float32]
) -> tuple[dict[str, list[str]], dict[str, NDArray[np.float32]]]:
    """Labels and probabilities by target, of combined classes [N] and their probabilities [N, classes]."""
    labels, answers = {}, {}
    for number, target in enumerate(data.targets):
        names = [combined[number] for combined in data.classes]
        member = np.array([[name == label for label in target.classes] for name in names], np.float32)
        labels[target.name] = [names[index] for index in truth]
        answers[target.name] = probabilities @ member
    return labels, answers


def _scores(
    targets: Sequence[Target],
    labels: Mapping[str, list[str]],
    answers: Mapping[str, NDArray[np.float32]],
) -> Line:
    """Accuracy, macro-F1 and ECE by target, and their means; the ECE beside what chance would show."""
    found: dict[str, dict[str, float]] = {}
    for target in targets:
        encoded = target.encode(labels[target.name])
        report = metrics.report(target, encoded, answers[target.name])
        assert report is not None
        seen = calibration.reliability(*calibration.judged(target, answers[target.name], encoded))
        chosen = {key: report.scores[key] for key in ("accuracy", "macro_f1")}
        found[target.name] = {**chosen, "ece": seen.ece, "ece_low": seen.low, "ece_high": seen.high}
    keys = ("accuracy", "macro_f1", "ece")
    means = {key: mean(target[key] for target in found.values()) for key in keys}
    return {"photos": len(next(iter(labels.values()))), "scores": found, "mean": means}


def timed(arguments: list[str]) -> Line:
    """Run Python; wall time and computing time of the process and its children, and how busy the machine was."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        check=False,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(seconds, 1), "cpu": round(cpu, 1), "load": round(os.getloadavg()[0], 2)}


def table(lines: Iterable[Line]) -> str:
    """All trainings as Markdown: one table a set, a row a side; means over seeds, with their standard deviation."""
    newest = {(line["data"], line["side"], line["seed"]): line for line in lines if line["side"] != "rates"}
    text = [_rates_text(line) for line in lines if line["side"] == "rates"]
    for name in dict.fromkeys(data for data, _, _ in newest):
        mine = [line for (data, _, _), line in newest.items() if data == name]
        text += ["", *_set_table(name, mine)]
    return "\n".join(text)


def _rates_text(line: Line) -> str:
    return (
        f"{line['data']}: ours {line['ours']:.1f}, timm {line['timm']:.1f} photos/s in turns, load {line['load']:.0f}"
    )


def _set_table(name: str, lines: Sequence[Line]) -> list[str]:
    targets = list(lines[0]["scores"])
    heads = [f"{name}, {lines[0]['photos']} test photos", "seeds", "seconds", "epochs"]
    heads += [f"{target}: accuracy / F1" for target in targets] + ["mean accuracy", "mean F1", "ECE", "as chance"]
    rows = [heads, ["---"] * len(heads)]
    for side in sorted({line["side"] for line in lines}, key=SIDES.index):
        found = [line for line in lines if line["side"] == side]
        scores = [score for line in found for score in line["scores"].values()]
        rows.append(
            [
                side,
                str(len(found)),
                f"{found[0].get('budget') or mean(line['seconds'] for line in found):.0f}",
                str(found[0].get("epochs", "")),
                *(f"{_spread(found, t, 'accuracy')} / {_spread(found, t, 'macro_f1')}" for t in targets),
                shown([line["mean"]["accuracy"] for line in found]),
                shown([line["mean"]["macro_f1"] for line in found]),
                shown([line["mean"]["ece"] for line in found]),
                f"{sum(score['ece'] <= score['ece_high'] for score in scores)} of {len(scores)}",
            ]
        )
    return [f"| {' | '.join(row)} |" for row in rows]


def _spread(lines: Sequence[Line], target: str, score: str) -> str:
    return shown([line["scores"][target][score] for line in lines])


def shown(values: Sequence[float]) -> str:
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
