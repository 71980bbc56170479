"""Triggers: find out what is new, and whether to begin a round."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from plantml import storage
from plantml.data import editing, importing, manifest, versions
from plantml.data.formats import list_source
from plantml.data.importers import ImportListing
from plantml.data.labels import load_taxonomy
from plantml.data.manifest import Version
from plantml.errors import InputError, NotFoundError
from plantml.registry import ledger, references
from plantml.retrain.config import Feed, RetrainConfig
from plantml.retrain.rounds import Round, Rounds
from plantml.settings import Machine
from plantml.storage.addresses import Trust

if TYPE_CHECKING:
    from plantml.drift.inputs import Side

_MIN_UNKNOWN, _MIN_UNKNOWN_SHARE = 10, 0.05
"""Number and share of unknown photos that trigger a round. Of its validation photos, a model calls 1 % unknown."""


@dataclass(frozen=True)
class News:
    """What is new since the last round.

    Attributes:
        version: newest version of the dataset; 0 for none yet.
        waiting: photos of feeds that the dataset lacks, by source.
        unread: feeds that cannot be read, with the reason.
        changed: rows of the dataset that were added, removed or relabelled.
        relabelled: photos of the dataset that a feed now labels differently, by source.
    """

    version: int
    waiting: Mapping[str, int]
    unread: Mapping[str, str]
    changed: int
    relabelled: Mapping[str, int]

    @property
    def photos(self) -> int:
        """Number of new and changed photos."""
        return sum(self.waiting.values()) + self.changed

    def as_json(self) -> dict[str, Any]:
        """As JSON types."""
        return vars(self) | {"photos": self.photos}


def list_admissible(feed: Feed, head: Version | None, *, offline: bool = False) -> ImportListing:
    """List the photos of a feed that the dataset can accept. Raises `InputError`, which names an unknown class."""
    listing = list_source(
        feed.source,
        format=feed.format,
        rule=feed.labels,
        taxonomy=load_taxonomy(feed.taxonomy) if feed.taxonomy else None,
        targets=feed.targets,
        image_column=feed.image_column,
        group_column=feed.group_column,
        trust=Trust.of(feed.allow_root, offline=offline),
    )
    if head is not None:
        editing.check_known(head, listing, new_classes=feed.new_classes)
    return listing


def head_of(dataset: str) -> Version | None:
    """The newest version; `None` if there is no dataset yet."""
    return versions.load(dataset) if versions.numbers(storage.absolute(dataset)) else None


def find_news(config: RetrainConfig, state: Rounds, *, offline: bool = False) -> News:
    """Find what is new since the last round."""
    head = head_of(config.dataset)
    waiting, unread, relabelled = {}, {}, {}
    for feed in config.feeds:
        try:
            listing = list_admissible(feed, head, offline=offline)
            new = [listing.items] if head is None else importing.awaited(head, feed.source, listing)
            photos = (item for items in new for item in items if item.status != manifest.NO_PHOTO)
            waiting[feed.source] = sum(not item.refusal for item in photos)
            if head is None:
                continue
            if number := len(importing.relabelled(head, feed.source, listing)):
                relabelled[feed.source] = number
        except InputError as error:
            unread[feed.source] = str(error)
    changed = 0 if head is None else _changes(_last_used(config, state), head)
    return News(head.number if head else 0, waiting, unread, changed, relabelled)


def _last_used(config: RetrainConfig, state: Rounds) -> Version | None:
    """The version of the last round, or else the one that the model in service was trained on."""
    if state.last:
        last = Round(config.work, state.last, state.begun[state.last])
        return versions.load(last.results["register"]["dataset"])
    in_service = ledger.History(config.model).ledger().current(config.alias)
    if in_service is None:
        return None
    origin = references.find(f"{config.model}@{in_service.number}").contract.dataset
    if origin.url != storage.absolute(config.dataset):
        return None
    try:
        return versions.load(f"{origin.url}@{origin.version}")
    except NotFoundError:
        return None


def _changes(previous: Version | None, head: Version) -> int:
    """Number of rows that differ in labels or status, or that only one version has."""
    if previous is None:
        return head.usable().height
    if previous.number == head.number:
        return 0
    targets = manifest.union(previous.targets, head.targets)
    before, after = (_labels(version, targets) for version in (previous, head))
    changed = after.join(before, on=after.columns, how="anti", nulls_equal=True)
    removed = before.join(after.select(manifest.KEY), on=manifest.KEY, how="anti")
    return changed.height + removed.height


def _labels(version: Version, targets: Sequence[Any]) -> pl.DataFrame:
    rows = manifest.conform(version.rows.filter(pl.col("status") != manifest.NO_PHOTO), targets)
    multilabel = [target.name for target in targets if target.kind == "multilabel"]
    boxes = pl.col("boxes").list.eval(pl.element().struct.json_encode())
    lists = [*(pl.col(name).list.sort() for name in multilabel), boxes]
    rows = rows.with_columns(each.list.join("|") for each in lists)  # lists cannot be joined on
    return rows.select(*manifest.KEY, "status", "boxes", *(target.name for target in targets))


def due(
    config: RetrainConfig, news: News, state: Rounds, machine: Machine, now: float | None = None
) -> tuple[bool, str]:
    """Whether to begin a round, and the reason."""
    if not news.photos:
        return False, "nothing is new"
    if not (config.min_new or config.every or config.on_drift):
        return True, f"{news.photos} new photos"
    not_yet = []
    if config.min_new:
        if news.photos >= config.min_new:
            return True, f"{news.photos} new photos, at least {config.min_new} required"
        not_yet.append(f"{news.photos} new photos of {config.min_new}")
    if config.every:
        past = _since(state, time.time() if now is None else now)
        if past is None or past >= config.every:
            return True, "the first round" if past is None else f"the last round was {_duration(past)} ago"
        not_yet.append(f"the last round was {_duration(past)} ago, and rounds are {_duration(config.every)} apart")
    if config.on_drift:
        has_drifted, reason = _drift(config, machine)
        if has_drifted:
            return True, reason
        not_yet.append(reason)
    return False, "; ".join(not_yet)


def _since(state: Rounds, now: float) -> float | None:
    if not state.last:
        return None
    return now - datetime.fromisoformat(state.ended[state.last][0]).timestamp()


def _duration(seconds: float) -> str:
    return f"{seconds / 86400:.1f} days" if seconds >= 86400 else f"{seconds / 3600:.1f} hours"


def _drift(config: RetrainConfig, machine: Machine) -> tuple[bool, str]:
    """Whether the records have drifted from the training photos of the model in service."""
    from plantml.drift import drift as drifts
    from plantml.drift import inputs

    in_service = ledger.History(config.model).ledger().current(config.alias)
    if in_service is None:
        return True, "no model is in service yet"
    bundle = references.find(f"{config.model}@{in_service.number}")
    origin, options = bundle.contract.dataset, config.drift
    assert options.records is not None
    shape = drifts.Options(split="train", max_psi=options.max_psi, vectors=False)
    if options.embeddings:
        shape = replace(shape, vectors=True, model=bundle.url, files=(None, options.embeddings), min_p=options.min_p)
    training = inputs.read(f"{origin.url}@{origin.version}", split=shape.split)
    records = inputs.read(options.records)
    comparison = drifts.compare(training, records, shape, machine)
    failed = [gate.evidence for gate in comparison.gates if not gate.passed] + _unknown_share(records)
    return bool(failed), f"drift: {'; '.join(failed)}" if failed else f"no drift in {options.records}"


def _unknown_share(records: "Side") -> list[str]:
    """A reason if more photos are `unknown` than a model usually reports.

    Datasets have no decisions, so no drift metric covers this.
    """
    from plantml.drift.inputs import FAILED

    decisions = list(records.labels.get("decision", ()))
    unknown, predicted = decisions.count("unknown"), len(decisions) - decisions.count(FAILED)
    if unknown < _MIN_UNKNOWN or unknown <= _MIN_UNKNOWN_SHARE * predicted:
        return []
    return [f"{unknown} of {predicted} records are unknown, more than {_MIN_UNKNOWN_SHARE:.0%}"]
