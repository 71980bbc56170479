"""COCO: one JSON file, or one per split, of images, categories and annotations.

Format: https://cocodataset.org/#format-data. Boxes are [x, y, width, height] in pixels of the photo.
Attributes of annotations follow CVAT: https://docs.cvat.ai/docs/dataset_management/formats/format-coco/.
"""

import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from plantml.data.boxes import around
from plantml.data.importers import SPLIT_NAMES, ImportListing, split_of
from plantml.data.importers.annotations import (
    Annotated,
    NamedBox,
    Reading,
    assemble,
    attribute_labels,
    counted,
    files_of,
    size_of,
    understood,
)
from plantml.data.importers.tree import Tree
from plantml.data.importers.vetting import name_of
from plantml.errors import InputError

_FOLDERS = ("", "images", "..", "../images", "../JPEGImages", "../photos")


def is_coco(content: Any) -> bool:
    """True if parsed JSON has the keys of a COCO file."""
    return (
        isinstance(content, dict)
        and isinstance(content.get("images"), list)
        and isinstance(content.get("categories"), list)
        and all(isinstance(image, dict) and "file_name" in image for image in content["images"][:5])
    )


def fits(tree: Tree) -> bool:
    """True if a file in the tree is COCO."""
    return any(is_coco(content) for _, content in tree.annotation_files())


def list_coco(tree: Tree, reading: Reading, file: str | None = None) -> ImportListing:
    """List the photos of a tree's COCO files, or of one file.

    Category ids are looked up, whatever their order. An annotation without a box labels the whole photo. A
    photo without annotations counts as annotated without boxes. Boxes are kept as written; crowd regions are left
    out. Attributes of a box that are named like targets become its labels: a text is a class, a number a value.

    Raises:
        InputError: a photo is named twice, or an annotation refers to an undefined category.
    """
    files = files_of(tree, file, is_coco, "COCO", "images with file_name, and categories")
    with understood(tree.url):
        annotations = (each for name in files for each in tree.json(name).get("annotations") or ())
        drawn = any(each.get("bbox") or each.get("segmentation") for each in annotations)
    notes: Counter[str] = Counter()
    photos: dict[str, tuple[str, Annotated]] = {}
    for name in files:
        with understood(tree.url_of(name)):
            named = list(_photos(tree, name, notes, drawn=drawn))
        for photo in named:
            before = photos.get(photo.name)
            if before:
                raise InputError(
                    f"{photo.name} is named twice",
                    f"by {before[0]} and {name}" if before[0] != name else f"by {name}",
                    "Name one of the files as the source.",
                )
            photos[photo.name] = name, photo
    annotated = (photo for _, photo in photos.values())
    return assemble(annotated, reading, tree.skipped_besides(photos), counted(notes + tree.decisions))


def _photos(tree: Tree, file: str, notes: Counter[str], *, drawn: bool) -> Iterator[Annotated]:
    content = tree.json(file)
    names = {number: name_of(each["name"]) for number, each in _by_id(content["categories"]).items()}
    by_image: dict[Any, list[Mapping[str, Any]]] = {number: [] for number in _by_id(content["images"])}
    for each in content.get("annotations") or ():
        if each.get("image_id") not in by_image:
            notes["Annotations of images that are not in the file"] += 1
        else:
            by_image[each["image_id"]].append(each)
    looked_at = drawn and "annotations" in content
    split = _split(file)
    locations = tree.locate([name_of(image["file_name"]) for image in content["images"]], _folders(file))
    for image, name in zip(content["images"], locations, strict=True):
        boxes, classes = [], []
        for each in by_image[image["id"]]:
            label = _category(tree.url_of(file), names, each)
            if each.get("iscrowd"):
                notes["Crowd regions left out, as their boxes hold many plants"] += 1
                continue
            box = _box(each, notes)
            if box is not None:
                boxes.append(NamedBox(*box, label, attribute_labels(each.get("attributes"), notes)))
            elif label is not None and label not in classes:
                classes.append(label)
        yield Annotated(
            name,
            tree.url_of(name),
            classes,
            boxes=boxes if looked_at else None,
            split=split or split_of(name),
            size=size_of(image.get("width"), image.get("height")),
            reason=tree.ambiguous.get(name, ""),
        )


def _by_id(things: Sequence[Mapping[str, Any]]) -> dict[Any, Mapping[str, Any]]:
    """Images or categories by id. Raises `TypeError` or `ValueError` for an invalid or repeated id."""
    by_id: dict[Any, Mapping[str, Any]] = {}
    for thing in things:
        number = thing["id"]
        if not isinstance(number, int | float | str):
            raise TypeError(f"an id is a number or a string, not {number!r}")
        if number in by_id:
            raise ValueError(f"the id {number!r} appears twice")
        by_id[number] = thing
    return by_id


def _box(annotation: Mapping[str, Any], notes: Counter[str]) -> tuple[float, float, float, float] | None:
    box = annotation.get("bbox")
    if box:
        if len(box) != 4:
            raise InputError(
                f"Annotation {annotation.get('id')} has a box of {len(box)} numbers",
                "a box has four",
                "Correct it in the annotation file.",
            )
        try:
            x, y, w, h = map(float, box)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"annotation {annotation.get('id')!r} has a box that is not four numbers: {error}"
            ) from error
        return x, y, w, h
    polygons = annotation.get("segmentation")
    if not isinstance(polygons, list) or not polygons:
        return None
    notes["Polygons imported as their bounding box"] += 1
    flat = [value for polygon in polygons for value in polygon]
    return around(flat[::2], flat[1::2])


def _category(file: str, names: Mapping[Any, str], annotation: Mapping[str, Any]) -> str | None:
    number = annotation.get("category_id")
    if number is None:
        return None
    try:
        return names[number]
    except KeyError:
        raise InputError(
            f"{file} does not define category {number}",
            f"annotation {annotation.get('id')} uses it; the file defines {len(names)} others",
            "Add it to categories, with its name.",
        ) from None


def _words(file: str) -> list[str]:
    return [word for word in re.split(r"[_\-.\s]+", posixpath.basename(file)) if word]


def _split(file: str) -> str | None:
    """The split in `instances_train2017.json` or `valid/_annotations.coco.json`."""
    words = [word.lower().rstrip("0123456789") for word in _words(file)]
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), split_of(file))


def _folders(file: str) -> list[str]:
    """Folders that file names may be relative to: the file's own, `images` beside it, or one named like the split."""
    here, split = posixpath.dirname(file), _split(file)
    words = [*_words(file)[:-1], *(word for word, name in SPLIT_NAMES.items() if name == split)]
    tried = [*_FOLDERS, *(f"{folder}/{word}" for word in words for folder in ("..", "../images", "images", "."))]
    return [posixpath.join(here, folder) for folder in tried] + [""]
