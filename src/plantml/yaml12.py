"""YAML by the rules of its version 1.2, on top of PyYAML: for `parsing`, which alone imports this.

Plain scalars follow the core schema (https://yaml.org/spec/1.2.2/#103-core-schema): `no`, `on` and `2020-13-45` are
strings, `1e-3` is a number, and nothing is ever a date.
"""

import re
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

MAX_DEPTH = 64
"""Levels of nesting; far more than people write, far fewer than the interpreter's stack bears."""

MAX_NODES = 250_000
"""Scalars, lists and mappings of one document, with every alias counted as all that it stands for: about five seconds
of reading. A taxonomy of ten thousand classes has a third of it."""

_MAX_DIGITS = 1000
"""Of a number; from some thousands on Python cannot write it down again, not even in an error."""

_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_COLLECTIONS = frozenset({f"{_TAG}map", f"{_TAG}seq"})
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


class _PythonEvents(yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser):
    """PyYAML's own parser, for where it was built without libyaml."""

    def __init__(self, text: bytes | str) -> None:
        yaml.reader.Reader.__init__(self, text)
        yaml.scanner.Scanner.__init__(self)
        yaml.parser.Parser.__init__(self)


_Events: Any = yaml.cyaml.CParser if yaml.__with_libyaml__ else _PythonEvents  # type: ignore[attr-defined]
"""Text to events: five times as fast in C."""


class Loader(Composer, _Events, SafeConstructor, Resolver):  # type: ignore[misc]
    """Each key once, with bounds on depth and on what aliases expand to. Of `_Events` only the events are used."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - declared so by PyYAML

    def __init__(self, text: bytes | str) -> None:
        _Events.__init__(self, text)
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)
        self._depth = 0
        self._sizes: dict[yaml.Node, int] = {}
        """How many values a node expands to; one that is still being read is missing."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """A node with all that is in it, or the one that an alias names."""
        event = self.peek_event()
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
            if max(self._sizes[node], len(self._sizes)) > MAX_NODES:
                problem = f"over {MAX_NODES:,} values, each alias counted as what it stands for"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
            if isinstance(node, yaml.MappingNode):
                self._check_keys(node)
        return node

    def _check_keys(self, node: yaml.MappingNode) -> None:
        lines: dict[Any, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag in _COLLECTIONS:
                raise yaml.MarkedYAMLError(problem="a key must be a plain value", problem_mark=key.start_mark)
            # As constructed: 1, 0x1 and 1.0 are one key.
            line, name = key.start_mark.line + 1, (_MERGE,) if key.tag == _MERGE else self.construct_object(key)
            if name in lines:
                problem = f"the key {_shown(key)!r} is there twice: in line {lines[name]} and in line {line}"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            lines[name] = line


class Dumper(yaml.SafeDumper):
    """Puts quotes around what YAML 1.1 or 1.2 would take for anything but a string."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Line ends of Unicode other than \n are lost, or changed, between any other quotes.
    style = '"' if set(text) & set("\n\r\x85\u2028\u2029") else None
    return dumper.represent_scalar(f"{_TAG}str", text, style=style)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _shown(node: yaml.ScalarNode) -> str:
    text: str = node.value
    return text if len(text) <= 40 else f"{text[:39]}…"


def _construct_number(loader: SafeConstructor, node: yaml.ScalarNode) -> int | float:
    text = str(loader.construct_scalar(node)).lower()
    if len(text) > _MAX_DIGITS:
        problem = f"a number of {len(text):,} characters; {_MAX_DIGITS} are allowed"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    try:
        if not node.tag.endswith("int"):
            return float(text.replace(".inf", "inf").replace(".nan", "nan"))
        if text.startswith(("0o", "0x")):
            return int(text[2:], 8 if text[1] == "o" else 16)
        return int(text)
    except ValueError:
        problem = f"not a number: {_shown(node)}"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from None


def _construct_word(loader: SafeConstructor, node: yaml.ScalarNode) -> bool | None:
    text = str(loader.construct_scalar(node)).lower()
    is_bool = node.tag.endswith("bool")
    words = {"true": True, "false": False} if is_bool else {"null": None, "~": None, "": None}
    if text not in words:
        problem = f"{'neither true nor false' if is_bool else 'not null'}: {_shown(node)}"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    return words[text]


def _refuse_tag(_: SafeConstructor, node: yaml.Node) -> Any:
    tag = node.tag.replace(_TAG, "!!")[:40]
    raise yaml.MarkedYAMLError(problem=f"the tag {tag} is not for plain data", problem_mark=node.start_mark)


for _name, (_pattern, _starts) in _PLAIN.items():
    for _reader in (Loader, Dumper):
        _reader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), _starts)
Dumper.add_representer(str, _represent_text)
Loader.yaml_constructors = {
    **{_TAG + name: SafeConstructor.yaml_constructors[_TAG + name] for name in ("str", "seq", "map")},
    **dict.fromkeys((_TAG + "int", _TAG + "float"), _construct_number),
    **dict.fromkeys((_TAG + "bool", _TAG + "null"), _construct_word),
    None: _refuse_tag,
}
