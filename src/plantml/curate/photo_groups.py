"""Photos that show one thing, for those who must not tear them apart."""

from collections.abc import Callable

import polars as pl

from plantml.concurrency import Progress
from plantml.curate.checks import duplicates
from plantml.curate.context import Subject
from plantml.data.manifest import KEY, Version
from plantml.data.splits import PixelGroups
from plantml.settings import Machine


def seen(machine: Machine, progress: Callable[[str], Progress]) -> PixelGroups:
    """A function that finds crops, turns and overlaps among a version's usable photos; see `splits.split_dataset`."""

    def find(version: Version, usable: pl.DataFrame) -> list[int | None]:
        subject = Subject(version, machine, progress=progress)
        number: dict[int, int] = {}
        for group, (members, _) in enumerate(duplicates.linked(duplicates.by_keypoints(subject))):
            number.update(dict.fromkeys(members, group))
        places = {key: place for place, key in enumerate(subject.pictures.select(KEY).iter_rows())}
        found = [number.get(places.get(key, -1)) for key in usable.select(KEY).iter_rows()]
        # A photo stands for its copies, which are not compared themselves.
        twin = subject.twins.group
        for row, key in enumerate(usable.select(KEY).iter_rows()):
            if found[row] is None and key in places:
                found[row] = number.get(int(twin[places[key]]))
        return found

    return find
