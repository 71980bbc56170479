"""A model in one file, for machines without access to a registry: a zip of the bundle without executable content."""

import io
import zipfile
from dataclasses import dataclass

from plantml import storage
from plantml.errors import InputError, UsageError
from plantml.model.bundle import PACK, Bundle
from plantml.registry.version_files import inspect
from plantml.storage.archives import MAX_MEMBER

_EPOCH = (1980, 1, 1, 0, 0, 0)  # so that the same model gives the same bytes


@dataclass(frozen=True)
class Pack:
    """A pack that was written, its content, and its size in bytes."""

    url: str
    bundle: Bundle
    size: int


def pack(ref: str, out: str, cache: storage.Cache | None = None) -> Pack:
    """Write a bundle as one file, after checking every hash.

    Raises:
        UsageError: `out` has another extension.
        InputError: the bundle is damaged.
    """
    url = storage.absolute(out)
    if storage.suffix(url) != PACK:
        raise UsageError(f"{out} is not a {PACK} file", "packs have this extension", f"Name it leaf{PACK}.")
    storage.check_output(url)
    parts = inspect(ref, cache)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        for name, data in parts.read():
            if len(data) > MAX_MEMBER:
                raise InputError(
                    f"{name} is too large for a pack",
                    f"the limit is {MAX_MEMBER >> 30} GiB",
                    "Share the registry itself instead of a pack.",
                )
            file.writestr(zipfile.ZipInfo(name, _EPOCH), data)
    storage.write(url, buffer.getvalue())
    return Pack(url, parts.bundle, buffer.tell())
