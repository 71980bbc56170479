"""The predictions that each user asked for, kept for a time."""

import asyncio
import random
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from datetime import timedelta
from queue import SimpleQueue
from typing import Any

from sqlalchemy import delete, insert, select

from plantml.serve.caller import Caller
from plantml.serve.database import Database, HistoryEntry, now

_MANY = 256
"""Old entries are looked for once in so many new ones."""

Rows = Sequence[Mapping[str, Any]]


class History:
    """Keeps predictions. What requests bring at the same time is one transaction: a commit waits for the disk.

    Args:
        database: where.
        kept: how long, seconds; 0 keeps none.
    """

    def __init__(self, database: Database, kept: float) -> None:
        self._database, self._kept = database, kept
        self._waiting: SimpleQueue[tuple[Rows, Future[None]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._thread.start()

    async def add(self, caller: Caller, model: str, records: Sequence[Mapping[str, Any]]) -> None:
        """Keep the records that a caller was given; when this returns, they are kept.

        Args:
            caller: whose they are.
            model: `NAME@NUMBER`.
            records: as they are answered.

        Raises:
            StorageError: the database failed.
        """
        if self._kept <= 0 or not records:
            return
        moment, done = now(), Future[None]()
        rows = [{"time": moment, "user_id": caller.id, "model": model, "record": dict(record)} for record in records]
        self._waiting.put((rows, done))
        await asyncio.wrap_future(done)

    def close(self) -> None:
        """Write what waits, and end."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        is_open = True
        while is_open:
            waiting = [self._waiting.get()]
            while not self._waiting.empty():  # nobody else takes from it
                waiting.append(self._waiting.get())
            is_open = None not in waiting
            parts = [part for part in waiting if part is not None and part[1].set_running_or_notify_cancel()]
            try:
                self._write([row for rows, _ in parts for row in rows])
            except Exception as error:  # noqa: BLE001 - raised where it is awaited
                for _, done in parts:
                    done.set_exception(error)
            else:
                for _, done in parts:
                    done.set_result(None)

    def _write(self, rows: Rows) -> None:
        if not rows:
            return
        with self._database.session() as session:
            session.execute(insert(HistoryEntry.__table__), rows)  # type: ignore[arg-type]
            if random.randrange(_MANY) < len(rows):
                oldest = now() - timedelta(seconds=self._kept)
                session.execute(delete(HistoryEntry).where(HistoryEntry.time < oldest))


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
