"""What a server keeps for a time only: predictions, the audit log, trainings that ended, photos that were rejected.

Nothing that a version of a dataset or a model, or the evidence of a promotion, refers to is removed.
"""

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import CursorResult, delete

from plantml import storage
from plantml.serve.config import ServeConfig
from plantml.serve.database import AuditEntry, Database, HistoryEntry, now
from plantml.serve.photos.contributions import Contributions
from plantml.serve.users import audit
from plantml.serve.users.accounts import purge_logins
from plantml.serve.work.jobs import Jobs

_DAY = 86_400.0
_FIRST = 60.0, 600.0
"""Seconds after the start of a server of its first look: several that start at once do not all look at once."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pruned:
    """What was removed.

    Attributes:
        predictions: entries of the history.
        audit: entries of the audit log.
        files: of trainings, and photos of contributions.
        bytes: of these files.
    """

    predictions: int = 0
    audit: int = 0
    files: int = 0
    bytes: int = 0


def prune(config: ServeConfig, database: Database, *, by: str) -> Pruned:
    """Remove what is older than the settings `keep_…` allow. Safe to repeat, and to interrupt.

    Args:
        config: settings.
        database: of the server.
        by: who removes it, for the audit log.

    Raises:
        StorageError: the storage or the database failed; what was removed before stays removed.
    """
    files = [
        *Jobs(config.state).removable(_before(config.keep_trainings)),
        *Contributions.removable(config.state, _before(config.keep_contributions)),
    ]
    for file in files:
        storage.remove(file.url)
    with database.session() as session:
        purge_logins(session)
        predictions, entries = (
            cast("CursorResult[Any]", session.execute(delete(table).where(table.time < before))).rowcount
            for table, before in (
                (HistoryEntry, _before(config.keep_history)),
                (AuditEntry, _before(config.keep_audit)),
            )
        )
        pruned = Pruned(predictions, entries, len(files), sum(max(file.size, 0) for file in files))
        if entries or files:
            audit.note(session, by, "server.prune", detail=asdict(pruned))
    return pruned


def _before(seconds: float) -> datetime:
    return now() - timedelta(seconds=seconds)


class Pruning:
    """Prunes once a day, until it is closed.

    Args:
        act: removes what is due.
    """

    def __init__(self, act: Callable[[], Pruned]) -> None:
        self._act = act
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pruning", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End."""
        self._ended.set()
        self._thread.join(10)

    def _run(self) -> None:
        pause = random.uniform(*_FIRST)
        while not self._ended.wait(pause):
            try:
                _log.info("pruned", extra={"fields": asdict(self._act())})
            except Exception as error:  # noqa: BLE001 - the next look may succeed
                _log.warning("What is too old could not be removed: %s", error)
            pause = _DAY
