"""Image folders: `class/photo.jpg`, `train/class/photo.jpg`, or photos without a class."""

from collections import Counter
from dataclasses import dataclass, replace

from plantml import storage
from plantml.data.importers import SPLIT_NAMES, ImportListing, Item
from plantml.data.importers.annotations import Reading
from plantml.data.importers.tree import NO_IMAGE, Tree
from plantml.targets import Target


@dataclass(frozen=True)
class _FolderPhoto:
    entry: storage.Entry
    split: str | None
    folder: str


def list_tree(tree: Tree, reading: Reading) -> ImportListing:
    """List the photos of a tree; the folder's name is the class, `train`/`val`/`test` the split.

    Hidden files and files without an image's extension are skipped and counted.
    """
    rule, taxonomy = reading.rule, reading.taxonomy
    skipped = Counter(tree.skipped)
    photos = [_place(tree.files[name]) for name in tree.photos]
    if len(photos) < len(tree.files):
        skipped[NO_IMAGE] += len(tree.files) - len(photos)
    if not photos:
        raise tree.without_photos()
    nested = "/" in rule
    folders = {photo.folder for photo in photos}
    notes: list[str] = []
    if taxonomy is None and reading.sidecar is None and rule == "auto" and len(folders - {""}) < 2:
        notes.append("There is only one folder of photos, so they were imported without labels.")
        rule = "none"
    names = {photo.entry.name: photo.folder if nested else photo.folder.rpartition("/")[2] for photo in photos}
    distinct = {name for name in names.values() if name}
    if taxonomy is None:
        taxonomy = replace(reading, rule=rule).names(distinct)
    items = tuple(
        Item(
            photo.entry.name,
            photo.entry.url,
            labels=taxonomy(name) if (name := names[photo.entry.name]) else {},
            split=photo.split,
            meta={"class": name} if name and rule != "none" else {},
            bytes=photo.entry.size,
        )
        for photo in photos
    )
    targets = tuple(Target(name, "class") for name in taxonomy.targets)
    return ImportListing(items, targets, taxonomy.rule, dict(skipped), tuple(notes), tuple(sorted(distinct)))


def _place(entry: storage.Entry) -> _FolderPhoto:
    """Split and class folder of a file; the first folder named like a split is its split."""
    folders = entry.name.split("/")[:-1]
    split = None
    names = []
    for folder in folders:
        if split is None and folder.lower() in SPLIT_NAMES:
            split = SPLIT_NAMES[folder.lower()]
        else:
            names.append(folder)
    return _FolderPhoto(entry, split, "/".join(names))
