"""WebDataset: tar shards per split; beside each photo a `.json` with everything that the dataset knows about it.

Format: https://github.com/webdataset/webdataset. `index.json` lists the shards for `wids`.
"""

import contextlib
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from plantml.data.exporters import ExportPhoto, ExportSet, Written
from plantml.data.exporters.output import Output

SHARD_BYTES = 256 << 20
"""A shard is closed at this size."""

_NAMES = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif", "HEIF": "heic"}
_ALL = "data"


def write(content: ExportSet, out: Output) -> Written:
    """Write shards `train-000000.tar` and so on, each published complete."""
    by_split: dict[str, list[ExportPhoto]] = {}
    for photo in content.photos:
        by_split.setdefault(content.folder(photo) or _ALL, []).append(photo)
    shards: list[dict[str, Any]] = []
    number = 0
    for split, photos in sorted(by_split.items()):
        with contextlib.ExitStack() as shard:
            tar: tarfile.TarFile | None = None
            for photo, data in out.read(photos):
                if tar is None or tar.offset >= SHARD_BYTES:
                    shard.close()
                    name = f"{split}-{sum(known['split'] == split for known in shards):06d}.tar"
                    tar = shard.enter_context(_shard(out, name))
                    shards.append({"url": name, "nsamples": 0, "split": split})
                number += 1
                shards[-1]["nsamples"] += 1
                _add(tar, f"{number:09d}", photo, data)
    index = {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "shardlist": shards,
        "targets": [asdict(target) for target in content.targets],
    }
    counts = {"photos": number, "shards": len(shards)}
    return Written(("index.json", json.dumps(index, ensure_ascii=False).encode()), None, counts)


@contextlib.contextmanager
def _shard(out: Output, name: str) -> Iterator[tarfile.TarFile]:
    with out.staged(name) as file, tarfile.open(file, "w") as tar:
        yield tar


def _add(tar: tarfile.TarFile, key: str, photo: ExportPhoto, data: bytes) -> None:
    record = {
        "name": photo.row["name"],
        "image_id": photo.row["image_id"],
        "width": photo.row["width"],
        "height": photo.row["height"],
        "split": photo.split,
        "group": photo.group,
        "labels": dict(photo.labels),
        "boxes": None if photo.boxes is None else [asdict(box) for box in photo.boxes],
    }
    kind = photo.row["format"] or "JPEG"
    _add_member(tar, f"{key}.{_NAMES.get(kind, kind.lower())}", data)
    _add_member(tar, f"{key}.json", json.dumps(record, ensure_ascii=False).encode())


def _add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
