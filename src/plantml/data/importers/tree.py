"""The files of a directory or an archive, listed once, for importers."""

import contextlib
import functools
import itertools
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from plantml import imaging, storage
from plantml.data.importers.vetting import text_fault
from plantml.data.tables import as_utf8
from plantml.errors import InputError, PlantmlError
from plantml.parsing import parse_json, parse_xml

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

HIDDEN, NO_IMAGE, UNNAMED = "hidden", "not an image by its name", "named by no annotation"
NOT_UNICODE = "its name is not UTF-8: rename it"

_SAMPLE, _LISTED_SAMPLE = 3, 200

_LOOKED_AT = 200_000
"""How many files above an annotation file are searched for its photos."""

_NAMED_FOLDERS = 3
"""Folders of photos that were found by their names which are all named."""

AMBIGUOUS = "ambiguous"
"""Reason code of a photo whose name matches several files."""


class Tree:
    """A directory's files by their relative names, without the hidden ones.

    Args:
        url: of a directory, or of an archive as `storage.inside` writes it.
        listed: false to look up files one by one: the folder of a single annotation file may be somebody's
            whole home.
        roots: folders elsewhere that links in this one may lead to.

    Attributes:
        url: of the directory.
        files: entries by name, in the order of their names; empty if it was not listed.
        skipped: number of skipped files, by reason.
        notes: sentences about them for the user.
        ambiguous: why a name matches several photos, by the name that `locate` returned.
    """

    def __init__(self, url: str, *, listed: bool = True, roots: Sequence[str] = ()) -> None:
        self.url, self.listed = url, listed
        self.files: dict[str, storage.Entry] = {}
        self.skipped: Counter[str] = Counter()
        self.notes: tuple[str, ...] = ()
        self._by_name_in: Counter[str] = Counter()
        self.ambiguous: dict[str, str] = {}
        self._parsed: dict[str, Any] = {}
        self._looked: dict[str, bool] = {}
        if not listed:
            return
        links = storage.Links(roots)
        for entry in storage.list_files(url, links):
            if is_hidden(entry.name):
                self.skipped[HIDDEN] += 1
            elif not storage.is_unicode(entry.name):  # a manifest cannot hold it
                self.skipped[NOT_UNICODE] += 1
            else:
                self.files[entry.name] = entry
        self.skipped.update(storage.passed_over(url))
        self.skipped.update(links.skipped)
        self.notes = (links.note,) if links.note else ()

    @functools.cached_property
    def photos(self) -> list[str]:
        """Names of the files with an image's extension."""
        return self.with_suffix(*imaging.EXTENSIONS)

    @functools.cached_property
    def _suffixes(self) -> dict[str, str]:
        return {name: storage.suffix(name) for name in self.files}

    @functools.cached_property
    def _kinds(self) -> set[str]:
        return set(self._suffixes.values())

    @functools.cached_property
    def _by_basename(self) -> dict[str, list[str]]:
        by_basename: dict[str, list[str]] = {}
        for name in self.photos:
            by_basename.setdefault(posixpath.basename(name), []).append(name)
        return by_basename

    def without_photos(self, hint: str = "Name a folder of photos.") -> InputError:
        """The error for a tree without photos."""
        passed = dict(self.skipped)
        if others := len(self.files) - len(self.photos):
            passed[NO_IMAGE] = others
        counts = ", ".join(f"{number} {reason}" for reason, number in passed.items()) or "none"
        why = f"{sum(passed.values())} other files were skipped: {counts}"
        return InputError(f"No photos in {self.url}", why, " ".join(self.notes) or hint)

    def skipped_besides(self, names: Iterable[str]) -> Counter[str]:
        """Number of skipped files by reason, photos that no annotation names included."""
        return self.skipped + Counter({UNNAMED: len(set(self.photos) - set(names))})

    @property
    def _is_bare(self) -> bool:
        """True if the photos may lie elsewhere under the parent folder."""
        return "::" not in self.url and (not self.listed or not self.photos)

    @functools.cached_property
    def _around(self) -> dict[str, list[str]]:
        """Photos under the parent folder, by file name."""
        above, own = storage.split(self.url)
        by_basename: dict[str, list[str]] = {}
        if above in {"", "/"}:  # a whole disk is not the surroundings of a file
            return by_basename
        with contextlib.suppress(PlantmlError):  # a folder that cannot be listed has nothing to read
            for entry in itertools.islice(storage.list_files(above), _LOOKED_AT):
                if storage.suffix(entry.name) in imaging.EXTENSIONS and not is_hidden(entry.name):
                    name = (
                        entry.name.removeprefix(f"{own}/") if entry.name.startswith(f"{own}/") else f"../{entry.name}"
                    )
                    by_basename.setdefault(posixpath.basename(name), []).append(name)
                    self._looked[name] = True
        return by_basename

    def with_suffix(self, *suffixes: str) -> list[str]:
        """Names of the files with one of the extensions."""
        if self._kinds.isdisjoint(suffixes):
            return []
        return [name for name, suffix in self._suffixes.items() if suffix in suffixes]

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
        """Where a file is, or would be; `..` may lead up only in a tree that was not listed."""
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
        """The bytes of many files, in order. Raises the first error."""
        for name, (_, data) in zip(names, storage.read_many(map(self.url_of, names)), strict=True):
            if isinstance(data, PlantmlError):
                raise data
            yield name, data

    def text(self, name: str) -> str:
        """One text file. Raises `InputError` with the first line that is not UTF-8."""
        data = as_utf8(self.read(name), self.url_of(name))
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise InputError(f"{self.url_of(name)} is not UTF-8", f"line {line}", "Save it as UTF-8.") from error

    def json(self, name: str) -> Any:
        """One JSON file, parsed once. Raises `InputError` if it is not JSON."""
        if name not in self._parsed:
            self._parsed[name] = parse_json(self.read(name), self.url_of(name))
        return self._parsed[name]

    def xml(self, name: str) -> "Element":
        """The root of one XML file, parsed once. Raises as `parse_xml`."""
        if name not in self._parsed:
            self._parsed[name] = parse_xml(self.read(name))
        root: Element = self._parsed[name]
        return root

    def root_tag(self, name: str) -> str:
        """The tag of the root of one XML file; empty if it is not XML."""
        try:
            return self.xml(name).tag
        except ValueError:
            return ""

    def annotation_files(self) -> Iterator[tuple[str, Any]]:
        """JSON files that may annotate all photos, parsed; not those that belong to a single photo."""
        files = self.with_suffix(".json")
        stems = {posixpath.splitext(name)[0] for name in self._by_basename} if files else set()
        for name in files:
            if posixpath.splitext(posixpath.basename(name))[0] in stems:
                continue
            try:
                yield name, self.json(name)
            except InputError:
                continue

    def locate(self, names: Sequence[str], folders: Iterable[str]) -> list[str]:
        """Locate the photos that an annotation names.

        Args:
            names: as written in the annotation.
            folders: that they may be relative to.

        Returns:
            Names in this tree. A missing photo is placed where most others are. One found by its file name alone is
            counted in `decisions`; one that matches several photos is in `ambiguous`.
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

    @property
    def decisions(self) -> Counter[str]:
        """Photos found by their file name alone, counted by words that say where."""
        folders = self._by_name_in
        where = folders
        if len(folders) > _NAMED_FOLDERS:
            where = Counter({f"{len(folders)} folders, such as {next(iter(folders))}": folders.total()})
        return Counter({f"Photos found by their names in {words}": number for words, number in where.items()})

    def _find(self, name: str, folders: Sequence[str]) -> str:
        for folder in folders:
            if self.has(path := _join(folder, name)):
                return path
        alike = self._alike(name)
        if len(alike) == 1:
            self._by_name_in[posixpath.dirname(alike[0]) or self.url] += 1
            return alike[0]
        path = _join(folders[0] if folders else "", name)
        while self.listed and path.startswith("../"):  # a listed tree has no parent
            path = path[3:]
        if alike:
            self.ambiguous[path] = f"{AMBIGUOUS}: {name} may be {' or '.join(alike[:3])}"
        return path

    def _alike(self, name: str) -> list[str]:
        """Photos with the same file name; of several, those that share most folders."""
        by_basename = self._around if self._is_bare else self._by_basename
        alike = by_basename.get(posixpath.basename(name), [])
        shared = [_shared_end(name, other) for other in alike]
        return [other for other, parts in zip(alike, shared, strict=True) if parts == max(shared)]


def is_hidden(name: str) -> bool:
    """True for hidden files and system files such as `.DS_Store` and `__MACOSX/…`."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _join(folder: str, name: str) -> str:
    return posixpath.normpath(posixpath.join(folder, name))


def _shared_end(name: str, other: str) -> int:
    """How many trailing parts two paths share."""
    pairs = zip(reversed(name.split("/")), reversed(other.split("/")), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _plain(name: str) -> str:
    """A name from an annotation tool as a relative path with forward slashes."""
    return posixpath.normpath(name.replace("\\", "/")).lstrip("/")
