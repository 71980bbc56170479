"""Table: photos and a CSV or Parquet list of their labels; a row without a photo has no path."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from plantml.data import tables
from plantml.data.exporters import ExportPhoto, ExportSet, Written, path, sidecar_entry
from plantml.data.exporters.output import Output
from plantml.data.importers.sidecar import Sidecar
from plantml.data.importers.table import RowNames, metadata_column
from plantml.data.manifest import ANNOTATED_SIZE, IMPORTED_AS
from plantml.targets import Target

_SEPARATOR = "|"


def write_csv(content: ExportSet, out: Output) -> Written:
    """Write `labels.csv`: image, split, group, targets and metadata; several labels are joined by `|`."""
    return _write(content, out, "labels.csv")


def write_parquet(content: ExportSet, out: Output) -> Written:
    """Write `labels.parquet`: the same columns with their types; several labels are a list."""
    return _write(content, out, "labels.parquet")


def _write(content: ExportSet, out: Output, file: str) -> Written:
    is_csv = file.endswith(".csv")
    metas = _metadata(content)
    columns = ["image", "split", "group", *(target.name for target in content.targets), *metas.values()]
    rows, images, row_names = [], {}, RowNames(columns, "image")
    for photo, data in out.read(content.photos):
        name = path("images", photo.file)
        out.write(name, data)
        rows.append(record(name, photo, content.targets, metas, is_csv=is_csv))
        images[name] = missing_from_table(photo, content.targets, is_csv=is_csv)
    for bare in content.bare:
        rows.append(record(None, bare, content.targets, metas, is_csv=is_csv))
        images[row_names.of(rows[-1])] = missing_from_table(bare, content.targets, is_csv=is_csv)
    sidecar = Sidecar("table", content.targets, {}, images)
    data = to_csv(columns, rows) if is_csv else _to_parquet(content, columns, rows)
    return Written((file, data), sidecar, {"photos": len(content.photos), "rows": len(rows)})


def _metadata(content: ExportSet) -> dict[str, str]:
    """The columns of metadata that some row fills, by their name in the manifest; not those of plantml itself."""
    rows = [photo.row for photo in (*content.photos, *content.bare)]
    own = {IMPORTED_AS, ANNOTATED_SIZE}
    names = [name for name in content.version.rows.columns if name.startswith("meta_") and name not in own]
    filled = [name for name in names if any(row[name] is not None for row in rows)]
    return {name: metadata_column(name, content.targets) for name in filled}


def record(
    name: str | None, photo: ExportPhoto, targets: Sequence[Target], metas: Mapping[str, str], *, is_csv: bool
) -> dict[str, Any]:
    """One row of the list; `metas` are columns by their name in the manifest."""
    row: dict[str, Any] = {"image": name, "split": photo.split, "group": photo.group}
    row |= {column: photo.row[meta] for meta, column in metas.items()}
    for target in targets:
        label = photo.labels.get(target.name)
        row[target.name] = _SEPARATOR.join(label) if is_csv and isinstance(label, list) else label
    return row


def missing_from_table(photo: ExportPhoto, targets: tuple[Target, ...], *, is_csv: bool) -> dict[str, Any]:
    """The photo's entry in the sidecar: boxes, and labels that the list would change."""
    complete = [target.name for target in targets if _comes_back(photo.labels.get(target.name), is_csv=is_csv)]
    entry = sidecar_entry(photo, targets=complete, split=photo.split)
    if photo.group and photo.group == photo.group.strip():
        del entry["group"]
    return entry


def to_csv(columns: list[str], rows: list[dict[str, Any]]) -> bytes:
    """Rows as CSV; null is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _to_parquet(content: ExportSet, columns: list[str], rows: list[dict[str, Any]]) -> bytes:
    types = {target.name: content.version.rows.schema[target.name] for target in content.targets}
    return tables.to_parquet(pl.DataFrame(rows, schema={name: types.get(name, pl.String) for name in columns}))


def _comes_back(label: Any, *, is_csv: bool) -> bool:
    """True if the label survives the list unchanged."""
    if isinstance(label, list):
        return not is_csv or (bool(label) and all(one == one.strip() != "" and _SEPARATOR not in one for one in label))
    return not isinstance(label, str) or label == label.strip() != ""
