"""The audit log: who did what, and when. Entries are added, never changed, and removed by age alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from plantml.serve.database import AuditEntry, Database
from plantml.serve.users.caller import Caller


def note(  # noqa: PLR0917 - the columns of an entry, in order
    where: Session | Database,
    caller: Caller | str,
    act: str,
    subject: str = "",
    detail: Mapping[str, Any] | None = None,
    address: str = "",
) -> None:
    """Add an entry, in a transaction of its own or in the caller's. Never pass a secret, nor what a person typed.

    Args:
        where: a session, so that the entry stands or falls with what it tells of, or the database.
        caller: who acted; a name where nobody is signed in.
        act: such as `user.add`: the kind of thing, and the verb.
        subject: the name of the thing.
        detail: what else matters, as JSON.
        address: of the other machine; that of the caller if it is empty.
    """
    if isinstance(where, Database):
        with where.session() as session:
            note(session, caller, act, subject, detail, address)
        return
    name, from_ = (caller.name, caller.address) if isinstance(caller, Caller) else (caller, "")
    columns = {"user": name, "act": act, "subject": subject, "address": address or from_}
    lengths = {column: AuditEntry.__table__.c[column].type.length for column in columns}  # type: ignore[attr-defined]
    clipped = {column: value.replace("\0", "")[: lengths[column]] for column, value in columns.items()}
    where.add(AuditEntry(**clipped, detail=dict(detail or {})))


def entries(
    database: Database, *, limit: int, before: int | None = None, user: str | None = None, act: str | None = None
) -> Sequence[AuditEntry]:
    """The newest entries, the newest first.

    Args:
        database: to read.
        limit: at most so many.
        before: only entries with a smaller id, for the next page.
        user: only what this user did.
        act: only acts that begin like this.
    """
    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
    if before is not None:
        query = query.where(AuditEntry.id < before)
    if user is not None:
        query = query.where(AuditEntry.user == user)
    if act is not None:
        query = query.where(AuditEntry.act.startswith(act, autoescape=True))
    with database.session() as session:
        return session.scalars(query).all()
