"""Evidence for a promotion: the result of `plantml validate`, and whether it allows the promotion."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from plantml import storage
from plantml.errors import GateError, InputError
from plantml.model.contract import Contract
from plantml.parsing import parse_json_object
from plantml.registry.ledger import Entry, Ledger

if TYPE_CHECKING:
    from plantml.data.manifest import Version

METRICS = "metrics.json"
FOLDER = "evidence"
SPLIT = "test"


class _Part(BaseModel):
    model_config = ConfigDict(strict=True)


class _Dataset(_Part):
    ref: str
    fingerprint: str


class _Gate(_Part):
    name: str
    passed: bool


class _Metrics(_Part):
    """What is read here of the JSON that `plantml validate` writes."""

    plantml_metrics: Literal[2]
    model: str
    datasets: Sequence[_Dataset]
    split: str
    gates: Sequence[_Gate]
    scores: Mapping[str, Any]
    against: Mapping[str, Any] | None = None
    failed: Sequence[Any] | None = None
    allowed_failures: int = 0


@dataclass(frozen=True)
class Evidence:
    """The result of a validation: the content of `metrics.json`, and the URL it was read from, if there is one."""

    source: str
    content: Mapping[str, Any]

    @property
    def data(self) -> bytes:
        """The bytes that the registry stores."""
        return (json.dumps(self.content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()

    @property
    def sha256(self) -> str:
        """SHA-256 of `data`, which names the stored file."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def against(self) -> Mapping[str, Any]:
        """The comparison with another model; empty without one."""
        return self.content.get("against") or {}


_HINT = "Name the output of `plantml validate DATASET --model A --against B --max-drop 0.01 --out DIR`."


def read(metrics: Mapping[str, Any] | str) -> Evidence:
    """Read the result of a validation from its JSON, a file of it, or the folder of `--out`.

    Raises:
        InputError: this version of `plantml validate` did not write it.
    """
    source = "" if isinstance(metrics, Mapping) else storage.absolute(metrics)
    url = storage.join(source, METRICS) if source and storage.is_dir(source) else source
    data = b"" if isinstance(metrics, Mapping) else storage.read(url)
    try:
        content = metrics if isinstance(metrics, Mapping) else parse_json_object(data, url)
        _Metrics.model_validate(content)
    except InputError as error:
        raise InputError(f"{url} is not evidence", error.why, _HINT) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise InputError(f"{source or 'The JSON'} is not evidence", why, _HINT) from error
    return Evidence(source, content)


def check(evidence: Evidence | None, state: Ledger, entry: Entry, alias: str) -> None:
    """Raise `GateError` unless the evidence allows an alias to point to a version.

    It must evaluate this model on the whole test split, with all gates passed. If the alias already points to a
    version, it must also compare with that version (`--against`) and have a gate (`--max-drop`). Evidence counts once:
    after a rollback, the same evidence does not bring a model back.
    """
    ref = f"{state.url}@{entry.number}"
    if evidence is None:
        current = state.aliases.get(alias)
        against = f" --against {state.url}@{alias} --max-drop 0.01" if current else ""
        raise GateError(
            f"{ref} is not promoted to {alias}",
            "there is no evidence" if not current else "there is no comparison with the version in service",
            f"plantml validate DATASET --model {ref}{against} --out DIR, then --evidence DIR; or --force --why TEXT.",
        )
    why = next(_objections(evidence, state, entry, alias), "")
    if why:
        raise GateError(f"{ref} is not promoted to {alias}", why, "Validate it again, or use --force --why TEXT.")


def _objections(evidence: Evidence, state: Ledger, entry: Entry, alias: str) -> Iterator[str]:
    """Reasons why the evidence does not allow the promotion."""
    content, current, against = evidence.content, state.aliases.get(alias), evidence.against.get("model")
    if content["model"] != entry.digest:
        form = f"form {content['form']['name']}, " if content.get("form") else ""
        yield f"the evidence is of {form}model {content['model'][:12]}, not of {entry.digest[:12]}"
    where = f" where {content['where']}" if content.get("where") else ""
    if content["split"] != SPLIT or where:
        yield f"the evidence is of split {content['split']}{where}, not of the whole test split"
    failures, allowed = len(content.get("failed", ())), content.get("allowed_failures", 0)
    if failures > allowed:
        yield f"{failures} photos failed, {allowed} were allowed"
    failed = [gate["name"] for gate in content["gates"] if not gate["passed"]]
    if failed:
        yield f"{len(failed)} of {len(content['gates'])} gates failed, such as {failed[0]}"
    if current and against != state.entries[current].digest:
        other = f"compares with {against[:12]}" if against else "compares with no other model"
        yield f"the evidence {other}, but version {current} ({state.entries[current].digest[:12]}) is in service"
    if current and not any("max_drop" in gate for gate in content["gates"]):
        yield "the comparison had no gate, such as --max-drop 0.01"
    for index, event in enumerate(state.events):
        if event.content["act"] != "promote" or event.content["alias"] != alias:
            continue
        if (event.content.get("evidence") or {}).get("sha256") == evidence.sha256:
            later = next((each for each in state.events[index + 1 :] if each.content.get("alias") == alias), event)
            why = f": {later.content['why']}" if later.content.get("why") else ""
            yield f"this evidence was already used; event {later.number}, {later.content['act']}, followed{why}"


def check_test_photos(evidence: Evidence, contract: Contract) -> list[dict[str, str]]:
    """References and fingerprints of the test photos, which must be those of the datasets' newest versions.

    Raises:
        GateError: the test photos have changed, or some were left out because the model does not know their class.
    """
    from plantml.data import covariates, versions  # polars, which nothing else here needs

    names = [covariate.name for covariate in contract.covariates or ()]
    splits = []
    for each in evidence.content["datasets"]:
        evaluated = versions.load(each["ref"])
        url, _ = versions.parse_reference(each["ref"])
        newest = versions.load(url)
        if evaluated.fingerprint != each["fingerprint"]:
            raise GateError(
                f"{each['ref']} is not the evaluated dataset", "its fingerprint differs", "Validate the model again."
            )
        before, after = (
            covariates.fingerprint(each.usable(SPLIT), each.targets, names) for each in (evaluated, newest)
        )
        if before != after:
            raise GateError(
                f"The test photos of {url}{' or their covariates' if names else ''} have changed",
                f"the evidence is of version {evaluated.number}, the newest is {newest.number}",
                f"Validate both models again on {newest.ref}.",
            )
        if evidence.content.get("left_out"):
            _check_known(evaluated, contract)
        splits.append({"ref": evaluated.ref, "fingerprint": after})
    if not splits:
        raise GateError("The evidence names no dataset", "", _HINT)
    return splits


def _check_known(evaluated: "Version", contract: Contract) -> None:
    """Raise `GateError` if photos were left out because this model, not the other one, does not know their class."""
    from plantml.data import boxes  # polars, as above

    rows = evaluated.usable(SPLIT)
    if contract.detection is not None:
        rows = boxes.frame(boxes.annotated(rows), contract.targets)
    for target in contract.targets:
        if target.classes and target.name in rows.columns:
            labels = rows[target.name].drop_nulls()
            labels = labels if target.kind == "class" else labels.explode().drop_nulls()
            unknown = sorted(set(labels) - set(target.classes))
            if unknown:
                raise GateError(
                    f"The evidence leaves out photos of {evaluated.ref} whose class the model does not know",
                    f"{target.name} {', '.join(unknown)}",
                    "Train it with these classes, or use --force --why TEXT.",
                )


def store(model: str, evidence: Evidence, test_sets: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Write the evidence beside the versions, named by its content; returns its summary for the event."""
    storage.write(storage.join(model, FOLDER, f"{evidence.sha256}.json"), evidence.data)
    differences = evidence.against.get("differences") or []
    return {
        "sha256": evidence.sha256,
        "source": evidence.source,
        "test_sets": list(test_sets),
        "scores": dict(list(evidence.content["scores"].items())[:8]),
        "against": evidence.against.get("model"),
        "decisive": differences[0] if differences else None,
        "gates": len(evidence.content["gates"]),
    }
