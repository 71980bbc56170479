"""`python -m bench.quality`: how good the models are, beside plain trainings of equal processor time.

Takes hours, so that it is a command of its own and goes on where it was ended: each finished training is one line
of `--out` (JSON Lines), and is not repeated while dataset, share of the labels, side, seed and epochs are the same.
All sides start from the same weights, learn from the same photos, and are judged on the same test photos by the same
code. timm and Ultralytics take as many epochs as need at least the processor time that plantml took (mean over its
seeds): what a start and an epoch of theirs cost is measured first. Processor time, so that whoever else works on the
machine takes nothing from them.
"""

import argparse
import json
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench import quality_data
from bench.environments import ULTRALYTICS, environment
from bench.material import PHOTOS
from bench.measure import ROOT, tell
from bench.quality_data import Data
from bench.quality_recipes import RECIPES
from plantml import metrics, storage
from plantml.metrics import calibration, statistics
from plantml.targets import Target

Line = dict[str, Any]

PRESETS = ("quick", "balanced", "best")
PEERS = (*(f"timm-{recipe}" for recipe in RECIPES), "ultralytics")
SIDES = (
    *(f"ours-{preset}" for preset in PRESETS),
    *(f"bfloat16-{preset}" for preset in PRESETS[1:]),  # quick trains nothing but heads
    *(f"{peer}-{preset}" for peer in PEERS for preset in PRESETS),
)
USUAL = tuple(side for side in SIDES if side.startswith(("ours-", "timm-tuned-", "ultralytics-")))
_PROBES = (1, 3)
"""Epochs of two short trainings that tell what a start and an epoch cost."""
_DRAWS = 2_000


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
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as plantml sets it; the others' sides are given it too
    with tempfile.TemporaryDirectory(prefix="plantml-quality-") as folder:
        bench = Bench(results, Path(folder))
        for name in asked.data:
            for share in asked.shares:
                # All of ours first: their mean is what the others may take.
                for side in sorted(asked.sides, key=lambda side: not side.startswith("ours-")):
                    for seed in asked.seeds:
                        bench.run(name, share, side, seed)
    print(table(results.lines))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.quality",
        description="Accuracy and macro-F1 on real photos, beside timm's recipe for the same wall time.",
        epilog=f"Sides: {', '.join(SIDES)}. {PHOTOS} names the folder of real photos.",
    )
    names = partial(commas, str)
    parser.add_argument("--data", type=names, default=list(quality_data.SETS), metavar="A,B", help="sets of photos")
    parser.add_argument("--sides", type=names, default=list(USUAL), metavar="A,B", help="what to train")
    parser.add_argument("--seeds", type=partial(commas, int), default=[0, 1, 2], metavar="0,1,2")
    parser.add_argument(
        "--shares",
        type=partial(commas, float),
        default=[1.0],
        metavar="1,0.1",
        help="of the training photos that have labels; another random part for each seed",
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
        folder: for scratch.
    """

    results: Results
    folder: Path

    def run(self, name: str, share: float, side: str, seed: int) -> None:
        """Train one side with one seed, unless it is there."""
        data = self._data(name, share, seed)
        key: Line = {"data": name, "share": share, "fingerprint": data.fingerprint, "side": side, "seed": seed}
        owner, _, preset = side.rpartition("-")
        how: Line = {}
        if owner in PEERS:
            how = self._cost(name, share, owner) | {"budget": self._budget(name, share, preset)}
            key["epochs"] = max(1, math.ceil((how["budget"] - how["start"]) / how["epoch"]))  # rather more than less
        if self.results.find(**key):
            return
        tell(f"{name} {share:g} {side} seed {seed}" + (f": {key['epochs']} epochs" if "epochs" in key else ""))
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            if owner in PEERS:
                found = self._peer(data, owner, key["epochs"], seed, Path(scratch))
            else:
                precision = ("--set", "precision=bf16") if owner == "bfloat16" else ()
                options = ("--preset", preset, "--seed", str(seed), *precision)
                found = train_and_judge(data.ref, data.targets, options, scratch)
        self.results.add(key | how | found | {"versions": {lib: version(lib) for lib in ("plantml", "torch", "timm")}})

    def _data(self, name: str, share: float, seed: int) -> Data:
        """The photos; those whose labels are taken away differ by seed."""
        folder = self.folder / (f"{name}-{share:g}" + (f"-{seed}" if share < 1 else ""))
        folder.mkdir(exist_ok=True)
        return quality_data.load(name, Path(os.environ[PHOTOS]), folder, share=share, seed=seed)

    def _budget(self, name: str, share: float, preset: str) -> float:
        """Seconds of processor time that another side may take."""
        ours = self.results.find(data=name, share=share, side=f"ours-{preset}")
        if not ours:
            sys.exit(f"{name} {share:g} ours-{preset} is not in the results yet; run that side first")
        return round(mean(float(line["cpu"]) for line in ours), 1)

    def _cost(self, name: str, share: float, owner: str) -> Line:
        """Processor time of a start and of an epoch with its validation, in seconds; measured once and kept."""
        if not (known := self.results.find(data=name, share=share, side=f"cost-{owner}")):
            data, spent = self._data(name, share, 0), {}
            for epochs in _PROBES:
                tell(f"{name} {share:g}: what {epochs} epochs of {owner} cost")
                with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
                    spent[epochs] = self._peer(data, owner, epochs, 0, Path(scratch))["cpu"]
            epoch = (spent[_PROBES[1]] - spent[_PROBES[0]]) / (_PROBES[1] - _PROBES[0])
            cost = {"start": round(spent[_PROBES[0]] - _PROBES[0] * epoch, 2), "epoch": round(epoch, 3)}
            self.results.add({"data": name, "share": share, "side": f"cost-{owner}", **cost})
            known = self.results.find(data=name, share=share, side=f"cost-{owner}")
        return {key: known[-1][key] for key in ("start", "epoch")}

    def _peer(self, data: Data, owner: str, epochs: int, seed: int, scratch: Path) -> Line:
        """Another side on folders; what it says of each target is the sum over the classes that have its label."""
        command = [str(data.folder), "--epochs", str(epochs), "--seed", str(seed), "--out", str(scratch)]
        if owner == "ultralytics":
            python = environment(self.folder / "ultralytics", ULTRALYTICS)
            spent = timed(["-m", "bench.quality_ultralytics", *command], python)
        else:
            spent = timed(["-m", "bench.quality_timm", *command, "--recipe", owner.removeprefix("timm-")])
        told = json.loads((scratch / "run.json").read_text())
        found = np.load(scratch / "answers.npz")
        labels, answers = read_off(data, found["test_y"], found["test_p"])
        files = {number: iter(data.test[combined]) for number, combined in enumerate(data.classes)}
        order = [next(files[int(number)]) for number in found["test_y"]]  # both sort the files of a class by name
        return spent | {"told": told} | _scores(data.targets, order, labels, answers)


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
    return spent | _scores(targets, table["name"].to_list(), labels, answers)


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
    photos: Sequence[str],
    labels: Mapping[str, list[str]],
    answers: Mapping[str, NDArray[np.float32]],
) -> Line:
    """Accuracy, macro-F1 and ECE by target, and their means; the ECE beside what chance would show.

    With labels and predictions of every photo, in the order of their names, for intervals.
    """
    order = np.argsort(np.array(photos))
    found: dict[str, dict[str, float]] = {}
    predicted: dict[str, list[list[int]]] = {}
    for target in targets:
        encoded = target.encode(labels[target.name])
        report = metrics.report(target, encoded, answers[target.name])
        assert report is not None
        seen = calibration.reliability(*calibration.judged(target, answers[target.name], encoded))
        chosen = {key: report.scores[key] for key in ("accuracy", "macro_f1")}
        found[target.name] = {**chosen, "ece": seen.ece, "ece_low": seen.low, "ece_high": seen.high}
        predicted[target.name] = [encoded[order].tolist(), answers[target.name].argmax(1)[order].tolist()]
    keys = ("accuracy", "macro_f1", "ece")
    means = {key: mean(target[key] for target in found.values()) for key in keys}
    return {"photos": len(next(iter(labels.values()))), "scores": found, "mean": means, "predicted": predicted}


def timed(arguments: list[str], python: str = sys.executable) -> Line:
    """Run Python; wall time and computing time of the process and its children, and how busy the machine was."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [python, *arguments],
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
    """All trainings as Markdown, a table for each set and share, a row for each side.

    Means over seeds with their standard deviation; and what plantml's macro-F1 is ahead by, with a 95 % interval over
    test photos and seeds.
    """
    newest = {tuple(line[key] for key in ("data", "share", "side", "seed")): line for line in lines if "scores" in line}
    text: list[str] = []
    for name, share in dict.fromkeys((line["data"], line["share"]) for line in newest.values()):
        text += ["", *_set_table([line for line in newest.values() if (line["data"], line["share"]) == (name, share)])]
    return "\n".join(text)


def _set_table(lines: Sequence[Line]) -> list[str]:
    targets = list(lines[0]["scores"])
    heads = [f"{lines[0]['data']}, {lines[0]['share']:.0%} of the labels, {lines[0]['photos']} test photos"]
    heads += ["seeds", "processor time, s", "epochs", *(f"{target}: accuracy / F1" for target in targets)]
    rows = [[*heads, "mean F1", "ours ahead by", "ECE", "as chance"]]
    rows.append(["---"] * len(rows[0]))
    sides = {side: [line for line in lines if line["side"] == side] for side in SIDES}
    for side, found in sides.items():
        if not found:
            continue
        scores = [score for line in found for score in line["scores"].values()]
        owner, _, preset = side.rpartition("-")
        ours = sides[f"ours-{preset}"] if owner != "ours" else []
        rows.append(
            [
                side,
                str(len(found)),
                f"{mean(line['cpu'] for line in found):.0f}",
                str(found[0].get("epochs", "")),
                *(f"{_spread(found, t, 'accuracy')} / {_spread(found, t, 'macro_f1')}" for t in targets),
                shown([line["mean"]["macro_f1"] for line in found]),
                _lead(ours, found) if ours else "",
                shown([line["mean"]["ece"] for line in found]),
                f"{sum(score['ece'] <= score['ece_high'] for score in scores)} of {len(scores)}",
            ]
        )
    return [f"| {' | '.join(row)} |" for row in rows]


def _lead(ours: Sequence[Line], theirs: Sequence[Line]) -> str:
    """Difference of the mean macro-F1, and its 95 % interval by resampling photos, the same of both, and seeds."""
    sides = [np.stack([_replicates(line) for line in side]) for side in (ours, theirs)]  # [seeds, draws]
    rng = np.random.default_rng(0)
    draws = np.arange(_DRAWS)
    drawn = [
        np.mean([side[rng.integers(0, len(side), _DRAWS), draws] for _ in range(len(side))], axis=0) for side in sides
    ]
    low, high = np.quantile(drawn[0] - drawn[1], [0.025, 0.975])
    point = mean(line["mean"]["macro_f1"] for line in ours) - mean(line["mean"]["macro_f1"] for line in theirs)
    return f"{point:+.3f} ({low:+.3f} to {high:+.3f})"


def _replicates(line: Line) -> NDArray[np.float64]:
    """Mean macro-F1 over targets in resamples of the test photos, [draws]; the same photos for every line."""
    found = []
    for truth, predicted in line["predicted"].values():
        labels, size = np.array(truth), max(*truth, *predicted) + 1
        target = Target("any", "class", tuple(map(str, range(size))))
        statistic = statistics.of_target(target, labels, np.eye(size, dtype=np.float32)[predicted])
        groups = metrics.Groups(list(range(len(labels))))
        found.append(metrics.replicate([statistic], groups, resamples=_DRAWS, seed=0)["any.macro_f1"])
    return np.mean(found, axis=0)


def _spread(lines: Sequence[Line], target: str, score: str) -> str:
    return shown([line["scores"][target][score] for line in lines])


def shown(values: Sequence[float]) -> str:
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
