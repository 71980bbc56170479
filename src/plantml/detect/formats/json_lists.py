"""JSON lists, written item by item, so that memory does not grow with their length."""

from collections.abc import Iterable, Mapping
from typing import Any, TextIO

from plantml.detect.output_row import to_line


def write_list(file: TextIO, items: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSON list, item by item."""
    file.write("[")
    for number, item in enumerate(items, start=1):
        append(file, number, item)
    file.write("]")


def append(file: TextIO, number: int, item: Mapping[str, Any]) -> None:
    """Write an item of a JSON list; the first has number 1."""
    file.write(("," if number > 1 else "") + "\n" + to_line(item))
