"""What a setting may be, in words: for the error about one that does not fit, and for the page of settings."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel


def of_model(model: type[BaseModel]) -> dict[str, str]:
    """What each key of a configuration may be."""
    schema = _schema(model)
    return {key: _in_words(part, schema) for key, part in schema["properties"].items()}


def of_key(model: type[BaseModel], location: Sequence[int | str]) -> tuple[str, str]:
    """The key that an error of pydantic is about, dotted as people write it, and what it may be.

    Args:
        model: that was validated.
        location: `loc` of the error, which goes on with names of validators and of the members of a union.
    """
    schema = part = _schema(model)
    key = []
    for each in location:
        inner = _inner(part, schema, each)
        if inner is None:
            break
        part = inner
        key.append(str(each))
    return ".".join(key), _in_words(part, schema)


@functools.cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _inner(part: Mapping[str, Any], schema: Mapping[str, Any], key: int | str) -> dict[str, Any] | None:
    """What lies under a key or an index; `None` if that is none."""
    for option in _options(part, schema):
        inner = option.get("properties", {}).get(key)
        if inner is None and option.get("type") == "object" and isinstance(key, str):
            inner = option.get("additionalProperties")
        if inner is None and isinstance(key, int):
            inner = option.get("items")
        if isinstance(inner, dict):
            return inner
    return None


def _options(part: Mapping[str, Any], schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a value may be, one of them, with references followed."""
    if "$ref" in part:
        return _options(schema["$defs"][part["$ref"].rpartition("/")[2]], schema)
    if "anyOf" in part:
        return [option for each in part["anyOf"] for option in _options(each, schema)]
    return [part]


def _in_words(part: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if "words" in part:
        return str(part["words"])
    words: list[str] = []
    for option in _options(part, schema):
        choices = option.get("enum", [option["const"]] if "const" in option else None)
        if choices is not None:
            words += map(str, choices)
        elif option.get("type") == "array":
            each = _in_words(option.get("items", {}), schema)
            words.append("a list of texts" if each == _KINDS["string"] else f"a list, each {each}")
        elif "words" in option:
            words.append(str(option["words"]))
        elif option.get("type") != "null":
            words.append(_KINDS.get(option.get("type", ""), "a value") + _range(option))
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])}, or {words[-1]}"


_KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "object": "a mapping of keys to values",
}


_BOUNDS = {"minimum": "of at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


def _range(option: Mapping[str, Any]) -> str:
    low, high = option.get("minimum"), option.get("maximum")
    if low is not None and high is not None:
        return f" from {_number(low)} to {_number(high)}"
    bounds = [f"{words} {_number(option[key])}" for key, words in _BOUNDS.items() if key in option]
    return f" {' and '.join(bounds)}" if bounds else ""


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.12g}"
