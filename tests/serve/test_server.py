"""The start of a server: its first user, and the addresses that it may listen on."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient

from plantml import settings
from plantml.concurrency import Listener
from plantml.errors import InputError, UsageError
from plantml.serve import server
from plantml.serve.config import ServeConfig
from plantml.serve.database import Database
from plantml.serve.users.accounts import FIRST_USER, Accounts


def test_the_first_start_alone_shows_a_password_that_opens(monkeypatch, registry, tmp_path) -> None:
    messages, warnings, answers = [], [], []

    def run(self, *_):
        with TestClient(self.config.app, base_url="http://localhost") as client:
            password = re.search(r"password (\S+),", warnings[0])[1]
            answers.append(client.post("/v1/token", data={"username": FIRST_USER, "password": password}).status_code)

    monkeypatch.setattr(server._Server, "run", run)
    config = ServeConfig(state=str(tmp_path / "state"), port=0, workers=0)
    for _ in range(2):
        server.serve(registry, config, settings.machine(), Listener(say=messages.append, warn=warnings.append))
    assert answers == [200, 200]
    assert len(warnings) == 1
    assert not any("password" in text for text in messages)


def test_of_servers_that_start_at_once_one_adds_the_first_user(postgres_url) -> None:
    databases = [Database(postgres_url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        passwords = list(pool.map(lambda database: Accounts(database).add_first(), databases))
    assert sum(password is not None for password in passwords) == 1
    for database in databases:
        database.close()


def test_users_that_are_no_administrators_do_not_lock_the_first_one_out(database) -> None:
    accounts = Accounts(database)
    accounts.add("grader", "", ["category"])
    accounts.add("other", "", [])
    accounts.remove("other")
    assert accounts.add_first()
    assert accounts.add_first() is None
    accounts.remove("grader")


@pytest.mark.parametrize(
    "changes",
    [{}, {"host": "localhost"}, {"host": "::1"}, {"host": "127.9.9.9"}, {"host": "0.0.0.0", "insecure": True},
     {"host": "0.0.0.0", "behind_proxy": ["10.0.0.0/8"]}, {"host": "::", "tls_certificate": "c.pem"}],
)  # fmt: skip
def test_an_address_that_only_this_machine_reaches_or_that_is_safe_is_taken(changes) -> None:
    server.check_address(ServeConfig(**changes))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "plants.example", "::ffff:10.0.0.1"])
def test_an_open_address_without_tls_is_refused(host) -> None:
    with pytest.raises(UsageError, match="no TLS") as error:
        server.check_address(ServeConfig(host=host))
    assert "--insecure" in error.value.hint


def test_tls_files_are_read_before_anything_else(tmp_path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate")
    for certificate in (wrong, tmp_path / "missing.pem"):
        with pytest.raises(InputError, match="cannot be read"):
            server.check_tls(ServeConfig(tls_certificate=str(certificate)))
    with pytest.raises(UsageError, match="no certificate"):
        server.check_tls(ServeConfig(tls_key=str(wrong)))
    server.check_tls(ServeConfig())
