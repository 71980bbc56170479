"""A trained model as files: what it predicts, how, how sure it must be, and where it came from.

    bundle/
      model.json           the contract and the SHA-256 of every file
      model.safetensors    weights
      model.onnx           the same network, ready to run
      README.md            model card

The digest names the model: SHA-256 over the canonical contract and the tensors' bytes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from plantml import ledger, storage
from plantml.calibration import Threshold
from plantml.errors import InputError, NotFoundError
from plantml.images import Fit
from plantml.targets import Target

FORMAT = 1
MODEL_JSON, WEIGHTS, ONNX, CARD = "model.json", "model.safetensors", "model.onnx", "README.md"
PACK = ".plantml"
"""Extension of a bundle in one file, a zip."""

CONTRACT_KEY, DIGEST_KEY = "plantml", "plantml_digest"
"""Keys of the metadata of `model.onnx` that hold the contract and the digest."""


class Architecture(BaseModel):
    """The network, in enough detail to build it again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str
    embedding: int = Field(description="length of the embedding")
    mean: tuple[float, float, float] = Field(description="of pixels in 0 to 1, inside the network")
    std: tuple[float, float, float]
    bank: int = Field(description="training embeddings kept for the unknown score")


class Origin(BaseModel):
    """The dataset version that a model was trained on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    version: int
    fingerprint: str


class Combinations(BaseModel):
    """The combinations of classes that a model restricted to them can answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    targets: tuple[str, ...] = Field(description="names of the class targets that are combined")
    seen: tuple[tuple[str, ...], ...] = Field(description="one class of each, in the order of `targets`")


class Contract(BaseModel):
    """Everything that a user of a model must know to use it rightly.

    What is `None` belongs to a contract that was written before there was such a thing, or does not apply.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    targets: tuple[Target, ...]
    input: Fit
    architecture: Architecture
    temperatures: Mapping[str, float] = Field(description="calibration, by target; already inside the graph")
    biases: Mapping[str, tuple[float, ...]] | None = Field(
        default=None, description="calibration, by target and class: added to the divided logits; inside the graph too"
    )
    thresholds: Mapping[str, float] = Field(description="score from which a target's answer is accepted")
    target_risk: float | None = Field(
        default=None, description="largest share of wrong answers that thresholds were set for"
    )
    acceptance: Mapping[str, Threshold] | None = Field(
        default=None, description="what the validation photos say of each threshold, see `calibration.Threshold`"
    )
    unknown_threshold: float = Field(description="`unknown` above this is unlike the training photos")
    combinations: Combinations | None = Field(
        default=None, description="answers are restricted to these, inside the graph; none: to what can be true"
    )
    derived_from: str | None = Field(default=None, description="digest of the model that this one was quantised from")
    dataset: Origin
    metrics: Mapping[str, float] = Field(description="of the validation split")
    seed: int
    versions: Mapping[str, str] = Field(description="of plantml and the libraries that made it")

    def canonical(self) -> bytes:
        """The same contract is the same bytes, and stays so when contracts learn to hold more."""
        return json.dumps(self.as_json(), sort_keys=True, separators=(",", ":")).encode()

    def as_json(self) -> dict[str, Any]:
        """As JSON types, without what is `None`."""
        return self.model_dump(mode="json", exclude_none=True)


@dataclass(frozen=True)
class Bundle:
    """A bundle that was found and whose contract was read.

    Attributes:
        url: of the bundle's folder, or of a single `.onnx` file.
        contract: what it promises.
        digest: its name.
        files: SHA-256 by file name; empty for a single file.
        asked: the reference that led to it, `REGISTRY/leaf@production`; empty where a URL was named.
    """

    url: str
    contract: Contract
    digest: str
    files: Mapping[str, str]
    asked: str = ""

    def read(self, name: str, cache: storage.Cache | None = None) -> bytes:
        """The bytes of one of its files, checked against their hash; remote ones through the cache.

        Raises:
            InputError: the bundle has no such file.
            StorageError: the bytes are not those that were written.
        """
        if name not in self.files:
            raise InputError(f"{self.url} has no {name}", f"it has {', '.join(self.files) or 'one file only'}")
        url, sha256 = storage.join(self.url, name), self.files[name]
        if cache is not None and not storage.is_local(url):
            return cache.read(sha256, url)
        data = storage.read(url)
        storage.check_sha256(data, sha256, url)
        return data


def digest(contract: Contract, tensors: Mapping[str, bytes]) -> str:
    """SHA-256 of the canonical contract and of the tensors' bytes in the order of their names."""
    found = hashlib.sha256(contract.canonical())
    for name in sorted(tensors):
        found.update(name.encode() + b"\0" + tensors[name])
    return found.hexdigest()


def tensors(url: str, data: bytes) -> dict[str, bytes]:
    """The bytes of each tensor of a safetensors file, by name, with nothing but the standard library.

    Format: https://huggingface.co/docs/safetensors (the header's length as 8 bytes, the header as JSON, the data).

    Raises:
        InputError: it is no such file.
    """
    begin = 8 + int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8:begin] if begin <= len(data) else b"")
        places = {name: part["data_offsets"] for name, part in header.items() if name != "__metadata__"}
        return {name: data[begin + int(first) : begin + int(last)] for name, (first, last) in places.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{url} is not a safetensors file", f"{type(error).__name__}: {error}") from error


def find(ref: str) -> Bundle:
    """The bundle at `ref`: a bundle's folder, a run's, a pack, or a version in a registry.

    Args:
        ref: URL of a bundle, of a run, which means its bundle, or of a `.plantml` pack; `REGISTRY/leaf@3` or
            `REGISTRY/leaf@production`.

    Raises:
        NotFoundError: there is none.
        InputError: what is there is not a bundle that this version can read, or a registry has no such version.
    """
    registered = ledger.found(ref)
    url = storage.absolute(registered or ref)
    if storage.suffix(url) == PACK:
        url = f"zip://::{url}"
    for place in (url, storage.join(url, "bundle")):
        try:
            text = storage.read(storage.join(place, MODEL_JSON))
        except NotFoundError:
            continue
        return replace(_parse(place, text), asked=ref if registered else "")
    if not registered and ledger.is_model(url):
        raise ledger.unnamed(ledger.load(url))
    raise NotFoundError(
        f"There is no model at {url}",
        f"neither {MODEL_JSON} nor bundle/{MODEL_JSON} is there",
        "Name a run, a bundle or an .onnx file; `plantml train` makes them.",
    )


def model_json(contract: Contract, digest_: str, files: Mapping[str, bytes]) -> bytes:
    """The content of `model.json` for these files."""
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    content = {"digest": digest_, "files": hashes, "contract": contract.as_json()}
    return (json.dumps(content, indent=2) + "\n").encode()


def parse_contract(where: str, content: Any) -> Contract:
    """A contract from parsed JSON. Raises `InputError` that names the first thing wrong with it."""
    if isinstance(content, dict) and content.get("format") != FORMAT:
        raise InputError(
            f"{where} has bundle format {content.get('format')}",
            f"this plantml reads {FORMAT}",
            "Update plantml.",
        )
    try:
        return Contract.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{where} is no valid model contract", f"{key}: {first['msg']}") from error


def _parse(url: str, text: bytes) -> Bundle:
    try:
        content = json.loads(text)
        files = {str(name): str(sha256) for name, sha256 in content["files"].items()}
        return Bundle(url, parse_contract(url, content["contract"]), str(content["digest"]), files)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{url}/{MODEL_JSON} is damaged", f"{type(error).__name__}: {error}") from error
