"""Secrets and what they open: passwords, tokens, cookies and keys, and when they stop."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import jwt
import pytest
from sqlalchemy import select, update
from tests.serve.conftest import PASSWORD

from plantml.serve.database import ApiKey, Login, Secret, now
from plantml.serve.users import audit, credentials
from plantml.serve.users.accounts import Accounts
from plantml.serve.users.credentials import Credentials
from plantml.serve.web.problems import RequestError


@pytest.fixture
def accounts(database):
    """With one user, ada."""
    accounts = Accounts(database)
    accounts.add("root", PASSWORD, ["admin"])
    accounts.add("ada", PASSWORD, ["category", "reviewer"])
    return accounts


@pytest.fixture
def checks(database, accounts):
    """Credentials on that database."""
    return Credentials(database)


def sign_in(checks):
    return checks.begin(checks.sign_in("ada", PASSWORD))


def acts(database):
    return [entry.act for entry in audit.entries(database, limit=100)][::-1]


def refused(call, *arguments) -> int:
    with pytest.raises(RequestError) as error:
        call(*arguments)
    return error.value.status


def test_a_password_opens_and_anything_else_does_not(checks, accounts, database) -> None:
    caller = checks.sign_in("ada", PASSWORD, "192.0.2.1")
    assert (caller.name, caller.roles, caller.address) == ("ada", {"category", "reviewer"}, "192.0.2.1")
    accounts.add("machine", "", [])
    for name, password in (
        ("ada", PASSWORD + "x"), ("ada", ""), ("eve", PASSWORD), ("machine", ""), ("machine", PASSWORD),
        ("a\0da", PASSWORD), ("ada", "x" * 100_000),
    ):  # fmt: skip
        assert refused(checks.sign_in, name, password) == 401
    failures = [entry for entry in audit.entries(database, limit=100) if entry.act == "sign-in.fail"]
    assert {entry.subject for entry in failures} == {"ada", "machine", ""}  # what else was typed may be a password


def test_a_refresh_token_is_good_once_and_its_reuse_ends_the_sign_in(checks, database) -> None:
    first, other = sign_in(checks), sign_in(checks)
    second = checks.refresh(first.refresh)
    assert checks.of_token(second.access).name == "ada"
    assert refused(checks.refresh, first.refresh) == 401
    for secret, check in ((second.refresh, checks.refresh), (second.access, checks.of_token)):
        assert refused(check, secret) == 401
    assert checks.of_token(other.access).name == "ada"
    assert "token.reuse" in acts(database)


def test_of_two_refreshes_at_once_one_wins(checks) -> None:
    tokens = sign_in(checks)

    def attempt(_):
        try:
            return checks.refresh(tokens.refresh)
        except RequestError:
            return None

    with ThreadPoolExecutor(4) as pool:
        assert sum(each is not None for each in pool.map(attempt, range(4))) == 1


@pytest.mark.parametrize("which", ["access", "refresh"])
def test_a_revoked_sign_in_has_ended(checks, which) -> None:
    tokens = sign_in(checks)
    checks.revoke(getattr(tokens, which))
    checks.revoke(getattr(tokens, which))
    checks.revoke("nonsense")
    assert refused(checks.of_token, tokens.access) == 401
    assert refused(checks.refresh, tokens.refresh) == 401


def test_everything_has_its_end(checks, database, monkeypatch) -> None:
    tokens, cookie = sign_in(checks), checks.begin_session(checks.sign_in("ada", PASSWORD))
    monkeypatch.setattr(credentials, "ACCESS_TIME", timedelta(seconds=-1))
    assert refused(checks.of_token, checks.refresh(tokens.refresh).access) == 401
    with database.session() as session:
        session.execute(update(Login).values(expires=now() - timedelta(seconds=1)))
    assert refused(checks.of_cookie, cookie) == 401
    tokens = sign_in(checks)  # forgets what has expired
    with database.session() as session:
        assert len(session.scalars(select(Login)).all()) == 1


@pytest.mark.parametrize("change", ["disabled", "removed", "password", "own password"])
def test_a_change_of_the_user_counts_at_once(checks, accounts, change) -> None:
    tokens, cookie = sign_in(checks), checks.begin_session(checks.sign_in("ada", PASSWORD))
    _, key = accounts.add_key("ada")
    ada = checks.of_token(tokens.access)
    {
        "disabled": lambda: accounts.set_disabled("ada", disabled=True),
        "removed": lambda: accounts.remove("ada"),
        "password": lambda: accounts.set_password("ada", "a new long password"),
        "own password": lambda: checks.change_password(ada, PASSWORD, "a new long password"),
    }[change]()
    assert refused(checks.of_token, tokens.access) == 401
    assert refused(checks.refresh, tokens.refresh) == 401
    assert refused(checks.of_cookie, cookie) == 401
    assert refused(checks.sign_in, "ada", PASSWORD) == 401
    if "password" in change:
        assert checks.of_token(key).name == "ada"
    else:
        assert refused(checks.of_token, key) == 401


def test_roles_are_those_of_now(checks, accounts) -> None:
    tokens = sign_in(checks)
    accounts.set_roles("ada", ["trainer"])
    assert checks.of_token(tokens.access).roles == {"trainer"}


def test_a_token_of_a_removed_user_is_no_token_of_the_next_one(checks, accounts) -> None:
    tokens = sign_in(checks)
    accounts.remove("ada")
    accounts.add("bob", PASSWORD, ["admin"])
    assert refused(checks.of_token, tokens.access) == 401


def test_a_key_narrows_the_roles_of_its_user(checks, accounts) -> None:
    _, narrow = accounts.add_key("ada", roles=["category", "admin"])
    _, of_admin = accounts.add_key("root", roles=["health"])
    assert checks.of_token(narrow).roles == {"category"}
    assert checks.of_token(of_admin).roles == {"health"}
    accounts.set_roles("ada", ["trainer"])
    assert checks.of_token(narrow).roles == set()


def test_a_key_stops_when_it_expires_or_is_revoked(checks, accounts, database) -> None:
    short, expiring = accounts.add_key("ada", seconds=60)
    lasting, kept = accounts.add_key("ada")
    with database.session() as session:
        session.execute(update(ApiKey).where(ApiKey.id == short.id).values(expires=now() - timedelta(seconds=1)))
    assert refused(checks.of_token, expiring) == 401
    assert checks.of_token(kept).via == "key"
    accounts.revoke_key("ada", lasting.id)
    assert refused(checks.of_token, kept) == 401


def test_the_use_of_a_key_is_kept_to_the_minute(checks, accounts) -> None:
    _, secret = accounts.add_key("ada")
    checks.of_token(secret)
    used = accounts.keys("ada")[0].used
    checks.of_token(secret)
    assert accounts.keys("ada")[0].used == used is not None


class Away:
    """A database that must not be asked, of the same state."""

    def __init__(self, database):
        self._database = database

    @property
    def generation(self):
        return self._database.generation


def test_a_key_that_was_just_valid_needs_no_database(checks, accounts, database, monkeypatch) -> None:
    _, secret = accounts.add_key("ada", roles=["category"])
    assert checks.of_recent_key(secret) is None
    asked = checks.of_token(secret, "192.0.2.1")
    monkeypatch.setattr(checks, "_database", Away(database))
    assert checks.of_recent_key(secret, "192.0.2.1") == asked
    assert checks.of_recent_key(secret, "192.0.2.2").address == "192.0.2.2"
    assert checks.of_recent_key(secret + "x") is None
    assert checks.of_recent_key("") is None
    monkeypatch.setattr(credentials.time, "monotonic", lambda now=credentials.time.monotonic: now() + 3)
    assert checks.of_recent_key(secret) is None


@pytest.mark.parametrize("change", ["revoked", "disabled", "removed", "roles", "by a statement"])
def test_what_this_server_changes_counts_at_once_for_keys(checks, accounts, database, change) -> None:
    key, secret = accounts.add_key("ada")

    def by_statement():
        with database.session() as session:
            session.execute(update(ApiKey).values(revoked=now()))

    changes = {
        "revoked": lambda: accounts.revoke_key("ada", key.id),
        "disabled": lambda: accounts.set_disabled("ada", disabled=True),
        "removed": lambda: accounts.remove("ada"),
        "roles": lambda: accounts.set_roles("ada", ["health"]),
        "by a statement": by_statement,
    }
    checks.of_token(secret)
    checks.of_token(secret)
    assert checks.of_recent_key(secret) is not None
    changes[change]()
    assert checks.of_recent_key(secret) is None


def test_a_change_during_the_check_of_a_key_is_not_missed(checks, accounts, database, monkeypatch) -> None:
    _, secret = accounts.add_key("ada")
    checks.of_token(secret)
    moment = credentials.now

    def revoked_meanwhile():
        monkeypatch.setattr(credentials, "now", moment)
        database.generation += 1  # as a commit on another connection would count it
        return moment()

    monkeypatch.setattr(credentials, "now", revoked_meanwhile)
    checks.of_token(secret)
    assert checks.of_recent_key(secret) is None


def test_a_key_is_not_remembered_beyond_its_end(checks, accounts) -> None:
    _, secret = accounts.add_key("ada", seconds=0.3)
    checks.of_token(secret)
    recent = checks._recent_keys[credentials.digest(secret)]
    assert recent.until < credentials.time.monotonic() + 0.31


def test_no_secret_is_kept(checks, accounts, database) -> None:
    tokens, (_, key) = sign_in(checks), accounts.add_key("ada")
    kept = b"".join(file.read_bytes() for file in database.folder.iterdir())
    for secret in (PASSWORD, tokens.access, tokens.refresh, key):
        assert secret.encode() not in kept


def test_only_tokens_of_the_shared_key_count(checks, database) -> None:
    tokens = sign_in(checks)
    claims = jwt.decode(tokens.access, options={"verify_signature": False})
    for forged in (jwt.encode(claims, "another key" * 4, "HS256"), jwt.encode(claims, None, "none"), "", "a.b.c"):
        assert refused(checks.of_token, forged) == 401
    assert Credentials(database).of_token(tokens.access).name == "ada"
    with database.session() as session:
        assert len(session.scalars(select(Secret)).all()) == 1


def test_a_form_needs_the_token_of_its_own_sign_in(checks) -> None:
    one, other = (checks.of_cookie(checks.begin_session(checks.sign_in("ada", PASSWORD))) for _ in range(2))
    checks.check_csrf(one, checks.csrf_token(one))
    for wrong in ("", "é", checks.csrf_token(other)):
        assert refused(checks.check_csrf, one, wrong) == 403
