"""Pascal VOC: one XML file per photo, with boxes by their corners in pixels.

Format: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html. Corners are taken as edges,
as most tools write them; the original VOC counted pixels from 1.
"""

import posixpath
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from plantml import storage
from plantml.data.importers import SPLIT_NAMES, ImportListing, split_of
from plantml.data.importers.annotations import Annotated, NamedBox, Reading, assemble, counted, size_of
from plantml.data.importers.tree import Tree
from plantml.errors import InputError
from plantml.parsing import parse_xml

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_PHOTO_FOLDERS = {"annotations": "JPEGImages", "annotation": "images", "labels": "images", "xml": "images"}
_PROBED = 5


def fits(tree: Tree) -> bool:
    """True if one of the first XML files is VOC."""
    return any(tree.root_tag(name) == "annotation" for name in tree.with_suffix(".xml")[:_PROBED])


def list_voc(tree: Tree, reading: Reading) -> ImportListing:
    """List a tree's photos with the boxes of their XML files.

    The photo of `a.xml` is the one named `a`, or else the one in its `filename`. An object without a box
    labels the whole photo. A photo without an XML file has no boxes: it is a true negative. The photo of a
    malformed file is excluded, with the reason.
    """
    files = tree.with_suffix(".xml")
    if not files:
        raise InputError(
            f"No VOC files in {tree.url}",
            "it has no .xml file",
            "Name the folder with the .xml files, or choose another --format.",
        )
    splits = _splits(tree)
    by_stem: dict[str, list[str]] = {}
    for name in tree.photos:
        by_stem.setdefault(_stem(name), []).append(name)
    photos: dict[str, Annotated] = {}
    notes: Counter[str] = Counter()
    for file, data in tree.read_many(files):
        try:
            root = parse_xml(data)
            if root.tag != "annotation":
                notes["XML files that are not annotations"] += 1
                continue
            photo = _photo(tree, file, root, by_stem, notes)
            annotated = _annotated(tree, photo, root, splits)
        except ValueError as error:
            photo = _photo(tree, file, None, by_stem, notes)
            annotated = Annotated(
                photo, tree.url_of(photo), split=_split(photo, splits), reason=f"bad-annotation: {error}"
            )
        if photo in photos:
            raise InputError(f"{photo} has two XML files", f"{file} is the second", "Remove one.")
        photos[photo] = annotated
    for name in tree.photos:
        if name not in photos:
            notes["Photos without an XML file, imported as photos without boxes"] += 1
            photos[name] = Annotated(name, tree.url_of(name), boxes=(), split=_split(name, splits))
    return assemble(photos.values(), reading, tree.skipped, counted(notes + tree.decisions))


def _annotated(tree: Tree, photo: str, root: "Element", splits: Mapping[str, str]) -> Annotated:
    boxes, classes = [], []
    for each in root.iter("object"):
        name = (each.findtext("name") or "").strip() or None
        corners = each.find("bndbox")
        if corners is not None:
            left, top, right, bottom = (_number(corners, side) for side in ("xmin", "ymin", "xmax", "ymax"))
            boxes.append(NamedBox(left, top, right - left, bottom - top, name))
        elif name is not None and name not in classes:
            classes.append(name)
    size = root.find("size")
    return Annotated(
        photo,
        tree.url_of(photo),
        classes,
        boxes=None if classes and not boxes else boxes,
        split=_split(photo, splits),
        size=None if size is None else size_of(size.findtext("width"), size.findtext("height")),
        reason=tree.ambiguous.get(photo, ""),
    )


def _number(corners: "Element", side: str) -> float:
    text = corners.findtext(side)
    try:
        return float(text or "")
    except ValueError:
        raise ValueError(f"a box without a {side}: {text!r}") from None


def _photo(tree: Tree, file: str, root: "Element | None", by_stem: Mapping[str, list[str]], notes: Counter[str]) -> str:
    """The nearest photo of an XML file; without one, the path where it should be."""
    filename = (root.findtext("filename") or "").strip() if root is not None else ""
    own, named = by_stem.get(_stem(file), []), _stem(filename.replace("\\", "/"))
    if own:
        if named in by_stem and named != _stem(file):
            notes["XML files that name another photo in `filename`; the photo of the file's own name is used"] += 1
        return max(own, key=lambda name: len(posixpath.commonprefix([name, file])))
    parent, folder = posixpath.split(posixpath.dirname(file))
    beside = [posixpath.join(parent, _PHOTO_FOLDERS.get(folder.lower(), folder)), posixpath.dirname(file), ""]
    return tree.locate([filename or f"{_stem(file)}.jpg"], beside)[0]


def _splits(tree: Tree) -> dict[str, str]:
    """Split by the photo's stem, from `ImageSets/Main/train.txt` and the like."""
    splits: dict[str, str] = {}
    for name in tree.with_suffix(".txt"):
        word = _stem(name).lower()
        if "ImageSets" not in name.split("/") or word not in SPLIT_NAMES:
            continue
        for line in tree.text(name).splitlines():
            if line.strip():
                splits[line.strip()] = SPLIT_NAMES[word]
    return splits


def _split(photo: str, splits: Mapping[str, str]) -> str | None:
    return splits.get(_stem(photo).strip()) or split_of(photo)


def _stem(name: str) -> str:
    base = storage.basename(name)
    return posixpath.splitext(base)[0]
