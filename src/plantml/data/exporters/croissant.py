"""Croissant 1.1: `metadata.json` describes each file, with its hash, and how to read the records.

Specification: https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html.
"""

import hashlib
import json
from typing import Any

from plantml.data.exporters import ExportSet, Written, path
from plantml.data.exporters.output import Output
from plantml.data.exporters.table import missing_from_table, record, to_csv
from plantml.data.importers.sidecar import Sidecar

_TERMS = (
    "citeAs", "column", "equivalentProperty", "extract", "field", "fileObject", "fileProperty", "fileSet", "format",
    "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex",
    "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform",
)  # fmt: skip
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _TERMS},
}
_CSV = "labels.csv"
_SPLITS = {"train": "cr:TrainingSplit", "val": "cr:ValidationSplit", "test": "cr:TestSplit"}
_MIME = {"JPEG": "image/jpeg", "MPO": "image/jpeg"}


def write(content: ExportSet, out: Output) -> Written:
    """Write photos, `labels.csv` with their hashes and labels, and `metadata.json`."""
    rows, files, images = [], [], {}
    for photo, data in out.read(content.photos):
        name = path("images", photo.file)
        out.write(name, data)
        kind = photo.row["format"] or "JPEG"
        files.append(_file(name, data, _MIME.get(kind, f"image/{kind.lower()}")))
        rows.append({**record(name, photo, content.targets, {}, is_csv=True), "sha256": photo.row["image_id"]})
        images[name] = missing_from_table(photo, content.targets, is_csv=True)
    columns = ["image", "split", "group", *(target.name for target in content.targets), "sha256"]
    table = to_csv(columns, rows)
    out.write(_CSV, table)
    name = content.version.url.rstrip("/").rpartition("/")[2]
    labels = ", ".join(target.name for target in content.targets) or "none"
    described = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": name,
        "description": f"{len(rows)} photos of plants with labels: {labels}.",
        "version": f"{content.version.number}.0.0",
        "distribution": [_file(_CSV, table, "text/csv"), *files],
        "recordSet": [_splits(), _records(content)],
    }
    main = json.dumps(described, ensure_ascii=False, indent=1).encode()
    notes = ["Add license, url, creator and datePublished to metadata.json before you publish it."]
    return Written(("metadata.json", main), Sidecar("table", content.targets, {}, images), {"photos": len(rows)}, notes)


def _file(name: str, data: bytes, mime: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{len(data)} B",
        "encodingFormat": mime,
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def _splits() -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "dataType": "cr:Split",
        "key": {"@id": "splits/name"},
        "field": [
            {"@type": "cr:Field", "@id": "splits/name", "name": "name", "dataType": "sc:Text"},
            {"@type": "cr:Field", "@id": "splits/url", "name": "url", "dataType": "sc:URL"},
        ],
        "data": [{"splits/name": name, "splits/url": url} for name, url in _SPLITS.items()],
    }


def _records(content: ExportSet) -> dict[str, Any]:
    kinds = {target.name: target.kind for target in content.targets}
    fields = [_field(name, kinds.get(name, "")) for name in ("image", "sha256", "group", *kinds)]
    split = _field("split", "") | {"references": {"field": {"@id": "splits/name"}}}
    return {
        "@type": "cr:RecordSet",
        "@id": "photos",
        "name": "photos",
        "description": "One record per photo: its path, SHA-256, split and labels.",
        "key": {"@id": "photos/image"},
        "field": [*fields, split],
    }


def _field(column: str, kind: str) -> dict[str, Any]:
    source: dict[str, Any] = {"fileObject": {"@id": _CSV}, "extract": {"column": column}}
    field: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"photos/{column}",
        "name": column,
        "dataType": "sc:Float" if kind == "value" else "sc:Text",
        "source": source,
    }
    if kind == "multilabel":
        source["transform"] = {"separator": "|"}
        field["repeated"] = True
    return field
