"""The check report: one self-contained HTML page with embedded thumbnails."""

import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

from plantml import imaging
from plantml.concurrency import Progress, in_threads, silent
from plantml.curate.context import Subject
from plantml.curate.findings import CODES, Report
from plantml.errors import PlantmlError
from plantml.reporting import documents

_SIDE = 160
_SHOWN_ROWS = 8
"""Photos shown per finding."""

_OF_CODE, _IN_ALL = 120, 3000
"""Maximum number of findings per code, and of photos in total, with thumbnails; 3000 make a page of about 15 MB."""


def render(report: Report, subject: Subject, progress: Progress = silent) -> bytes:
    """Render the page as UTF-8 bytes.

    It lists all findings; the first of each code have thumbnails.
    """
    rows = _rows_with_thumbnails(report)
    thumbnails = {}
    for done, (row, data) in enumerate(
        in_threads(lambda row: (row, _thumbnail(subject, row)), rows, subject.machine.threads), start=1
    ):
        if data is not None:
            thumbnails[row] = documents.data_url(data, "jpeg")
        progress(done, len(rows))
    page = documents.fill(
        "plantml.curate",
        "report.html",
        title=report.version.ref,
        data=_embedded(_content(report)),
        pictures=_embedded(thumbnails),
    )
    return page.encode()


def _rows_with_thumbnails(report: Report) -> list[int]:
    rows: dict[int, None] = {}
    counts: dict[str, int] = {}
    for finding in report.findings:
        counts[finding.code] = counts.get(finding.code, 0) + 1
        if counts[finding.code] <= _OF_CODE and len(rows) < _IN_ALL:
            rows.update(dict.fromkeys(finding.rows[:_SHOWN_ROWS]))
    return list(rows)


def _thumbnail(subject: Subject, row: int) -> bytes | None:
    """A small JPEG of the upright photo with its boxes; `None` if it cannot be shown."""
    from PIL import ImageDraw

    version = subject.version.rows
    if version["path"][row] is None or version["phash"][row] is None:
        return None
    try:
        picture = imaging.thumbnail(subject.read(row), _SIDE)
    except PlantmlError:
        return None
    boxes = version["boxes"][row]
    if boxes is not None and len(boxes):
        scale = picture.width / version["width"][row]
        pen = ImageDraw.Draw(picture)
        for box in boxes:
            corners = (box["x"], box["y"], box["x"] + max(box["w"], 0), box["y"] + max(box["h"], 0))
            pen.rectangle([value * scale for value in corners], outline="#ff1744")
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=72)
    return buffer.getvalue()


def _content(report: Report) -> dict[str, Any]:
    version = report.version
    targets = [target.name for target in version.targets]
    rows = sorted({row for finding in report.findings for row in finding.rows})
    photos = version.rows[rows].select("name", "split", *targets)
    labels = [
        [name, " · ".join(_text(value) for value in (*values, split) if value is not None)]
        for name, split, *values in photos.iter_rows()
    ]
    return {
        "dataset": version.ref,
        "rows": version.rows.height,
        "usable": version.usable().height,
        "codes": {code: [CODES[code].severity, CODES[code].title, CODES[code].remedy] for code in report.counts()},
        "findings": [[finding.code, list(finding.rows), finding.evidence] for finding in report.findings],
        "photos": dict(zip(rows, labels, strict=True)),
        "notes": list(report.notes),
        "checked": list(report.checked),
        "not_checked": dict(report.not_checked),
    }


def _text(value: Any) -> str:
    return ", ".join(value) if isinstance(value, Iterable) and not isinstance(value, str) else str(value)


def _embedded(content: Mapping[Any, Any]) -> str:
    """JSON that is safe inside a script element, whatever text it contains."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
