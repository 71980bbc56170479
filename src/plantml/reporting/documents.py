"""Documents from templates, and Markdown tables."""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def fill(package: str, template: str, *, filters: Mapping[str, Callable[..., Any]] | None = None, **values: Any) -> str:
    """Render a template; an HTML page extends `base.html` of this package.

    Args:
        package: with the folder `templates/`.
        template: name of its file; in HTML every value is escaped.
        filters: functions for the template.
        values: for the template; using an undefined one is an error.
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


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table as lines, with an empty line after it."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return [*lines, *(f"| {' | '.join(cell(each) for each in row)} |" for row in rows), ""]


def cell(text: object) -> str:
    """Text escaped for a cell of a Markdown table."""
    return str(text).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
