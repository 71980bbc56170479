"""A bundle: a trained model as files, with its contract.

    bundle/
      model.json           the contract and the SHA-256 of every file
      model.safetensors    weights
      model.onnx           the same network, ready to run
      README.md            model card
      classifier/          the bundle of the classifier of its boxes, in a model of two stages
      forms/               faster forms of the network that were added, see `proven_forms`

The digest names the model: SHA-256 over the canonical contract and the tensors' bytes.

A contract is checked, not believed. To open a model is to call `find`, and `Bundle.read` for each file that is used:

* `find` refuses a `model.json` that is not written as plantml writes it, or whose contract or digest is not, to the
  letter, that in the metadata of `model.onnx`; and a version of a registry that is not the model that was added.
* `Bundle.read` refuses a file that does not have its SHA-256 of `model.json`; weights that do not give the digest
  together with the contract; and an ONNX file that is not, to the byte, what its seal says, or not the form that
  `model.json` describes.

So whatever of a bundle is edited, swapped, cut off or lost is noticed before the first answer, unless contract,
digest, hashes and seal are all forged to fit each other. A file that the runtime does not use is not looked at:
`plantml models verify` and `plantml models add` read all.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from plantml import parsing, storage
from plantml.errors import InputError, NotFoundError
from plantml.model import file_formats, proven_forms
from plantml.model.contract import AGAIN, FORMAT, Contract, parse_contract
from plantml.model.proven_forms import ProvenForm

MODEL_JSON, WEIGHTS, ONNX, CARD = "model.json", "model.safetensors", "model.onnx", "README.md"
CLASSIFIER = "classifier/"
"""Folder of the second stage, with the files of a bundle."""

PACK = ".plantml"
"""Extension of a bundle in one file, a zip."""

CONTRACT_KEY, DIGEST_KEY, PROOF_KEY = "plantml", "plantml_digest", "plantml_proof"
"""Keys of the metadata of an ONNX file that hold the contract and the digest; and, of a form, the proof."""

_KEYS, _OPTIONAL_KEYS = ("digest", "files", "contract"), ("forms",)
_NEEDED = (WEIGHTS, ONNX)
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Bundle:
    """A bundle whose contract was read.

    Attributes:
        url: of the bundle's folder, or of a single `.onnx` file.
        contract: what it promises.
        digest: of the model, or of the form that it was opened in.
        files: SHA-256 by file name; empty for a single file.
        ref: the reference that led to it, `REGISTRY/leaf@production`; empty where a URL was named.
        forms: further forms of the network that it holds, by name.
        form: the one of them that it was opened in; `None` for float32.
    """

    url: str
    contract: Contract
    digest: str
    files: Mapping[str, str]
    ref: str = ""
    forms: Mapping[str, ProvenForm] = field(default_factory=dict)
    form: ProvenForm | None = None

    @property
    def source_digest(self) -> str:
        """The digest of the float32 model, whatever form it was opened in: what a registry knows it by."""
        return self.form.derived_from if self.form else self.digest

    @property
    def form_note(self) -> dict[str, str] | None:
        """What records and results say of the form; `None` for float32."""
        return {"name": self.form.name, "of": self.form.derived_from} if self.form else None

    @property
    def place(self) -> str:
        """Its URL as a user would name it: of a pack, that of the file."""
        return _place(self.url)

    def classifier(self, cache: storage.Cache | None = None) -> "Bundle":
        """The bundle of the second stage. Raises `InputError` if it is not the one that the contract names."""
        text = self.read(CLASSIFIER + MODEL_JSON, cache)
        bundle = _parse(storage.join(self.url, CLASSIFIER.rstrip("/")), text)
        stated = self.contract.detection.classifier if self.contract.detection else None
        if bundle.digest != stated or bundle.contract.detection is not None:
            raise InputError(
                f"{self.place} mixes the files of two models",
                f"its classifier is {bundle.digest[:12]}, but its contract names {(stated or 'none')[:12]}",
                AGAIN,
            )
        forms = {name: form.classifier for name, form in self.forms.items() if form.classifier}
        files = {form.file: self.files[CLASSIFIER + form.file] for form in forms.values() if form.file}
        return replace(bundle, forms=forms, files={**bundle.files, **files})

    def read(self, name: str, cache: storage.Cache | None = None) -> bytes:
        """The verified bytes of one of its files; remote ones through the cache.

        Raises:
            InputError: the bundle has no such file, or the file belongs to another model.
            StorageError: the bytes are not those that were written.
        """
        if name not in self.files:
            raise InputError(
                f"{self.url} has no {name}",
                f"it has {', '.join(self.files) or 'one file only'}",
                "Name a complete bundle.",
            )
        url, sha256 = storage.join(self.url, name), self.files[name]
        cached = cache is not None and not storage.is_local(url)
        data = cache.read(sha256, url) if cache is not None and cached else storage.read(url)
        form = next((each for each in self.forms.values() if each.file == name), None)
        sums = file_formats.sums(data, sealed=name == ONNX or form is not None)
        if sums.sha256 != sha256:
            raise storage.damaged(f"The copy of {url} in the cache" if cached else url, sha256)
        if name == ONNX:
            notes = file_formats.onnx_metadata(url, data)
            file_formats.check_seal(url, sums)
            check_notes(self, notes)
        elif form is not None:
            notes = file_formats.onnx_metadata(url, data)
            file_formats.check_seal(url, sums)
            _check_form(self, form, notes)
        elif name == WEIGHTS:
            check_digest(url, self, file_formats.tensors(url, data))
        return data


def check_whole_photos(bundle: Bundle, use: str) -> None:
    """Raise `InputError` if a model finds boxes or anomalies, where `use` needs embeddings of whole photos."""
    if bundle.contract.detection is not None:
        raise InputError(
            f"{bundle.place} finds boxes", f"{use} is about whole photos", "Choose a model of whole photos."
        )
    if bundle.contract.anomaly is not None:
        raise InputError(
            f"{bundle.place} has no embedding of a photo",
            "it compares parts of photos with those of normal ones",
            "Choose a model that predicts targets of whole photos.",
        )


def digest(contract: Contract, tensors: Mapping[str, bytes | memoryview]) -> str:
    """SHA-256 of the canonical contract and of the tensors' bytes in the order of their names."""
    sha256 = hashlib.sha256(contract.canonical())
    for name in sorted(tensors):
        sha256.update(name.encode() + b"\0")
        sha256.update(tensors[name])
    return sha256.hexdigest()


def check_digest(url: str, bundle: Bundle, tensors: Mapping[str, bytes | memoryview]) -> None:
    """Raise `InputError` unless the contract and the tensors of the file at `url` match the digest."""
    name = digest(bundle.contract, tensors)
    if name != bundle.digest:
        raise InputError(
            f"{url} does not match its digest",
            f"its digest is {bundle.digest[:12]}, but its contract and tensors give {name[:12]}",
            AGAIN,
        )


def check_notes(bundle: Bundle, notes: Mapping[str, str]) -> None:
    """Raise `InputError` unless the metadata of its ONNX file has this digest and this contract."""
    named = notes.get(DIGEST_KEY, "")
    if named != bundle.digest:
        raise InputError(
            f"{bundle.place} mixes the files of two models",
            f"{ONNX} holds the model {named[:12] or 'without a digest'}, {MODEL_JSON} names {bundle.digest[:12]}",
            AGAIN,
        )
    stated = notes.get(CONTRACT_KEY, "")
    if stated.encode() != bundle.contract.canonical():
        raise InputError(
            f"{bundle.place}/{MODEL_JSON} was changed after plantml wrote it",
            f"{ONNX} holds another contract: {_difference(bundle, stated)}",
            AGAIN,
        )


def _check_form(bundle: Bundle, form: ProvenForm, notes: Mapping[str, str]) -> None:
    """Raise `InputError` unless the metadata of a form's file are what `model.json` says of it."""
    where = f"{bundle.place}/{form.file}"
    proof, contract = (
        parsing.parse_json_object(notes.get(key, "{}"), f"The {key} of {where}") for key in (PROOF_KEY, CONTRACT_KEY)
    )
    stated = notes.get(DIGEST_KEY), contract.get("derived_from"), proof
    if stated != (form.digest, bundle.source_digest, form.proof):
        raise InputError(
            f"{where} is not the form that {MODEL_JSON} describes", "its digest, origin or proof is another", AGAIN
        )


def _difference(bundle: Bundle, stated: str) -> str:
    """The first key that differs from the contract in the ONNX file."""
    other = parsing.parse_json_object(stated, f"The contract in {bundle.place}/{ONNX}")
    ours = bundle.contract.as_json()
    differing = [key for key in {**ours, **other} if ours.get(key) != other.get(key)]
    return f"{differing[0]} differs" if differing else "its formatting differs"


def find(url: str, cache: storage.Cache | None = None) -> Bundle:
    """The bundle at a URL.

    Args:
        url: of a bundle, of a run, which means its bundle, or of a `.plantml` pack.
        cache: for remote files.

    Raises:
        NotFoundError: there is none.
        InputError: what is there is not a bundle that this version can read, or its contract is not that of its ONNX
            file.
    """
    url = storage.absolute(url)
    if storage.suffix(url) == PACK:
        url = f"zip://::{url}"
    for place in (url, storage.join(url, "bundle")):
        try:
            text = storage.read(storage.join(place, MODEL_JSON))
        except NotFoundError:
            continue
        bundle = _parse(place, text)
        _check_contract(bundle, cache)
        return bundle
    raise NotFoundError(
        f"There is no model at {url}",
        f"neither {MODEL_JSON} nor bundle/{MODEL_JSON} is there",
        "Name a run, a bundle or an .onnx file; `plantml train` writes them.",
    )


def _check_contract(bundle: Bundle, cache: storage.Cache | None) -> None:
    """Raise `InputError` unless the contract is that in its ONNX file, of which only the metadata are read."""
    url = storage.join(bundle.url, ONNX)
    try:
        if cache is not None and "::" in url:  # of a member of an archive no part can be read alone
            bundle.read(ONNX, cache)
        else:
            check_notes(bundle, file_formats.onnx_metadata(url, storage.ranges(url)))
    except NotFoundError as error:
        raise InputError(f"{bundle.place} is incomplete", f"{ONNX} is missing", AGAIN) from error
    except InputError:
        bundle.read(ONNX)  # if its bytes are not those that were written, that is what is wrong
        raise


def model_json(contract: Contract, digest_: str, files: Mapping[str, bytes]) -> bytes:
    """The content of `model.json` for these files."""
    return _model_json(contract, digest_, {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}, {})


def with_forms(bundle: Bundle, forms: Mapping[str, ProvenForm], files: Mapping[str, bytes]) -> bytes:
    """The content of `model.json` with further forms, and the files that these have."""
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return _model_json(bundle.contract, bundle.digest, {**bundle.files, **hashes}, {**bundle.forms, **forms})


def _model_json(contract: Contract, digest_: str, hashes: Mapping[str, str], forms: Mapping[str, ProvenForm]) -> bytes:
    content = {"digest": digest_, "files": dict(sorted(hashes.items())), "contract": contract.as_json()}
    if forms:
        content["forms"] = {name: form.as_json() for name, form in sorted(forms.items())}
    return (json.dumps(content, indent=2) + "\n").encode()


def _parse(url: str, text: bytes) -> Bundle:
    where = f"{_place(url)}/{MODEL_JSON}"
    content = parsing.parse_json_object(text, where)
    why = _fault(content) or next(proven_forms.faults(content, CLASSIFIER), "")
    if why:
        raise InputError(f"{where} is damaged", why, AGAIN)
    contract = parse_contract(where, content["contract"])
    forms = proven_forms.parse(content)
    return Bundle(url, contract, content["digest"], content["files"], forms=forms)


def _fault(content: Mapping[str, Any]) -> str:
    """The first error of a `model.json` outside its contract; empty if there is none."""
    for key in (*_KEYS, *content):
        if key not in content or key not in (*_KEYS, *_OPTIONAL_KEYS):
            return f"{key} is missing" if key in _KEYS else f"bundle format {FORMAT} has no key {key!r:.80}"
    if not _is_sha256(content["digest"]):
        return "digest is not a hexadecimal SHA-256"
    files = content["files"]
    if not isinstance(files, dict):
        return "files is not an object"
    own = {*_NEEDED, CARD, *proven_forms.files_of(content)}
    known = {*own, *(CLASSIFIER + name for name in (MODEL_JSON, *own))}
    for name in (*_NEEDED, *files):
        if name not in files or name not in known:
            return f"{name} is not in files" if name in _NEEDED else f"a bundle has no file {name!r:.80}"
        if not _is_sha256(files[name]):
            return f"files.{name} is not a hexadecimal SHA-256"
    return ""


def _place(url: str) -> str:
    return url.removeprefix("zip://::")


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and _HEX.fullmatch(value) is not None
