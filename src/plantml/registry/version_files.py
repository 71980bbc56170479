"""What a version is made of, and whether it is what it says: no file of it is run or unpickled."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from plantml import storage
from plantml.errors import InputError, NotFoundError
from plantml.model import bundle as bundles
from plantml.model.bundle import Bundle
from plantml.model.runtimes import FILES, OnnxRuntime
from plantml.registry import references

PLAN = "plan.yaml"
"""How it was trained: goes with the bundle where it is known."""

_OWN = (bundles.WEIGHTS, bundles.ONNX, bundles.CARD)
_IN_PACK = (*_OWN, PLAN, bundles.MODEL_JSON)
_UNTOUCHED = "Nothing of it was taken. Ask whoever made it for another one: plantml models pack"
_AGAIN = "Fetch it again from where it was made."


@dataclass(frozen=True)
class Parts:
    """What a version is made of.

    Attributes:
        bundle: as it was found.
        text: of `model.json`.
        plan: of the run; empty where it is not known.
        cache: for remote files.
    """

    bundle: Bundle
    text: bytes
    plan: bytes
    cache: storage.Cache | None

    @property
    def files(self) -> dict[str, str]:
        """SHA-256 of each file by name, `model.json` last."""
        found = dict(self.bundle.files)
        for name, data in ((PLAN, self.plan), (bundles.MODEL_JSON, self.text)):
            if data:
                found[name] = hashlib.sha256(data).hexdigest()
        return found

    def read(self) -> Iterator[tuple[str, bytes]]:
        """Name and bytes of each file, `model.json` last."""
        for name in self.bundle.files:
            yield name, self.bundle.read(name, self.cache)
        if self.plan:
            yield PLAN, self.plan
        yield bundles.MODEL_JSON, self.text


def inspect(ref: str, cache: storage.Cache | None = None) -> Parts:
    """A bundle whose every file is what it says; nothing of it is run or unpickled.

    Raises:
        InputError: it holds something else than a bundle does, or its digest is not that of its content.
        StorageError: a file is not what its hash promises.
    """
    if storage.suffix(ref) in FILES:
        what = f"{ref} is a model in a file of its own"
        raise InputError(what, "a version is a whole bundle", "Name the run or the bundle that it was exported from.")
    if storage.suffix(ref) == bundles.PACK:
        _check_pack(storage.absolute(ref))
        cache = None  # what the pack itself holds is in question
    bundle = references.find(ref, cache)
    parts = Parts(bundle, storage.read(storage.join(bundle.url, bundles.MODEL_JSON)), plan_of(bundle.url), cache)
    for name, data in parts.read():
        if name == bundles.ONNX:
            _check_graph(bundle, data)
    return parts


def _check_graph(bundle: Bundle, data: bytes) -> None:
    """Raise `InputError` unless the graph loads."""
    try:
        OnnxRuntime(data)
    except InputError as error:
        raise InputError(f"{bundle.place}/{bundles.ONNX} is refused", str(error), _AGAIN) from error


def _check_pack(url: str) -> None:
    """Raise `InputError` if a pack holds anything but the files of a bundle, each once and under its own name."""
    inside = f"zip://::{url}"
    names = [entry.name for entry in storage.list_files(inside)]
    reasons = [f"{reason}, {number} times" for reason, number in storage.passed_over(inside).items()]
    reasons += [f"a pack has no file {name!r}" for name in names if name not in _IN_PACK]
    if reasons:
        raise InputError(f"{url} is refused", reasons[0], _UNTOUCHED)


def plan_of(url: str) -> bytes:
    """The plan beside the bundle of a run, or in that of a registry."""
    folder, name = storage.split(url)
    for place in (url, folder if name == "bundle" else ""):
        if place:
            try:
                return storage.read(storage.join(place, PLAN))
            except NotFoundError:
                continue
    return b""
