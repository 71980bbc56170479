"""`--where`: filter records by a condition."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from plantml.concurrency import batched
from plantml.detect.formats import tables
from plantml.detect.output_row import OutputRow
from plantml.model.contract import Contract

if TYPE_CHECKING:
    import polars as pl

_ROWS = 2000


def where(
    rows: Iterable[OutputRow], condition: str, contract: Contract, *, at_once: int = _ROWS
) -> Iterator[OutputRow]:
    """Rows whose flat record, as in the CSV, matches a condition like `decision == "review" and disease_score < 0.7`.

    Args:
        rows: finished images.
        condition: see `plantml.data.filters`; it may also call `count`, see `_count`.
        contract: of the model.
        at_once: rows that are filtered together.

    Raises:
        UsageError: the condition is invalid.
    """
    import polars as pl

    from plantml.data.filters import where as filtered

    schema, functions = tables.schema_of(tables.columns(contract)), {"count": partial(_count, contract)}
    filtered(pl.DataFrame(schema=schema), condition, functions)  # so that a mistake is reported even without rows
    for batch in batched(rows, at_once):
        flat = [tables.flat(row.unicode_record(), contract) for row in batch]
        table = pl.DataFrame(flat, schema=schema).with_row_index("plantml_row")
        yield from (batch[number] for number in filtered(table, condition, functions)["plantml_row"])


def _count(contract: Contract, *words: str) -> "pl.Expr":
    """The number of a photo's boxes, null after a failure: of all, of a class, or of a target's class.

    Raises:
        ValueError: the model finds no boxes, or the class does not exist or belongs to several targets.
    """
    import polars as pl

    if contract.detection is None:
        raise ValueError("the model finds no boxes")
    if not words:
        return pl.col(tables.BOXES)
    *of_target, name = words
    matches = [
        target.name
        for target in contract.targets
        if name in target.classes and (not of_target or of_target == [target.name])
    ]
    if len(matches) > 1:
        raise ValueError(f"several targets have this class; name one: count({matches[0]!r}, {name!r})")
    if not matches:
        classes = [f"{target.name}: {', '.join(target.classes)}" for target in contract.targets if target.classes]
        raise ValueError(f"there is no such class; the classes are {'; '.join(classes) or 'none'}")
    return pl.col(tables.count_column(matches[0], name))


def check(condition: str, contract: Contract) -> None:
    """Raise `UsageError` if the condition does not fit this model's records."""
    list(where([], condition, contract))
