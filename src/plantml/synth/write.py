"""Write a synthetic dataset: photos in class folders, labels, boxes, and the truth about planted defects."""

import csv
import io
import json
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

from plantml import storage
from plantml.concurrency import Progress, silent
from plantml.data.boxes import Box
from plantml.errors import InputError, NotFoundError, PlantmlError
from plantml.parsing import parse_json
from plantml.synth.box_defects import spoil_boxes
from plantml.synth.defects import apply_defect, encode_jpeg, plan_defects
from plantml.synth.scene import render
from plantml.synth.seedling import VIABILITIES
from plantml.synth.spec import SynthSpec, parse_class
from plantml.synth.stand import render_stand

LABEL_COLUMNS = ("image", "category", "health", "disease", "severity", "plant", "background")
STAND_COLUMNS = ("image", "stand", *VIABILITIES)
TRUTH_COLUMNS = ("image", "defect", "of", "detail")

_LOOK = 1
"""Incremented when a spec gives other photos than before, so that two looks do not mix in one folder."""

_SPAWN_PAYS = 200 * 256 * 256
"""Total pixels above which worker processes pay off."""

_CHUNK = 64 * 256 * 256
"""Pixels per chunk of work."""


@dataclass(frozen=True)
class _Delivered:
    """One image file as in the tables: its upright size in pixels, boxes, and cells of `labels.csv` after the image.

    A defect is its kind, the index of the photo that it was made from or `None`, and a detail.
    """

    image: str
    width: int
    height: int
    boxes: Sequence[Box]
    labels: tuple[str, ...]
    defects: Sequence[tuple[str, int | None, str]] = ()


def write(spec: SynthSpec, out: str, *, workers: int | None = None, progress: Progress = silent) -> None:
    """Write the dataset of `spec` to the URL `out`.

    ```
    out/synth.json                                 the spec; written first
    out/images/<category>___<disease>/<name>.jpg   of many plants: images/<tray or row>/<name>.jpg
    out/boxes.json                                 COCO; boxes in pixels of the upright image, labels of boxes
                                                   besides the category as attributes
    out/truth.csv                                  planted defects, if there are any
    out/labels.csv                                 labels with the planted errors; written last
    ```

    The bytes depend on the spec alone, not on `workers`. `None` uses one process for little work and all cores for
    much. Repeating an interrupted or finished call gives the same files.

    The labels and boxes include planted wrong ones. A copy has the labels and the plant of its source; only a leak
    claims another plant.

    Raises:
        InputError: `out` contains anything but (a part of) this dataset.
        StorageError: a file could not be written.
    """
    _claim(spec, out)
    rows: list[_Delivered] = []
    for chunk in _photos(spec, out, workers):
        rows.extend(chunk)
        progress(len(rows), spec.images)
    storage.write(storage.join(out, "boxes.json"), _coco(spec, rows))
    if spec.defects:
        truth = (
            (row.image, kind, "" if source is None else rows[source].image, detail)
            for row in rows
            for kind, source, detail in row.defects
        )
        storage.write(storage.join(out, "truth.csv"), _table(TRUTH_COLUMNS, truth))
    columns = LABEL_COLUMNS if spec.layout == "plant" else STAND_COLUMNS
    storage.write(storage.join(out, "labels.csv"), _table(columns, ((row.image, *row.labels) for row in rows)))


def _claim(spec: SynthSpec, out: str) -> None:
    """Write the spec, or refuse a folder with another dataset."""
    mine = {"plantml_synth": _LOOK, **asdict(spec), "classes": list(spec.classes), "severity": list(spec.severity)}
    note = storage.join(out, "synth.json")
    other = "Choose another folder, or remove its files."
    if storage.exists(note):
        text = storage.read(note)
        try:
            existing = parse_json(text, note)
        except InputError:
            existing = None
        if existing != mine:
            raise InputError(f"{out} contains another synthetic dataset", f"its synth.json says {existing}", other)
    elif file := _any_file(out):
        raise InputError(f"{out} contains other files", f"it has {file}, but no synth.json", other)
    else:
        storage.write(note, json.dumps(mine, indent=1).encode())


def _any_file(out: str) -> str:
    """The name of a file in a folder; empty if there is none but hidden ones."""
    try:
        return next((entry.name for entry in storage.list_files(out) if not entry.name.startswith(".")), "")
    except NotFoundError:
        return ""


def _photos(spec: SynthSpec, out: str, workers: int | None) -> Iterator[list[_Delivered]]:
    """Make all photos, in chunks and in order."""
    workers = _worker_count(spec, out, workers)
    height, width = spec.shape
    step = max(1, min(_CHUNK // (height * width), spec.images // (8 * workers)))
    chunks = [range(spec.images)[start : start + step] for start in range(0, spec.images, step)]
    if workers == 1:
        yield from (_make_chunk(spec, out, chunk) for chunk in chunks)
        return
    # Spawned, not forked: filesystem clients do not survive a fork.
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_leave_signals_to_the_parent)
    try:
        futures = [pool.submit(_make_chunk, spec, out, chunk) for chunk in chunks]
        for future in futures:
            yield future.result()
    except BrokenProcessPool as error:
        raise PlantmlError(
            "A worker process died",
            "it ran out of memory, was killed, or belongs to a script without a main guard",
            "Repeat the call with workers=1, or in a script under: if __name__ == '__main__'.",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_signals_to_the_parent() -> None:
    """Ctrl-C reaches every process of a terminal; the parent ends the others in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _worker_count(spec: SynthSpec, out: str, workers: int | None) -> int:
    if out.startswith("memory://"):  # another process has a memory of its own
        return 1
    if workers is not None:
        if workers < 1:
            raise InputError(f"workers is {workers}", "it must be at least 1", "Leave it out to use all cores.")
        return workers
    height, width = spec.shape
    return 1 if spec.images * height * width < _SPAWN_PAYS else len(os.sched_getaffinity(0))


def _make_chunk(spec: SynthSpec, out: str, indices: range) -> list[_Delivered]:
    make = _make_plant if spec.layout == "plant" else _make_stand
    return [make(spec, out, index) for index in indices]


def _make_plant(spec: SynthSpec, out: str, index: int) -> _Delivered:
    """Render, spoil if planned, and write one photo of a plant."""
    defect = plan_defects(spec).get(index)
    photo = render(spec, index if defect is None or defect.source is None else defect.source)
    if defect is None:
        data, extension, detail = encode_jpeg(photo.pixels, photo.quality), "jpg", ""
    else:
        defective = apply_defect(spec, index, defect, photo)
        photo, data, extension, detail = defective.photo, defective.data, defective.extension, defective.detail
    name = f"images/{photo.class_name}/photo-{index:07d}.{extension}"
    storage.write(storage.join(out, name), data)
    height, width = photo.leaves.shape
    return _Delivered(
        name,
        width,
        height,
        boxes=[Box(*box, {"category": photo.category}) for box in photo.boxes],
        labels=(
            photo.category, photo.health, photo.disease, f"{photo.severity:.4f}", photo.plant, photo.background
        ),
        defects=[(defect.kind, defect.source, detail)] if defect else (),
    )  # fmt: skip


def _make_stand(spec: SynthSpec, out: str, index: int) -> _Delivered:
    """Render and write one photo of many plants, and spoil some of its boxes if asked to."""
    photo = render_stand(spec, index)
    boxes, defects = spoil_boxes(spec, index, photo)
    name = f"images/{photo.stand}/photo-{index:07d}.jpg"
    storage.write(storage.join(out, name), encode_jpeg(photo.pixels, photo.quality))
    height, width = photo.plants.shape
    counts = Counter(box.labels["viability"] for box in boxes)
    labels = (photo.stand, *(str(counts[each]) for each in VIABILITIES))
    return _Delivered(name, width, height, boxes, labels, [(kind, None, detail) for kind, detail in defects])


def _coco(spec: SynthSpec, rows: list[_Delivered]) -> bytes:
    """COCO's format for object detection. What is boxed is a leaf, or one of many plants; its category is the plant."""
    names = dict.fromkeys(parse_class(name).category for name in spec.classes)
    numbers = dict(zip(names, count(1)))
    images: list[dict[str, str | int]] = []
    annotations: list[dict[str, Any]] = []
    for number, row in enumerate(rows, 1):
        images.append({"id": number, "file_name": row.image, "width": row.width, "height": row.height})
        for box in row.boxes:
            attributes = dict(box.labels)
            category = attributes.pop("category", None)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    **({"category_id": numbers[str(category)]} if category else {}),
                    "bbox": [box.x, box.y, box.w, box.h],
                    "area": box.w * box.h,
                    "iscrowd": 0,
                    **({"attributes": attributes} if attributes else {}),
                }
            )
    kind = "leaf" if spec.layout == "plant" else "plant"
    categories = [{"id": number, "name": name, "supercategory": kind} for name, number in numbers.items()]
    document = {"images": images, "annotations": annotations, "categories": categories}
    return json.dumps(document, separators=(",", ":")).encode()


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode()
