"""Command-line flags that are made from the fields of a configuration."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from plantml.settings import Config, flag_name


def annotations(model: type[Config]) -> dict[str, Any]:
    """The annotation of each flag's parameter, by setting; the settings of a subclass come before inherited ones."""
    names = [name for each in model.__mro__ for name in inspect.get_annotations(each)]
    fields = {name: model.model_fields[name] for name in names if name in model.model_fields}
    return {name: _annotation(name, field) for name, field in fields.items() if flag_name(name, field)}


def split_lists(model: type[Config], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of flags, `None` where a flag was not given, with `A,B` split at the commas."""
    return {
        name: None if value in (None, []) else [part.strip() for text in value for part in text.split(",")]
        if isinstance(value, list) and _extra(model.model_fields[name])["metavar"] == "A,B" else value
        for name, value in values.items()
    }  # fmt: skip


def _annotation(name: str, field: FieldInfo) -> Any:
    kinds = list(_kinds(field))
    words = [kind for kind in kinds if isinstance(kind, str)]
    number = int if any(kind is int or type(kind) is int for kind in kinds) else float if float in kinds else None
    value_type: Any = str
    placeholder: str | None = "TEXT"
    parser = None
    if bool in kinds:
        value_type, placeholder = bool, None
    elif tuple in kinds:
        value_type = list[str]
    elif _READ in kinds or (str in kinds and not words):
        pass  # the settings read it
    elif number:
        value_type, placeholder = number, "INTEGER" if number is int else "NUMBER"
        parser = _number_or(words, number) if words else None
    else:
        placeholder = "|".join(words)
    metavar = _extra(field)["metavar"] or placeholder
    option = typer.Option(flag_name(name, field), metavar=metavar, help=_help(field), parser=parser)
    return Annotated[value_type | None, option]


_READ = object()
"""Stands for a type whose values people write in another way, such as `20m`."""


def _kinds(of: Any) -> Iterator[Any]:
    """What a setting may be, from its annotation, which takes less time than its JSON schema: types, and values."""
    if isinstance(of, FieldInfo):
        yield from [_READ] if _is_read(of) else _kinds(of.annotation)
    elif get_origin(of) is Annotated:
        kind, *notes = get_args(of)
        yield from [_READ] if any(map(_is_read, notes)) else _kinds(kind)
    elif get_origin(of) in {Union, UnionType}:
        for kind in get_args(of):
            yield from _kinds(kind)
    elif get_origin(of) is Literal:
        yield from get_args(of)
    else:
        yield get_origin(of) or of


def _is_read(note: Any) -> bool:
    return (
        isinstance(note, FieldInfo) and isinstance(note.json_schema_extra, dict) and "words" in note.json_schema_extra
    )


def _number_or(words: Sequence[str], number: type[int] | type[float]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            return text if text in words else number(text)
        except ValueError:
            raise typer.BadParameter(f"{text!r} is neither a number nor {', '.join(words)}") from None

    return parse


def _help(field: FieldInfo) -> str:
    default = _extra(field)["shown"] or field.default
    hidden = default is None or default is False or default in ("", ())
    return str(field.description) + ("" if hidden else f" [default: {default}]")


def _extra(field: FieldInfo) -> Mapping[str, str]:
    extra = field.json_schema_extra
    return extra["flag"] if isinstance(extra, dict) else {}  # type: ignore[return-value]
