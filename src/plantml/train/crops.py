"""A dataset of crops: each box of a dataset as a photo of its own, to train the classifier of a model of two stages."""

import hashlib
import io
from collections.abc import Iterator
from typing import Any

import polars as pl
from PIL import Image

from plantml import imaging, storage
from plantml.concurrency import Progress, Stop
from plantml.data import boxes, manifest, photos, versions
from plantml.data.manifest import Version
from plantml.settings import Machine


def crop_dataset(version: Version, url: str, machine: Machine, progress: Progress, stop: Stop) -> Version:
    """The crops of a version's boxes as a dataset at `url`; the one that is there, if it is of the same version.

    A crop is cut as in detection, see `imaging.corners_of_crop`, and stored without loss. Crops of one photo share a
    group: the photo's group or else its name, so that no split tears them apart.

    Args:
        version: with the targets of its boxes.
        url: of the dataset.
        machine: cache for remote photos.
        progress: called with (done, total) photos.
        stop: checked after each photo.
    """
    parameters = {"from": version.ref, "fingerprint": version.fingerprint}
    if versions.numbers(url):
        existing = versions.load(url)
        if existing.commit is not None and dict(existing.commit.parameters) == parameters:
            return existing
    rows: list[dict[str, Any]] = []
    drawn = version.usable().filter(pl.col("boxes").list.len() > 0)
    read = photos.read_ahead(
        ((image_id, version.image_url(path)) for image_id, path in drawn.select("image_id", "path").iter_rows()),
        machine.cache(),
    )
    for done, (row, (_, data)) in enumerate(zip(drawn.iter_rows(named=True), read, strict=True), start=1):
        if stop:
            raise stop.error(f"Training stopped while cutting crops: {done} of {drawn.height} photos",
                             "Repeat the same command to resume.")  # fmt: skip
        if isinstance(data, bytes):  # an unreadable photo is left out, as in training
            rows.extend(_crops(row, data, url))
        progress(done, drawn.height)
    frame = manifest.conform(pl.DataFrame(rows, infer_schema_length=None), version.targets)
    head = max(versions.numbers(url), default=0)
    crops = Version(url, head + 1, frame, version.targets)
    return versions.commit(crops, "crop", parameters, head)


def _crops(row: dict[str, Any], data: bytes, url: str) -> Iterator[dict[str, Any]]:
    """The rows of a photo's crops, whose pixels are stored."""
    try:
        photo = Image.fromarray(imaging.full(data))
    except photos.UNREADABLE:
        return
    for number, box in enumerate(boxes.from_rows(row["boxes"]) or (), start=1):
        crop = photo.crop(imaging.corners_of_crop((box.x, box.y, box.w, box.h), *photo.size))
        buffer = io.BytesIO()
        crop.save(buffer, "PNG", compress_level=1)
        content = buffer.getvalue()
        image_id = hashlib.sha256(content).hexdigest()
        path = f"images/{image_id[:2]}/{image_id}.png"
        storage.write(storage.join(url, path), content)
        yield {
            "source": row["source"], "name": f"{row['name']}#{number}", "image_id": image_id, "path": path,
            "width": crop.width, "height": crop.height, "format": "PNG", "mode": "RGB", "bytes": len(content),
            "group": row["group"] or row["name"], "split": row["split"], "status": manifest.OK, **box.labels,
        }  # fmt: skip
