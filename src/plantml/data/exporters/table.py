"""A list of photos, as CSV or Parquet, beside them."""

import csv
import io
from typing import Any

import polars as pl

from plantml.data.exporters import Photo, Set, Written, path, rest
from plantml.data.exporters.output import Output
from plantml.data.importers.sidecar import Sidecar
from plantml.targets import Target

_SEPARATOR = "|"


def write_csv(content: Set, out: Output) -> Written:
    """`labels.csv`: image, split, group and a column a target; several labels are joined by `|`."""
    return _write(content, out, "labels.csv")


def write_parquet(content: Set, out: Output) -> Written:
    """`labels.parquet`: the same with their types; several labels are a list."""
    return _write(content, out, "labels.parquet")


def _write(content: Set, out: Output, file: str) -> Written:
    is_csv = file.endswith(".csv")
    rows, images = [], {}
    for photo, data in out.read(content.photos):
        name = path("images", photo.file)
        out.put(name, data)
        rows.append(record(name, photo, content.targets, is_csv=is_csv))
        left = unsaid(photo, content.targets, is_csv=is_csv)
        if left:
            images[name] = left
    columns = ["image", "split", "group", *(target.name for target in content.targets)]
    sidecar = Sidecar("table", content.targets, {}, images)
    data = to_csv(columns, rows) if is_csv else _to_parquet(content, columns, rows)
    return Written((file, data), sidecar, {"photos": len(rows)})


def record(name: str, photo: Photo, targets: tuple[Target, ...], *, is_csv: bool) -> dict[str, Any]:
    """One row of the list."""
    row: dict[str, Any] = {"image": name, "split": photo.split, "group": photo.group}
    for target in targets:
        label = photo.labels.get(target.name)
        row[target.name] = _SEPARATOR.join(label) if is_csv and isinstance(label, list) else label
    return row


def unsaid(photo: Photo, targets: tuple[Target, ...], *, is_csv: bool) -> dict[str, Any]:
    """What the list does not say of a photo: boxes, and labels that would come back as others."""
    said = [target.name for target in targets if _comes_back(photo.labels.get(target.name), is_csv=is_csv)]
    left = rest(photo, targets=said, split=photo.split)
    if photo.group and photo.group == photo.group.strip():
        del left["group"]
    return left


def to_csv(columns: list[str], rows: list[dict[str, Any]]) -> bytes:
    """Rows as CSV, nothing for null."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _to_parquet(content: Set, columns: list[str], rows: list[dict[str, Any]]) -> bytes:
    schema = {name: content.version.rows.schema[name] for name in columns if name != "image"}
    buffer = io.BytesIO()
    pl.DataFrame(rows, schema={"image": pl.String, **schema}).write_parquet(buffer)
    return buffer.getvalue()


def _comes_back(label: Any, *, is_csv: bool) -> bool:
    """True if a reader of the list finds the very label."""
    if isinstance(label, list):
        return not is_csv or (bool(label) and all(one == one.strip() != "" and _SEPARATOR not in one for one in label))
    return not isinstance(label, str) or label == label.strip() != ""
