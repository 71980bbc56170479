"""List registered models, show one, and compare two."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plantml import parsing, storage
from plantml.model import bundle as bundles
from plantml.model.bundle import Bundle
from plantml.registry import ledger, references
from plantml.registry.ledger import Entry, Ledger
from plantml.registry.version_files import plan_of
from plantml.storage.event_log import Event

_FIRST = f"/{ledger.EVENTS}/000001.json"
_MEASURED = {"dataset", "dataset_version", "fingerprint", "asked", "reasons", "targets", "parent", "class_weights",
             "class_logits", "step_seconds", "seconds", "versions", "warm_start", "input", "sha256"}  # fmt: skip
"""Keys of a plan that are shown elsewhere, or that were measured and not chosen."""


@dataclass(frozen=True)
class ModelDetails:
    """A model, in a registry or not. Plan and card are empty if they are unknown."""

    bundle: Bundle
    state: Ledger | None
    entry: Entry | None
    plan: Mapping[str, Any]
    card: str

    @property
    def parent(self) -> str:
        """Digest of the model whose weights the training started from; empty for none."""
        return str(self.plan.get("parent", ""))

    @property
    def config(self) -> dict[str, Any]:
        """The training configuration."""
        fit = self.bundle.contract.input
        choices = {str(key): value for key, value in self.plan.items() if key not in _MEASURED and _plain(value)}
        return choices | {"size": f"{fit.height} x {fit.width}", "fit": fit.mode} if choices else {}

    def events(self) -> list[Event]:
        """The events of the version."""
        if self.state is None or self.entry is None:
            return []
        number = self.entry.number
        return [
            event
            for event in self.state.events
            if event.content["act"] != "begin" and number in {event.content.get("version"), event.content.get("from")}
        ]

    def as_json(self) -> dict[str, Any]:
        """The model as JSON types."""
        contract = self.bundle.contract.as_json()
        return {
            "url": self.bundle.url,
            "digest": self.bundle.digest,
            "version": self.entry.number if self.entry else None,
            "aliases": self.state.names(self.entry.number) if self.state and self.entry else [],
            "targets": contract["targets"],
            "metrics": contract["metrics"],
            "forms": {name: form.as_json() for name, form in self.bundle.forms.items()},
            "lineage": {"dataset": contract["dataset"], "parent": self.parent or None},
            "config": self.config,
            "acts": [event.as_json() for event in self.events()],
            "card": self.card,
        }


@dataclass(frozen=True)
class ModelComparison:
    """A comparison of two models.

    `metrics`, and `config` where they differ, have the values of both. `classes` has by target those that only the
    first model knows, and those that only the second one knows.
    """

    first: ModelDetails
    second: ModelDetails
    metrics: Mapping[str, tuple[float | None, float | None]]
    classes: Mapping[str, tuple[Sequence[str], Sequence[str]]]
    config: Mapping[str, tuple[Any, Any]]

    @property
    def same_data(self) -> bool:
        """True if both were trained on the same content."""
        first, second = (each.bundle.contract.dataset for each in (self.first, self.second))
        return (first.fingerprint, first.with_covariates) == (second.fingerprint, second.with_covariates)

    def as_json(self) -> dict[str, Any]:
        """The comparison as JSON types."""
        both = (self.first, self.second)
        return {
            "models": [{"url": each.bundle.url, "digest": each.bundle.digest} for each in both],
            "metrics": {name: list(pair) for name, pair in self.metrics.items()},
            "classes": {name: [list(part) for part in pair] for name, pair in self.classes.items()},
            "config": {key: list(pair) for key, pair in self.config.items()},
            "datasets": [each.bundle.contract.dataset.model_dump(mode="json") for each in both],
            "same_data": self.same_data,
            "parents": [each.parent or None for each in both],
        }


def models(registry: str) -> list[Ledger]:
    """All models of a registry, or the one at the URL of a model.

    Raises:
        NotFoundError: there is no registry.
    """
    url = storage.absolute(registry)
    model = ledger.History(url).ledger()
    if model.events:
        return [model]
    names = [entry.name.removesuffix(_FIRST) for entry in storage.list_files(url) if entry.name.endswith(_FIRST)]
    return [ledger.load(storage.join(url, name)) for name in names]


def show(ref: str, cache: storage.Cache | None = None) -> ModelDetails:
    """Show a model, in a registry or not. Raises as `bundle.find`."""
    bundle = references.find(ref, cache)
    state = ledger.load(ledger.parse_reference(ref)[0]) if bundle.ref else None
    card = bundle.read(bundles.CARD, cache).decode() if bundles.CARD in bundle.files else ""
    return ModelDetails(bundle, state, state.with_digest(bundle.digest) if state else None, _plan(bundle), card)


def diff(first: str, second: str) -> ModelComparison:
    """Compare two models. Raises as `bundle.find`."""
    one, other = show(first), show(second)
    metrics = [each.bundle.contract.metrics for each in (one, other)]
    names = dict.fromkeys([*metrics[0], *metrics[1]])
    keys = sorted({*one.config, *other.config})
    config = {key: (one.config.get(key), other.config.get(key)) for key in keys} if one.plan and other.plan else {}
    return ModelComparison(
        one,
        other,
        {name: (metrics[0].get(name), metrics[1].get(name)) for name in names},
        _classes(one.bundle, other.bundle),
        {key: pair for key, pair in config.items() if pair[0] != pair[1]},
    )


def _classes(one: Bundle, other: Bundle) -> dict[str, tuple[list[str], list[str]]]:
    """Classes that only one of the two knows; a target without classes counts as a class of its kind's name."""
    targets = [each.contract.targets for each in (one, other)]
    known = [{target.name: target.classes or (target.kind,) for target in each} for each in targets]
    differences = {}
    for name in dict.fromkeys([*known[0], *known[1]]):
        first, second = (each.get(name, ()) for each in known)
        pair = [each for each in first if each not in second], [each for each in second if each not in first]
        if any(pair):
            differences[name] = pair
    return differences


def _plain(value: Any) -> bool:
    """True for a scalar or a list of scalars; other YAML is left out, as aliases can make it endless."""
    scalars = value if isinstance(value, list) else [value]
    return all(each is None or isinstance(each, (str, int, float)) for each in scalars)


def _plan(bundle: Bundle) -> Mapping[str, Any]:
    content = parsing.parse_yaml(plan_of(bundle.url), f"The plan of {bundle.place}")
    return content if isinstance(content, dict) else {}
