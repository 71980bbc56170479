"""`--where`: filter rows by a condition in a small subset of Python."""

import ast
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import polars as pl

from plantml.data.manifest import Version, narrow_targets
from plantml.errors import UsageError

_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], pl.Expr]] = {
    ast.Eq: lambda left, right: left.eq_missing(right),
    ast.NotEq: lambda left, right: left.ne_missing(right),
    ast.Lt: lambda left, right: left < right,
    ast.LtE: lambda left, right: left <= right,
    ast.Gt: lambda left, right: left > right,
    ast.GtE: lambda left, right: left >= right,
}
_EXAMPLE = """--where 'source == "lab" and disease in ["rust", "blight"] and not brightness < 0.1'"""


Functions = Mapping[str, Callable[..., pl.Expr]]
"""Functions that a condition may call with strings, by name. They raise `ValueError` with a reason."""


def where(rows: pl.DataFrame, condition: str, functions: Functions = MappingProxyType({})) -> pl.DataFrame:
    """Rows that match a condition.

    It may use columns by name (`meta_camera` also as `camera` if that is not a column), strings, numbers, `None`,
    `==`, `!=`, `<`, `<=`, `>`, `>=`, `in` a list, a string `in` a column or among its labels, `and`, `or`, `not`, and
    calls of `functions`.

    Raises:
        UsageError: the condition is invalid, or names an unknown column or function.
    """
    try:
        tree = ast.parse(condition.strip(), mode="eval")
        return rows.filter(_Reader(rows.schema, condition, functions).read(tree.body))
    except SyntaxError as error:
        raise UsageError(f"--where {condition!r} cannot be read", error.msg, f"Write it like {_EXAMPLE}.") from error
    except (RecursionError, MemoryError) as error:
        raise UsageError("--where cannot be read", "it is nested too deep", f"Write it like {_EXAMPLE}.") from error
    except pl.exceptions.PolarsError as error:
        raise UsageError(
            f"--where {condition!r} does not fit the columns",
            str(error).splitlines()[0],
            "Write it like 'disease == \"rust\" and width > 500'; plantml dataset info names the columns.",
        ) from error


def matching(version: Version, condition: str) -> Version:
    """A version with the rows that match a condition and their classes; an empty condition matches all. See `where`."""
    if not condition:
        return version
    rows = where(version.rows, condition)
    return replace(version, rows=rows, targets=narrow_targets(rows, version.targets))


class _Reader:
    def __init__(self, columns: Mapping[str, Any], condition: str, functions: Functions) -> None:
        self._columns, self._condition, self._functions = columns, condition, functions

    def read(self, node: ast.expr) -> Any:
        if isinstance(node, ast.BoolOp):
            parts = [self.read(part) for part in node.values]
            join = pl.all_horizontal if isinstance(node.op, ast.And) else pl.any_horizontal
            return join(*parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
            operand = self.read(node.operand)
            return ~operand if isinstance(node.op, ast.Not) else -operand
        if isinstance(node, ast.Compare):
            lefts = [node.left, *node.comparators[:-1]]
            parts = [self._compare(*three) for three in zip(lefts, node.ops, node.comparators, strict=True)]
            return pl.all_horizontal(*parts)
        if isinstance(node, ast.Name):
            return pl.col(self._column(node.id))
        if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | bool | None):
            return pl.lit(node.value)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in self._functions:
            return self._call(node.func.id, node)
        raise self._error(f"{ast.unparse(node)!r} is not allowed here")

    def _call(self, name: str, node: ast.Call) -> pl.Expr:
        words = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
        if node.keywords or len(words) < len(node.args) or not all(isinstance(word, str) for word in words):
            raise self._error(f"{ast.unparse(node)!r}: {name} takes words in quotation marks")
        try:
            return self._functions[name](*words)
        except ValueError as error:
            raise self._error(f"{ast.unparse(node)!r}: {error}") from error

    def _compare(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> pl.Expr:
        if isinstance(operator, ast.In | ast.NotIn):
            is_inside = self._inside(left, right)
            return ~is_inside if isinstance(operator, ast.NotIn) else is_inside
        if isinstance(operator, ast.Is | ast.IsNot) and isinstance(right, ast.Constant) and right.value is None:
            column: pl.Expr = self.read(left)
            return column.is_null() if isinstance(operator, ast.Is) else column.is_not_null()
        if type(operator) not in _COMPARE:
            raise self._error(f"{ast.unparse(left)} … {ast.unparse(right)} cannot be compared like this")
        return _COMPARE[type(operator)](self.read(left), self.read(right))

    def _inside(self, left: ast.expr, right: ast.expr) -> pl.Expr:
        if isinstance(right, ast.List | ast.Tuple | ast.Set):
            return pl.any_horizontal(*(_COMPARE[ast.Eq](self.read(left), self.read(item)) for item in right.elts))
        if isinstance(left, ast.Constant) and isinstance(left.value, str) and isinstance(right, ast.Name):
            name = self._column(right.id)
            if isinstance(self._columns[name], pl.List):
                return pl.col(name).list.contains(left.value).fill_null(value=False)
            column = pl.col(name).cast(pl.String)
            return column.str.contains(left.value, literal=True).fill_null(value=False)
        raise self._error("`in` needs a list on its right, or a string on its left and a column on its right")

    def _column(self, name: str) -> str:
        for column in (name, f"meta_{name}"):
            if column in self._columns:
                return column
        raise self._error(
            f"there is no column {name!r}; the columns are {', '.join(filter(str.isidentifier, self._columns))}"
        )

    def _error(self, why: str) -> UsageError:
        return UsageError(f"--where {self._condition!r} cannot be read", why, f"Write it like {_EXAMPLE}.")
