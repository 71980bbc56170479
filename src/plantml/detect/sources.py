"""What to detect on: files, folders, globs and lists, mixed freely, in their order."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from plantml import images, storage
from plantml.errors import InputError, NotFoundError

LISTS = frozenset({".txt", ".lst"})
"""Extensions of files that hold one path or URL a line."""


@dataclass(frozen=True, slots=True)
class Source:
    """One image to look at; `stamp` changes when its content does, and is empty where that costs a request."""

    url: str
    stamp: str


@dataclass(frozen=True)
class Sources:
    """All images, and how many other files were passed over, by reason."""

    found: Sequence[Source]
    skipped: Counter[str] = field(default_factory=Counter)


def collect(names: Sequence[str], stdin: BinaryIO | None = None) -> Sources:
    """Find all images that the names mean.

    A folder is searched recursively; hidden files and files that are no image by their name are passed
    over and counted. A file that is named is taken as it is, so that it gets a record even if it is missing
    or no image. `-` reads names from standard input, one a line or separated by NUL.

    Raises:
        InputError: nothing was found at all.
    """
    skipped: Counter[str] = Counter()
    found = [source for name in names for source in _expand(name, skipped, stdin)]
    unique = list(dict.fromkeys(found))
    if len(unique) < len(found):
        skipped["named twice"] = len(found) - len(unique)
    if not unique:
        passed = f"{sum(skipped.values())} other files were passed over" if skipped else "nothing matched"
        raise InputError(f"No images in {', '.join(names)}", passed)
    return Sources(unique, skipped)


def _expand(name: str, skipped: Counter[str], stdin: BinaryIO | None) -> Iterator[Source]:
    if name == "-":
        yield from _listed((stdin or sys.stdin.buffer).read())
    elif storage.has_pattern(name):
        yield from _images(storage.glob(name), skipped)
    elif storage.suffix(name) in LISTS:
        yield from _listed(storage.read(name))
    elif storage.suffix(name) in images.EXTENSIONS:
        yield _named(name)
    elif storage.is_dir(name):
        yield from _images(storage.list_files(name), skipped)
    else:
        yield _named(name)


def _images(entries: Iterable[storage.Entry], skipped: Counter[str]) -> Iterator[Source]:
    for entry in entries:
        if any(part.startswith(".") for part in entry.name.split("/")):
            skipped["hidden"] += 1
        elif storage.suffix(entry.name) not in images.EXTENSIONS:
            skipped["not an image by its name"] += 1
        else:
            yield Source(entry.url, entry.stamp)


def _listed(text: bytes) -> Iterator[Source]:
    separator = b"\0" if b"\0" in text else b"\n"
    for line in text.split(separator):
        name = line.decode("utf-8", "surrogateescape").strip("\r")
        if name:
            yield _named(name, ask_remote=False)


def _named(url: str, *, ask_remote: bool = True) -> Source:
    if not ask_remote and not storage.is_local(url):
        return Source(url, "")
    try:
        return Source(url, storage.stat(url).stamp)
    except NotFoundError:
        return Source(url, "missing")
