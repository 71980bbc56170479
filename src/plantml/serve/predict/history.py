"""The predictions that each user asked for, kept for a time."""

import logging
import threading
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, cast

from sqlalchemy import Table, bindparam, insert, select

from plantml.serve.database import Database, HistoryEntry, User, now
from plantml.serve.users.caller import Caller
from plantml.serve.web.problems import busy

_PAUSE = 0.5
"""Seconds between two transactions: each waits for the disk, and costs as much as ten photos' entries."""

_PAUSE_AFTER_FAILURE = 1.0
_MOST = 10_000
"""Entries that wait at most; then predictions are refused until the database takes some."""

# A user who was removed meanwhile keeps no history.
_TABLE = cast("Table", HistoryEntry.__table__)
_COLUMNS = ("time", "user_id", "model", "record")
_INSERT = insert(_TABLE).from_select(
    _COLUMNS,
    select(*(bindparam(name, type_=_TABLE.c[name].type) for name in _COLUMNS)).where(
        select(User.id).where(User.id == bindparam("user_id")).exists()
    ),
)
_log = logging.getLogger(__name__)


class History:
    """Keeps predictions, after they were answered: in a transaction for all of half a second.

    Args:
        database: where.
        kept: how long, seconds; 0 keeps none.
    """

    def __init__(self, database: Database, kept: float) -> None:
        self._database, self._kept = database, kept
        self._waiting: list[Mapping[str, Any]] = []
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._thread.start()

    def add(self, caller: Caller, model: str, records: Sequence[Mapping[str, Any]]) -> None:
        """Keep the records that a caller is given, soon; a process that is killed loses those of half a second.

        Args:
            caller: whose they are.
            model: `NAME@NUMBER`.
            records: as they are answered.

        Raises:
            RequestError: 503, too many wait for the database.
        """
        if self._kept <= 0 or not records:
            return
        moment = now()
        with self._changed:
            if len(self._waiting) >= _MOST:
                raise busy("the database does not take the history")
            self._waiting += (
                {"time": moment, "user_id": caller.id, "model": model, "record": record} for record in records
            )
            self._changed.notify()

    def entries(self, caller: Caller, limit: int, before: int | None) -> Sequence[HistoryEntry]:
        """The newest entries of a caller, newest first, with all that were added here.

        Args:
            caller: whose they are.
            limit: most entries.
            before: only those with a smaller id: the next page.
        """
        self._write()
        oldest = now() - timedelta(seconds=self._kept)
        chosen = select(HistoryEntry).where(HistoryEntry.user_id == caller.id, HistoryEntry.time >= oldest)
        chosen = chosen.order_by(HistoryEntry.id.desc()).limit(limit)
        if before is not None:
            chosen = chosen.where(HistoryEntry.id < before)
        with self._database.session() as session:
            return session.scalars(chosen).all()

    def close(self) -> None:
        """Write what waits, and end."""
        with self._changed:
            self._ended.set()
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended.is_set())
            self._ended.wait(_PAUSE)
            try:
                self._write()
            except Exception as error:  # noqa: BLE001 - the thread goes on
                _log.warning("%d predictions wait for the history: %s", len(self._waiting), error)
                self._ended.wait(_PAUSE_AFTER_FAILURE)
        if self._waiting:
            try:
                self._write()
            except Exception as error:  # noqa: BLE001 - nobody is there to catch it
                _log.error("%d predictions are lost for the history: %s", len(self._waiting), error)

    def _write(self) -> None:
        """Write what waits. Raises `StorageError`, and then it still waits."""
        with self._writing:
            rows = list(self._waiting)
            if not rows:
                return
            with self._database.session() as session:
                session.execute(_INSERT, rows)
            with self._changed:
                del self._waiting[: len(rows)]
