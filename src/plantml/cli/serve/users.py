"""`plantml serve users`: who may use the server, straight in its database."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plantml.cli.command import ConfigFile, command, group
from plantml.cli.console import Console, Page
from plantml.errors import UsageError

if TYPE_CHECKING:
    from plantml.serve.database import ApiKey, User
    from plantml.serve.users.accounts import Accounts

SUMMARY = "Manage the users of a server, their roles and API keys."
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the user.")]
Roles = Annotated[
    str, typer.Option(metavar="A,B", help="admin, contributor, trainer, reviewer, promoter, and names of targets.")
]


@dataclass(frozen=True)
class Place:
    """Where the users are: the settings of `plantml serve`."""

    state: Annotated[str | None, typer.Option(metavar="URL", help="State folder of the server. [default: serve]")] = (
        None
    )
    database: Annotated[
        str | None, typer.Option(metavar="URL", help="Database of users. [default: SQLite in the state folder]")
    ] = None
    config_file: ConfigFile = None

    def accounts(self, *, is_new: bool = False) -> "Accounts":
        """The users there; `is_new` allows that there is no database yet. Raises `NotFoundError`."""
        from plantml.extras import need_serve

        need_serve()
        from plantml.serve.config import ServeConfig
        from plantml.serve.database import Database
        from plantml.serve.service import check_exists, database_url
        from plantml.serve.users.accounts import Accounts
        from plantml.settings import resolve

        flags = {"state": self.state, "database": self.database}
        config = resolve(ServeConfig, "serve", flags=flags, file=self.config_file).value
        if not is_new:
            check_exists(config)
        return Accounts(Database(database_url(config)))


@command(
    "plantml serve users add ada --roles admin",
    "plantml serve users add grader-3 --roles category,health --no-password",
    "pass show plantml/ada | plantml serve users add ada --roles admin",
)
def add(
    console: Console,
    place: Place,
    name: Name,
    roles: Roles = "",
    no_password: Annotated[
        bool, typer.Option("--no-password", help="Add a machine, which uses API keys instead of a password.")
    ] = False,
) -> None:
    """Add a user.

    Asks for the password, or reads it from the first line of standard input.
    """
    accounts = place.accounts(is_new=True)
    user = accounts.add(name, "" if no_password else _password(console), _split(roles))

    def show(page: Page) -> None:
        page.line(f"Added {user.name}, who may: {', '.join(user.roles) or 'sign in only'}.")
        if no_password:
            page.next(f"plantml serve users key {name}")

    console.result({"user": _user_json(user)}, show)


@command("plantml serve users list", "plantml serve users list --database postgresql+psycopg://plantml@db/plantml")
def list_(console: Console, place: Place) -> None:
    """List the users."""
    users = place.accounts().users()

    def show(page: Page) -> None:
        rows = [(user.name, ", ".join(user.roles), _minute(user.created), _remark(user)) for user in users]
        page.table(("name", "roles", "since", ""), rows)

    console.result({"users": [_user_json(user) for user in users]}, show)


@command("plantml serve users remove ada")
def remove(console: Console, place: Place, name: Name) -> None:
    """Remove a user.

    Their API keys, sign-ins and history of predictions are removed, too; contributed photos and the audit log are kept.
    The last administrator cannot be removed.
    """
    place.accounts().remove(name)
    console.result({"removed": name}, lambda page: page.line(f"Removed {name}."))


@command(
    "plantml serve users set-roles ada --roles category,contributor", "plantml serve users set-roles ada --roles ''"
)
def set_roles(
    console: Console,
    place: Place,
    name: Name,
    roles: Annotated[str, typer.Option(metavar="A,B", help="New roles; '' for none.")],
) -> None:
    """Replace the roles of a user."""
    user = place.accounts().set_roles(name, _split(roles))
    console.result({"user": _user_json(user)}, lambda page: page.line(f"{name}: {', '.join(user.roles) or 'no role'}"))


@command("plantml serve users set-password ada")
def set_password(console: Console, place: Place, name: Name) -> None:
    """Replace a user's password, and end all of their sign-ins.

    Asks for the password, or reads it from the first line of standard input.
    """
    accounts = place.accounts()
    accounts.find(name)
    accounts.set_password(name, _password(console))
    console.result({"user": name}, lambda page: page.line(f"{name} has a new password."))


@command("plantml serve users disable ada")
def disable(console: Console, place: Place, name: Name) -> None:
    """Disable a user.

    Their sign-ins end, and their API keys are refused, until `plantml serve users enable`.
    """
    _set_disabled(console, place, name, disabled=True)


@command("plantml serve users enable ada")
def enable(console: Console, place: Place, name: Name) -> None:
    """Enable a disabled user again."""
    _set_disabled(console, place, name, disabled=False)


@command(
    "plantml serve users key grader-3 --label 'line 3' --expires 90d", "plantml serve users key ada --roles category"
)
def key(
    console: Console,
    place: Place,
    name: Name,
    label: Annotated[str, typer.Option(metavar="TEXT", help="What the key is for.")] = "",
    roles: Annotated[
        str | None, typer.Option(metavar="A,B", help="Limit the key to these roles. [default: all roles of the user]")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="Lifetime, such as 90d. [default: until it is revoked]")
    ] = None,
) -> None:
    """Create an API key, and show its secret once."""
    narrowed = None if roles is None else _split(roles)
    created, secret = place.accounts().add_key(name, label, narrowed, None if expires is None else _lifetime(expires))
    console.result({"key": _key_json(created), "secret": secret}, lambda page: page.line(secret))


@command("plantml serve users keys grader-3")
def keys(console: Console, place: Place, name: Name) -> None:
    """List the API keys of a user, without their secrets."""
    rows = place.accounts().keys(name)

    def show(page: Page) -> None:
        columns = ("id", "label", "roles", "since", "expires", "last used", "revoked")
        page.table(columns, [_key_cells(each) for each in rows])

    console.result({"keys": [_key_json(each) for each in rows]}, show)


@command("plantml serve users revoke grader-3 7")
def revoke(
    console: Console,
    place: Place,
    name: Name,
    key_id: Annotated[int, typer.Argument(metavar="ID", min=1, max=2**31 - 1, help="Number of the key.")],
) -> None:
    """Revoke an API key."""
    place.accounts().revoke_key(name, key_id)
    console.result({"revoked": key_id}, lambda page: page.line(f"Key {key_id} of {name} is revoked."))


COMMANDS = (add, list_, remove, set_roles, set_password, disable, enable, key, keys, revoke)
"""In the order of the help page."""


def add_group(app: typer.Typer) -> None:
    """Add the commands to `plantml serve`."""
    app.add_typer(inner := group("users", SUMMARY))
    for add_to in COMMANDS:
        add_to(inner)


def _set_disabled(console: Console, place: Place, name: str, *, disabled: bool) -> None:
    user = place.accounts().set_disabled(name, disabled=disabled)
    state = "disabled" if disabled else "enabled"
    console.result({"user": _user_json(user)}, lambda page: page.line(f"{name} is {state}."))


def _password(console: Console) -> str:
    """A password from the terminal, typed twice, or else the first line of standard input."""
    stream = console.streams.stdin
    if stream.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt="Once more", err=True))
    password = stream.readline().decode("utf-8", "replace").rstrip("\r\n")
    if not password:
        raise UsageError("There is no password", "standard input is empty", "Pipe it in, or run this in a terminal.")
    return password


def _split(roles: str) -> list[str]:
    return [role.strip() for role in roles.split(",") if role.strip()]


def _lifetime(text: str) -> float:
    from pydantic import TypeAdapter, ValidationError

    from plantml.settings import Duration

    try:
        return TypeAdapter(Duration).validate_python(text)
    except ValidationError as error:
        why = str(error.errors()[0]["msg"])
        raise UsageError(f"--expires cannot be {text}", why, "Write a time such as 90d.") from error


def _user_json(user: "User") -> dict[str, Any]:
    return {
        "name": user.name,
        "roles": user.roles,
        "created": user.created.isoformat(),
        "disabled": user.disabled,
        "password": bool(user.password),
    }


def _key_json(key: "ApiKey") -> dict[str, Any]:
    times = {name: getattr(key, name) for name in ("created", "expires", "used", "revoked")}
    shown = {name: None if time is None else time.isoformat() for name, time in times.items()}
    return {"id": key.id, "label": key.label, "roles": key.roles, **shown}


def _key_cells(key: "ApiKey") -> Sequence[Any]:
    roles = "all" if key.roles is None else ", ".join(key.roles)
    return key.id, key.label, roles, *(_minute(time) for time in (key.created, key.expires, key.used, key.revoked))


def _minute(time: Any) -> str:
    return "" if time is None else time.isoformat(sep=" ", timespec="minutes")[:16]


def _remark(user: "User") -> str:
    return "disabled" if user.disabled else "" if user.password else "API keys only"
