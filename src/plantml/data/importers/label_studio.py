"""Label Studio's JSON export: a list of tasks with the results of their annotations.

Format: https://labelstud.io/guide/export. Choices label the whole photo; rectangles are boxes, written in
percent of the photo's size, which stands beside them.
"""

import math
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from plantml import imaging, storage
from plantml.data.boxes import around
from plantml.data.importers import ImportListing, split_of
from plantml.data.importers.annotations import (
    Annotated,
    NamedBox,
    Reading,
    assemble,
    counted,
    files_of,
    size_of,
    understood,
)
from plantml.data.importers.table import KNOWN_TARGETS
from plantml.data.importers.tree import Tree
from plantml.data.importers.vetting import name_of
from plantml.data.labels import with_health
from plantml.errors import InputError

_UPLOADED = re.compile(r"^[0-9a-f]{8}-")
_FOLDERS = ("", "images", "..", "../images")


def is_label_studio(content: Any) -> bool:
    """True if parsed JSON is a list of tasks."""
    return (
        isinstance(content, list)
        and bool(content)
        and all(isinstance(task, dict) and isinstance(task.get("data"), dict) for task in content[:5])
    )


def fits(tree: Tree) -> bool:
    """True if a file in the tree is an export of Label Studio."""
    return any(is_label_studio(content) for _, content in tree.annotation_files())


def list_label_studio(tree: Tree, reading: Reading, file: str | None = None) -> ImportListing:
    """List the photos of the tree's tasks, or of one file's tasks.

    Choices of a control named `category`, `health` or `disease` label that target; others are read like any
    class name. Of several annotations the first that was not cancelled counts. A task without one is not
    labelled. Predictions are not labels, except in an export by plantml.
    """
    files = files_of(tree, file, is_label_studio, "Label Studio", "a list of tasks with data")
    notes: Counter[str] = Counter()
    photos: list[Annotated] = []
    for name in files:
        with understood(tree.url_of(name)):
            photos += _photos(tree, name, reading, notes)
    counts = Counter(photo.name for photo in photos)
    twice = next((name for name, number in counts.items() if number > 1), None)
    if twice:
        raise InputError(f"{twice} is named by {counts[twice]} tasks", "a photo has one row", "Merge the tasks.")
    return assemble(photos, reading, tree.skipped_besides(counts), counted(notes + tree.decisions))


def _photos(tree: Tree, file: str, reading: Reading, notes: Counter[str]) -> Iterator[Annotated]:
    tasks = tree.json(file)
    results = [_results(task, reading, notes) for task in tasks]
    drawn = any(each.get("type") == "rectanglelabels" for task_results in results for each in task_results or ())
    here = posixpath.dirname(file)
    images = [_image(task["data"]) for task in tasks]
    folders = [posixpath.join(here, folder) for folder in _FOLDERS] + [""]
    places = tree.locate([_path(each) for each in images], folders)
    for task_results, image, place in zip(results, images, places, strict=True):
        name = place
        if not tree.has(place):
            name = tree.locate([_UPLOADED.sub("", posixpath.basename(place))], folders)[0]
        # A photo with a full URL elsewhere is read from there.
        is_elsewhere = not storage.is_local(image) and "::" not in image and not tree.has(name)
        boxes, classes, labels, size = _read(task_results or [], reading, notes)
        yield Annotated(
            image if is_elsewhere else name,
            image if is_elsewhere else tree.url_of(name),
            classes,
            labels,
            boxes=boxes if drawn and task_results is not None else None,
            split=None if is_elsewhere else split_of(name),
            size=size,
            reason="" if is_elsewhere else tree.ambiguous.get(name, ""),
        )


def _results(task: Mapping[str, Any], reading: Reading, notes: Counter[str]) -> list[dict[str, Any]] | None:
    """The results that count; `None` if the task is not annotated."""
    done = [each for each in task.get("annotations") or () if not each.get("was_cancelled")]
    if len(done) > 1:
        notes["Tasks with several annotations (the first counts)"] += 1
    if not done and task.get("predictions"):
        if reading.sidecar is not None:
            done = task["predictions"]
        else:
            notes["Tasks with predictions alone, which are no labels until somebody submits them in Label Studio"] += 1
    return list(done[0].get("result") or []) if done else None


def _read(
    results: list[dict[str, Any]], reading: Reading, notes: Counter[str]
) -> tuple[list[NamedBox], list[str], dict[str, Any], tuple[int, int] | None]:
    boxes: list[NamedBox] = []
    classes: list[str] = []
    labels: dict[str, Any] = {}
    size = None
    own = {target.name for target in reading.sidecar.targets} if reading.sidecar else set()
    for each in results:
        value = each.get("value") or {}
        if "original_width" in each:
            size = size_of(each["original_width"], each.get("original_height"))
        if each.get("type") == "choices":
            choices = [name_of(choice) for choice in value["choices"]]
            control = str(each.get("from_name"))
            if control in own or (control in KNOWN_TARGETS and reading.rule == "auto" and reading.taxonomy is None):
                labels[control] = choices if len(choices) != 1 else choices[0]
            else:
                classes += [choice for choice in choices if choice not in classes]
        elif each.get("type") == "rectanglelabels":
            boxes.append(_box(each, value, notes))
        else:
            notes[f"Results that are neither choices nor rectangles ({each.get('type')})"] += 1
    if isinstance(labels.get("disease"), str) and not own:
        labels = dict(with_health(labels))
    return boxes, classes, labels, size


def _box(result: Mapping[str, Any], value: Mapping[str, Any], notes: Counter[str]) -> NamedBox:
    width, height = float(result["original_width"]), float(result["original_height"])
    x, y = float(value["x"]) * width / 100, float(value["y"]) * height / 100
    w, h = float(value["width"]) * width / 100, float(value["height"]) * height / 100
    names = value.get("rectanglelabels") or [None]
    if len(names) > 1:
        notes["Rectangles with several labels (the first counts)"] += 1
    turn = math.radians(float(value.get("rotation") or 0))
    if turn:
        notes["Rotated rectangles imported as their bounding box"] += 1
        corners = [(0.0, 0.0), (w, 0.0), (0.0, h), (w, h)]
        xs = [x + a * math.cos(turn) - b * math.sin(turn) for a, b in corners]
        ys = [y + a * math.sin(turn) + b * math.cos(turn) for a, b in corners]
        x, y, w, h = around(xs, ys)
    return NamedBox(x, y, w, h, None if names[0] is None else name_of(names[0]))


def _image(data: Mapping[str, Any]) -> str:
    """The photo of a task: its `image` value, or else the first value with an image's extension."""
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    images = [value for value in texts.values() if storage.suffix(_path(value)) in imaging.EXTENSIONS]
    image = texts.get("image") or (images[0] if images else "")
    if not image:
        raise ValueError(f"a task without a photo; its data: {', '.join(data) or 'none'}")
    return image


def _path(image: str) -> str:
    """The path in `/data/local-files/?d=a/b.jpg`, `/data/upload/1/b.jpg`, `https://x/a/b.jpg?size=1`, `a/b.jpg`."""
    try:
        parts = urlsplit(image)
    except ValueError:  # brackets are allowed in hosts only
        return image
    if "d" in (query := parse_qs(parts.query)):
        return query["d"][0]
    return unquote(parts.path) if parts.scheme or image.startswith("/data/") else image
