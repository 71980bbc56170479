"""Settings of a retraining that contradict each other."""

from plantml import storage
from plantml.curate import clean as cleaning
from plantml.data import splits
from plantml.errors import UsageError
from plantml.registry import ledger, operations
from plantml.retrain.config import RetrainConfig
from plantml.validate import gates


def check(config: RetrainConfig) -> None:
    """Raise `UsageError` for settings that contradict each other, before anything is done."""
    places = {name: storage.absolute(getattr(config, name)) for name in ("dataset", "model", "work")}
    for name, url in places.items():
        for other, outer in places.items():
            if name != other and storage.is_within(url, outer):
                raise UsageError(
                    f"{name} {url} lies inside {other}", "each needs a separate folder", "Choose another place."
                )
    _check_names(config)
    if config.on_drift and not config.drift.records:
        raise UsageError("on_drift has no records to compare", "", "Set drift.records to the output of detect.")
    if config.train.devices * config.train.nodes > 1:
        raise UsageError("A retraining uses one device", "", "Remove train.devices and train.nodes.")
    if config.train.folds or config.train.warm_start or config.train.where:
        raise UsageError(
            "train.folds, train.warm_start and train.where cannot be set for retraining",
            "retrain chooses the photos and the initial weights",
            "Remove them; use start: warm to start from the weights in service.",
        )


def _check_names(config: RetrainConfig) -> None:
    """Fail now on names that a step would refuse hours later."""
    for alias in (config.alias, config.challenger):
        ledger.check_alias(alias)
    if config.alias == config.challenger:
        raise UsageError(
            f"alias and challenger are both {config.alias!r}", "a refused challenger would be in service",
            "Choose different names.",
        )  # fmt: skip
    if operations.is_guarded(config.challenger):
        what = f"challenger cannot be called {config.challenger!r}"
        raise UsageError(what, "aliases of that name require passed gates", "Choose another name.")
    if config.clean:
        cleaning.codes(config.clean)
    splits.parse_ratios(config.ratios)
    for kind in ("min", "max"):
        gates.parse(kind, getattr(config.gates, kind))
