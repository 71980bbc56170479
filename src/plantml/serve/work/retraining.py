"""Retrainings that are asked for over HTTP: rounds of `plantml retrain` on a dataset of the server."""

from collections.abc import Mapping
from typing import Any

from plantml import settings
from plantml.errors import InputError
from plantml.retrain import consistency
from plantml.retrain.config import RetrainConfig
from plantml.serve.work.jobs import LEASE

VALIDATION_SHARE = 0.15
"""Of a dataset that is split for a training."""

CHOSEN = {"min_new", "every", "clean", "group_by", "recent", "recent_rounds", "start", "gates", "refused", "seed"}
"""Settings of `plantml retrain` that a request chooses. The others name URLs and commands, which the worker would open
and run for a caller, or are the server's: a list of what is allowed, as a new setting may be one of those."""


def ratios(test_share: float) -> str:
    """Shares of train, val and test."""
    return f"{1 - VALIDATION_SHARE - test_share:.6f}/{VALIDATION_SHARE}/{test_share:.6f}"


def configuration(
    request: Mapping[str, Any], *, dataset: str, model: str, work: str, by: str | None = None
) -> RetrainConfig:
    """The configuration of a requested round.

    Args:
        request: see `trainings.TrainingRequest`.
        dataset: its URL.
        model: its URL.
        work: URL of the folder of all rounds of this model on this dataset.
        by: author, for the history of the registry.

    Raises:
        InputError: a setting is unknown, does not fit, or is not for a request.
        UsageError: settings contradict each other.
    """
    chosen = request["retrain"]
    if refused := sorted((set(RetrainConfig.model_fields) - CHOSEN) & set(chosen)):
        raise InputError(f"Setting {refused[0]} cannot be chosen in retrain", "the server decides it", "Leave it out.")
    training = {"preset": request["preset"], "budget": request["budget"], **request["config"]}
    places = {"dataset": dataset, "model": model, "work": work}
    rest = {"ratios": ratios(request["test_share"]), "train": training, "lease": LEASE, "by": by}
    config = settings.check(RetrainConfig, {**chosen, **places, **rest}, "retrain")
    consistency.check(config)
    return config
