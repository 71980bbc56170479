"""Evidence for a promotion: what `plantml validate` found, and whether it allows it."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from plantml import storage
from plantml.errors import GateError, InputError
from plantml.model.contract import Contract
from plantml.parsing import parse_json_object
from plantml.registry.ledger import Entry, Ledger

if TYPE_CHECKING:
    from plantml.data.manifest import Version

FORMAT = 2
"""Of the JSON that `plantml validate` writes."""

METRICS = "metrics.json"
FOLDER = "evidence"
SPLIT = "test"


@dataclass(frozen=True)
class Evidence:
    """What a validation found.

    Attributes:
        source: where it was read; empty where it was given.
        content: of `metrics.json`.
    """

    source: str
    content: Mapping[str, Any]

    @property
    def data(self) -> bytes:
        """What is kept of it."""
        return (json.dumps(self.content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()

    @property
    def sha256(self) -> str:
        """Of `data`; names it."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def model(self) -> str:
        """Digest of the model that was judged."""
        return str(self.content["model"])

    @property
    def against(self) -> Mapping[str, Any]:
        """The comparison with another model; empty if there was none."""
        return self.content.get("against") or {}

    @property
    def gates(self) -> Sequence[Mapping[str, Any]]:
        """All gates."""
        found: Sequence[Mapping[str, Any]] = self.content["gates"]
        return found


@dataclass(frozen=True)
class Judged:
    """The test photos that a model was judged on.

    Attributes:
        ref: the dataset's version.
        fingerprint: of its test photos: the same in every version that left them as they were, and in every copy.
    """

    ref: str
    fingerprint: str


def read(given: Mapping[str, Any] | str) -> Evidence:
    """What a validation found, from its JSON, a file of it, or the folder of `--out`.

    Raises:
        InputError: it is nothing that `plantml validate` of this version wrote.
    """
    source = "" if isinstance(given, Mapping) else storage.absolute(given)
    url = storage.join(source, METRICS) if source and storage.is_dir(source) else source
    content = given if isinstance(given, Mapping) else _content(url, storage.read(url))
    form = content.get("plantml_metrics")
    missing = [name for name in ("model", "datasets", "split", "gates", "scores") if name not in content]
    if form != FORMAT or missing:
        why = f"its format is {form}, and {FORMAT} is read" if form != FORMAT else f"it lacks {', '.join(missing)}"
        raise InputError(f"{source or 'What was given'} is no evidence", why, _HINT)
    if not _is_whole(content):
        raise InputError(f"{source or 'What was given'} is no evidence", "something in it was changed", _HINT)
    return Evidence(source, content)


def _content(url: str, data: bytes) -> Mapping[str, Any]:
    try:
        return parse_json_object(data, url)
    except InputError as error:
        raise InputError(f"{url} is no evidence", error.why, _HINT) from error


def _is_whole(content: Mapping[str, Any]) -> bool:
    """True if what is read here has the types that it was written with."""

    def are(entries: object, /, **keys: type) -> bool:
        return isinstance(entries, (list, tuple)) and all(
            isinstance(each, Mapping) and all(isinstance(each.get(key), kind) for key, kind in keys.items())
            for each in entries
        )

    kinds = {"model": str, "split": str, "scores": Mapping}
    return (
        all(isinstance(content[name], kind) for name, kind in kinds.items())
        and are(content["datasets"], ref=str, fingerprint=str)
        and are(content["gates"], name=str, passed=bool)
        and isinstance(content.get("against") or {}, Mapping)
        and isinstance(content.get("failed") or (), (list, tuple))
        and isinstance(content.get("allowed_failures", 0), int)
    )


_HINT = "Name what `plantml validate DATASET --model A --against B --max-drop 0.01 --out DIR` writes."


def check(shown: Evidence | None, state: Ledger, entry: Entry, alias: str) -> None:
    """Raise `GateError` unless the evidence allows an alias to point to a version.

    It must be of this very model, on the whole test split, all gates passed, and, if the alias points to a version
    already, be a comparison (`--against`) with that very version with a gate (`--max-drop`). Each may be used once: who
    rolled a model back knew something that it does not.
    """
    ref = f"{state.url}@{entry.number}"
    if shown is None:
        now = state.aliases.get(alias)
        against = f" --against {state.url}@{alias} --max-drop 0.01" if now else ""
        raise GateError(
            f"{ref} is not promoted to {alias}",
            "nothing shows that it is good enough" if not now else "no comparison with the version in service",
            f"plantml validate DATASET --model {ref}{against} --out DIR, then --evidence DIR; or --force --why TEXT.",
        )
    why = next(_objections(shown, state, entry, alias), "")
    if why:
        raise GateError(f"{ref} is not promoted to {alias}", why, "Judge it again, or use --force --why TEXT.")


def _objections(shown: Evidence, state: Ledger, entry: Entry, alias: str) -> Iterator[str]:
    """Why the evidence does not allow it."""
    content, now, against = shown.content, state.aliases.get(alias), shown.against.get("model")
    if shown.model != entry.digest:
        yield f"the evidence is of model {shown.model[:12]}, not of {entry.digest[:12]}"
    where = f" where {content['where']}" if content.get("where") else ""
    if content["split"] != SPLIT or where:
        yield f"the evidence is of split {content['split']}{where}, not of the whole test split"
    silent, allowed = len(content.get("failed", ())), content.get("allowed_failures", 0)
    if silent > allowed:
        yield f"{silent} photos gave no answer, {allowed} were allowed"
    failed = [gate["name"] for gate in shown.gates if not gate["passed"]]
    if failed:
        yield f"{len(failed)} of {len(shown.gates)} gates failed, such as {failed[0]}"
    if now and against != state.entries[now].digest:
        other = f"compares with {against[:12]}" if against else "compares with no other model"
        yield f"the evidence {other}, and version {now} ({state.entries[now].digest[:12]}) is in service"
    if now and not any("max_drop" in gate for gate in shown.gates):
        yield "the comparison had no gate, such as --max-drop 0.01"
    for at, event in enumerate(state.events):
        kept = event.content.get("evidence") or {}
        if event.content["act"] == "promote" and event.content["alias"] == alias and kept.get("sha256") == shown.sha256:
            away = next((each for each in state.events[at + 1 :] if each.content.get("alias") == alias), event)
            why = f": {away.content['why']}" if away.content.get("why") else ""
            yield f"this very evidence was used before, and then came {away.content['act']} {away.number}{why}"


def judged_on(shown: Evidence, contract: Contract) -> list[Judged]:
    """The test photos of the evidence, which must be those of the datasets' newest versions.

    Args:
        shown: the evidence.
        contract: of the model that it speaks for.

    Raises:
        GateError: the test photos are others now, other ones than were judged, or some were left out because the model
            does not know their class.
    """
    from plantml.data import manifest, versions  # tables, which no other act needs

    found = []
    for each in shown.content["datasets"]:
        judged = versions.load(each["ref"])
        url, _ = versions.parse_reference(each["ref"])
        newest = versions.load(url)
        if judged.fingerprint != each["fingerprint"]:
            raise GateError(
                f"{each['ref']} is not what was judged", "it has another fingerprint", "Judge the model again."
            )
        then, now = (manifest.fingerprint(at.usable(SPLIT), at.targets) for at in (judged, newest))
        if then != now:
            raise GateError(
                f"The test photos of {url} are others now",
                f"the evidence is of version {judged.number}, the newest is {newest.number}",
                f"Judge both models again on {newest.ref}.",
            )
        if shown.content.get("left_out"):
            _check_known(judged, contract)
        found.append(Judged(judged.ref, now))
    if not found:
        raise GateError("The evidence is of no dataset", "", _HINT)
    return found


def _check_known(judged: "Version", contract: Contract) -> None:
    """Photos may be left out because the other model does not know their class, not because this one does not."""
    there = {target.name for target in judged.targets}
    for target in contract.targets:
        if target.classes and target.name in there:
            labels = judged.usable(SPLIT)[target.name].drop_nulls()
            labels = labels if target.kind == "class" else labels.explode().drop_nulls()
            strange = sorted(set(labels) - set(target.classes))
            if strange:
                raise GateError(
                    f"The evidence leaves out what the model does not know of {judged.ref}",
                    f"{target.name} {', '.join(strange)}",
                    "Train it with that class, or use --force --why TEXT.",
                )


def keep(model: str, shown: Evidence, sets: Sequence[Judged]) -> dict[str, Any]:
    """Write the evidence beside the versions, named by its content; returns what the act says of it."""
    storage.write(storage.join(model, FOLDER, f"{shown.sha256}.json"), shown.data)
    differences = shown.against.get("differences") or []
    return {
        "sha256": shown.sha256,
        "source": shown.source,
        "test_sets": [{"ref": each.ref, "fingerprint": each.fingerprint} for each in sets],
        "scores": dict(list(shown.content["scores"].items())[:8]),
        "against": shown.against.get("model"),
        "decisive": differences[0] if differences else None,
        "gates": len(shown.gates),
    }
