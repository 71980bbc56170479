"""The files of a directory or an archive, listed once, as importers look at them."""

import codecs
import contextlib
import functools
import itertools
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from plantml import imaging, storage
from plantml.data.importers.vetting import text_fault
from plantml.errors import InputError, PlantmlError
from plantml.parsing import parse_json

HIDDEN, NO_IMAGE, UNNAMED = "hidden", "not an image by its name", "named by no annotation"
NOT_UNICODE = "its name is not UTF-8: rename it"

_SAMPLE, _LISTED_SAMPLE = 3, 200

_LOOKED_AT = 200_000
"""Files of the folder above an annotation file that are looked through for its photos."""

AMBIGUOUS = "ambiguous"
"""Code of the reason for which a photo is excluded that may be one of several files."""


class Tree:
    """A directory's files by their relative names, without the hidden ones.

    Args:
        url: of a directory, or of an archive as `storage.inside` writes it.
        listed: false to look files up one by one as they are asked for: what lies around a single
            annotation file may be somebody's whole home.
        roots: folders elsewhere that links in this one may lead to.

    Attributes:
        url: of the directory.
        files: entries by name, in the order of their names; empty if it was not listed.
        skipped: what was passed over, by reason.
        notes: sentences on it that the user should see.
        decisions: how many photos were found by their names alone, by a sentence that says where.
        ambiguous: why a name could mean several photos, by the name that `locate` gave it.
    """

    def __init__(self, url: str, *, listed: bool = True, roots: Sequence[str] = ()) -> None:
        self.url, self.listed = url, listed
        self.files: dict[str, storage.Entry] = {}
        self.skipped: Counter[str] = Counter()
        self.notes: tuple[str, ...] = ()
        self.decisions: Counter[str] = Counter()
        self.ambiguous: dict[str, str] = {}
        self._parsed: dict[str, Any] = {}
        self._looked: dict[str, bool] = {}
        if not listed:
            return
        links = storage.Links(roots)
        for entry in storage.list_files(url, links):
            if is_hidden(entry.name):
                self.skipped[HIDDEN] += 1
            elif not storage.is_unicode(entry.name):  # no manifest can hold it
                self.skipped[NOT_UNICODE] += 1
            else:
                self.files[entry.name] = entry
        self.skipped.update(storage.passed_over(url))
        self.skipped.update(links.skipped)
        self.notes = (links.note,) if links.note else ()

    @functools.cached_property
    def photos(self) -> list[str]:
        """Names of the files that are images by their names."""
        return [name for name in self.files if storage.suffix(name) in imaging.EXTENSIONS]

    @functools.cached_property
    def _by_basename(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in self.photos:
            found.setdefault(posixpath.basename(name), []).append(name)
        return found

    def without_photos(self, hint: str = "Name a folder of photos.") -> InputError:
        """The error of a tree in which there is nothing to import."""
        passed = dict(self.skipped)
        if others := len(self.files) - len(self.photos):
            passed[NO_IMAGE] = others
        counts = ", ".join(f"{number} {reason}" for reason, number in passed.items()) or "none"
        why = f"{sum(passed.values())} other files were passed over: {counts}"
        return InputError(f"No photos in {self.url}", why, " ".join(self.notes) or hint)

    @property
    def _is_bare(self) -> bool:
        """True if photos of these annotations may lie elsewhere under the folder above."""
        return "::" not in self.url and (not self.listed or not self.photos)

    @functools.cached_property
    def _around(self) -> dict[str, list[str]]:
        """Photos under the folder above, by the last part of their names."""
        above, own = storage.split(self.url)
        by_basename: dict[str, list[str]] = {}
        if above in {"", "/"}:  # all of a disk is not what lies around a file
            return by_basename
        with contextlib.suppress(PlantmlError):  # a folder that cannot be listed holds nothing that can be read
            for entry in itertools.islice(storage.list_files(above), _LOOKED_AT):
                if storage.suffix(entry.name) in imaging.EXTENSIONS and not is_hidden(entry.name):
                    name = (
                        entry.name.removeprefix(f"{own}/") if entry.name.startswith(f"{own}/") else f"../{entry.name}"
                    )
                    by_basename.setdefault(posixpath.basename(name), []).append(name)
                    self._looked[name] = True
        return by_basename

    def with_suffix(self, *suffixes: str) -> list[str]:
        """Names of the files that end so."""
        return [name for name in self.files if storage.suffix(name) in suffixes]

    def has(self, name: str) -> bool:
        """True if there is a file of that name."""
        if self.listed:
            return name in self.files or name in self._looked
        if text_fault(name):
            return False
        if name not in self._looked:
            self._looked[name] = storage.exists(self.url_of(name))
        return self._looked[name]

    def url_of(self, name: str) -> str:
        """Where a file is, or would be; a name may lead up by `..` only where the tree was not listed."""
        if name in self.files:
            return self.files[name].url
        url = self.url
        while name.startswith("../") and self._is_bare:
            url, name = storage.split(url)[0], name[3:]
        return storage.join(url, name) if url else name

    def read(self, name: str) -> bytes:
        """The bytes of one file. Raises as `storage.read`."""
        return storage.read(self.url_of(name))

    def read_many(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """The bytes of many files, in order. Raises the first error there is."""
        for name, (_, data) in zip(names, storage.read_many(map(self.url_of, names)), strict=True):
            if isinstance(data, PlantmlError):
                raise data
            yield name, data

    def text(self, name: str) -> str:
        """One text file. Raises `InputError` with the line that is no UTF-8."""
        data = as_utf8(self.read(name), self.url_of(name))
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise InputError(f"{self.url_of(name)} is not UTF-8", f"line {line}", "Write it anew, as UTF-8.") from error

    def json(self, name: str) -> Any:
        """One JSON file, parsed once. Raises `InputError` if it is none."""
        if name not in self._parsed:
            self._parsed[name] = parse_json(self.read(name), self.url_of(name))
        return self._parsed[name]

    def annotation_files(self) -> Iterator[tuple[str, Any]]:
        """JSON files that may describe the whole set, parsed: not those that lie one beside each photo."""
        stems = {posixpath.splitext(name)[0] for name in self._by_basename}
        for name in self.with_suffix(".json"):
            if posixpath.splitext(posixpath.basename(name))[0] in stems:
                continue
            try:
                yield name, self.json(name)
            except InputError:
                continue

    def locate(self, names: Sequence[str], folders: Iterable[str]) -> list[str]:
        """Where the photos lie that an annotation names.

        Args:
            names: as the annotation writes them.
            folders: relative to which they may be meant.

        Returns:
            Names in this tree. One that is nowhere is given where most of the others are. One that only its last
            part finds is counted in `decisions`; one that could be several photos is in `ambiguous`.
        """
        plain = [_plain(name) for name in names]
        sample = plain[: _LISTED_SAMPLE if self.listed or storage.is_local(self.url) else _SAMPLE]
        tried = list(dict.fromkeys(posixpath.normpath(folder) if folder else "" for folder in folders))
        tried = ["" if folder == "." else folder for folder in tried]
        if self.listed:
            tried = [folder for folder in tried if not folder.startswith("..")]
        hits = {folder: sum(self.has(_join(folder, name)) for name in sample) for folder in tried}
        tried.sort(key=lambda folder: -hits[folder])
        searched = self.listed or (self._is_bare and max(hits.values(), default=0) < len(sample))
        return [self._find(name, tried) if searched else _join(next(iter(tried), ""), name) for name in plain]

    def _find(self, name: str, folders: Sequence[str]) -> str:
        for folder in folders:
            if self.has(path := _join(folder, name)):
                return path
        alike = self._alike(name)
        if len(alike) == 1:
            self.decisions[f"Photos found by their names in {posixpath.dirname(alike[0]) or self.url}"] += 1
            return alike[0]
        path = _join(folders[0] if folders else "", name)
        while self.listed and path.startswith("../"):  # a set says nothing of what lies around it
            path = path[3:]
        if alike:
            self.ambiguous[path] = f"{AMBIGUOUS}: {name} may be {' or '.join(alike[:3])}"
        return path

    def _alike(self, name: str) -> list[str]:
        """Photos with the last part of a name; of several those that share most of its folders."""
        by_basename = self._around if self._is_bare else self._by_basename
        alike = by_basename.get(posixpath.basename(name), [])
        shared = [_shared_end(name, other) for other in alike]
        return [other for other, parts in zip(alike, shared, strict=True) if parts == max(shared)]


def as_utf8(data: bytes, url: str) -> bytes:
    """A text file's bytes without a byte order mark; from UTF-16, which such a mark tells, to UTF-8.

    Raises:
        InputError: it has the mark of UTF-16, and is not.
    """
    if not data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode("utf-16").encode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{url} is not UTF-16", f"its mark says so; byte {error.start}", "Write it as UTF-8."
        ) from error


def is_hidden(name: str) -> bool:
    """True for what systems leave behind beside photos: `.DS_Store`, `__MACOSX/…`."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _join(folder: str, name: str) -> str:
    return posixpath.normpath(posixpath.join(folder, name))


def _shared_end(name: str, other: str) -> int:
    """How many parts two paths share at their ends."""
    pairs = zip(reversed(name.split("/")), reversed(other.split("/")), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _plain(name: str) -> str:
    """A name as annotation tools write it, with forward slashes and relative."""
    return posixpath.normpath(name.replace("\\", "/")).lstrip("/")
