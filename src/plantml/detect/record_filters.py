"""`--where`: the records for which a condition holds."""

from collections.abc import Iterable, Iterator

from plantml.concurrency import batched
from plantml.detect import writers
from plantml.detect.journal import Row
from plantml.model import records
from plantml.model.contract import Contract

_ROWS = 2000


def where(rows: Iterable[Row], condition: str, contract: Contract, *, at_once: int = _ROWS) -> Iterator[Row]:
    """Rows whose flat record, as CSV has it, fits a condition like `decision == "review" and disease_score < 0.7`.

    Args:
        rows: finished images.
        condition: see `plantml.data.filters`.
        contract: of the model.
        at_once: rows that are looked at together.

    Raises:
        UsageError: it is no such condition.
    """
    import polars as pl

    from plantml.data.filters import where as filtered

    schema = writers.flat_schema(contract)
    filtered(pl.DataFrame(schema=schema), condition)  # a mistake is told even where there are no rows
    for some in batched(rows, at_once):
        flat = [writers.flat(records.parse(row.record), contract) for row in some]
        table = pl.DataFrame(flat, schema=schema).with_row_index("plantml_row")
        yield from (some[number] for number in filtered(table, condition)["plantml_row"])


def check(condition: str, contract: Contract) -> None:
    """Raise `UsageError` for what is no condition on this model's records."""
    list(where([], condition, contract))
