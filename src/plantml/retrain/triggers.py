"""Whether there is something new, and whether it is time for a round."""

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

_STRANGE, _STRANGE_SHARE = 10, 0.05
"""Unknown photos that are no chance: so many, and such a share. Of its validation photos a model calls 1 % unknown."""


@dataclass(frozen=True)
class News:
    """What there is to learn.

    Attributes:
        version: of the dataset, its newest; 0 for none yet.
        waiting: photos that feeds have and the dataset has not, by source.
        unread: feeds that cannot be read, and why.
        changed: rows of the dataset that came, went, or are labelled otherwise since the last round.
        relabelled: photos that the dataset has, and that a feed labels otherwise now, by source.
    """

    version: int
    waiting: Mapping[str, int]
    unread: Mapping[str, str]
    changed: int
    relabelled: Mapping[str, int]

    @property
    def photos(self) -> int:
        """All of it."""
        return sum(self.waiting.values()) + self.changed

    def as_json(self) -> dict[str, Any]:
        """As JSON types."""
        return {"version": self.version, "waiting": dict(self.waiting), "unread": dict(self.unread),
                "changed": self.changed, "relabelled": dict(self.relabelled), "photos": self.photos}  # fmt: skip


def listing(feed: Feed, *, offline: bool) -> ImportListing:
    """The photos that a feed names. Raises `InputError`."""
    return list_source(
        feed.source,
        format=feed.format,
        rule=feed.labels,
        taxonomy=load_taxonomy(feed.taxonomy) if feed.taxonomy else None,
        targets=feed.targets,
        image_column=feed.image_column,
        group_column=feed.group_column,
        trust=Trust.of(feed.allow_root, offline=offline),
    )


def admitted(feed: Feed, head: Version | None, *, offline: bool = False) -> ImportListing:
    """The same, if the dataset may take it. Raises `InputError` that names a class it does not know."""
    found = listing(feed, offline=offline)
    if head is not None:
        editing.check_known(head, found, new_classes=feed.new_classes)
    return found


def head_of(dataset: str) -> Version | None:
    """The newest version; `None` where there is no dataset yet."""
    return versions.load(dataset) if versions.numbers(storage.absolute(dataset)) else None


def look(config: RetrainConfig, state: Rounds, *, offline: bool = False) -> News:
    """What came since the last round."""
    head = head_of(config.dataset)
    waiting, unread, others = {}, {}, {}
    for feed in config.feeds:
        try:
            found = admitted(feed, head, offline=offline)
            new = [found.items] if head is None else importing.awaited(head, feed.source, found)
            waiting[feed.source] = sum(not item.refusal for items in new for item in items)
            if head is None:
                continue
            if number := len(importing.relabelled(head, feed.source, found)):
                others[feed.source] = number
        except InputError as error:
            unread[feed.source] = str(error)
    seen = _seen(config, state)
    changed = 0 if head is None else _changes(seen, head)
    return News(head.number if head else 0, waiting, unread, changed, others)


def _seen(config: RetrainConfig, state: Rounds) -> Version | None:
    """The version that the last round made, or else the one that the model in service learnt from."""
    if state.last:
        done = Round(config.work, state.last, state.begun[state.last])
        return versions.load(done.results["register"]["dataset"])
    in_service = ledger.Acts(config.model).ledger().current(config.alias)
    if in_service is None:
        return None
    origin = references.find(f"{config.model}@{in_service.number}").contract.dataset
    if origin.url != storage.absolute(config.dataset):
        return None
    try:
        return versions.load(f"{origin.url}@{origin.version}")
    except NotFoundError:
        return None


def _changes(seen: Version | None, head: Version) -> int:
    """Rows that differ in their labels or in whether they are used, and those that only one version has."""
    if seen is None:
        return head.usable().height
    if seen.number == head.number:
        return 0
    targets = manifest.union(seen.targets, head.targets)
    one, other = (_said(version, targets) for version in (seen, head))
    came = other.join(one, on=other.columns, how="anti", nulls_equal=True)
    went = one.join(other.select(manifest.KEY), on=manifest.KEY, how="anti")
    return came.height + went.height


def _said(version: Version, targets: Sequence[Any]) -> pl.DataFrame:
    rows = manifest.conform(version.rows, targets)
    several = [target.name for target in targets if target.kind == "multilabel"]
    rows = rows.with_columns(pl.col(name).list.sort().list.join("|") for name in several)
    return rows.select(*manifest.KEY, "status", *(target.name for target in targets))


def due(
    config: RetrainConfig, news: News, state: Rounds, machine: Machine, now: float | None = None
) -> tuple[bool, str]:
    """Whether a round shall begin, and why, in a sentence."""
    if not news.photos:
        return False, "nothing is new"
    if not (config.min_new or config.every or config.on_drift):
        return True, f"{news.photos} new photos"
    not_yet = []
    if config.min_new:
        if news.photos >= config.min_new:
            return True, f"{news.photos} new photos, {config.min_new} are enough"
        not_yet.append(f"{news.photos} new photos of {config.min_new}")
    if config.every:
        past = _since(state, time.time() if now is None else now)
        if past is None or past >= config.every:
            return True, "the first round" if past is None else f"the last round was {_ago(past)} ago"
        not_yet.append(f"the last round was {_ago(past)} ago, and the next one is after {_ago(config.every)}")
    if config.on_drift:
        drifted, said = _drift(config, machine)
        if drifted:
            return True, said
        not_yet.append(said)
    return False, "; ".join(not_yet)


def _since(state: Rounds, now: float) -> float | None:
    if not state.last:
        return None
    return now - datetime.fromisoformat(state.ended[state.last][0]).timestamp()


def _ago(seconds: float) -> str:
    return f"{seconds / 86400:.1f} days" if seconds >= 86400 else f"{seconds / 3600:.1f} hours"


def _drift(config: RetrainConfig, machine: Machine) -> tuple[bool, str]:
    """Whether the records drift away from what the model in service learnt from."""
    from plantml.drift import drift as drifts
    from plantml.drift import inputs

    in_service = ledger.Acts(config.model).ledger().current(config.alias)
    if in_service is None:
        return True, "no model is in service yet"
    bundle = references.find(f"{config.model}@{in_service.number}")
    origin, asked = bundle.contract.dataset, config.drift
    assert asked.records is not None
    shape = drifts.Asked(split="train", max_psi=asked.max_psi, vectors=False)
    if asked.embeddings:
        shape = replace(shape, vectors=True, model=bundle.url, files=(None, asked.embeddings), min_p=asked.min_p)
    learnt = inputs.read(f"{origin.url}@{origin.version}", split=shape.split)
    came = inputs.read(asked.records)
    found = drifts.compare(learnt, came, shape, machine)
    failed = [gate.said for gate in found.gates if not gate.passed] + _strange(came)
    return bool(failed), f"drift: {'; '.join(failed)}" if failed else f"no drift in {asked.records}"


def _strange(came: "Side") -> list[str]:
    """Says so if more photos are unlike the training photos than a model in its place finds among its own kind.

    A dataset has no such answers, so that no index can compare them.
    """
    from plantml.drift.inputs import FAILED

    decisions = list(came.labels.get("decision", ()))
    unknown, answered = decisions.count("unknown"), len(decisions) - decisions.count(FAILED)
    if unknown < _STRANGE or unknown <= _STRANGE_SHARE * answered:
        return []
    return [f"{unknown} of {answered} records are unknown, and {_STRANGE_SHARE:.0%} would be many"]
