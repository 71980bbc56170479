"""What to detect on: files, folders, globs, lists, tables, datasets and archives, mixed freely, in their order."""

import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import BinaryIO

from plantml import imaging, storage
from plantml.detect import tables
from plantml.detect.photo_list import PhotoList, Source
from plantml.errors import InputError, NotFoundError, StorageError, UsageError
from plantml.storage.addresses import ANYWHERE, NOT_ALLOWED, Trust, around

LISTS = frozenset({".txt", ".lst"})
"""Extensions of files that hold one path or URL a line."""

HIDDEN, OTHER, TWICE, OLD = "hidden", "not an image by its name", "named twice", "older than --since"

_VERSION = re.compile(r"\d{6}\.parquet")
_REFERENCE = re.compile(r".@(\d+|[A-Za-z][A-Za-z0-9._-]{0,63})$")
_AGES = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True)
class Sources:
    """All images, how many other files were passed over, by reason, and what the user should know of these."""

    photos: PhotoList
    skipped: Counter[str] = field(default_factory=Counter)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """Which images of the sources are wanted.

    Attributes:
        split: of datasets; all of their usable photos without one.
        column: of tables.
        since: files that were changed at this time or later, seconds since 1970.
        trust: what lists may name beyond what lies around them, and where links to folders may lead.
    """

    split: str | None = None
    column: str | None = None
    since: float | None = None
    trust: Trust = field(default_factory=Trust)


EVERYTHING = Choice()


def collect(
    names: Sequence[str], stdin: BinaryIO | None = None, choice: Choice = EVERYTHING, *, may_be_empty: bool = False
) -> Sources:
    """Find all images that the names mean.

    A folder is searched recursively; hidden files and files that are no image by their name are passed
    over and counted. A folder with dataset versions in it (`versions/000001.parquet`) is that dataset, and gives
    its usable photos in the order of its rows. A file that is named is taken as it is, so that it gets a
    record even if it is missing or no image. `-` reads names from standard input, one a line or separated by
    NUL. What a list names where `choice.trust` does not allow it is given with the reason, and is not to be read.

    Args:
        names: files, folders, globs, lists, tables, datasets, archives, URLs, or `-`.
        stdin: what `-` reads.
        choice: which of them are wanted.
        may_be_empty: nothing at all is no error.

    Raises:
        InputError: nothing was found at all.
        UsageError: `choice` does not fit the sources.
    """
    skipped: Counter[str] = Counter()
    finder = _Finder(choice, skipped, stdin)
    listing = PhotoList()
    for name in names:
        for source in finder.expand(name):
            if not listing.add(source):
                skipped[TWICE] += 1
    finder.check()
    if not listing and not may_be_empty:
        passed = f"{sum(skipped.values())} other files were passed over" if skipped else "nothing matched"
        raise InputError(f"No images in {', '.join(names)}", passed, " ".join(finder.notes))
    return Sources(listing, skipped, tuple(finder.notes))


def moment(text: str, now: float | None = None) -> float:
    """`24h`, `7d` or a date and time (ISO 8601, local time) as seconds since 1970. Raises `UsageError`."""
    if match := re.fullmatch(r"(\d+)([smhdw])", text.strip()):
        return (time.time() if now is None else now) - int(match[1]) * _AGES[match[2]]
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except ValueError:
        raise UsageError(
            f"--since {text!r} is no time", "", "Write an age like 24h or 7d, or a date like 2026-05-01T18:00."
        ) from None


def check_apart(names: Sequence[str], made: Iterable[str | None]) -> None:
    """Raise `UsageError` if a picture would be made among the photos: the next run would take it for one of them."""
    for url in filter(None, made):
        place = storage.absolute(url)
        for name in names:
            if name != "-" and f"{place}/".startswith(f"{storage.absolute(name)}/"):
                raise UsageError(
                    f"{url} lies in {name}",
                    "what is made there would be taken for photos by the next run",
                    "Choose a place outside of the sources.",
                )


class _Finder:
    """Expands one name after the other; remembers whether there was anything that a choice is about."""

    def __init__(self, choice: Choice, skipped: Counter[str], stdin: BinaryIO | None) -> None:
        self._choice, self._skipped, self._stdin = choice, skipped, stdin
        self._datasets = self._tables = 0
        self.notes: list[str] = []

    def check(self) -> None:
        if self._choice.split is not None and not self._datasets:
            raise UsageError("--split needs a dataset", "none of the sources is one", "Leave it out.")
        if self._choice.column is not None and not self._tables:
            raise UsageError("--column needs a table", "none of the sources is one", "Leave it out.")

    def expand(self, name: str) -> Iterator[Source]:
        if name == "-":
            names = _lines((self._stdin or sys.stdin.buffer).read())
            yield from (self._judged(each, (ANYWHERE,)) for each in names)
        elif _is_web_page(name) or (storage.suffix(name) in imaging.EXTENSIONS and not storage.has_pattern(name)):
            yield self._named(name)
        elif storage.has_pattern(name):
            links = storage.Links(self._choice.trust.roots)
            yield from self._images(storage.glob(name, links))
            self._take_down(links)
        elif storage.suffix(name) in LISTS:
            yield from self._listed(name, _lines(storage.read(name)))
        elif storage.suffix(name) in tables.EXTENSIONS:
            self._tables += 1
            yield from self._listed(name, tables.urls(name, self._choice.column))
        else:
            yield from self._inside(name)

    def _inside(self, name: str) -> Iterator[Source]:
        """What has no telling extension: a dataset, a folder, an archive, or a file of any other name."""
        if _is_dataset(name):
            self._datasets += 1
            yield from self._photos(name)
        elif storage.is_dir(name):
            links = storage.Links(self._choice.trust.roots)
            yield from self._images(storage.list_files(name, links))
            self._take_down(links)
        elif place := storage.inside(name):
            yield from self._images(storage.list_files(place))
            self._skipped.update(storage.passed_over(place))
        else:
            yield self._named(name)

    def _images(self, entries: Iterable[storage.Entry]) -> Iterator[Source]:
        since = self._choice.since
        for entry in entries:
            if any(part.startswith(".") for part in entry.name.split("/")):
                self._skipped[HIDDEN] += 1
            elif storage.suffix(entry.name) not in imaging.EXTENSIONS:
                self._skipped[OTHER] += 1
            elif since is not None and 0 < entry.modified < since:
                self._skipped[OLD] += 1
            else:
                yield Source(entry.url, entry.stamp)

    def _photos(self, ref: str) -> Iterator[Source]:
        from plantml.data import versions  # polars is loaded only where there is a dataset

        version = versions.load(ref)
        rows = version.usable(self._choice.split)
        if self._choice.split is not None and not len(rows):
            there = ", ".join(sorted(version.usable()["split"].drop_nulls().unique())) or "none"
            raise InputError(f"{version.ref} has no photos in the split {self._choice.split!r}", f"its splits: {there}")
        if excluded := len(version.rows) - len(version.usable()):
            self._skipped["excluded in the dataset"] += excluded
        trust, own = self._choice.trust, (version.url, ANYWHERE)
        for path, image_id in rows.select("path", "image_id").iter_rows():
            url = version.image_url(path)
            why = trust.refusal(url, own) if trust.offline else ""  # who imported it by reference named its host
            yield Source(url, f"{NOT_ALLOWED}: {why}" if why else image_id)

    def _take_down(self, links: storage.Links) -> None:
        self._skipped.update(links.skipped)
        self.notes += [links.note] if links.note else []

    def _listed(self, name: str, urls: Iterable[str]) -> Iterator[Source]:
        """What a list names: paths from the working folder, or else from its own; those of a far list from its own."""
        folder, own = storage.split(name)[0], (around(storage.absolute(name)),)
        here = (storage.absolute("."),) if storage.is_local(name) and storage.absolute(".") != "/" else ()
        for url in urls:
            is_relative = storage.is_local(url) and not url.startswith(("/", "~", "file://"))
            place = _placed(url, folder) if is_relative else url
            yield self._judged(place, own + here if is_relative and place == url else own)

    def _judged(self, url: str, own: Sequence[str]) -> Source:
        if why := self._choice.trust.refusal(url, own):
            return Source(url.replace("\0", "\\0"), f"{NOT_ALLOWED}: {why}")
        return self._named(url, ask_remote=False)

    def _named(self, url: str, *, ask_remote: bool = True) -> Source:
        """A file that is named gets its record, whatever is found there."""
        if not ask_remote and not storage.is_local(url):
            return Source(url, "")
        try:
            return Source(url, storage.stat(url).stamp)
        except NotFoundError:
            return Source(url, "missing")
        except (StorageError, InputError):
            return Source(url, "")  # reading it will say what is wrong, in its record


def _lines(text: bytes) -> Iterator[str]:
    separator = b"\0" if b"\0" in text else b"\n"
    names = (line.decode("utf-8", "surrogateescape").strip("\r") for line in text.split(separator))
    return filter(None, names)


def _placed(url: str, folder: str) -> str:
    """A relative path of a list in `folder`."""
    if not folder or (storage.is_local(folder) and storage.exists(url)):
        return url
    beside = storage.join(folder, url)
    return beside if not storage.is_local(folder) or storage.exists(beside) else url


def _is_web_page(name: str) -> bool:
    """True for a web address that is one file, whatever its name: a `?` begins its query and is no pattern."""
    other = storage.suffix(name) in LISTS | tables.EXTENSIONS or storage.inside(name)
    return name.startswith(("http://", "https://")) and "*" not in name and not other


def _is_dataset(name: str) -> bool:
    """True for `DATASET` and `DATASET@3`: a folder with versions in it. A folder called so, with its `@`, wins."""
    match = _REFERENCE.search(storage.basename(name))
    if match and "::" not in name and not storage.exists(name):
        name = name.rstrip("/")[: -len(match[1]) - 1]
    try:
        return any(_VERSION.fullmatch(entry.name) for entry in storage.list_files(storage.join(name, "versions")))
    except (NotFoundError, StorageError, InputError):
        return False
