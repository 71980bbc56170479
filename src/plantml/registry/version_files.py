"""The files of a version, and their checks. No file is executed or unpickled."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from plantml import storage
from plantml.errors import InputError, NotFoundError
from plantml.model import bundle as bundles
from plantml.model import proven_forms
from plantml.model.bundle import Bundle
from plantml.model.runtimes import FILES, OnnxRuntime
from plantml.registry import references

PLAN = "plan.yaml"
"""The plan of the training, stored with the bundle if there is one."""

_OWN = (bundles.WEIGHTS, bundles.ONNX, bundles.CARD, *filter(None, proven_forms.FILES.values()))
_IN_PACK = (
    *_OWN, PLAN, bundles.MODEL_JSON,
    *(bundles.CLASSIFIER + name for name in (*_OWN, bundles.MODEL_JSON)),
)  # fmt: skip
_UNTOUCHED = "Nothing was added. Ask its author for a new one: plantml models pack"
_AGAIN = "Fetch it again from its origin."


@dataclass(frozen=True)
class VersionFiles:
    """The files of a version: the bundle, the text of `model.json`, and the plan of the run, empty if unknown."""

    bundle: Bundle
    text: bytes
    plan: bytes
    cache: storage.Cache | None

    @property
    def files(self) -> dict[str, str]:
        """SHA-256 of each file by name, `model.json` last."""
        return {**self.bundle.files, **{name: hashlib.sha256(data).hexdigest() for name, data in self._own()}}

    def read(self) -> Iterator[tuple[str, bytes]]:
        """Name and bytes of each file, `model.json` last."""
        for name in self.bundle.files:
            yield name, self.bundle.read(name, self.cache)
        yield from self._own()

    def _own(self) -> Iterator[tuple[str, bytes]]:
        if self.plan:
            yield PLAN, self.plan
        yield bundles.MODEL_JSON, self.text


def inspect(ref: str, cache: storage.Cache | None = None) -> VersionFiles:
    """Check every file of a bundle; nothing is executed or unpickled.

    Raises:
        InputError: it holds files that do not belong in a bundle, or its digest does not match its content.
        StorageError: a file does not match its hash.
    """
    if storage.suffix(ref) in FILES:
        what = f"{ref} is an exported model"
        raise InputError(what, "a version is a complete bundle", "Name the run or bundle it was exported from.")
    if storage.suffix(ref) == bundles.PACK:
        _check_pack(storage.absolute(ref))
        cache = None  # the content of the pack itself must be checked
    bundle = references.find(ref, cache)
    parts = VersionFiles(bundle, storage.read(storage.join(bundle.url, bundles.MODEL_JSON)), plan_of(bundle.url), cache)
    for name, data in parts.read():
        if storage.suffix(name) == ".onnx":
            try:
                OnnxRuntime(data)
            except InputError as error:
                raise InputError(f"{bundle.place}/{name} is rejected", str(error), _AGAIN) from error
    if bundle.contract.task == "tray":
        classifier = bundle.classifier(cache)
        for name in classifier.files:
            classifier.read(name, cache)
    return parts


def _check_pack(url: str) -> None:
    """Raise `InputError` if a pack holds anything but the files of a bundle, each once."""
    inside = f"zip://::{url}"
    names = [entry.name for entry in storage.list_files(inside)]
    reasons = [f"{reason}, {number} times" for reason, number in storage.passed_over(inside).items()]
    reasons += [f"{name!r} does not belong in a pack" for name in names if name not in _IN_PACK]
    if reasons:
        raise InputError(f"{url} is rejected", reasons[0], _UNTOUCHED)


def plan_of(url: str) -> bytes:
    """The plan beside the bundle of a run, or in the bundle of a registry; empty if there is none."""
    folder, name = storage.split(url)
    for place in (url, folder if name == "bundle" else ""):
        if place:
            try:
                return storage.read(storage.join(place, PLAN))
            except NotFoundError:
                continue
    return b""
