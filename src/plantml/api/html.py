"""Small pieces of HTML for notebooks. All text is escaped."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from PIL import Image

from plantml.reporting.documents import jpeg_url

if TYPE_CHECKING:
    import polars as pl

_WIDEST = 1000
"""Pixels of a picture."""


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], note: str = "") -> str:
    """A table with a note under it; floats with four decimal places, `None` as an en dash."""
    cells = ["".join(f"<td>{escape(_text(value))}</td>" for value in row) for row in rows]
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    under = f"<p>{escape(note)}</p>" if note else ""
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>{under}"


def frame(rows: "pl.DataFrame", limit: int) -> str:
    """The first rows of a table."""
    hidden = rows.height - limit
    note = f"{hidden} more of {rows.height} rows" if hidden > 0 else ""
    return table(rows.columns, rows.head(limit).iter_rows(), note)


def picture(image: Image.Image) -> str:
    """A picture inside the page, as JPEG."""
    shown = image.convert("RGB")
    shown.thumbnail((_WIDEST, _WIDEST))
    return f'<img alt="" src="{jpeg_url(shown)}">'


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
