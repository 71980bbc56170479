"""Further forms of a bundle's network, beside float32: faster ones, each with the proof of what it changes.

    model.json        names them: "forms": {"int8": {…}, "bfloat16": {…}}
    forms/int8.onnx   an 8-bit network, a complete exported file with a contract and a calibration of its own

bfloat16 needs no file: it is the float32 network, computed with fewer digits by a processor that can.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

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
    """

    name: str
    digest: str
    derived_from: str
    proof: Mapping[str, Any]

    @property
    def file(self) -> str:
        """Its file in the bundle; empty if it has none."""
        return FILES[self.name]

    def as_json(self) -> dict[str, Any]:
        """Its entry in `model.json`."""
        return {key: getattr(self, key) for key in _KEYS}


def digest_of(name: str, derived_from: str, proof: Mapping[str, Any]) -> str:
    """The digest of a form without a file: SHA-256 of its canonical entry, so that an edited proof is noticed."""
    content = {"form": name, "derived_from": derived_from, "proof": proof}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def without_file(name: str, derived_from: str, proof: Mapping[str, Any]) -> ProvenForm:
    """A form that runs the float32 file."""
    return ProvenForm(name, digest_of(name, derived_from, proof), derived_from, proof)


def parse(content: Mapping[str, Any]) -> dict[str, ProvenForm]:
    """The forms in the content of a `model.json` without `faults`."""
    return {name: ProvenForm(name, **entry) for name, entry in content.get("forms", {}).items()}


def files_of(content: Mapping[str, Any]) -> set[str]:
    """The files of the forms that the content of a `model.json` names."""
    entries = content.get("forms")
    return {FILES[name] for name in entries if FILES.get(name)} if isinstance(entries, dict) else set()


def faults(content: Mapping[str, Any]) -> Iterator[str]:
    """The errors in the forms of a `model.json` whose other keys are right; a later one assumes no earlier one."""
    if "forms" not in content:
        return
    entries, model = content["forms"], content["digest"]
    if not isinstance(entries, dict) or not entries:
        yield "forms is not an object with forms"
    for name, entry in entries.items():
        if name not in FILES:
            yield f"this version knows no form {name!r:.80}"
        if not isinstance(entry, dict) or sorted(entry) != sorted(_KEYS) or not isinstance(entry["proof"], dict):
            yield f"forms.{name} does not have the keys {', '.join(_KEYS)}"
        if entry["derived_from"] != model:
            yield f"forms.{name} is of another model"
        if FILES[name] and FILES[name] not in content["files"]:
            yield f"{FILES[name]} is not in files"
        if not FILES[name] and entry["digest"] != digest_of(name, model, entry["proof"]):
            yield f"the proof of {name} was changed after plantml wrote it"
