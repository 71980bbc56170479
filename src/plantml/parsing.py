"""YAML and JSON text to plain data: dicts, lists, strings, numbers, booleans and None.

Every way that such text can be wrong ends in one error that says where. YAML is read by the rules of its version
1.2 for plain scalars (https://yaml.org/spec/1.2.2/#103-core-schema): `no`, `on` and `2020-13-45` are strings, `1e-3`
is a number, and nothing is ever a date.
"""

import json
import re
from typing import Any

import yaml

from plantml.errors import InputError, PlantmlError

MAX_DEPTH = 64
"""Levels of nesting in YAML. JSON is bounded by the interpreter's recursion limit."""

MAX_NODES = 1_000_000
"""Scalars, lists and mappings of one YAML document, with every alias counted as all that it stands for."""

MAX_YAML_BYTES = 8 << 20

_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse_yaml(text: bytes | str, origin: str, error: type[PlantmlError] = InputError) -> Any:
    """The one document in a YAML text; `None` if it is empty.

    Args:
        text: UTF-8 or UTF-16 bytes, or a string; at most `MAX_YAML_BYTES`.
        origin: what the error calls it: a URL, or `--set lr=…`.
        error: raised, with the line and column, if it is no YAML, nests deeper than `MAX_DEPTH`, expands to more
            than `MAX_NODES`, repeats a key, or holds a number that cannot be one.
    """
    if len(text) > MAX_YAML_BYTES:
        raise error(f"{origin} is too large", f"{len(text):,} bytes of YAML; at most {MAX_YAML_BYTES:,} are read")
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise error(f"{origin} is not valid YAML", f"{where}{problem.problem or problem.context}") from problem
    except (yaml.YAMLError, UnicodeError) as problem:
        raise error(f"{origin} is not valid YAML", str(problem).splitlines()[0]) from problem


def parse_json(text: bytes | str, origin: str, error: type[PlantmlError] = InputError) -> Any:
    """The value of a JSON text. `NaN` and `Infinity` are read as Python writes them.

    Raises:
        error: it is no JSON, nests too deep, or holds a number or a string that cannot be one.
    """
    try:
        data = text.encode() if isinstance(text, str) else text
        value = json.loads(data)
        if _ESCAPED_SURROGATE.search(data):
            json.dumps(value, ensure_ascii=False).encode()  # fails on half of a surrogate pair
    except UnicodeEncodeError as problem:
        raise error(f"{origin} is not valid JSON", "a string holds half of a surrogate pair") from problem
    except UnicodeDecodeError as problem:
        raise error(f"{origin} is not valid JSON", f"byte {problem.start} is not {problem.encoding}") from problem
    except json.JSONDecodeError as problem:
        raise error(f"{origin} is not valid JSON", str(problem)) from problem
    except RecursionError as problem:
        raise error(f"{origin} is not valid JSON", "it is nested too deep") from problem
    except ValueError as problem:  # an integer of thousands of digits
        raise error(f"{origin} is not valid JSON", "it holds a number with too many digits") from problem
    return value


def parse_json_object(text: bytes | str, origin: str, error: type[PlantmlError] = InputError) -> dict[str, Any]:
    """As `parse_json`, where the value must be an object."""
    value = parse_json(text, origin, error)
    if not isinstance(value, dict):
        raise error(f"{origin} is not what was expected", f"a JSON object, not {_kind(value)}")
    return value


def _kind(value: object) -> str:
    names = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


_TAG = "tag:yaml.org,2002:"
_PLAIN = {
    "null": (r"null|Null|NULL|~|", ["n", "N", "~", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "merge": (r"<<", "<"),
}
"""Plain scalars that are no strings, by type: what they look like, and how they start. The first that fits counts."""


class _Loader(yaml.SafeLoader):
    """Plain scalars as in YAML 1.2, each key once, with bounds on depth and on what aliases expand to."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - declared so by PyYAML

    def __init__(self, text: bytes | str) -> None:
        super().__init__(text)
        self._depth = 0
        self._sizes: dict[yaml.Node, int] = {}
        """How many values a node expands to; one that is still being read is missing."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """A node with all that is in it, or the one that an alias names."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        mark, alias = event.start_mark, isinstance(event, yaml.AliasEvent)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {MAX_DEPTH} levels", problem_mark=mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if alias and node not in self._sizes:
            raise yaml.MarkedYAMLError(problem="an alias that stands for itself", problem_mark=mark)
        if node is not None and not alias:
            self._sizes[node] = 1 + sum(self._sizes[child] for child in _children(node))
            if self._sizes[node] > MAX_NODES:
                problem = f"over {MAX_NODES:,} values, each alias counted as what it stands for"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
            if isinstance(node, yaml.MappingNode):
                _check_keys(node)
        return node


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _check_keys(node: yaml.MappingNode) -> None:
    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(problem="a key must be a plain value", problem_mark=key.start_mark)
        line, name = key.start_mark.line + 1, (key.tag, key.value)
        if name in lines:
            problem = f"the key {key.value!r} is there twice: in line {lines[name]} and in line {line}"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
        lines[name] = line


def _construct_number(_: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float:
    text = node.value.lower()
    try:
        if not node.tag.endswith("int"):
            return float(text.replace(".inf", "inf").replace(".nan", "nan"))
        if text.startswith(("0o", "0x")):
            return int(text[2:], 8 if text[1] == "o" else 16)
        return int(text)
    except ValueError:
        shown = text if len(text) <= 40 else f"{len(text):,} characters"
        raise yaml.MarkedYAMLError(problem=f"not a number: {shown}", problem_mark=node.start_mark) from None


def _construct_word(_: yaml.SafeLoader, node: yaml.ScalarNode) -> bool | None:
    words = {"true": True, "false": False} if node.tag.endswith("bool") else {"null": None, "~": None, "": None}
    if node.value.lower() not in words:
        kind = "neither true nor false" if node.tag.endswith("bool") else "not null"
        raise yaml.MarkedYAMLError(problem=f"{kind}: {node.value[:40]}", problem_mark=node.start_mark)
    return words[node.value.lower()]


class _Dumper(yaml.SafeDumper):
    """Puts quotes around what YAML 1.1 or 1.2 would take for anything but a string."""


def dump_yaml(value: Any, *, sort_keys: bool = False, one_line: bool = False) -> str:
    """Plain data as YAML that `parse_yaml` reads as the same data."""
    width = 10**6 if one_line else 80
    return yaml.dump(
        value, Dumper=_Dumper, sort_keys=sort_keys, allow_unicode=True, default_flow_style=one_line, width=width
    )


for _name, (_pattern, _starts) in _PLAIN.items():
    for _reader in (_Loader, _Dumper):
        _reader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), _starts)
_Loader.yaml_constructors = {
    **{_TAG + name: yaml.SafeLoader.yaml_constructors[_TAG + name] for name in ("str", "seq", "map")},
    **dict.fromkeys((_TAG + "int", _TAG + "float"), _construct_number),
    **dict.fromkeys((_TAG + "bool", _TAG + "null"), _construct_word),
    None: yaml.SafeLoader.yaml_constructors[None],
}
