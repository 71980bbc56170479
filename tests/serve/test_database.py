"""The database: transactions, times, and what happens when it goes away."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest
from sqlalchemy import select
from tests.serve.conftest import PASSWORD, sign_in

from plantml.errors import InputError, MissingExtraError, StorageError
from plantml.serve.database import Database, User
from plantml.serve.users.accounts import Accounts
from plantml.serve.users.credentials import Credentials
from plantml.serve.web.problems import RequestError


def test_a_transaction_is_whole_or_not_at_all(database) -> None:
    with contextlib.suppress(ZeroDivisionError), database.session() as session:
        session.add(User(name="ada", roles=[]))
        session.flush()
        raise ZeroDivisionError
    with database.session() as session:
        assert session.scalars(select(User)).all() == []
        session.add(User(name="ada", roles=[]))
    with database.session() as session:
        assert session.scalars(select(User)).one().created.tzinfo is not None


def test_a_database_file_is_for_its_owner_alone(tmp_path) -> None:
    Database(f"sqlite:///{tmp_path}/new/folder/serve.db").close()
    assert (tmp_path / "new/folder/serve.db").stat().st_mode & 0o077 == 0
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be created"):
        Database(f"sqlite:///{tmp_path}/file/serve.db")


def test_an_unreachable_database_is_an_error_without_its_password() -> None:
    with pytest.raises(StorageError) as error:
        Database("postgresql+psycopg://plantml:secret@127.0.0.1:1/plantml")
    assert "127.0.0.1" in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("nonsense", InputError),
        ("mysql+nothing://x", InputError),
        ("postgresql://secret:secret@host:port/x", InputError),
        ("oracle://x", MissingExtraError),
    ],
)
def test_a_url_that_is_none_is_an_error(url, kind) -> None:
    with pytest.raises(kind) as error:
        Database(url)
    assert error.value.hint
    assert "secret" not in str(error.value)


def test_on_postgresql_everything_is_the_same_and_it_may_go_away(start, postgres, postgres_url, photo) -> None:
    with start(database=postgres_url) as client:
        headers = sign_in(client, "ada", "admin")
        files = [("files", ("leaf.jpg", photo(), "image/jpeg"))]
        assert client.post("/v1/predict", files=files, headers=headers).status_code == 200
        assert len(client.get("/v1/predictions", headers=headers).json()) == 1
        for odd in ("a\0b", "x" * 10_000, "日本"):
            assert client.post("/v1/token", data={"username": odd, "password": odd}).status_code == 401
            assert client.delete(f"/v1/users/{quote(odd)}", headers=headers).status_code in (404, 422)
        assert client.get("/v1/audit", headers=headers).json()[0]["act"] == "sign-in.fail"
        postgres.stop()
        try:
            for path in ("/readyz", "/v1/me", "/v1/users"):
                answer = client.get(path, headers=headers)
                assert answer.status_code == 503, path
                assert answer.headers["retry-after"]
                assert answer.headers["content-type"] == "application/problem+json"
            assert client.post("/v1/token", data={"username": "ada", "password": PASSWORD}).status_code == 503
            assert client.get("/healthz").status_code == 200
        finally:
            postgres.start()
        for path in ("/readyz", "/v1/me", "/v1/users"):
            assert client.get(path, headers=headers).status_code == 200


def test_on_postgresql_of_two_refreshes_at_once_one_wins(postgres_url) -> None:
    with contextlib.closing(Database(postgres_url)) as database:
        Accounts(database).add("ada", PASSWORD, [])
        credentials = Credentials(database)
        tokens = credentials.begin(credentials.sign_in("ada", PASSWORD))

        def refresh(_):
            with contextlib.suppress(RequestError):
                return credentials.refresh(tokens.refresh)

        with ThreadPoolExecutor(4) as pool:
            assert sum(each is not None for each in pool.map(refresh, range(4))) == 1


def test_on_postgresql_the_last_administrator_stays(postgres_url) -> None:
    database = Database(postgres_url)
    accounts = Accounts(database)
    for name in ("ada", "bob"):
        accounts.add(name, "", ["admin"])

    def remove(name):
        try:
            accounts.remove(name)
        except RequestError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(remove, ("ada", "bob"))) == [False, True]
    database.close()
