"""The predictions that each user asked for, kept for a time."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, func, insert, select

from plantml.serve.caller import Caller
from plantml.serve.database import Database, HistoryEntry, now

_MANY = 256
"""Old entries are looked for once in so many new ones."""


def note(database: Database, caller: Caller, model: str, records: Sequence[Mapping[str, Any]], kept: float) -> None:
    """Keep the records that a caller was given, and forget those that are older.

    Args:
        database: where.
        caller: whose they are.
        model: `NAME@NUMBER`.
        records: as they were answered.
        kept: how long, seconds; 0 keeps none.
    """
    if kept <= 0 or not records:
        return
    moment = now()
    rows = [{"time": moment, "user_id": caller.id, "model": model, "record": dict(record)} for record in records]
    with database.session() as session:
        session.execute(insert(HistoryEntry), rows)
        last = session.scalar(select(func.max(HistoryEntry.id))) or 0
        if last % _MANY < len(rows):
            session.execute(delete(HistoryEntry).where(HistoryEntry.time < moment - timedelta(seconds=kept)))


def entries(database: Database, caller: Caller, limit: int, before: int | None, kept: float) -> Sequence[HistoryEntry]:
    """The newest entries of a caller, newest first.

    Args:
        database: where.
        caller: whose they are.
        limit: most entries.
        before: only those with a smaller id: the next page.
        kept: none that are older than this, seconds.
    """
    oldest = now() - timedelta(seconds=kept)
    chosen = select(HistoryEntry).where(HistoryEntry.user_id == caller.id, HistoryEntry.time >= oldest)
    chosen = chosen.order_by(HistoryEntry.id.desc()).limit(limit)
    if before is not None:
        chosen = chosen.where(HistoryEntry.id < before)
    with database.session() as session:
        return session.scalars(chosen).all()
