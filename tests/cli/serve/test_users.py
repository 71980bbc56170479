"""`plantml serve users`: users and keys, straight in the database."""

import functools

import pytest

from plantml.errors import Exit

PASSWORD = "correct horse battery"


@pytest.fixture
def users(cli, tmp_path):
    """`users("list", …)`: one command on a fresh database."""
    state = str(tmp_path / "state")

    def run(command, *arguments, **streams):
        return cli("serve", "users", command, *arguments, "--state", state, **streams)

    return run


def test_a_user_from_adding_to_removing(users) -> None:
    added = users("add", "ada", "--roles", "admin, category", "--json", stdin=f"{PASSWORD}\n".encode())
    assert added.json["user"]["roles"] == ["admin", "category"], added.err
    assert PASSWORD not in added.out + added.err
    assert users("add", "line-3", "--roles", "category", "--no-password").code == Exit.DONE
    assert users("set-roles", "line-3", "--roles", "health").out == "line-3: health\n"
    assert users("disable", "line-3").out == "line-3 is disabled.\n"
    assert "disabled" in users("list").out
    assert users("enable", "line-3").code == Exit.DONE
    assert users("set-password", "ada", stdin=b"another long password\n").code == Exit.DONE
    assert users("remove", "line-3").code == Exit.DONE
    assert [user["name"] for user in users("list", "--json").json["users"]] == ["ada"]


def test_a_key_is_shown_once_expires_and_is_revoked(users) -> None:
    users("add", "line-3", "--roles", "category", "--no-password")
    secret = users("key", "line-3", "--label", "line 3", "--expires", "90d").out.strip()
    assert secret.startswith("plantml_")
    listed = users("keys", "line-3", "--json")
    assert secret not in listed.out
    assert listed.json["keys"][0]["expires"] > listed.json["keys"][0]["created"]
    assert users("revoke", "line-3", "1").code == Exit.DONE
    assert users("keys", "line-3", "--json").json["keys"][0]["revoked"]


@pytest.mark.parametrize(
    ("line", "stdin", "code", "names"),
    [
        (("add", "ada"), b"short\n", Exit.INPUT, "12"),
        (("add", "ada"), b"", Exit.USAGE, "standard input"),
        (("add", "a b", "--no-password"), b"", Exit.INPUT, "letters"),
        (("add", "boss", "--no-password"), b"", Exit.STORAGE, "boss"),
        (("add", "ada", "--no-password", "--roles", "§"), b"", Exit.INPUT, "reviewer"),
        (("remove", "ada"), b"", Exit.INPUT, "users list"),
        (("remove", "boss"), b"", Exit.USAGE, "admin"),
        (("set-roles", "boss", "--roles", ""), b"", Exit.USAGE, "admin"),
        (("disable", "boss"), b"", Exit.USAGE, "admin"),
        (("key", "boss", "--expires", "soon"), b"", Exit.USAGE, "90d"),
        (("revoke", "boss", "9"), b"", Exit.INPUT, "users keys"),
    ],
)
def test_errors_say_what_to_do(users, line, stdin, code, names) -> None:
    users("add", "boss", "--no-password", "--roles", "admin")
    run = functools.partial(users, *line, stdin=stdin)
    result = run()
    assert (result.code, result.out) == (code, "")
    assert names in result.err


def test_a_state_without_users_is_not_created_by_a_look(users, tmp_path) -> None:
    result = users("list")
    assert result.code == Exit.INPUT
    assert "users add" in result.err
    assert not (tmp_path / "state").exists()


def test_the_settings_are_those_of_the_server(cli, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PLANTML_SERVE__STATE", str(tmp_path / "state"))
    cli("serve", "users", "add", "ada", "--no-password")
    settings = tmp_path / "serve.yaml"
    settings.write_text(f"database: sqlite:///{tmp_path}/state/serve.db\nport: 9000\n")
    monkeypatch.delenv("PLANTML_SERVE__STATE")
    assert "ada" in cli("serve", "users", "list", "--config", settings).out
