"""The history of predictions: written soon, all of it, and by a thread that nothing stops."""

import time

import pytest
from sqlalchemy import select
from tests.serve.conftest import PASSWORD

from plantml.errors import StorageError
from plantml.serve.database import HistoryEntry
from plantml.serve.predict import history
from plantml.serve.predict.history import History
from plantml.serve.users.accounts import Accounts
from plantml.serve.users.caller import Caller
from plantml.serve.web.problems import RequestError


@pytest.fixture
def caller(database):
    """A user of that database."""
    user = Accounts(database).add("ada", PASSWORD, ["category"])
    return Caller(user.id, user.name, frozenset(user.roles), "key")


def stored(database):
    with database.session() as session:
        return [entry.record["n"] for entry in session.scalars(select(HistoryEntry).order_by(HistoryEntry.id))]


def test_whoever_reads_sees_what_was_added_and_the_end_writes_the_rest(database, caller, monkeypatch) -> None:
    monkeypatch.setattr(history, "_PAUSE", 60.0)
    kept = History(database, 3600.0)
    kept.add(caller, "leaf@1", [{"n": 1}, {"n": 2}])
    assert stored(database) == []
    assert [entry.record["n"] for entry in kept.entries(caller, 10, None)] == [2, 1]
    kept.add(caller, "leaf@1", [{"n": 3}])
    kept.close()
    assert stored(database) == [1, 2, 3]


def test_what_was_added_is_written_soon(database, caller) -> None:
    kept = History(database, 3600.0)
    kept.add(caller, "leaf@1", [{"n": 1}])
    until = time.monotonic() + 10
    while stored(database) != [1]:
        assert time.monotonic() < until
        time.sleep(0.02)
    kept.close()


def test_what_a_database_that_is_away_does_not_take_waits_and_then_predictions_do(
    database, caller, monkeypatch
) -> None:
    monkeypatch.setattr(history, "_PAUSE", 60.0)
    monkeypatch.setattr(history, "_MOST", 2)
    kept = History(database, 3600.0)

    def away():
        raise StorageError("It does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(database, "session", away)
        kept.add(caller, "leaf@1", [{"n": 1}, {"n": 2}])
        with pytest.raises(StorageError):
            kept.entries(caller, 10, None)
        with pytest.raises(RequestError) as error:
            kept.add(caller, "leaf@1", [{"n": 3}])
        assert error.value.status == 503
    kept.close()
    assert stored(database) == [1, 2]


def test_a_user_who_was_removed_takes_nobody_elses_history_along(database, caller) -> None:
    gone = Caller(caller.id + 1, "eve", frozenset(), "key")
    kept = History(database, 3600.0)
    kept.add(gone, "leaf@1", [{"n": 1}])
    kept.add(caller, "leaf@1", [{"n": 2}])
    kept.close()
    assert stored(database) == [2]


def test_without_a_history_nothing_is_kept(database, caller) -> None:
    kept = History(database, 0.0)
    kept.add(caller, "leaf@1", [{"n": 1}])
    kept.close()
    assert stored(database) == []
