"""Symbolic links to folders: which ones a listing follows."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from plantml.storage.urls import is_local, is_within, local_path

LINK_OUTSIDE, LINK_BACK, LINK_DEAD = "link to a folder elsewhere", "link back to a folder listed before", "dead link"


@dataclass
class Links:
    """What becomes of symbolic links to folders in one listing of a local folder.

    A link is followed if it leads to a place inside the listed folder or under one of `roots`, but not back to a
    folder that it lies in. Links to files are followed wherever they lead: who owns the folder made them.

    Attributes:
        roots: other folders whose content may be reached by links.
        outside: links that were not followed, by name, and where they lead.
        back: names of links that lead back to a folder around them, or were followed from elsewhere before.
        dead: names of links to nothing.
    """

    roots: Sequence[str] = ()
    outside: dict[str, str] = field(default_factory=dict)
    back: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)

    @property
    def skipped(self) -> dict[str, int]:
        """How many links were not followed, by reason."""
        counts = {LINK_OUTSIDE: len(self.outside), LINK_BACK: len(self.back), LINK_DEAD: len(self.dead)}
        return {reason: count for reason, count in counts.items() if count}

    @property
    def note(self) -> str:
        """A sentence that names links which lead elsewhere, and the flag that follows them; empty without any."""
        if not self.outside:
            return ""
        shown = ", ".join(f"{name} -> {target}" for name, target in list(self.outside.items())[:3])
        more = f" and {len(self.outside) - 3} more" if len(self.outside) > 3 else ""
        root = os.path.commonpath(self.outside.values())
        root = next(iter(self.outside.values())) if root == "/" else root
        return f"Links to folders elsewhere are not followed: {shown}{more}. To follow them: --allow-root {root}"


class LinkFollower:
    """Decides on the links to folders in one listing. Each is followed once, so that listing ends."""

    def __init__(self, root: Path, links: Links) -> None:
        self._links = links
        self._roots = [os.path.realpath(place) for place in (root, *map(local_path, filter(is_local, links.roots)))]
        self._followed: dict[str, str] = {}
        """The real folder that holds a link, by its name in the listing."""

        self._seen: set[str] = set()

    def follows(self, name: str, path: str) -> bool:
        """True if the link called `name` at `path` is to be followed; else it is taken down."""
        target, holder = os.path.realpath(path), os.path.realpath(os.path.dirname(path))  # noqa: PTH120
        if not any(is_within(target, root) for root in self._roots):
            self._links.outside[name] = target
            return False
        link = os.path.join(holder, os.path.basename(path))  # noqa: PTH118, PTH119
        around = (holder, *(self._followed[outer] for outer in _folders_of(name) if outer in self._followed))
        if link in self._seen or any(is_within(place, target) for place in around):
            self._links.back.append(name)
            return False
        self._seen.add(link)
        self._followed[name] = holder
        return True


def _folders_of(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name
