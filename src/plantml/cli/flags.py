"""Command-line flags that are made from the fields of a configuration."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo

from plantml import constraints
from plantml.settings import Config, flag_name

_NUMBERS: Mapping[str, type[int] | type[float]] = {"integer": int, "number": float}


def annotations(model: type[Config]) -> dict[str, Any]:
    """The annotation of each flag's parameter, by setting; the settings of a subclass come before inherited ones."""
    kinds = constraints.kinds(model)
    names = [name for each in model.__mro__ for name in inspect.get_annotations(each)]
    fields = {name: model.model_fields[name] for name in names if name in model.model_fields}
    return {name: _annotation(name, field, kinds[name]) for name, field in fields.items() if flag_name(name, field)}


def split_lists(model: type[Config], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of flags, `None` where a flag was not given, with `A,B` split at the commas."""
    return {
        name: None if value in (None, []) else [part.strip() for text in value for part in text.split(",")]
        if isinstance(value, list) and _extra(model.model_fields[name])["metavar"] == "A,B" else value
        for name, value in values.items()
    }  # fmt: skip


def _annotation(name: str, field: FieldInfo, kinds: Sequence[Mapping[str, Any]]) -> Any:
    types = {kind.get("type") for kind in kinds}
    words = [word for kind in kinds for word in kind.get("enum", [kind["const"]] if "const" in kind else [])]
    value_type: Any = str
    placeholder: str | None = "TEXT"
    parser = None
    if "boolean" in types:
        value_type, placeholder = bool, None
    elif "array" in types:
        value_type = list[str]
    elif any("words" in kind for kind in kinds) or ("string" in types and not words):
        pass  # the settings read it
    elif number := _NUMBERS.get("integer" if "integer" in types else "number" if "number" in types else ""):
        texts = [word for word in words if isinstance(word, str)]
        value_type, placeholder = number, "INTEGER" if number is int else "NUMBER"
        parser = _number_or(texts, number) if texts else None
    else:
        placeholder = "|".join(words)
    metavar = _extra(field)["metavar"] or placeholder
    option = typer.Option(flag_name(name, field), metavar=metavar, help=_help(field), parser=parser)
    return Annotated[value_type | None, option]


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
