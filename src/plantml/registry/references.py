"""Open the model that a reference names: a run, a bundle, an exported file, or a version in a registry."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from plantml import storage
from plantml.errors import InputError, NotFoundError, UsageError
from plantml.model import bundle as bundles
from plantml.model import form_choice, runtimes
from plantml.model.bundle import Bundle
from plantml.model.contract import AGAIN
from plantml.model.pipeline import BATCH, Pipeline
from plantml.model.runtimes import Runtime
from plantml.model.tiled_pipeline import build_pipeline
from plantml.registry import ledger
from plantml.settings import Machine, Speed


def find(ref: str, cache: storage.Cache | None = None) -> Bundle:
    """The bundle that a reference names.

    `ref` is as for `bundle.find`, or `REGISTRY/leaf@3`, or `REGISTRY/leaf@production`.

    Raises:
        NotFoundError: there is none.
        InputError: as `bundle.find`; or the registry has no such version, or its files are of another model.
    """
    with _explaining_missing_version(ref):
        return _version(ref, cache) or bundles.find(ref, cache)


def open_model(
    ref: str,
    *,
    runtime: str = "auto",
    device: str = "cpu",
    cache: storage.Cache | None = None,
    speed: Speed = "exact",
    machine: Machine | None = None,
) -> tuple[Bundle, Runtime]:
    """Open a model and its runtime.

    Like `runtimes.open_model`, and also takes versions of a registry, and opens other forms than float32.

    `speed` is the form to use, see `form_choice`; unless it is `exact`, the machine on which forms are measured is
    needed.

    Raises:
        UsageError: an exported file, and a form is named.
    """
    with _explaining_missing_version(ref):
        if speed == "exact" or (storage.suffix(ref) in runtimes.FILES and speed == "auto"):
            return runtimes.open_model(_version(ref, cache) or ref, runtime=runtime, device=device, cache=cache)
    if storage.suffix(ref) in runtimes.FILES:
        raise UsageError(
            f"{ref} is one form of a model", f"--speed {speed} chooses from those of a bundle", "Leave it out."
        )
    assert machine is not None
    return form_choice.open_form(find(ref, cache), speed, machine, runtime=runtime, device=device)


def open_pipeline(
    ref: str,
    *,
    runtime: str = "auto",
    device: str = "cpu",
    cache: storage.Cache | None = None,
    tile: int | None = None,
    threads: int,
    batch: int = BATCH,
    top_k: int = 5,
    speed: Speed = "exact",
    machine: Machine | None = None,
) -> Pipeline:
    """The pipeline of a model: see `open_model` and `build_pipeline`."""
    bundle, opened = open_model(ref, runtime=runtime, device=device, cache=cache, speed=speed, machine=machine)
    return build_pipeline(bundle, opened, tile=tile, threads=threads, batch=batch, top_k=top_k)


def _version(ref: str, cache: storage.Cache | None) -> Bundle | None:
    """The bundle of a version in a registry; `None` for any other reference."""
    entry = ledger.find_entry(ref)
    if entry is None:
        return None
    bundle = bundles.find(entry.url, cache)
    if bundle.digest != entry.digest:
        why = f"{entry.digest[:12]} was added, but the files are of {bundle.digest[:12]}"
        raise InputError(f"{ref} is not the model that was added", why, AGAIN)
    return replace(bundle, ref=ref)


@contextlib.contextmanager
def _explaining_missing_version(ref: str) -> Iterator[None]:
    """For a registered model without a version, name the versions in the error."""
    try:
        yield
    except NotFoundError:
        url = storage.absolute(ref)
        if ledger.is_model(url):
            raise ledger.missing_version_error(ledger.load(url)) from None
        raise
