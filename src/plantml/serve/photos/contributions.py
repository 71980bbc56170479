"""Photos that callers contribute to a dataset: kept apart until a reviewer accepts them.

    STATE/contributions/DATASET/
      photos/ab/<sha256>.jpg   the bytes, written before the event that tells of them, until the dataset has them;
                               <sha256>-1.jpg after they were removed once
      events/000001.json       what was sent, accepted, rejected and removed, in order (see `event_log`)

What waits is a fold over the events, so that any number of servers may share the folder. An answer comes after its
event is on disk: what was acknowledged is there, whatever happens next. An acceptance is claimed first, then the photos
go into one version of the dataset, then the version is noted; a server that dies between is repeated safely.
"""

import contextlib
import functools
import hashlib
import hmac
import json
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Literal

import polars as pl

from plantml import imaging, storage
from plantml.concurrency import silent
from plantml.data import editing, importing, manifest, photos, versions
from plantml.data.boxes import Box
from plantml.data.importers import Item
from plantml.data.ingest import Bringer
from plantml.data.manifest import Version
from plantml.errors import InputError, NotFoundError
from plantml.serve.database import Database
from plantml.serve.photos import arrival_checks, drawn_boxes
from plantml.serve.photos.arrival_checks import CONFLICT, EXACT, Flag, LabelError, Labels
from plantml.serve.photos.datasets import MEDIA_TYPES, Datasets, Photo, thumbnail
from plantml.serve.photos.uploads import Refused, Upload
from plantml.serve.users import audit
from plantml.serve.users.caller import Caller
from plantml.serve.users.visibility import check_sees_all
from plantml.serve.web.problems import RequestError, busy
from plantml.storage import Entry
from plantml.storage.event_log import Decide, Event, Events
from plantml.targets import Target

SOURCE = "contributions"
"""A row's source is this and the contributor's name."""

MAX_WAITING = 10_000
"""Photos of one dataset that may wait for a reviewer."""

State = Literal["waiting", "accepting", "accepted", "rejected", "replaced"]
OutcomeState = Literal["waiting", "accepting", "accepted", "rejected", "replaced", "duplicate", "refused"]
_ID = 24


@dataclass(frozen=True)
class Contribution:
    """A photo with labels that somebody sent.

    Attributes:
        id: names contributor, bytes and labels: what is sent twice has one id.
        dataset: name of the dataset.
        contributor: name of the user.
        name: of the file, for people.
        image_id: SHA-256 of the bytes.
        format: as `Facts.format`.
        width: pixels, upright.
        height: pixels, upright.
        labels: by target.
        flags: what a reviewer should know.
        sent: time, ISO 8601 in UTC.
        state: `waiting`, `accepting` (an acceptance began), `accepted`, `rejected`, or `replaced` by the same
            contributor with other labels.
        reviewer: who decided; empty before that.
        decided: when, ISO 8601 in UTC; empty before that.
        why: it was rejected.
        version: of the dataset that has it; 0 before that.
        boxes: that the contributor drew; `None` where they drew none.
        removals: how often its bytes had been removed, of earlier contributions, when it was sent. They are part of the
            name of the file, so that a removal takes no bytes that are sent at the same moment.
    """

    id: str
    dataset: str
    contributor: str
    name: str
    image_id: str
    format: str
    width: int
    height: int
    labels: Labels
    flags: tuple[Flag, ...]
    sent: str = ""
    state: State = "waiting"
    reviewer: str = ""
    decided: str = ""
    why: str = ""
    version: int = 0
    boxes: tuple[Box, ...] | None = None
    removals: int = 0

    @property
    def is_open(self) -> bool:
        """True while nothing is decided for good."""
        return self.state in {"waiting", "accepting"}

    @property
    def targets(self) -> set[str]:
        """The targets that its labels are of, those of its boxes too."""
        return {*self.labels, *(name for box in self.boxes or () for name in box.labels)}


@dataclass(frozen=True)
class Outcome:
    """What became of one file of a request: a contribution, a photo that the dataset has already, or a refusal.

    Attributes:
        file: its name.
        state: that of the contribution, `duplicate`, or `refused`.
        contribution: `None` for a duplicate and a refusal.
        code: of a refusal.
        why: it was refused, or what it is a duplicate of.
    """

    file: str
    state: OutcomeState
    contribution: Contribution | None = None
    code: str = ""
    why: str = ""


@dataclass(frozen=True)
class Accepted:
    """The version that accepted photos went into, and their ids."""

    dataset: str
    version: int
    ids: Sequence[str]


class _RemovedError(Exception):
    """Bytes that were stored have been removed, before an event told of them."""


class Contributions:
    """Contributions to the datasets of a server.

    Args:
        state: URL of the server's state.
        datasets: what is contributed to.
        database: of the audit log.
        threads: photos that an acceptance reads at the same time.
    """

    def __init__(self, state: str, datasets: Datasets, database: Database, threads: int) -> None:
        self._url = storage.join(storage.absolute(state), "contributions")
        self._datasets, self._database, self._threads = datasets, database, threads
        self._logs = {name: Events(storage.join(self._url, name, "events")) for name in datasets.names}
        self._key = database.token_key().encode()
        self._locks = {name: threading.Lock() for name in datasets.names}

    def send(
        self,
        dataset: str,
        caller: Caller,
        files: Sequence[Upload | Refused],
        labels: Sequence[Labels],
        boxes: Sequence[Sequence[Box] | None] | None = None,
        *,
        new_class: bool,
    ) -> list[Outcome]:
        """Keep photos for review. What is acknowledged is on disk; what is sent again is there once.

        Args:
            dataset: name of the dataset.
            caller: who sends them.
            files: as `UploadChecks` found them.
            labels: of each file, by target.
            boxes: that were drawn on each file; `None` where there are none, or on no file.
            new_class: allow classes that the dataset does not have.

        Raises:
            NotFoundError: there is no such dataset.
            RequestError: 503, too many photos wait.
        """
        version = self._datasets.head(dataset)
        known, removals = self._fold(dataset)
        waiting = [each for each in known.values() if each.is_open]
        if len(waiting) >= MAX_WAITING:  # before bytes are stored that no event would tell of
            raise _full(dataset)
        others = [each for each in waiting if each.contributor != caller.name]
        outcomes: list[Outcome] = []
        for file, of_file, drawn in zip(files, labels, boxes or [None] * len(files), strict=True):
            if isinstance(file, Refused):
                outcomes.append(Outcome(file.name, "refused", code=file.code, why=file.why))
                continue
            try:
                checked, flags = arrival_checks.checked_labels(of_file, version.targets, caller, new_class=new_class)
                kept = None
                if drawn is not None:
                    size = file.facts.width, file.facts.height
                    kept, more = drawn_boxes.checked(drawn, size, version, caller, new_class=new_class)
                    flags += more
            except LabelError as error:
                outcomes.append(Outcome(file.name, "refused", code=error.what, why=error.why))
                continue
            draft = _drafted(dataset, caller, file, checked, flags, boxes=kept, key=self._key)
            draft = replace(draft, removals=removals[draft.image_id])
            flags = arrival_checks.flags_of(file.scan, checked, version) + _flags_of_others(draft, others)
            if arrival_checks.adds_nothing(file.scan, checked, kept, version):
                outcomes.append(Outcome(file.name, "duplicate", replace(draft, state="accepted"), why=flags[0].why))
                continue
            self._store(draft, file.data)
            outcomes.append(Outcome(file.name, draft.state, replace(draft, flags=(*draft.flags, *flags))))
        drafts = {each.contribution.id: each.contribution for each in outcomes if each.contribution is not None}
        try:
            known = self._note_sent(dataset, caller, list(drafts.values()))
        except _RemovedError:  # after they were stored here
            return self.send(dataset, caller, files, labels, boxes, new_class=new_class)
        return [_settled(outcome, known) for outcome in outcomes]

    def all(self, dataset: str) -> list[Contribution]:
        """All contributions to a dataset, as they were sent. Raises `NotFoundError`."""
        return list(self._fold(dataset)[0].values())

    def find(self, ids: Iterable[str]) -> list[Contribution]:
        """Contributions by id. Raises `NotFoundError` that names the first unknown one."""
        known = {each.id: each for dataset in self._logs for each in self.all(dataset)}
        wanted = list(dict.fromkeys(ids))
        if unknown := [each for each in wanted if each not in known]:
            raise NotFoundError(f"There is no contribution {unknown[0][:64]}", "", "List them: GET /v1/contributions")
        return [known[each] for each in wanted]

    def photo(self, contribution: Contribution, side: int | None = None) -> Photo:
        """The photo of a contribution; see `Datasets.photo`."""
        try:
            data = photos.read(contribution.image_id, self._photo_url(contribution), cache=None)
        except NotFoundError:  # it was accepted, and the dataset has it
            return self._datasets.photo(contribution.dataset, contribution.image_id, side)
        return Photo(data, MEDIA_TYPES[contribution.format]) if side is None else thumbnail(data, side)

    def accept(self, ids: Sequence[str], reviewer: Caller) -> list[Accepted]:
        """Add contributions to their datasets: one version of each dataset. Safe to repeat.

        Photos that a dataset has already are not added again: their labels become those of the contribution.

        Raises:
            NotFoundError: there is no such contribution.
            RequestError: 403, one has labels that the reviewer may not see; 409, one is rejected or replaced.
            InputError: the bytes of one are damaged, or the dataset cannot have its labels any more; nothing is added.
        """
        for each in self.find(ids):
            if each.contributor != reviewer.name:
                check_sees_all(each.targets, reviewer, f"contribution {each.id}")
        return [self._accept(dataset, wanted, reviewer) for dataset, wanted in self._by_dataset(ids).items()]

    def reject(self, ids: Sequence[str], why: str, reviewer: Caller) -> list[Contribution]:
        """Decide against contributions, with a reason. Safe to repeat.

        Raises:
            NotFoundError: there is no such contribution.
            RequestError: 409, one is accepted, or an acceptance has begun.
        """
        for dataset, wanted in self._by_dataset(ids).items():
            event = self._append(dataset, functools.partial(_rejection, dataset, wanted, why, reviewer.name))
            if event is not None:
                audit.note(self._database, reviewer, "contribution.reject", dataset, {"ids": event.content["ids"]})
        return self.find(ids)

    def _by_dataset(self, ids: Iterable[str]) -> Mapping[str, Sequence[str]]:
        by_dataset: dict[str, list[str]] = defaultdict(list)
        for each in self.find(ids):
            by_dataset[each.dataset].append(each.id)
        return by_dataset

    # --- events -------------------------------------------------------------------------------

    def _note_sent(self, dataset: str, caller: Caller, drafts: Sequence[Contribution]) -> dict[str, Contribution]:
        """Write down new contributions; returns all of the dataset afterwards."""

        def decide(events: Sequence[Event]) -> Mapping[str, Any] | None:
            known, removals = _folded(dataset, events)
            new = [each for each in drafts if each.id not in known and each.state == "waiting"]
            if not new:
                return None
            if any(each.removals != removals[each.image_id] for each in new):
                raise _RemovedError
            if sum(each.is_open for each in known.values()) + len(new) > MAX_WAITING:
                raise _full(dataset)
            return {"act": "send", "user": caller.name, "photos": [_as_event(each) for each in new]}

        if self._append(dataset, decide) is not None:
            audit.note(self._database, caller, "contribution.send", dataset, {"photos": len(drafts)})
        return self._fold(dataset)[0]

    def _append(self, dataset: str, decide: Decide) -> Event | None:
        with self._locks[dataset]:  # threads of one server do not race for a number
            return self._logs[dataset].append(decide)

    def _fold(self, dataset: str) -> tuple[dict[str, Contribution], Counter[str]]:
        self._datasets.url(dataset)
        return _folded(dataset, self._logs[dataset].read())

    # --- bytes --------------------------------------------------------------------------------

    def _photo_url(self, contribution: Contribution) -> str:
        ending = imaging.SUFFIXES.get(contribution.format, "")
        image_id, removals = contribution.image_id, contribution.removals
        name = f"{image_id}-{removals}{ending}" if removals else f"{image_id}{ending}"
        return storage.join(self._url, contribution.dataset, "photos", image_id[:2], name)

    def _store(self, contribution: Contribution, data: bytes) -> None:
        url = self._photo_url(contribution)
        if not storage.exists(url):  # its name is its content
            storage.write(url, data, durable=True)

    @staticmethod
    def removable(state: str, before: datetime) -> Iterator[Entry]:
        """Files with photos that nobody will look at again, of all datasets: they may be removed.

        These are photos whose contributions were all decided before, and what a killed server has left. They are
        written down as removed first: a server to which the same bytes are sent stores them under another name.

        Args:
            state: URL of the server's state.
            before: only what is older.
        """
        url = storage.join(storage.absolute(state), "contributions")
        files: dict[str, list[Entry]] = defaultdict(list)
        with contextlib.suppress(NotFoundError):
            for file in storage.list_files(url):
                dataset, kind, *_ = file.name.split("/")
                if kind == "photos":
                    files[dataset].append(file)
        for dataset, stored in files.items():
            log = Events(storage.join(url, dataset, "events"))
            log.append(functools.partial(_removal, dataset, stored, before))
            _, removals = _folded(dataset, log.read())
            yield from (file for file in stored if _stored_as(file)[1] < removals[_stored_as(file)[0]])

    # --- acceptance ---------------------------------------------------------------------------

    def _accept(self, dataset: str, ids: Sequence[str], reviewer: Caller) -> Accepted:
        def claim(events: Sequence[Event]) -> Mapping[str, Any] | None:
            known, _ = _folded(dataset, events)
            for each in ids:
                if known[each].state in {"rejected", "replaced"}:
                    raise _contradiction(known[each], "accepted")
            open_ = [each for each in ids if known[each].is_open]
            return {"act": "claim", "user": reviewer.name, "ids": open_} if open_ else None

        claimed = self._append(dataset, claim)
        if claimed is None:
            return Accepted(dataset, max(each.version for each in self.find(ids)), ids)
        contributions = self.find(claimed.content["ids"])
        try:
            number = self._add(dataset, contributions, claimed)
        except InputError:  # nothing was committed, so that they may be rejected
            release = {"act": "release", "user": reviewer.name, "ids": claimed.content["ids"]}
            self._append(dataset, lambda _: release)
            raise
        decision = {"ids": claimed.content["ids"], "version": number}
        self._append(dataset, lambda _: {"act": "accept", "user": reviewer.name, **decision})
        audit.note(self._database, reviewer, "contribution.accept", dataset, decision)
        # Those of rejected ones stay for a time: see `removable`.
        for url in {self._photo_url(each) for each in contributions}:
            storage.remove(url)
        return Accepted(dataset, number, ids)

    def _add(self, dataset: str, contributions: Sequence[Contribution], claim: Event) -> int:
        """Commit claimed contributions to their dataset; returns the number of the version that has them."""
        url = self._datasets.url(dataset)
        versions.check_place(url)
        head = self._datasets.head(dataset)
        have = set(head.rows["image_id"])
        by_image = {each.image_id: each for each in reversed(contributions)}
        new = [self._item(each) for image_id, each in by_image.items() if image_id not in have]
        # Notes of their own for each claim: another server may be accepting other photos.
        source = f"{SOURCE}/{claim.number}"
        bringer = Bringer(source, url, reference=False, threads=self._threads, stored=have)
        targets = _targets_of(contributions, head.targets)
        fresh = importing.labelled(source, new, targets).drop("_source_reason")
        fresh = fresh.join(bringer.bring(new, silent), on="name", how="left")
        is_sent = (pl.col("status") == manifest.OK) & pl.col("image_id").is_in(list(by_image))
        if damaged := fresh.filter(~is_sent)["name"].to_list():
            why = f"{damaged[0]} is not what was sent"
            raise InputError("A contribution is damaged", why, "Reject it, or restore it from a backup.")
        fresh = fresh.with_columns(source=pl.format(f"{SOURCE}/{{}}", "meta_contributor")) if new else fresh

        def add(version: Version) -> tuple[pl.DataFrame, tuple[Target, ...], None]:
            before = set(version.rows["image_id"])
            rows, targets_now = importing.with_new_rows(version, fresh, targets)
            known = [each for each in contributions if each.image_id in before]
            rows, targets_now = _relabelled(rows, manifest.union(targets_now, targets), known)
            for decision in {(each.reviewer, each.decided) for each in contributions}:
                labelled = [
                    each.image_id
                    for each in contributions
                    if (each.labels or each.boxes is not None) and (each.reviewer, each.decided) == decision
                ]
                rows = editing.mark_reviewed(rows, rows["image_id"].is_in(labelled).arg_true().to_list(), *decision)
            return rows, targets_now, None

        parameters = {
            "reviewer": claim.content["user"],
            "photos": len(contributions),
            "contributors": sorted({each.contributor for each in contributions}),
        }
        committed = versions.change(url, "contributions", parameters, add)
        bringer.forget()
        return committed.version.number

    def _item(self, contribution: Contribution) -> Item:
        stem, dot, ending = contribution.name.rpartition(".")
        name = f"{stem or contribution.name}-{contribution.id[:12]}{dot if stem else ''}{ending if stem else ''}"
        meta = {"contributor": contribution.contributor, "contributed": contribution.sent}
        return Item(
            name, self._photo_url(contribution), labels=contribution.labels, boxes=contribution.boxes, meta=meta
        )


def _full(dataset: str) -> RequestError:
    return busy(f"{MAX_WAITING} photos of {dataset} wait for a reviewer")


def _drafted(
    dataset: str,
    caller: Caller,
    upload: Upload,
    labels: Labels,
    flags: Sequence[Flag],
    *,
    boxes: tuple[Box, ...] | None,
    key: bytes,
) -> Contribution:
    parts: list[Any] = [caller.name, upload.scan.image_id, sorted(labels.items())]
    if boxes is not None:
        parts.append([box.as_row() for box in boxes])
    return Contribution(
        # By a key, else who may not see a label could find it by trying all classes.
        id=hmac.new(key, json.dumps([dataset, *parts]).encode(), hashlib.sha256).hexdigest()[:_ID],
        dataset=dataset,
        contributor=caller.name,
        name=upload.name,
        image_id=upload.scan.image_id,
        format=upload.facts.format,
        width=upload.facts.width,
        height=upload.facts.height,
        labels=labels,
        boxes=boxes,
        flags=tuple(flags),
    )


def _rejection(
    dataset: str, ids: Sequence[str], why: str, reviewer: str, events: Sequence[Event]
) -> Mapping[str, Any] | None:
    """The event that rejects contributions; `None` if all are rejected."""
    known, _ = _folded(dataset, events)
    todo = [known[each] for each in ids if known[each].state != "rejected"]
    if decided := [each for each in todo if each.state != "waiting"]:
        raise _contradiction(decided[0], "rejected")
    return {"act": "reject", "user": reviewer, "ids": [each.id for each in todo], "why": why} if todo else None


def _removal(
    dataset: str, stored: Sequence[Entry], before: datetime, events: Sequence[Event]
) -> Mapping[str, Any] | None:
    """The event that removes the photos of `Contributions.removable`; `None` if there are none."""
    known, removals = _folded(dataset, events)
    times: dict[str, list[str]] = defaultdict(list)
    for each in known.values():
        times[each.image_id].append("" if each.is_open else each.decided or each.sent)
    images = set()
    for file in stored:
        image_id, number = _stored_as(file)
        of_image = times.get(image_id)
        if of_image is None:  # nobody was told that it is here
            is_old = 0 < file.modified < before.timestamp()
        else:
            is_old = all(time and datetime.fromisoformat(time) < before for time in of_image)
        if is_old and number == removals[image_id]:
            images.add(image_id)
    return {"act": "remove", "images": sorted(images)} if images else None


def _stored_as(file: Entry) -> tuple[str, int]:
    """Image id, and how often it had been removed before, of a stored photo."""
    image_id, _, number = storage.basename(file.name).partition(".")[0].partition("-")
    return image_id, int(number or 0)


def _flags_of_others(draft: Contribution, others: Sequence[Contribution]) -> list[Flag]:
    """What a reviewer should know of contributions of the same bytes by others, which wait, too."""
    same = [each for each in others if each.image_id == draft.image_id]
    contradictions = {
        name: Flag(CONFLICT, f"{name} is {each.labels[name]} in another contribution", target=name)
        for each in same
        for name, label in draft.labels.items()
        if each.labels.get(name, label) != label
    }
    if not same:
        return []
    return [Flag(EXACT, "somebody else has sent the same photo", image_id=draft.image_id), *contradictions.values()]


def _as_event(contribution: Contribution) -> dict[str, Any]:
    kept = ("id", "name", "image_id", "format", "width", "height", "labels")
    content = asdict(contribution)
    boxes = {} if contribution.boxes is None else {"boxes": content["boxes"]}
    return {**{key: content[key] for key in kept}, **boxes, "flags": [flag.as_json() for flag in contribution.flags]}


def _folded(dataset: str, events: Sequence[Event]) -> tuple[dict[str, Contribution], Counter[str]]:
    """All contributions by id, as the events leave them, and how often the bytes of each image were removed."""
    known: dict[str, Contribution] = {}
    removals: Counter[str] = Counter()
    open_of: dict[tuple[str, str], str] = {}  # by contributor and bytes: the last one with other labels counts
    for event in events:
        content = event.content
        match content["act"]:
            case "send":
                for each in content["photos"]:
                    key = content["user"], each["image_id"]
                    earlier = open_of.get(key)
                    if earlier is not None and known[earlier].state == "waiting":
                        known[earlier] = replace(known[earlier], state="replaced")
                    flags = tuple(Flag(**flag) for flag in each["flags"])
                    known[each["id"]] = Contribution(
                        dataset=dataset,
                        contributor=content["user"],
                        sent=event.time,
                        removals=removals[each["image_id"]],
                        **{**each, "flags": flags, "boxes": drawn_boxes.of_event(each.get("boxes"))},
                    )
                    open_of[key] = each["id"]
            case "claim":  # one that is repeated after a crash changes nothing of the first
                decision: dict[str, Any] = {"reviewer": content["user"], "decided": event.time}
                waiting = [each for each in content["ids"] if known[each].state == "waiting"]
                _change(known, waiting, state="accepting", **decision)
            case "release":
                begun = [each for each in content["ids"] if known[each].state == "accepting"]
                _change(known, begun, state="waiting", reviewer="", decided="")
            case "accept":
                _change(known, content["ids"], state="accepted", version=content["version"])
            case "reject":
                decision = {"reviewer": content["user"], "decided": event.time, "why": content["why"]}
                _change(known, content["ids"], state="rejected", **decision)
            case "remove":
                removals.update(content["images"])
            case other:
                raise event.damaged(f"it has the unknown act {other!r}")
    return known, removals


def _change(known: dict[str, Contribution], ids: Iterable[str], **changes: Any) -> None:
    for each in ids:
        known[each] = replace(known[each], **changes)


def _settled(outcome: Outcome, known: Mapping[str, Contribution]) -> Outcome:
    """An outcome with the contribution as it was written down, now or when it was first sent."""
    if outcome.contribution is None:
        return outcome
    contribution = known.get(outcome.contribution.id)
    if contribution is None:
        return replace(outcome, contribution=None)
    return replace(outcome, state=contribution.state, contribution=contribution)


def _contradiction(contribution: Contribution, act: str) -> RequestError:
    return RequestError(
        409,
        f"The contribution {contribution.id} cannot be {act}",
        f"it is {contribution.state}",
        "List those that wait: GET /v1/contributions?state=waiting",
    )


def _targets_of(contributions: Sequence[Contribution], known: Sequence[Target]) -> tuple[Target, ...]:
    """The targets that contributions have labels for: those of the dataset, and new ones with classes."""
    by_name = {target.name: target for target in known}
    names = dict.fromkeys(name for each in contributions for name in each.labels)
    return tuple(by_name.get(name, Target(name, "class")) for name in names)


def _relabelled(
    rows: pl.DataFrame, targets: Sequence[Target], contributions: Sequence[Contribution]
) -> tuple[pl.DataFrame, tuple[Target, ...]]:
    """Rows in which photos have the labels and boxes of contributions of the same bytes, whoever brought them."""
    labels: dict[str, dict[str, Any]] = {}
    boxes: dict[str, Sequence[Box]] = {}
    for each in contributions:
        labels.setdefault(each.image_id, {}).update(each.labels)
        if each.boxes is not None:
            boxes[each.image_id] = each.boxes
    if not labels:
        return rows, tuple(targets)
    version = Version("", 0, manifest.conform(rows, targets), tuple(targets))
    items = {
        place: Item("", "", labels=labels[image_id], boxes=boxes.get(image_id))
        for place, image_id in enumerate(rows["image_id"])
        if image_id in labels
    }
    return editing.corrected(version, items)[:2]
