"""From a secret to a `Caller`: passwords, access and refresh tokens, API keys, and the cookie of the page."""

import hashlib
import hmac
import secrets
import threading
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import cast

from anyio import CapacityLimiter
from sqlalchemy import Table, bindparam, select, update
from sqlalchemy.orm import Session

from plantml.serve.database import ApiKey, Database, Login, User, now
from plantml.serve.recent import Recent
from plantml.serve.users import audit, passwords
from plantml.serve.users.accounts import KEY_PREFIX, digest, end_logins, is_name, purge_logins
from plantml.serve.users.caller import ADMIN, Caller
from plantml.serve.users.throttle import Throttle
from plantml.serve.web.problems import RequestError, unauthorized

ACCESS_TIME, LOGIN_TIME = timedelta(minutes=15), timedelta(days=14)
_KEY_USE = timedelta(minutes=1)
"""How exactly it is known when a key was last used; else every request would write."""
_KEY_MEMORY = 2.0
"""Seconds that a valid key needs no look at the database. A change on this server counts at once; one that another
server or the command line makes, after this time."""
_MOST_KEYS = 1024
"""Keys that are remembered."""
_ALGORITHM = "HS256"

_KEYS = cast("Table", ApiKey.__table__)
# What every request asks, built once: that takes longer than running it.
_OF_LOGIN = (
    select(User).join(Login).where(
        Login.family == bindparam("family"), Login.ended.is_(None), Login.replaced.is_(None), User.disabled.is_(False)
    )
)  # fmt: skip
_OF_COOKIE = (
    select(User, Login).join(Login).where(
        Login.digest == bindparam("digest"), Login.ended.is_(None), Login.replaced.is_(None), User.disabled.is_(False)
    )
)  # fmt: skip
_OF_KEY = (
    select(User, ApiKey).join(ApiKey).where(
        ApiKey.digest == bindparam("digest"), ApiKey.revoked.is_(None), User.disabled.is_(False)
    )
)  # fmt: skip
_USED = (  # of the table: to the mapped class it would be a change of a key
    update(_KEYS).where(_KEYS.c.id == bindparam("key")).values(used=bindparam("moment"))
)


@dataclass(frozen=True)
class _RecentKey:
    """A key that was valid: whose it was, until when it needs no look (monotonic seconds), of which users and keys."""

    caller: Caller
    until: float
    generation: int


@dataclass(frozen=True)
class Tokens:
    """An access token, and the refresh token that brings the next one."""

    access: str
    refresh: str


class Credentials:
    """Checks secrets, and hands out those of a sign-in.

    Attributes:
        slots: for threads that hash a password, each with 64 MiB.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._key = database.token_key()
        self._throttle = Throttle()
        self._recent_keys: Recent[str, _RecentKey] = Recent(_MOST_KEYS)
        self._lock = threading.Lock()
        self.slots = CapacityLimiter(2)

    def sign_in(self, name: str, password: str, address: str = "") -> Caller:
        """The caller of a name and password. Takes 64 MiB and some tenths of a second: see `routes.session`.

        Raises:
            RequestError: 401, for a wrong name and a wrong password alike; 429 after too many of these.
        """
        name = name if is_name(name) else ""  # of any length, and kept in memory
        self._throttle.check(name, address)
        user = None
        if name:
            with self._database.session() as session:
                user = session.scalar(select(User).where(User.name == name))
        is_right = passwords.fits(password, "" if user is None or user.disabled else user.password)
        if user is None or not is_right:
            self._throttle.count(name, address)
            # A name that is not a user's may be a password in the wrong field.
            audit.note(self._database, "", "sign-in.fail", "" if user is None else user.name, address=address)
            raise unauthorized("the name or the password is wrong")
        self._throttle.forget(name)
        return _caller(user, "token", address=address)

    def change_password(self, caller: Caller, old: str, new: str) -> None:
        """Replace the caller's own password; all sign-ins end, this one too.

        Raises:
            RequestError: 401, the old password is wrong; 429 after too many of these.
            InputError: the new password is not acceptable.
        """
        user_name = self.sign_in(caller.name, old, caller.address).name
        kept = passwords.hashed(new)
        with self._database.session() as session:
            user = session.scalars(select(User).where(User.name == user_name)).one()
            user.password = kept
            end_logins(session, user)
            audit.note(session, caller, "user.set-password", user_name)

    def begin(self, caller: Caller) -> Tokens:
        """Tokens of a new sign-in."""
        refresh, login = self._begin(caller)
        return Tokens(self._access(caller.id, login), refresh)

    def begin_session(self, caller: Caller) -> str:
        """The value of the page's cookie for a new sign-in."""
        return self._begin(caller)[0]

    def refresh(self, secret: str, address: str = "") -> Tokens:
        """The next tokens of a sign-in, which keeps its end.

        A refresh token is good once. Who shows it again has stolen it, or was stolen from: the sign-in ends.

        Raises:
            RequestError: 401, the token is not valid.
        """
        refused = unauthorized("the refresh token is not valid, or has expired")
        with self._database.session() as session:
            is_first = None is not session.scalar(
                update(Login)
                .where(Login.digest == digest(secret), Login.replaced.is_(None), Login.ended.is_(None))
                .values(replaced=now())
                .returning(Login.id)
            )
            login = session.scalar(select(Login).where(Login.digest == digest(secret)))
            if login is None:
                raise refused
            user = session.get_one(User, login.user_id)
            if is_first and login.expires > now() and not user.disabled:
                following = secrets.token_urlsafe(32)
                session.add(_login(user.id, login.family, following, login.expires))
                return Tokens(self._access(user.id, login.family), following)
            if not is_first and login.ended is None:
                _end(session, login.family)
                audit.note(session, user.name, "token.reuse", user.name, address=address)
        raise refused

    def revoke(self, token: str, address: str = "") -> None:
        """End the sign-in of an access or refresh token; what is no valid token is ignored (RFC 7009)."""
        with self._database.session() as session:
            login = session.scalar(select(Login).where(Login.digest == digest(token)))
            family = login.family if login is not None else self._claims(token).get("sid")
            if family is None:
                return
            user = session.scalar(select(User).join(Login).where(Login.family == family, Login.ended.is_(None)))
            if user is not None:
                _end(session, family)
                audit.note(session, user.name, "sign-out", user.name, address=address)

    def end(self, caller: Caller) -> None:
        """Sign a caller out who came by a token or cookie."""
        with self._database.session() as session:
            _end(session, caller.login)
            audit.note(session, caller, "sign-out", caller.name)

    def of_token(self, token: str, address: str = "") -> Caller:
        """The caller of an access token or an API key. Raises `RequestError` 401."""
        return self._of_key(token, address) if token.startswith(KEY_PREFIX) else self._of_access(token, address)

    def of_recent_key(self, secret: str, address: str = "") -> Caller | None:
        """The caller of an API key that was valid a moment ago, without the database; `None` to ask `of_token`."""
        if not secret.startswith(KEY_PREFIX):
            return None
        with self._lock:
            recent = self._recent_keys.get(digest(secret))
        if recent is None or recent.until < time.monotonic() or recent.generation != self._database.generation:
            return None
        return replace(recent.caller, address=address)

    def of_cookie(self, secret: str, address: str = "") -> Caller:
        """The caller of the page's cookie. Raises `RequestError` 401."""
        with self._database.session() as session:
            row = session.execute(_OF_COOKIE, {"digest": digest(secret)}).first()
        if row is None or row.Login.expires < now():
            raise unauthorized("the session has ended")
        return _caller(row.User, "cookie", row.Login.family, address)

    def csrf_token(self, caller: Caller) -> str:
        """What a form of the page must send, so that no other site can (an HMAC of the sign-in)."""
        return hmac.new(self._key.encode(), f"csrf:{caller.login}".encode(), hashlib.sha256).hexdigest()

    def check_csrf(self, caller: Caller, token: str) -> None:
        """Raise `RequestError` 403 unless a form came from the page of this sign-in."""
        if not hmac.compare_digest(self.csrf_token(caller).encode(), token.encode()):
            raise RequestError(
                403, "The form is out of date", "its CSRF token is missing or belongs to another sign-in",
                "Reload the page, and send it again.",
            )  # fmt: skip

    def _begin(self, caller: Caller) -> tuple[str, str]:
        secret, family = secrets.token_urlsafe(32), secrets.token_hex(16)
        with self._database.session() as session:
            purge_logins(session)
            session.add(_login(caller.id, family, secret, now() + LOGIN_TIME))
            audit.note(session, caller, "sign-in", caller.name)
        return secret, family

    def _access(self, user_id: int, login: str) -> str:
        import jwt  # it imports the cryptography of keys that are not used here: 0.1 s of a server's start

        claims = {"sub": str(user_id), "sid": login, "iat": now(), "exp": now() + ACCESS_TIME}
        return jwt.encode(claims, self._key, algorithm=_ALGORITHM)

    def _claims(self, token: str) -> dict[str, str]:
        """Those of a valid access token; none of another text."""
        import jwt

        try:
            return jwt.decode(token, self._key, algorithms=[_ALGORITHM], options={"require": ["exp", "sub", "sid"]})
        except jwt.InvalidTokenError:
            return {}

    def _of_access(self, token: str, address: str) -> Caller:
        claims = self._claims(token)
        if not claims:
            raise unauthorized("the token is not valid, or has expired")
        with self._database.session() as session:  # so that a sign-out or another role counts at once
            user = session.scalar(_OF_LOGIN, {"family": claims["sid"]})
        if user is None:
            raise unauthorized("the sign-in has ended")
        return _caller(user, "token", claims["sid"], address)

    def _of_key(self, secret: str, address: str) -> Caller:
        # In this order: a change that comes after it was counted is not missed.
        generation, until = self._database.generation, time.monotonic() + _KEY_MEMORY
        with self._database.session() as session:
            row = session.execute(_OF_KEY, {"digest": digest(secret)}).first()
            moment = now()
            if row is None or (row.ApiKey.expires is not None and row.ApiKey.expires < moment):
                raise unauthorized("the API key is not valid, or has expired")
            user, key = row.User, row.ApiKey
            if key.used is None or moment - key.used > _KEY_USE:
                session.execute(_USED, {"key": key.id, "moment": moment})
        roles = frozenset(user.roles)
        if key.roles is not None:
            narrowed = frozenset(key.roles)
            roles = narrowed if ADMIN in roles else narrowed & roles
        caller = Caller(user.id, user.name, roles, "key", address=address)
        if key.expires is not None:
            until = min(until, time.monotonic() + (key.expires - moment).total_seconds())
        with self._lock:
            self._recent_keys[digest(secret)] = _RecentKey(caller, until, generation)
        return caller


def _caller(user: User, via: str, login: str = "", address: str = "") -> Caller:
    return Caller(user.id, user.name, frozenset(user.roles), via, login, address)


def _login(user_id: int, family: str, secret: str, expires: object) -> Login:
    return Login(user_id=user_id, family=family, digest=digest(secret), expires=expires)


def _end(session: Session, family: str) -> None:
    session.execute(update(Login).where(Login.family == family, Login.ended.is_(None)).values(ended=now()))
