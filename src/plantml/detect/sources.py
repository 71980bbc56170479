"""Sources of a detection: files, folders, globs, lists, tables, datasets and archives, in any mix."""

import contextlib
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import repeat
from typing import TYPE_CHECKING, BinaryIO

from plantml import imaging, storage
from plantml.data import tables
from plantml.detect.photo_list import PhotoList, Source
from plantml.errors import InputError, NotFoundError, StorageError, UsageError
from plantml.model.covariates import CovariateRow, is_missing
from plantml.settings import seconds
from plantml.storage.addresses import ANYWHERE, NOT_ALLOWED, Trust, around

if TYPE_CHECKING:
    import polars as pl

LISTS = frozenset({".txt", ".lst"})
"""Extensions of files with one path or URL per line."""

HIDDEN, OTHER, TWICE, OLD = "hidden", "no image extension", "named twice", "older than --since"

_VERSION = re.compile(r"\d{6}\.parquet")
_REFERENCE = re.compile(r".@(\d+|[A-Za-z][A-Za-z0-9._-]{0,63})$")


@dataclass(frozen=True)
class Sources:
    """All images, the number of skipped files by reason, and notes for the user."""

    photos: PhotoList
    skipped: Counter[str] = field(default_factory=Counter)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Selection:
    """Which images of the sources to process.

    Attributes:
        split: split of datasets; by default all usable photos.
        column: column of tables.
        since: only files modified at or after this time, in seconds since 1970.
        trust: locations that lists may name beyond their own folder, and to which links may lead.
        covariates: columns of tables and datasets to keep beside each photo.
    """

    split: str | None = None
    column: str | None = None
    since: float | None = None
    trust: Trust = field(default_factory=Trust)
    covariates: tuple[str, ...] = ()


EVERYTHING = Selection()


def collect(
    names: Sequence[str],
    stdin: BinaryIO | None = None,
    selection: Selection = EVERYTHING,
    *,
    may_be_empty: bool = False,
) -> Sources:
    """Find all images that the names refer to.

    A folder is searched recursively; hidden files and files without an image extension are skipped and counted. A
    folder with dataset versions in it (`versions/000001.parquet`) is that dataset, and gives its usable photos in the
    order of its rows. A file that is named explicitly gets a record even if it is missing or not an image. `-` reads
    names from standard input, one per line or separated by NUL. An image that a list may not name by `selection.trust`
    is returned with the reason, and must not be read.

    Args:
        names: files, folders, globs, lists, tables, datasets, archives, URLs, or `-`.
        stdin: what `-` reads.
        selection: which images to process.
        may_be_empty: finding no images is not an error.

    Raises:
        InputError: there are no images.
        UsageError: `selection` does not fit the sources.
    """
    skipped: Counter[str] = Counter()
    finder = _Finder(selection, skipped, stdin)
    listing = PhotoList()
    for name in names:
        for source in finder.expand(name):
            if not listing.add(source):
                skipped[TWICE] += 1
    finder.check()
    if not listing and not may_be_empty:
        reason = f"{sum(skipped.values())} other files were skipped" if skipped else "nothing matched"
        raise InputError(f"No images in {', '.join(names)}", reason, " ".join(finder.notes))
    return Sources(listing, skipped, tuple(finder.notes))


def parse_since(text: str, now: float | None = None) -> float:
    """Parse `24h`, `7d` or a date and time (ISO 8601, local time) to seconds since 1970. Raises `UsageError`."""
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(text.strip()).timestamp()
    try:
        return (time.time() if now is None else now) - float(seconds(text))
    except ValueError:
        raise UsageError(
            f"--since {text!r} is not a time", "", "Write an age like 24h or 7d, or a date like 2026-05-01T18:00."
        ) from None


def check_apart(names: Sequence[str], outputs: Iterable[str | None]) -> None:
    """Raise `UsageError` if pictures would be written into a source: the next run would take them for photos."""
    for url in filter(None, outputs):
        target = storage.absolute(url)
        for name in names:
            if name != "-" and storage.is_within(target, storage.absolute(name)):
                raise UsageError(
                    f"{url} is inside the source {name}",
                    "the next run would take its pictures for photos",
                    "Choose a location outside the sources.",
                )


class _Finder:
    """Expands names to images, and keeps track of whether there were datasets and tables."""

    def __init__(self, selection: Selection, skipped: Counter[str], stdin: BinaryIO | None) -> None:
        self._selection, self._skipped, self._stdin = selection, skipped, stdin
        self._datasets = self._tables = 0
        self.notes: list[str] = []

    def check(self) -> None:
        if self._selection.split is not None and not self._datasets:
            raise UsageError("--split needs a dataset", "none of the sources is one", "Leave it out.")
        if self._selection.column is not None and not self._tables:
            raise UsageError("--column needs a table", "none of the sources is one", "Leave it out.")

    def expand(self, name: str) -> Iterator[Source]:
        if name == "-":
            names = _lines((self._stdin or sys.stdin.buffer).read())
            yield from (self._checked(each, (ANYWHERE,)) for each in names)
        elif _is_web_page(name) or (storage.suffix(name) in imaging.EXTENSIONS and not storage.has_pattern(name)):
            yield self._named(name)
        elif storage.has_pattern(name):
            links = storage.Links(self._selection.trust.roots)
            yield from self._images(storage.glob(name, links))
            self._note_links(links)
        elif storage.suffix(name) in LISTS:
            yield from self._listed(name, ((url, "") for url in _lines(storage.read(name))))
        elif tables.is_table(name):
            self._tables += 1
            rows = tables.photo_rows(name, self._selection.column, self._selection.covariates)
            yield from self._listed(name, ((url, covariates_text(values)) for url, values in rows))
        else:
            yield from self._inside(name)

    def _inside(self, name: str) -> Iterator[Source]:
        """Names without a known extension: a dataset, a folder, an archive, or any other file."""
        if _is_dataset(name):
            self._datasets += 1
            yield from self._photos(name)
        elif storage.is_dir(name):
            links = storage.Links(self._selection.trust.roots)
            yield from self._images(storage.list_files(name, links))
            self._note_links(links)
        elif place := storage.inside(name):
            yield from self._images(storage.list_files(place))
            self._skipped.update(storage.passed_over(place))
        else:
            yield self._named(name)

    def _images(self, entries: Iterable[storage.Entry]) -> Iterator[Source]:
        since = self._selection.since
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
        from plantml.data import versions  # only datasets need polars

        version = versions.load(ref)
        split = self._selection.split
        rows = version.usable(split)
        if split is not None and not len(rows):
            splits = ", ".join(sorted(version.usable()["split"].drop_nulls().unique())) or "none"
            raise InputError(
                f"{version.ref} has no photos in the split {split!r}",
                f"its splits: {splits}",
                "Name one of its splits, or split it: plantml dataset split " + version.url,
            )
        bare = len(version.without_photo())
        counts = {
            "excluded in the dataset": len(version.rows) - len(version.usable()) - bare,
            "row without a photo": bare,
        }
        self._skipped.update({reason: number for reason, number in counts.items() if number})
        trust, own = self._selection.trust, (version.url, ANYWHERE)
        measured = self._covariates(rows)
        for (path, image_id), values in zip(rows.select("path", "image_id").iter_rows(), measured, strict=True):
            url = version.image_url(path)
            why = trust.refusal(url, own) if trust.offline else ""  # the import by reference named its host
            yield Source(url, f"{NOT_ALLOWED}: {why}" if why else image_id, values)

    def _covariates(self, rows: "pl.DataFrame") -> Iterable[str]:
        """The covariates of each row of a dataset."""
        from plantml.data import covariates

        if not self._selection.covariates:
            return repeat("", rows.height)
        return map(covariates_text, covariates.rows_of(rows, self._selection.covariates))

    def _note_links(self, links: storage.Links) -> None:
        self._skipped.update(links.skipped)
        self.notes += [links.note] if links.note else []

    def _listed(self, name: str, photos: Iterable[tuple[str, str]]) -> Iterator[Source]:
        """Images of a list, of URLs and covariates.

        Relative paths start at the working folder or the list; in a remote list, at the list.
        """
        folder, own = storage.split(name)[0], (around(storage.absolute(name)),)
        here = (storage.absolute("."),) if storage.is_local(name) and storage.absolute(".") != "/" else ()
        for url, covariates in photos:
            is_relative = storage.is_local(url) and not url.startswith(("/", "~", "file://"))
            place = _resolve(url, folder) if is_relative else url
            source = self._checked(place, own + here if is_relative and place == url else own)
            yield replace(source, covariates=covariates) if covariates else source

    def _checked(self, url: str, own: Sequence[str]) -> Source:
        if why := self._selection.trust.refusal(url, own):
            return Source(url.replace("\0", "\\0"), f"{NOT_ALLOWED}: {why}")
        return self._named(url, ask_remote=False)

    def _named(self, url: str, *, ask_remote: bool = True) -> Source:
        """An explicitly named file, which gets a record in any case."""
        if not ask_remote and not storage.is_local(url):
            return Source(url, "")
        try:
            return Source(url, storage.stat(url).stamp)
        except NotFoundError:
            return Source(url, "missing")
        except (StorageError, InputError):
            return Source(url, "")  # reading it will put the reason in its record


def covariates_text(values: CovariateRow) -> str:
    """The covariates of a photo as one JSON object, without those that are missing; empty if all are."""
    known = {name: value for name, value in sorted(values.items()) if not is_missing(value)}
    return json.dumps(known, default=str) if known else ""


def _lines(text: bytes) -> Iterator[str]:
    separator = b"\0" if b"\0" in text else b"\n"
    names = (line.decode("utf-8", "surrogateescape").strip("\r") for line in text.split(separator))
    return filter(None, names)


def _resolve(url: str, folder: str) -> str:
    """Resolve a relative path of a list in `folder`."""
    if not folder or (storage.is_local(folder) and _exists(url)):
        return url
    beside = storage.join(folder, url)
    return beside if not storage.is_local(folder) or _exists(beside) else url


def _exists(path: str) -> bool:
    """True if there is such a file; False for what cannot be a name, which is reported when it is read."""
    try:
        return storage.exists(path)
    except InputError:
        return False


def _is_web_page(name: str) -> bool:
    """True for a web address of a single file; its `?` starts a query and is not a pattern."""
    other = storage.suffix(name) in LISTS | tables.EXTENSIONS or storage.inside(name)
    return name.startswith(("http://", "https://")) and "*" not in name and not other


def _is_dataset(name: str) -> bool:
    """True for `DATASET` and `DATASET@3`. A folder whose name contains the `@` takes precedence."""
    match = _REFERENCE.search(storage.basename(name))
    if match and "::" not in name and not storage.exists(name):
        name = name.rstrip("/")[: -len(match[1]) - 1]
    try:
        return any(_VERSION.fullmatch(entry.name) for entry in storage.list_files(storage.join(name, "versions")))
    except (NotFoundError, StorageError, InputError):
        return False
