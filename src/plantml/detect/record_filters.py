"""`--where`: filter records by a condition."""

from collections.abc import Iterable, Iterator

from plantml.concurrency import batched
from plantml.detect import writers
from plantml.detect.writers import OutputRow
from plantml.model.contract import Contract

_ROWS = 2000


def where(
    rows: Iterable[OutputRow], condition: str, contract: Contract, *, at_once: int = _ROWS
) -> Iterator[OutputRow]:
    """Rows whose flat record, as in the CSV, matches a condition like `decision == "review" and disease_score < 0.7`.

    Args:
        rows: finished images.
        condition: see `plantml.data.filters`.
        contract: of the model.
        at_once: rows that are filtered together.

    Raises:
        UsageError: the condition is invalid.
    """
    import polars as pl

    from plantml.data.filters import where as filtered

    schema = writers.flat_schema(contract)
    filtered(pl.DataFrame(schema=schema), condition)  # so that a mistake is reported even without rows
    for batch in batched(rows, at_once):
        flat = [writers.flat(row.unicode_record(), contract) for row in batch]
        table = pl.DataFrame(flat, schema=schema).with_row_index("plantml_row")
        yield from (batch[number] for number in filtered(table, condition)["plantml_row"])


def check(condition: str, contract: Contract) -> None:
    """Raise `UsageError` if the condition does not fit this model's records."""
    list(where([], condition, contract))
