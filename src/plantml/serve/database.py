"""The SQL database: users, keys, sessions, the audit log, and the history of predictions.

SQLite in WAL mode by default, PostgreSQL by URL. Photos, datasets, jobs and models are not here: they go through
`storage`, as everywhere.
"""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, DateTime, ForeignKey, String, TypeDecorator, create_engine, event, make_url, text, update
from sqlalchemy.engine import URL, Dialect, Engine
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, ORMExecuteState, Session, mapped_column, sessionmaker

from plantml.errors import InputError, MissingExtraError, StorageError
from plantml.serve import migrations


class Time(TypeDecorator[datetime]):
    """A time with a zone, UTC in the database: SQLite keeps none."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Into the database."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Out of the database."""
        return value if value is None or value.tzinfo else value.replace(tzinfo=UTC)


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map = {datetime: Time, dict[str, Any]: JSON, list[str]: JSON}  # noqa: RUF012 - SQLAlchemy's own form


class User(Base):
    """A person or a machine. `password` is an Argon2 hash; empty for one that has API keys only."""

    __tablename__ = "users"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012 - else SQLite would give a removed user's id again

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    password: Mapped[str] = mapped_column(String(256), default="")
    roles: Mapped[list[str]]
    created: Mapped[datetime] = mapped_column(default=now)
    disabled: Mapped[bool] = mapped_column(default=False)


class ApiKey(Base):
    """A key of a machine. Only the SHA-256 of its secret is kept; `roles` narrows those of its user."""

    __tablename__ = "api_keys"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    label: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    roles: Mapped[list[str] | None] = mapped_column(JSON)
    created: Mapped[datetime] = mapped_column(default=now)
    expires: Mapped[datetime | None]
    revoked: Mapped[datetime | None]
    used: Mapped[datetime | None]


class Login(Base):
    """A sign-in that lasts: a refresh token, or the cookie of the page. Only the SHA-256 of its secret is kept.

    A refresh replaces a token by the next one of the same `family`. Who shows a replaced one again has stolen it, or
    was stolen from: the family ends.
    """

    __tablename__ = "logins"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    family: Mapped[str] = mapped_column(String(32), index=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    created: Mapped[datetime] = mapped_column(default=now)
    expires: Mapped[datetime]
    replaced: Mapped[datetime | None]
    ended: Mapped[datetime | None]


class AuditEntry(Base):
    """Who did what, and when."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(primary_key=True)
    time: Mapped[datetime] = mapped_column(default=now, index=True)
    user: Mapped[str] = mapped_column(String(64))
    act: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(String(512), default="")
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)
    address: Mapped[str] = mapped_column(String(64), default="")


class HistoryEntry(Base):
    """A prediction that a user asked for."""

    __tablename__ = "predictions"

    id: Mapped[int] = mapped_column(primary_key=True)
    time: Mapped[datetime] = mapped_column(default=now, index=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    model: Mapped[str] = mapped_column(String(256))
    record: Mapped[dict[str, Any]]


class Secret(Base):
    """A key that all servers of one database share."""

    __tablename__ = "secrets"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    value: Mapped[str] = mapped_column(String(128))


TOKENS = "tokens"
"""Name of the key that signs tokens."""
_CALLERS = "callers have changed"
_LIBPQ = {"connect_timeout": 5, "tcp_user_timeout": 15_000, "keepalives_idle": 15}
"""Seconds, milliseconds and seconds: a database behind a network that is away fails soon. The URL's own come first."""


class Database:
    """The database at a URL.

    Args:
        url: as SQLAlchemy takes it: `sqlite:///path`, `postgresql+psycopg://…`.

    Attributes:
        generation: counts the transactions of this process that changed a user or an API key. What was read of them
            holds, for this process, while it stays.

    Raises:
        InputError: the URL cannot be read, or the database belongs to a newer version.
        MissingExtraError: its driver is not installed.
        StorageError: it cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.generation = 0
        self._engine = _engine(url)
        self._sessions = sessionmaker(self._engine, expire_on_commit=False)
        event.listen(self._sessions, "after_flush", _note_flushed)
        event.listen(self._sessions, "do_orm_execute", _note_executed)
        event.listen(self._sessions, "after_commit", self._count_callers)
        with self._explained():
            migrations.upgrade(self._engine)

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """One transaction: committed at the end of the block, rolled back by an error.

        Raises:
            StorageError: the database cannot be reached, or refuses.
        """
        with self._explained(), self._sessions.begin() as session:
            yield session

    @contextlib.contextmanager
    def exclusive_session(self) -> Iterator[Session]:
        """The same, one at a time over all servers: for what must hold over several rows."""
        with self.session() as session:
            session.execute(update(Secret).where(Secret.name == TOKENS).values(name=TOKENS))  # locks this row
            yield session

    def token_key(self) -> str:
        """The key that signs tokens, which all servers of the database share. The first migration makes it."""
        with self.session() as session:
            return session.get_one(Secret, TOKENS).value

    def check(self) -> None:
        """Raise `StorageError` unless the database answers."""
        with self.session() as session:
            session.execute(text("SELECT 1"))

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _count_callers(self, session: Session) -> None:
        if session.info.pop(_CALLERS, False):
            self.generation += 1

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            shown = self._engine.url.render_as_string(hide_password=True)
            why = str(error.orig if isinstance(error, DBAPIError) else error).partition("\n")[0]
            raise StorageError(f"The database {shown} failed", why, "Check that it runs, then try again.") from error


def _note_flushed(session: Session, _: Any) -> None:
    if any(isinstance(each, User | ApiKey) for each in (*session.dirty, *session.deleted)):
        session.info[_CALLERS] = True


def _note_executed(state: ORMExecuteState) -> None:
    if (state.is_update or state.is_delete) and state.bind_mapper and state.bind_mapper.class_ in {User, ApiKey}:
        state.session.info[_CALLERS] = True


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            return _sqlite_engine(parsed)
        limits = {**_LIBPQ, **parsed.query} if parsed.get_backend_name() == "postgresql" else {}
        # A connection that the database dropped is noticed before it is used, and replaced.
        return create_engine(
            parsed, connect_args=limits, pool_pre_ping=True, pool_size=8, max_overflow=32, pool_timeout=10
        )
    except ImportError as error:
        raise MissingExtraError("The database's driver is not installed", str(error), extra="postgresql") from error
    except (ArgumentError, ValueError) as error:
        hint = "Write it like postgresql+psycopg://user@host/name or sqlite:////folder/serve.db."
        raise InputError("The URL of the database cannot be read", str(error), hint) from error


def _sqlite_engine(url: URL) -> Engine:
    if url.database and url.database != ":memory:":
        # For its owner alone: it holds hashes of passwords, and the key that signs tokens.
        file = Path(url.database)
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file.touch(mode=0o600)
        except OSError as error:
            raise StorageError(
                f"The database {file} cannot be created", error.strerror or str(error), "Choose a writable folder."
            ) from error
    engine = create_engine(url, connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def _(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine
