"""Image folders: `class/photo.jpg`, `train/class/photo.jpg`, or photos without a class."""

from collections import Counter
from dataclasses import dataclass

from plantml import images, storage
from plantml.data import labels as label_rules
from plantml.data.importers import SPLIT_NAMES, Item, Listing
from plantml.data.labels import Taxonomy
from plantml.errors import InputError
from plantml.targets import Target


@dataclass(frozen=True)
class _Found:
    entry: storage.Entry
    split: str | None
    folder: str


def list_folder(source: str, *, rule: str = "auto", taxonomy: Taxonomy | None = None) -> Listing:
    """List the photos of a directory tree; the folder's name is the class, `train`/`val`/`test` the split.

    Hidden files and files without an image's extension are passed over and counted.
    """
    skipped: Counter[str] = Counter()
    found = []
    for entry in storage.list_files(source):
        reason = _pass_over(entry.name)
        if reason:
            skipped[reason] += 1
        else:
            found.append(_place(entry))
    if not found:
        raise InputError(f"No photos in {source}", f"{sum(skipped.values())} other files were passed over")
    nested = "/" in rule
    folders = {photo.folder for photo in found}
    notes: list[str] = []
    if taxonomy is None and rule == "auto" and len(folders - {""}) < 2:
        notes.append("There is only one folder of photos, so they came in without labels.")
        rule = "none"
    names = {photo.entry.name: photo.folder if nested else photo.folder.rpartition("/")[2] for photo in found}
    if taxonomy is None:
        taxonomy = label_rules.read_names((name for name in names.values() if name), rule)
    items = tuple(
        Item(
            photo.entry.name,
            photo.entry.url,
            labels=taxonomy(name) if (name := names[photo.entry.name]) else {},
            split=photo.split,
            meta={"class": name} if name and rule != "none" else {},
        )
        for photo in found
    )
    targets = tuple(Target(name, "class") for name in taxonomy.targets)
    return Listing(items, targets, taxonomy.rule, dict(skipped), tuple(notes))


def _pass_over(name: str) -> str:
    if any(part.startswith(".") for part in name.split("/")):
        return "hidden"
    return "" if storage.suffix(name) in images.EXTENSIONS else "not an image by its name"


def _place(entry: storage.Entry) -> _Found:
    """Split and class folder of a file: the first folder that is called like a split is one."""
    folders = entry.name.split("/")[:-1]
    split = None
    kept = []
    for folder in folders:
        if split is None and folder.lower() in SPLIT_NAMES:
            split = SPLIT_NAMES[folder.lower()]
        else:
            kept.append(folder)
    return _Found(entry, split, "/".join(kept))
