"""Groups of overlapping photos, which a split must keep together."""

from collections.abc import Callable

import polars as pl

from plantml.concurrency import Progress
from plantml.curate.checks import duplicates
from plantml.curate.context import Subject
from plantml.data.manifest import KEY, Version
from plantml.data.splits import PixelGroups
from plantml.settings import Machine


def finder(machine: Machine, progress: Callable[[str], Progress]) -> PixelGroups:
    """Return a function that groups crops, rotations and overlaps of usable photos; see `splits.split_dataset`."""

    def find(version: Version, usable: pl.DataFrame) -> list[int | None]:
        subject = Subject(version, machine, progress=progress)
        number: dict[int, int] = {}
        for group, (members, _) in enumerate(duplicates.linked(duplicates.by_keypoints(subject))):
            number.update(dict.fromkeys(members, group))
        places = {key: place for place, key in enumerate(subject.pictures.select(KEY).iter_rows())}
        groups = [number.get(places.get(key, -1)) for key in usable.select(KEY).iter_rows()]
        # One photo represents its duplicates, which are not compared themselves.
        twin = subject.twins.group
        for row, key in enumerate(usable.select(KEY).iter_rows()):
            if groups[row] is None and key in places:
                groups[row] = number.get(int(twin[places[key]]))
        return groups

    return find
