"""Further forms of a bundle's network, beside float32: faster ones, each with the proof of what it changes.

    model.json        names them: "forms": {"int8": {…}, "bfloat16": {…}}
    forms/int8.onnx   an 8-bit network, a complete exported file with a contract and a calibration of its own

bfloat16 needs no file: it is the float32 network, computed with fewer digits by a processor that can. In a model of two
stages, the entry of the detector's form holds that of the classifier's, whose file lies in the classifier's folder.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from plantml.errors import UsageError

FILES: Mapping[str, str] = {"int8": "forms/int8.onnx", "bfloat16": ""}
"""File of each form in a bundle; empty for a form that runs the float32 file."""

_KEYS = ("digest", "derived_from", "proof")
"""Of an entry in `model.json`."""


@dataclass(frozen=True)
class ProvenForm:
    """A form of a bundle.

    Attributes:
        name: of `FILES`.
        digest: names the form in records: of a form with a file that of its contract and tensors, else `digest_of`.
        derived_from: digest of the float32 model.
        proof: the comparison with the float32 network, as JSON types; see `docs/export.md`.
        classifier: the same form of the second stage; `None` for a model of one network.
    """

    name: str
    digest: str
    derived_from: str
    proof: Mapping[str, Any]
    classifier: "ProvenForm | None" = None

    @property
    def file(self) -> str:
        """Its file in the bundle; empty if it has none."""
        return FILES[self.name]

    @property
    def model(self) -> str:
        """What names it in records: its digest; of two stages, one of both digests."""
        if self.classifier is None:
            return self.digest
        return _sha256({"form": self.name, "detector": self.digest, "classifier": self.classifier.digest})

    def as_json(self) -> dict[str, Any]:
        """Its entry in `model.json`."""
        entry = {key: getattr(self, key) for key in _KEYS}
        return entry | ({"classifier": self.classifier.as_json()} if self.classifier else {})


def check_names(names: Iterable[str]) -> None:
    """Raise `UsageError` for a name that no form has."""
    for name in names:
        if name not in FILES:
            raise UsageError(f"Unknown form {name!r}", "", f"Forms: {', '.join(FILES)}.")


def digest_of(name: str, derived_from: str, proof: Mapping[str, Any]) -> str:
    """The digest of a form without a file: SHA-256 of its canonical entry, so that an edited proof is noticed."""
    return _sha256({"form": name, "derived_from": derived_from, "proof": proof})


def _sha256(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def without_file(name: str, derived_from: str, proof: Mapping[str, Any]) -> ProvenForm:
    """A form that runs the float32 file."""
    return ProvenForm(name, digest_of(name, derived_from, proof), derived_from, proof)


def parse(content: Mapping[str, Any]) -> dict[str, ProvenForm]:
    """The forms in the content of a `model.json` without `faults`."""
    return {name: _parse(name, entry) for name, entry in content.get("forms", {}).items()}


def _parse(name: str, entry: Mapping[str, Any]) -> ProvenForm:
    own, second = {key: entry[key] for key in _KEYS}, entry.get("classifier")
    return ProvenForm(name, **own, classifier=_parse(name, second) if second else None)


def files_of(content: Mapping[str, Any]) -> set[str]:
    """The files of the forms that the content of a `model.json` names, each in the folder of its network."""
    entries = content.get("forms")
    return {FILES[name] for name in entries if FILES.get(name)} if isinstance(entries, dict) else set()


def faults(content: Mapping[str, Any], classifier: str) -> Iterator[str]:
    """The errors in the forms of a `model.json` whose other keys are right; a later one assumes no earlier one.

    Args:
        content: of the file.
        classifier: folder of the second stage, with a slash at its end.
    """
    if "forms" not in content:
        return
    entries, second = content["forms"], _classifier_of(content["contract"])
    if not isinstance(entries, dict) or not entries:
        yield "forms is not an object with forms"
    for name, entry in entries.items():
        if name not in FILES:
            yield f"this version knows no form {name!r:.80}"
        yield from _faults_of_entry(
            content, name, entry, model=content["digest"], more=("classifier",) if second else ()
        )
        if second:
            yield from _faults_of_entry(content, name, entry["classifier"], model=second, folder=classifier)


def _faults_of_entry(
    content: Mapping[str, Any], name: str, entry: Any, *, model: str, folder: str = "", more: tuple[str, ...] = ()
) -> Iterator[str]:
    """The errors in the entry of a form of one network, whose digest in float32 is `model`."""
    keys, where, file = sorted((*_KEYS, *more)), f"{folder}{name}", FILES[name] and folder + FILES[name]
    if not isinstance(entry, dict) or sorted(entry) != keys or not isinstance(entry["proof"], dict):
        yield f"forms.{where} does not have the keys {', '.join(keys)}"
    if entry["derived_from"] != model:
        yield f"forms.{where} is of another model"
    if file and file not in content["files"]:
        yield f"{file} is not in files"
    if not file and entry["digest"] != digest_of(name, model, entry["proof"]):
        yield f"the proof of {where} was changed after plantml wrote it"


def _classifier_of(contract: Any) -> str:
    """The digest of the classifier that a contract names, whatever else stands in it; empty if there is none."""
    detection = contract.get("detection") if isinstance(contract, dict) else None
    return (detection.get("classifier") if isinstance(detection, dict) else None) or ""
