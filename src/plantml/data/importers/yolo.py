"""YOLO: one text file per photo with `class x y w h` lines: centres and sizes as fractions of the photo.

Format: https://docs.ultralytics.com/datasets/detect/. Class names come from `data.yaml`, or from
`classes.txt` or `*.names` in the order of their lines.
"""

import math
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plantml import imaging, storage
from plantml.concurrency import in_threads
from plantml.data.boxes import around
from plantml.data.importers import SPLIT_NAMES, ImportListing, split_of
from plantml.data.importers.annotations import Annotated, NamedBox, Reading, assemble, counted, understood
from plantml.data.importers.tree import Tree
from plantml.data.importers.vetting import name_of
from plantml.data.tables import as_utf8
from plantml.errors import InputError, PlantmlError
from plantml.parsing import parse_yaml

_HEAD = 1 << 16
_NAMES = ("classes.txt", "obj.names")
_LISTS = {f"{word}.txt": name for word, name in SPLIT_NAMES.items()}
_TRIED = 5
"""Label files that are read to recognize a set without class names: some may be empty."""

_THREADS = 4
_REMOTE_THREADS = 16


@dataclass(frozen=True)
class _Config:
    """From `data.yaml` or `classes.txt`: names by id, splits by photo, and whether keypoints follow a box."""

    names: Mapping[int, str]
    splits: Mapping[str, str]
    keypoints: bool = False


def fits(tree: Tree) -> bool:
    """True if there are class names, and label files or a `data.yaml` that names folders of photos."""
    if _yaml(tree):
        return True
    return bool(_names_file(tree)) and any(_label_file(tree, name) for name in tree.photos)


def lacks_names(tree: Tree) -> bool:
    """True if photos have label files, and nothing names their classes: labels that only look like other files."""
    photos = tree.photos if tree.with_suffix(".txt") else ()
    files = [label for name in photos if (label := _label_file(tree, name))][:_TRIED]
    return any(_is_label(line) for _, text in tree.read_many(files) for line in text.splitlines()[:1])


def _is_label(line: bytes) -> bool:
    """True for a class id and at least four numbers."""
    fields = line.split()
    try:
        numbers = [float(field) for field in fields]
    except ValueError:
        return False
    return len(numbers) >= 5 and fields[0].isdigit()


def list_yolo(tree: Tree, reading: Reading) -> ImportListing:
    """List a tree's photos with their boxes.

    A photo without a label file has no boxes: it is a true negative. Polygons become their bounding box.
    Only the headers of photos with boxes are read, for their size. A photo with a malformed label file is
    excluded, and the reason names the line.

    Raises:
        InputError: there are no class names, or a label file has a class without a name.
    """
    config = _config(tree)
    notes: Counter[str] = Counter()
    label_files = {name: label for name in tree.photos if (label := _label_file(tree, name))}
    lines = {
        name: as_utf8(text, tree.url_of(name)).decode("utf-8", "replace").splitlines()
        for name, (_, text) in zip(label_files, tree.read_many(list(label_files.values())), strict=True)
    }
    with_boxes = [name for name, label_lines in lines.items() if any(line.strip() for line in label_lines)]
    threads = _THREADS if storage.is_local(tree.url) else _REMOTE_THREADS
    sizes = dict(zip(with_boxes, in_threads(lambda name: _size(tree.url_of(name)), with_boxes, threads), strict=True))
    photos = []
    for name in tree.photos:
        boxes: list[NamedBox] | None = []
        reason = ""
        if name in sizes:
            boxes, reason = _boxes(label_files[name], lines[name], sizes[name], config, notes)
        split = config.splits.get(name) if config.splits else split_of(name)
        photos.append(Annotated(name, tree.url_of(name), boxes=boxes, split=split, reason=reason))
    if not photos:
        raise InputError(
            f"No photos in {tree.url}",
            "there are class names, but no photos",
            "If the photos are beside this folder, name the folder above.",
        )
    if unlabelled := len(tree.photos) - len(label_files):
        notes["Photos without a label file, imported as photos without boxes"] += unlabelled
    unused = len(set(_label_files(tree)) - set(label_files.values()))
    if unused:
        notes["Label files without a photo"] += unused
    return assemble(photos, reading, tree.skipped, counted(notes))


# --- class names and splits -------------------------------------------------------------------


def _yaml(tree: Tree) -> tuple[str, dict[str, Any]] | None:
    """The dataset's description file and its content, if there is one."""
    for name in tree.with_suffix(".yaml", ".yml"):
        data = tree.read(name)
        try:
            content = parse_yaml(data, tree.url_of(name))
        except InputError:  # it may be unrelated to the photos
            continue
        if isinstance(content, dict) and "names" in content and {"train", "val", "test", "nc", "path"} & set(content):
            return name, content
    return None


def _names_file(tree: Tree) -> str | None:
    by_base = {posixpath.basename(name): name for name in reversed(tree.with_suffix(".txt", ".names"))}
    files = [by_base[name] for name in _NAMES if name in by_base] + tree.with_suffix(".names")
    return files[0] if files else None


def _config(tree: Tree) -> _Config:
    described = _yaml(tree)
    if described:
        name, content = described
        with understood(tree.url_of(name)):
            names = content["names"]
            pairs = names.items() if isinstance(names, dict) else enumerate(names)
            by_id = {int(number): name_of(each) for number, each in pairs}
            return _Config(by_id, _splits(tree, name, content), "kpt_shape" in content)
    file = _names_file(tree)
    if file is None:
        for name in tree.with_suffix(".yaml", ".yml"):
            parse_yaml(tree.read(name), tree.url_of(name))  # an unreadable one is the likeliest reason
        raise InputError(
            f"{tree.url} does not name its classes",
            "YOLO's label files have only numbers",
            "Add data.yaml, or classes.txt with one name per line. For the photos alone: --format folder",
        )
    names_ = [line.strip() for line in tree.text(file).splitlines()]
    return _Config({number: each for number, each in enumerate(names_) if each}, _splits(tree, file, {}))


def _splits(tree: Tree, file: str, content: Mapping[str, Any]) -> dict[str, str]:
    """Split by photo, from the description or lists like `train.txt`; empty without either."""
    here = posixpath.dirname(file)
    root = str(content.get("path") or "")
    splits_of: dict[str, set[str]] = {}
    paths = [
        (split, str(path))
        for split in ("train", "val", "test")
        for path in _listed(content.get(split) or (content.get("valid") if split == "val" else None))
    ]
    if not paths:
        lists = [name for name in tree.with_suffix(".txt") if posixpath.basename(name) in _LISTS]
        paths = [(_LISTS[posixpath.basename(name)], posixpath.relpath(name, here or ".")) for name in lists]
    for split, path in paths:
        for name in _photos_at(tree, here, root, path):
            splits_of.setdefault(name, set()).add(split)
    # A folder that serves as two splits does not split its photos.
    return {name: min(splits) for name, splits in splits_of.items() if len(splits) == 1}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def _photos_at(tree: Tree, here: str, root: str, path: str) -> Iterable[str]:
    """The photos that a path in a description means: those in a folder, or those in a list.

    Descriptions are often written for another machine, so a path may also be relative to their own folder.
    """
    bare = path.replace("\\", "/")
    while bare.startswith(("../", "./")):
        bare = bare.partition("/")[2]
    for tried in (posixpath.join(here, root, path), posixpath.join(here, path), posixpath.join(here, bare)):
        place = posixpath.normpath(tried).lstrip("/")
        if storage.suffix(place) == ".txt" and tree.has(place):
            named = tree.text(place).split("\n")
            names = [line.strip() for line in named if line.strip()]
            return [name for name in tree.locate(names, (posixpath.dirname(place), here, "")) if tree.has(name)]
        inside = [name for name in tree.photos if place == "." or name.startswith(f"{place}/")]
        if inside:
            return inside
    return ()


# --- label files ------------------------------------------------------------------------------


def _label_files(tree: Tree) -> Iterator[str]:
    for name in tree.with_suffix(".txt"):
        base = posixpath.basename(name)
        if base not in _NAMES and base not in _LISTS and "label" in posixpath.dirname(name):
            yield name


def _label_file(tree: Tree, photo: str) -> str | None:
    """The label file of a photo: in `labels` if the photo is in `images`, or beside it."""
    stem = posixpath.splitext(photo)[0] + ".txt"
    parts = stem.split("/")
    tried = [stem, f"labels/{stem}"]
    for place in range(len(parts) - 1):
        if parts[place].lower() in {"images", "jpegimages", "photos", "img"}:
            tried.insert(0, "/".join([*parts[:place], "labels", *parts[place + 1 :]]))
    tried.append(posixpath.join(posixpath.dirname(stem), "labels", parts[-1]))
    return next((name for name in tried if name in tree.files and parts[-1] not in _NAMES), None)


def _size(url: str) -> tuple[int, int] | None:
    """Width and height of the upright photo, from its first bytes if possible; `None` if it cannot be read."""
    try:
        try:
            facts = imaging.facts(storage.read_head(url, _HEAD))
        except imaging.ImageError:
            facts = imaging.facts(storage.read(url))
    except PlantmlError:
        return None
    return facts.width, facts.height


def _boxes(
    file: str, lines: Sequence[str], size: tuple[int, int] | None, config: _Config, notes: Counter[str]
) -> tuple[list[NamedBox] | None, str]:
    if size is None:
        notes["Photos with boxes that cannot be read"] += 1
        return None, ""  # the import reads it again and reports why
    boxes = []
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        try:
            number_of_class, values = float(fields[0]), [float(field) for field in fields[1:]]
        except ValueError:
            return None, f"bad-annotation: {file}, line {number}: not numbers"
        box = _box(values, config, notes)
        if box is None:
            return None, f"bad-annotation: {file}, line {number}: {len(fields)} values do not make a box"
        name = config.names.get(int(number_of_class)) if number_of_class.is_integer() else None
        if name is None:
            raise InputError(
                f"{file} has class {fields[0][:40]} in line {number}",
                f"the dataset names {len(config.names)} classes: {_short(config.names)}",
                "Add its name to data.yaml or classes.txt.",
            )
        x, y, w, h = box
        boxes.append(NamedBox(x * size[0], y * size[1], w * size[0], h * size[1], name))
    return boxes, ""


def _box(values: list[float], config: _Config, notes: Counter[str]) -> tuple[float, float, float, float] | None:
    """x, y, w, h as fractions, from a line with a box, a box and its score, or a polygon."""
    if not all(map(math.isfinite, values)):
        return None
    if len(values) in {4, 5} or (config.keypoints and len(values) > 4):
        x, y, w, h = values[:4]
        return x - w / 2, y - h / 2, w, h
    if len(values) < 6 or len(values) % 2:
        return None
    notes["Polygons imported as their bounding box"] += 1
    return around(values[::2], values[1::2])


def _short(names: Mapping[int, str]) -> str:
    return ", ".join(f"{number} {name}" for number, name in list(names.items())[:8])
