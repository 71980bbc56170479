"""Cross-validation: every photo of train and val is judged once, by a model that has not seen its group."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from plantml import storage
from plantml.concurrency import Stop
from plantml.data.manifest import Version
from plantml.settings import Machine
from plantml.train import train
from plantml.train.config import TrainConfig
from plantml.train.train import Listener

RESULT = "folds.json"


@dataclass(frozen=True)
class CrossValidationResult:
    """What the folds came to.

    Attributes:
        out: URL of the folder with a run for each fold.
        scores: by name, of each fold's validation photos, in the order of the folds.
    """

    out: str
    scores: Mapping[str, tuple[float, ...]]

    @property
    def mean(self) -> dict[str, float]:
        """The mean of each score."""
        return {name: statistics.fmean(found) for name, found in self.scores.items()}

    @property
    def spread(self) -> dict[str, float]:
        """The standard deviation of each score over the folds."""
        return {name: statistics.stdev(found) for name, found in self.scores.items()}


def cross_validate(
    dataset: str | Version,
    out: str,
    config: TrainConfig,
    *,
    machine: Machine,
    fresh: bool = False,
    told: Sequence[str] = (),
    stop: Stop,
    listener: Listener,
) -> CrossValidationResult:
    """Train a model for each fold, each a run of its own in `out`; repeated, it goes on where it ended."""
    found: list[Mapping[str, float]] = []
    for number in range(1, config.folds + 1):
        listener.say(f"Fold {number} of {config.folds}")
        place = storage.join(storage.absolute(out), f"fold-{number}")
        this = config.model_copy(update={"fold": number})
        done = train.train(dataset, place, this, machine=machine, fresh=fresh, told=told, stop=stop, listener=listener)
        if done is not None:
            found.append(done.scores)
    names = [name for name in (found[0] if found else {}) if all(name in scores for scores in found)]
    result = CrossValidationResult(
        storage.absolute(out), {name: tuple(scores[name] for scores in found) for name in names}
    )
    content = {"plantml_folds": 1, "folds": config.folds, "seed": config.seed, "scores": result.scores,
               "mean": result.mean, "spread": result.spread}  # fmt: skip
    storage.write(storage.join(result.out, RESULT), (json.dumps(content, indent=2) + "\n").encode())
    return result
