"""Users, passwords, tokens and keys: what the API, the page and `plantml serve users` do with them."""

import hashlib
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import jwt
from pwdlib import PasswordHash
from sqlalchemy import select

from plantml.errors import AlreadyExistsError, InputError, NotFoundError
from plantml.serve.database import ApiKey, Database, Login, Secret, User, now
from plantml.serve.problems import unauthorized

ADMIN = "admin"
ACTS = (ADMIN, "contributor", "trainer", "reviewer", "promoter")
"""Roles that allow an act. Every other role is the name of a target, whose predictions it allows to see."""

KEY_PREFIX = "plantml_"
ACCESS_TIME, LOGIN_TIME = timedelta(minutes=15), timedelta(days=14)
_SHORTEST_PASSWORD = 12
_NAME = r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}"
_hasher = PasswordHash.recommended()
_DUMMY = _hasher.hash("no password at all")
"""Verified where there is no such user, so that the time of an answer does not tell."""


@dataclass(frozen=True)
class Caller:
    """Who makes a request, and what they may do.

    Attributes:
        id: of the user.
        name: of the user.
        roles: those of the user, or of the key.
        via: `token`, `key` or `cookie`.
    """

    id: int
    name: str
    roles: frozenset[str]
    via: str

    def may(self, role: str) -> bool:
        """True if the caller has a role; an administrator has all."""
        return role in self.roles or ADMIN in self.roles


@dataclass(frozen=True)
class Tokens:
    """An access token, and the refresh token that brings the next one."""

    access: str
    refresh: str


class Accounts:
    """Users and their credentials in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._secret = _shared_secret(database)

    def add(self, name: str, password: str, roles: Iterable[str]) -> User:
        """Add a user.

        Raises:
            InputError: name, password or a role is not acceptable.
            AlreadyExistsError: there is such a user.
        """
        user = User(name=_checked_name(name), password=_hashed(password), roles=_checked_roles(roles))
        with self._database.session() as session:
            if session.scalar(select(User).where(User.name == name)) is not None:
                raise AlreadyExistsError(f"There is a user {name}", "", "Choose another name.")
            session.add(user)
        return user

    def users(self) -> Sequence[User]:
        """All users by name."""
        with self._database.session() as session:
            return session.scalars(select(User).order_by(User.name)).all()

    def find(self, name: str) -> User:
        """The user of a name. Raises `NotFoundError`."""
        with self._database.session() as session:
            user = session.scalar(select(User).where(User.name == name))
        if user is None:
            raise NotFoundError(f"There is no user {name}", "", "List them: plantml serve users list")
        return user

    def sign_in(self, name: str, password: str) -> Caller:
        """The caller of a name and password. Takes 0.3 s of processor time: call it in a thread.

        Raises:
            RequestError: 401, for a wrong name and a wrong password alike.
        """
        with self._database.session() as session:
            user = session.scalar(select(User).where(User.name == name))
        is_right = _hasher.verify(password, user.password if user is not None and user.password else _DUMMY)
        if user is None or not user.password or user.disabled or not is_right:
            raise unauthorized("the name or the password is wrong")
        return Caller(user.id, user.name, frozenset(user.roles), "token")

    def begin(self, caller: Caller) -> Tokens:
        """Tokens of a new sign-in."""
        return Tokens(self._access(caller), self.begin_login(caller))

    def begin_login(self, caller: Caller) -> str:
        """The secret of a new sign-in: a refresh token, or the value of the page's cookie."""
        secret = secrets.token_urlsafe(32)
        login = Login(
            user_id=caller.id, family=secrets.token_hex(16), digest=digest(secret), expires=now() + LOGIN_TIME
        )
        with self._database.session() as session:
            session.add(login)
        return secret

    def add_key(self, name: str, label: str, roles: Sequence[str] | None, days: int | None) -> str:
        """A new API key of a user, shown this once."""
        user, secret = self.find(name), KEY_PREFIX + secrets.token_urlsafe(32)
        expires = None if days is None else now() + timedelta(days=days)
        narrowed = None if roles is None else _checked_roles(roles)
        key = ApiKey(user_id=user.id, label=label, digest=digest(secret), roles=narrowed, expires=expires)
        with self._database.session() as session:
            session.add(key)
        return secret

    def of_token(self, token: str) -> Caller:
        """The caller of an access token or an API key. Raises `RequestError` 401."""
        return self._of_key(token) if token.startswith(KEY_PREFIX) else self._of_access(token)

    def of_cookie(self, secret: str) -> Caller:
        """The caller of the page's cookie. Raises `RequestError` 401."""
        with self._database.session() as session:
            login = session.scalar(select(Login).where(Login.digest == digest(secret)))
            user = None if login is None else session.get(User, login.user_id)
        if login is None or user is None or login.ended or login.replaced or login.expires < now() or user.disabled:
            raise unauthorized("the session has ended")
        return Caller(user.id, user.name, frozenset(user.roles), "cookie")

    def _access(self, caller: Caller) -> str:
        claims = {"sub": str(caller.id), "exp": now() + ACCESS_TIME, "iat": now()}
        return jwt.encode(claims, self._secret, algorithm="HS256")

    def _of_access(self, token: str) -> Caller:
        try:
            claims = jwt.decode(token, self._secret, algorithms=["HS256"], options={"require": ["exp", "sub"]})
        except jwt.InvalidTokenError as error:
            raise unauthorized("the token is not valid, or has expired") from error
        with self._database.session() as session:  # a removed user, or a changed role, counts at once
            user = session.get(User, int(claims["sub"]))
        if user is None or user.disabled:
            raise unauthorized("the user is gone")
        return Caller(user.id, user.name, frozenset(user.roles), "token")

    def _of_key(self, secret: str) -> Caller:
        with self._database.session() as session:
            key = session.scalar(select(ApiKey).where(ApiKey.digest == digest(secret)))
            user = None if key is None else session.get(User, key.user_id)
        if key is None or user is None or key.revoked or user.disabled or (key.expires and key.expires < now()):
            raise unauthorized("the API key is not valid, or has expired")
        roles = frozenset(user.roles)
        if key.roles is not None:
            roles = frozenset(key.roles) if ADMIN in roles else roles & frozenset(key.roles)
        return Caller(user.id, user.name, roles, "key")


def digest(secret: str) -> str:
    """What is kept of a random secret: its SHA-256. It has 256 bits, so no slow hash is needed."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _shared_secret(database: Database) -> str:
    with database.session() as session:
        secret = session.get(Secret, "tokens")
        if secret is None:
            session.add(secret := Secret(name="tokens", value=secrets.token_hex(32)))
    return secret.value


def _checked_name(name: str) -> str:
    if not re.fullmatch(_NAME, name):
        raise InputError(
            f"{name!r} cannot be a user's name",
            "a name has letters, digits and . _ @ -, at most 64",
            "Choose another name.",
        )
    return name


def _checked_roles(roles: Iterable[str]) -> list[str]:
    unique = sorted(set(roles))
    if wrong := [role for role in unique if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", role)]:
        known = ", ".join(ACTS)
        raise InputError(
            f"{wrong[0]!r} cannot be a role", f"roles are {known}, and names of targets", "Choose one of these."
        )
    return unique


def _hashed(password: str) -> str:
    if not password:
        return ""
    if len(password) < _SHORTEST_PASSWORD:
        raise InputError(
            "The password is too short", f"it needs {_SHORTEST_PASSWORD} characters", "Choose a longer one."
        )
    return _hasher.hash(password)
