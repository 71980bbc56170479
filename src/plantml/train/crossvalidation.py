"""Cross-validation: every train and val photo is validated once, by a model trained without its group."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from plantml import storage
from plantml.concurrency import Listener, Stop
from plantml.data.manifest import Version
from plantml.settings import Machine
from plantml.train import train
from plantml.train.config import TrainConfig

RESULT = "folds.json"


@dataclass(frozen=True)
class CrossValidationResult:
    """The scores of all folds.

    Attributes:
        out: URL of the folder with one run per fold.
        scores: by name, one per fold, on the fold's validation photos.
    """

    out: str
    scores: Mapping[str, tuple[float, ...]]

    @property
    def mean(self) -> dict[str, float]:
        """The mean of each score."""
        return {name: statistics.fmean(values) for name, values in self.scores.items()}

    @property
    def spread(self) -> dict[str, float]:
        """The standard deviation of each score over the folds."""
        return {name: statistics.stdev(values) for name, values in self.scores.items()}


def cross_validate(
    dataset: str | Version,
    out: str,
    config: TrainConfig,
    *,
    machine: Machine,
    fresh: bool = False,
    config_lines: Sequence[str] = (),
    stop: Stop,
    listener: Listener,
) -> CrossValidationResult:
    """Train one model per fold, each as a run in `out`. The same call again resumes. See `train.train`."""
    fold_scores: list[Mapping[str, float]] = []
    for number in range(1, config.folds + 1):
        listener.say(f"Fold {number} of {config.folds}")
        run = storage.join(storage.absolute(out), f"fold-{number}")
        fold_config = config.model_copy(update={"fold": number})
        fold = train.train(
            dataset, run, fold_config,
            machine=machine, fresh=fresh, config_lines=config_lines, stop=stop, listener=listener,
        )  # fmt: skip
        if fold is not None:
            fold_scores.append(fold.scores)
    names = [name for name in (fold_scores[0] if fold_scores else {}) if all(name in scores for scores in fold_scores)]
    by_name = {name: tuple(scores[name] for scores in fold_scores) for name in names}
    result = CrossValidationResult(storage.absolute(out), by_name)
    content = {"plantml_folds": 1, "folds": config.folds, "seed": config.seed, "scores": result.scores,
               "mean": result.mean, "spread": result.spread}  # fmt: skip
    storage.write(storage.join(result.out, RESULT), (json.dumps(content, indent=2) + "\n").encode())
    return result
