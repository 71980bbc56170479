"""YAML and JSON text to plain data: dicts, lists, strings, numbers, booleans and None; XML to its elements.

Every way that such text can be wrong ends in one error that says where.
"""

import json
import re
from typing import TYPE_CHECKING, Any

from plantml.errors import InputError, PlantmlError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_YAML_BYTES = 4 << 20
"""A plan or a taxonomy of ten thousand classes has a tenth of it."""

_SURROGATE = re.compile(r"[\ud800-\udfff]|\\u[dD][89a-fA-F]")


def parse_yaml(text: bytes | str, origin: str, error: type[PlantmlError] = InputError, hint: str = "") -> Any:
    """The one document in a YAML text, by the rules of `yaml12`; `None` if it is empty.

    Args:
        text: UTF-8 or UTF-16 bytes, or a string; at most `MAX_YAML_BYTES`.
        origin: what the error calls it: a URL, or `--set lr=…`.
        error: raised, with the line and column, if it is no YAML, nests too deep, expands to too much, repeats a key,
            or holds a number that cannot be one.
        hint: of the error.
    """
    import yaml

    from plantml import yaml12

    if len(text) > MAX_YAML_BYTES:
        why = f"{len(text):,} bytes of YAML; at most {MAX_YAML_BYTES:,} are read"
        raise error(f"{origin} is too large", why, hint)
    try:
        loader = yaml12.Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        why = ", ".join(part for part in (problem.context, problem.problem) if part)
        raise error(f"{origin} is not valid YAML", where + why, hint) from problem
    except UnicodeError as problem:
        raise error(f"{origin} is not valid YAML", "it is not text in Unicode", hint) from problem
    except yaml.YAMLError as problem:
        raise error(f"{origin} is not valid YAML", str(problem).splitlines()[0], hint) from problem


def dump_yaml(value: Any, *, sort_keys: bool = False, one_line: bool = False) -> str:
    """Plain data as YAML that `parse_yaml` reads as the same data; on one line without the line's end."""
    import yaml

    from plantml import yaml12

    text: str = yaml.dump(
        value, Dumper=yaml12.Dumper, sort_keys=sort_keys, allow_unicode=True,
        default_flow_style=one_line, width=float("inf") if one_line else 80,
    )  # fmt: skip
    return text.removesuffix("\n...\n").removesuffix("\n") if one_line else text


def parse_json(text: bytes | str, origin: str, error: type[PlantmlError] = InputError, hint: str = "") -> Any:
    """The value of a JSON text. `NaN` and `Infinity` are read as Python writes them.

    Raises:
        error: it is no JSON, nests too deep, or holds a number or a string that cannot be one.
    """
    try:
        content = text if isinstance(text, str) else text.decode(json.detect_encoding(text))
        value = json.loads(content)
        if _SURROGATE.search(content):
            json.dumps(value, ensure_ascii=False).encode()  # fails on half of a surrogate pair
    except UnicodeEncodeError as problem:
        raise error(f"{origin} is not valid JSON", "a string holds half of a surrogate pair", hint) from problem
    except UnicodeDecodeError as problem:
        raise error(f"{origin} is not valid JSON", f"byte {problem.start} is not {problem.encoding}", hint) from problem
    except json.JSONDecodeError as problem:
        raise error(f"{origin} is not valid JSON", str(problem), hint) from problem
    except RecursionError as problem:
        raise error(f"{origin} is not valid JSON", "it is nested too deep", hint) from problem
    except ValueError as problem:  # an integer of thousands of digits
        raise error(f"{origin} is not valid JSON", "it holds a number with too many digits", hint) from problem
    return value


def parse_json_object(
    text: bytes | str, origin: str, error: type[PlantmlError] = InputError, hint: str = ""
) -> dict[str, Any]:
    """As `parse_json`, where the value must be an object."""
    value = parse_json(text, origin, error, hint)
    if not isinstance(value, dict):
        raise error(f"{origin} is not what was expected", f"a JSON object, not {_kind(value)}", hint)
    return value


def _kind(value: object) -> str:
    names = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def parse_xml(data: bytes) -> "Element":
    """The root of an XML file. Raises `ValueError` if it is malformed, or an attack on the parser."""
    from defusedxml import ElementTree  # type: ignore[import-untyped]

    try:
        root: Element = ElementTree.fromstring(data)
    except (ElementTree.ParseError, LookupError) as error:  # an unknown encoding is a LookupError
        raise ValueError(f"not XML: {error}") from error
    return root
