"""The photos that a training is asked to learn from. Imports nothing heavy: what is wrong with them is told at once."""

from dataclasses import replace

from plantml import storage
from plantml.data import versions
from plantml.data.filters import where
from plantml.data.manifest import Version, narrow_targets
from plantml.registry import references
from plantml.train import folds
from plantml.train.config import TrainConfig
from plantml.train.run_folder import PLAN


def select(dataset: str | Version, config: TrainConfig) -> Version:
    """The version with the photos that are asked for, and their classes; of a fold, with its split."""
    version = versions.load(dataset) if isinstance(dataset, str) else dataset
    if config.where:
        rows = where(version.rows, config.where)
        version = replace(version, rows=rows, targets=narrow_targets(rows, version.targets))
    return folds.of_fold(version, config.fold, config.folds, config.seed) if config.fold else version


def load_checked(ref: str, config: TrainConfig, out: str) -> Version:
    """The version of a dataset, after a look at whether it and the model to start from are there.

    Args:
        ref: the dataset.
        config: what is asked.
        out: URL of the run; one that has begun knows the model that it started from.

    Raises:
        InputError: they are not, or no condition like `where` can be asked of it.
    """
    version = versions.load(ref)
    select(version, config)
    run = storage.join(storage.absolute(out), "fold-1") if config.folds else storage.absolute(out)
    if config.warm_start and not storage.exists(storage.join(run, PLAN)):
        references.find(config.warm_start)
    return version
