"""The check report: one self-contained HTML page with embedded thumbnails, and crops of boxes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from plantml import imaging
from plantml.concurrency import Progress, in_threads, silent
from plantml.curate.checks import box_labels
from plantml.curate.context import Subject
from plantml.curate.findings import CODES, Finding, Report
from plantml.errors import PlantmlError
from plantml.imaging.drawing import DrawnBox, draw_boxes
from plantml.reporting import documents

if TYPE_CHECKING:
    from PIL import Image

_SIDE = 160
_QUALITY = 72
"""Of thumbnails and crops, as JPEG."""

_SHOWN_ROWS = 8
"""Photos shown per finding."""

_CROP = 240
"""Side of the crop of a box, in pixels."""

_SUSPECT, _PREDICTED, _OTHER = "#ff1744", "#00c853", "#2962ff"
"""Colours of boxes in a crop: the one in question, the predicted one, and the other annotated ones."""

_OF_CODE, _IN_ALL = 120, 3000
"""Maximum number of findings per code, and of photos in total, with thumbnails; 3000 make a page of about 15 MB."""


def render(report: Report, subject: Subject, progress: Progress = silent) -> bytes:
    """Render the page as UTF-8 bytes.

    It lists all findings; the first of each code have thumbnails. Those of boxes have crops, whose keys are `box` and
    the number of the finding.
    """
    shown, in_question = _shown(report)
    photos = list(dict.fromkeys([*shown, *in_question]))

    def draw(row: int) -> dict[str, str]:
        drawn = _crops(report, subject, row, in_question.get(row, ()))
        thumbnail = _thumbnail(subject, row) if row in shown else None
        return drawn if thumbnail is None else {**drawn, str(row): thumbnail}

    pictures: dict[str, str] = {}
    for done, drawn in enumerate(in_threads(draw, photos, subject.machine.threads), start=1):
        pictures.update(drawn)
        progress(done, len(photos))
    page = documents.fill(
        "plantml.curate",
        "report.html",
        title=report.version.ref,
        data=_embedded(_content(report)),
        pictures=_embedded(pictures),
    )
    return page.encode()


def _shown(report: Report) -> tuple[dict[int, None], dict[int, list[int]]]:
    """Rows with a thumbnail, and by row the numbers of the findings about one box, which have a crop instead."""
    rows: dict[int, None] = {}
    in_question: dict[int, list[int]] = {}
    counts: dict[str, int] = {}
    for number, finding in enumerate(report.findings):
        counts[finding.code] = counts.get(finding.code, 0) + 1
        if counts[finding.code] > _OF_CODE or len(rows) >= _IN_ALL:
            continue
        if CODES[finding.code].check == box_labels.NAME:
            in_question.setdefault(finding.rows[0], []).append(number)
        else:
            rows.update(dict.fromkeys(finding.rows[:_SHOWN_ROWS]))
    return rows, in_question


def _thumbnail(subject: Subject, row: int) -> str | None:
    """URL of a small upright photo with its boxes; `None` if it cannot be shown."""
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
            pen.rectangle([value * scale for value in corners], outline=_SUSPECT)
    return documents.jpeg_url(picture, _QUALITY)


def _crops(report: Report, subject: Subject, row: int, numbers: Sequence[int]) -> dict[str, str]:
    """URLs of the surroundings of the boxes that findings are about, by key; none if the photo cannot be read."""
    from PIL import Image

    if not numbers:
        return {}
    try:
        photo = Image.fromarray(imaging.full(subject.read(row)))
    except PlantmlError:
        return {}
    drawn = subject.version.rows["boxes"][row].to_list()
    crops = {f"box{number}": _crop(photo, report.findings[number], drawn) for number in numbers}
    return {key: documents.jpeg_url(crop, _QUALITY) for key, crop in crops.items()}


def _crop(photo: "Image.Image", finding: Finding, annotated: Sequence[Mapping[str, float]]) -> "Image.Image":
    """A square around a box, with all boxes in it: dashed where the model sees it."""
    from PIL import Image

    box, predicted = finding.facts, finding.facts.get("predicted", finding.facts)
    x, y = min(box["x"], predicted["x"]), min(box["y"], predicted["y"])
    right = max(box["x"] + box["w"], predicted["x"] + predicted["w"])
    bottom = max(box["y"] + box["h"], predicted["y"] + predicted["h"])
    side = 2 * max(right - x, bottom - y, 8.0)
    left, top = (x + right - side) / 2, (y + bottom - side) / 2
    scale = _CROP / side
    crop = photo.transform(
        (_CROP, _CROP), Image.Transform.EXTENT, (left, top, left + side, top + side), Image.Resampling.BICUBIC
    )

    def scaled(sides: Mapping[str, float], colour: str, *, dashed: bool = False) -> DrawnBox:
        place = ((sides["x"] - left) * scale, (sides["y"] - top) * scale)
        return DrawnBox(*place, max(sides["w"], 0) * scale, max(sides["h"], 0) * scale, colour, dashed=dashed)

    boxes = [scaled(each, _OTHER) for each in annotated if any(abs(each[side] - box[side]) > 0.1 for side in "xywh")]
    if finding.code != "box-missing":
        boxes.append(scaled(box, _SUSPECT))
    if finding.code == "box-missing" or "predicted" in box:
        boxes.append(scaled(predicted, _PREDICTED, dashed=True))
    draw_boxes(crop, boxes)
    return crop


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
        "findings": [
            [finding.code, list(finding.rows), finding.evidence, f"box{number}"]
            for number, finding in enumerate(report.findings)
        ],
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
