"""Documents from templates, and Markdown tables."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image


def fill(package: str, template: str, *, filters: Mapping[str, Callable[..., Any]] | None = None, **values: Any) -> str:
    """Render a template; an HTML page extends `base.html` of this package.

    The template lies in `templates/` of the package; in HTML, every value is escaped. Using an undefined value is an
    error.
    """
    import jinja2  # most commands write nothing of this kind

    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package), jinja2.PackageLoader("plantml.reporting")]),
        autoescape=template.endswith(".html"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(filters or {})
    return environment.get_template(template).render(values)


def data_url(data: bytes, kind: str) -> str:
    """A picture as a URL that holds it: `kind` is `png` or `jpeg`."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def jpeg_url(picture: "Image.Image", quality: int = 80) -> str:
    """A picture as a URL that holds it as JPEG."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return data_url(buffer.getvalue(), "jpeg")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table as lines, with an empty line after it."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return [*lines, *(f"| {' | '.join(cell(each) for each in row)} |" for row in rows), ""]


def cell(text: object) -> str:
    """Text escaped for a cell of a Markdown table."""
    return str(text).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
