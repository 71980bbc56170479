"""Users and their API keys: what `/v1/users`, the page and `plantml serve users` do with them."""

import contextlib
import hashlib
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from plantml.errors import AlreadyExistsError, InputError, NotFoundError
from plantml.serve.database import ApiKey, Database, Login, User, now
from plantml.serve.users import audit, passwords
from plantml.serve.users.caller import ACTS, ADMIN, COMMAND_LINE, Caller
from plantml.serve.web.problems import RequestError

FIRST_USER = "admin"
KEY_PREFIX = "plantml_"
_MOST_KEYS = 100
"""That are not revoked, of one user."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", re.ASCII)
_ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}", re.ASCII)
_LIST = "List them: plantml serve users list"


class Accounts:
    """Users and API keys in a database. Every change is audited, in its transaction; `by` is who makes it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, name: str, password: str, roles: Iterable[str], *, by: Caller = COMMAND_LINE) -> User:
        """Add a user; without a password, one that has API keys only.

        Raises:
            InputError: name, password or a role is not acceptable.
            AlreadyExistsError: there is such a user.
        """
        user = User(name=_checked_name(name), password=passwords.hashed(password), roles=_checked_roles(roles))
        with self._database.session() as session:
            # Ada and ada would be taken for each other.
            if session.scalar(select(User.id).where(func.lower(User.name) == name.lower())) is not None:
                raise AlreadyExistsError(f"There is a user {name}", "", "Choose another name.")
            session.add(user)
            try:
                session.flush()
            except IntegrityError as error:
                raise AlreadyExistsError(f"There is a user {name}", "", "Choose another name.") from error
            audit.note(session, by, "user.add", name, {"roles": user.roles})
        return user

    def add_first(self) -> str | None:
        """If there is no administrator, add `FIRST_USER`: the password, which is not kept; else `None`."""
        if any(ADMIN in user.roles or user.name == FIRST_USER for user in self.users()):
            return None
        password = secrets.token_urlsafe(16)
        kept = passwords.hashed(password)
        with self._database.exclusive_session() as session:  # of servers that start at once, one adds it
            if session.scalar(select(User).where(User.name == FIRST_USER)) is not None:
                return None
            session.add(User(name=FIRST_USER, password=kept, roles=[ADMIN]))
            audit.note(session, COMMAND_LINE, "user.add", FIRST_USER, {"roles": [ADMIN]})
        return password

    def users(self) -> Sequence[User]:
        """All users by name."""
        with self._database.session() as session:
            return session.scalars(select(User).order_by(User.name)).all()

    def find(self, name: str) -> User:
        """The user of a name. Raises `NotFoundError`."""
        with self._database.session() as session:
            return _user(session, name)

    def remove(self, name: str, *, by: Caller = COMMAND_LINE) -> None:
        """Remove a user with keys, sign-ins and history of predictions.

        Raises:
            NotFoundError: there is no such user.
            RequestError: 409, it is the last administrator.
        """
        with self._database.exclusive_session() as session:
            with _keeping_an_admin(session):
                session.delete(_user(session, name))
            audit.note(session, by, "user.remove", name)

    def set_roles(self, name: str, roles: Iterable[str], *, by: Caller = COMMAND_LINE) -> User:
        """Replace the roles of a user, which counts from the next request on.

        Raises:
            InputError: a role is not acceptable.
            NotFoundError: there is no such user.
            RequestError: 409, it is the last administrator.
        """
        with self._database.exclusive_session() as session:
            with _keeping_an_admin(session):
                user = _user(session, name)
                user.roles = _checked_roles(roles)
            audit.note(session, by, "user.set-roles", name, {"roles": user.roles})
        return user

    def set_disabled(self, name: str, *, disabled: bool, by: Caller = COMMAND_LINE) -> User:
        """Let a user in no more, or again. Sign-ins of a disabled user end; API keys rest.

        Raises:
            NotFoundError: there is no such user.
            RequestError: 409, it is the last administrator.
        """
        with self._database.exclusive_session() as session:
            with _keeping_an_admin(session):
                user = _user(session, name)
                user.disabled = disabled
            if disabled:
                end_logins(session, user)
            audit.note(session, by, "user.disable" if disabled else "user.enable", name)
        return user

    def set_password(self, name: str, password: str, *, by: Caller = COMMAND_LINE) -> None:
        """Replace a password; all sign-ins of the user end.

        Raises:
            InputError: the password is not acceptable.
            NotFoundError: there is no such user.
        """
        kept = passwords.hashed(password)
        with self._database.session() as session:
            user = _user(session, name)
            user.password = kept
            end_logins(session, user)
            audit.note(session, by, "user.set-password", name)

    def keys(self, name: str) -> Sequence[ApiKey]:
        """The API keys of a user, revoked ones too. Raises `NotFoundError`."""
        with self._database.session() as session:
            user = _user(session, name)
            return session.scalars(select(ApiKey).where(ApiKey.user_id == user.id).order_by(ApiKey.id)).all()

    def add_key(
        self,
        name: str,
        label: str = "",
        roles: Sequence[str] | None = None,
        seconds: float | None = None,
        *,
        by: Caller = COMMAND_LINE,
    ) -> tuple[ApiKey, str]:
        """A new API key of a user, and its secret, which is not kept.

        Args:
            name: of the user.
            label: what it is for.
            roles: narrows those of the user.
            seconds: after which it expires.
            by: who makes it.

        Raises:
            InputError: a role is not acceptable.
            NotFoundError: there is no such user.
            RequestError: 409, the user has too many keys.
        """
        secret = KEY_PREFIX + secrets.token_urlsafe(32)
        expires = None if seconds is None else now() + timedelta(seconds=seconds)
        narrowed = None if roles is None else _checked_roles(roles)
        with self._database.session() as session:
            user = _user(session, name)
            valid = select(func.count()).where(ApiKey.user_id == user.id, ApiKey.revoked.is_(None))
            if (session.scalar(valid) or 0) >= _MOST_KEYS:
                raise RequestError(409, "There are too many API keys", f"{name} has {_MOST_KEYS}", "Revoke some first.")
            key = ApiKey(user_id=user.id, label=label[:64], digest=digest(secret), roles=narrowed, expires=expires)
            session.add(key)
            session.flush()
            audit.note(session, by, "key.add", name, {"key": key.id, "roles": narrowed})
        return key, secret

    def revoke_key(self, name: str, key_id: int, *, by: Caller = COMMAND_LINE) -> None:
        """Revoke an API key of a user; repeated, it changes nothing. Raises `NotFoundError`."""
        with self._database.session() as session:
            user = _user(session, name)
            key = session.get(ApiKey, key_id)
            if key is None or key.user_id != user.id:
                raise NotFoundError(
                    f"{name} has no API key {key_id}", "", f"List them: plantml serve users keys {name}"
                )
            if key.revoked is None:
                key.revoked = now()
                audit.note(session, by, "key.revoke", name, {"key": key_id})


def digest(secret: str) -> str:
    """What is kept of a random secret: its SHA-256. It has 256 bits, so no slow hash is needed."""
    return hashlib.sha256(secret.encode()).hexdigest()


def is_name(text: str) -> bool:
    """True if a user may have this name."""
    return _NAME.fullmatch(text) is not None


def end_logins(session: Session, user: User) -> None:
    """End all sign-ins of a user."""
    session.execute(update(Login).where(Login.user_id == user.id, Login.ended.is_(None)).values(ended=now()))


def purge_logins(session: Session) -> None:
    """Forget sign-ins that have expired."""
    session.execute(delete(Login).where(Login.expires < now()))


def _user(session: Session, name: str) -> User:
    user = session.scalar(select(User).where(User.name == name)) if is_name(name) else None
    if user is None:
        raise NotFoundError(f"There is no user {name!r}", "", _LIST)
    return user


@contextlib.contextmanager
def _keeping_an_admin(session: Session) -> Iterator[None]:
    """Raise `RequestError` 409, which undoes the transaction, if a change takes the last administrator away."""
    before = _has_admin(session)
    yield
    session.flush()
    if before and not _has_admin(session):
        raise RequestError(
            409, "That is the last administrator", "nobody could manage users", "Make another user admin first."
        )


def _has_admin(session: Session) -> bool:
    return any(ADMIN in user.roles for user in session.scalars(select(User).where(User.disabled.is_(False))))


def _checked_name(name: str) -> str:
    if not is_name(name):
        raise InputError(
            f"{name!r} cannot be a user's name",
            "a name has letters, digits and . _ @ -, at most 64",
            "Choose another name.",
        )
    return name


def _checked_roles(roles: Iterable[str]) -> list[str]:
    unique = sorted(set(roles))
    if wrong := [role for role in unique if not _ROLE.fullmatch(role)]:
        known = ", ".join(ACTS)
        raise InputError(
            f"{wrong[0]!r} cannot be a role", f"roles are {known}, and names of targets", "Choose one of these."
        )
    return unique
