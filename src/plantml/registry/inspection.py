"""Looking at registered models: what there is, one of them, and two beside each other."""

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
"""Keys of a plan that are told elsewhere, or are measured rather than chosen."""


@dataclass(frozen=True)
class Shown:
    """One model, wherever it lies.

    Attributes:
        bundle: the model.
        state: of the registry that it is in, and
        entry: the version there; both `None` for a model in no registry.
        plan: how it was trained; empty where that is not known.
        card: its README.
    """

    bundle: Bundle
    state: Ledger | None
    entry: Entry | None
    plan: Mapping[str, Any]
    card: str

    @property
    def parent(self) -> str:
        """Digest of the model whose weights it started from; empty for none."""
        return str(self.plan.get("parent", ""))

    @property
    def config(self) -> dict[str, Any]:
        """The choices of its training."""
        fit = self.bundle.contract.input
        shown = {str(key): value for key, value in self.plan.items() if key not in _MEASURED and _plain(value)}
        return shown | {"size": f"{fit.height} x {fit.width}", "fit": fit.mode} if shown else {}

    def events(self) -> list[Event]:
        """What was done to the version."""
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
            "lineage": {"dataset": contract["dataset"], "parent": self.parent or None},
            "config": self.config,
            "acts": [event.as_json() for event in self.events()],
            "card": self.card,
        }


@dataclass(frozen=True)
class Compared:
    """Two models beside each other.

    Attributes:
        first: one.
        second: the other.
        metrics: by name, of both; `None` where a model has no such number.
        classes: by target, classes that only the first knows, and that only the second knows.
        config: by key, choices of both that are not the same.
    """

    first: Shown
    second: Shown
    metrics: Mapping[str, tuple[float | None, float | None]]
    classes: Mapping[str, tuple[Sequence[str], Sequence[str]]]
    config: Mapping[str, tuple[Any, Any]]

    @property
    def same_data(self) -> bool:
        """True if both were trained on the same content."""
        first, second = (each.bundle.contract.dataset for each in (self.first, self.second))
        return first.fingerprint == second.fingerprint

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
    """All models of a registry, or, if that is the URL of a model, this one.

    Raises:
        NotFoundError: there is no registry.
    """
    url = storage.absolute(registry)
    one = ledger.Acts(url).ledger()
    if one.events:
        return [one]
    names = [entry.name.removesuffix(_FIRST) for entry in storage.list_files(url) if entry.name.endswith(_FIRST)]
    return [ledger.load(storage.join(url, name)) for name in names]


def show(ref: str, cache: storage.Cache | None = None) -> Shown:
    """One model, of a registry or not. Raises as `bundle.find`."""
    bundle = references.find(ref, cache)
    state = ledger.load(ledger.parse(ref)[0]) if bundle.ref else None
    card = bundle.read(bundles.CARD, cache).decode() if bundles.CARD in bundle.files else ""
    return Shown(bundle, state, state.with_digest(bundle.digest) if state else None, _plan(bundle), card)


def diff(first: str, second: str) -> Compared:
    """Two models beside each other. Raises as `bundle.find`."""
    one, other = show(first), show(second)
    numbers = [each.bundle.contract.metrics for each in (one, other)]
    names = [*numbers[0], *(name for name in numbers[1] if name not in numbers[0])]
    keys = sorted({*one.config, *other.config})
    config = {key: (one.config.get(key), other.config.get(key)) for key in keys} if one.plan and other.plan else {}
    return Compared(
        one,
        other,
        {name: (numbers[0].get(name), numbers[1].get(name)) for name in names},
        _classes(one.bundle, other.bundle),
        {key: pair for key, pair in config.items() if pair[0] != pair[1]},
    )


def _classes(one: Bundle, other: Bundle) -> dict[str, tuple[list[str], list[str]]]:
    """What only one of the two knows; a target without classes is named as such by its kind."""
    targets = [each.contract.targets for each in (one, other)]
    known = [{target.name: target.classes or (target.kind,) for target in each} for each in targets]
    found = {}
    for name in dict.fromkeys([*known[0], *known[1]]):
        first, second = (each.get(name, ()) for each in known)
        pair = [each for each in first if each not in second], [each for each in second if each not in first]
        if any(pair):
            found[name] = pair
    return found


def _plain(value: Any) -> bool:
    """True for a scalar or a list of them: what else somebody's YAML may hold is left out, and may be endless."""
    parts = value if isinstance(value, list) else [value]
    return all(each is None or isinstance(each, (str, int, float)) for each in parts)


def _plan(bundle: Bundle) -> Mapping[str, Any]:
    content = parsing.parse_yaml(plan_of(bundle.url), f"The plan of {bundle.place}")
    return content if isinstance(content, dict) else {}
