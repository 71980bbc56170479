"""`--sort-into`: sort photos into one folder per label."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from plantml import storage
from plantml.detect.annotate import file_name
from plantml.errors import NotFoundError, UsageError
from plantml.model.records import answer_to
from plantml.targets import Target

How = Literal["link", "copy"]
UNSURE = "_unsure"
"""Folder of photos whose prediction was not accepted; one folder per label below it."""

_UNSAFE = re.compile(r"[^\w .,()+-]")


def write(
    folder: str, records: Iterable[Mapping[str, Any]], targets: Sequence[Target], *, by: str | None, how: How
) -> Counter[str]:
    """Put every photo that has a prediction under its label; existing files stay.

    Args:
        folder: URL of the folder above the labels' folders.
        records: as JSON types.
        targets: of the model.
        by: class target to sort by; by default the first.
        how: `link` makes symbolic links between local files, and copies all others.

    Returns:
        Number of photos added to each folder.

    Raises:
        UsageError: the model has no such class target.
    """
    target = sort_target(targets, by)
    counts: Counter[str] = Counter()
    for record in records:
        if record["failure"] is not None:
            continue
        label = _UNSAFE.sub("_", answer_to(target, record["targets"])[1]["label"]).strip(". ") or "_"
        is_sure = record["decision"] == "accept" or "heat_map" in record  # whose label says it all
        place = label if is_sure else f"{UNSURE}/{label}"
        name = f"{place}/{file_name(record, storage.suffix(record['image'].partition('?')[0]))}"
        url = storage.join(folder, name)
        if _exists(url):
            continue
        try:
            _place(record["image"], url, how)
        except NotFoundError:
            continue  # deleted since the detection
        counts[place] += 1
    return counts


def sort_target(targets: Sequence[Target], by: str | None) -> str:
    """The name of the class target to sort by. Raises `UsageError`."""
    names = [target.name for target in targets if target.kind == "class"]
    if by is not None and by not in names:
        raise UsageError(
            f"Photos cannot be sorted by {by!r}", f"the model's class targets: {', '.join(names)}", "Name one of them."
        )
    if not names:
        raise UsageError(
            "Photos cannot be sorted",
            "the model has no class target",
            "Leave the sorting out, or choose a model with classes.",
        )
    return by or names[0]


def _exists(url: str) -> bool:
    return os.path.lexists(storage.local_path(url)) if storage.is_local(url) else storage.exists(url)


def _place(image: str, url: str, how: How) -> None:
    if how == "link" and storage.is_local(image) and storage.is_local(url):
        link = Path(storage.absolute(url))
        try:
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(storage.absolute(image))
        except (OSError, NotImplementedError):  # not every file system supports them
            pass
        else:
            return
    storage.write(url, storage.read(image))
