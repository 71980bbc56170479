"""Users and API keys, one's own account, and the audit log."""

from collections.abc import Sequence
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Form, Request, Response
from fastapi.concurrency import run_in_threadpool

from plantml.serve.access import Admin, Owner
from plantml.serve.database import User
from plantml.serve.page.rendering import SIGN_IN, PageRoute, redirect, render
from plantml.serve.page.screens import catalogues
from plantml.serve.page.translations import mark as _
from plantml.serve.routes.users import Id, Line
from plantml.serve.service import Service, ServiceDep
from plantml.serve.users import audit
from plantml.serve.users.caller import ACTS, ADMIN, Caller

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Text = Annotated[str, Form()]
Texts = Annotated[list[str], Form(default_factory=list)]
Label = Annotated[Line, Form()]
Days = Annotated[int | None, Form(ge=1, le=3660)]
_DAY = 86_400
_PER_PAGE = 100
_ACTS = {
    ADMIN: _("may do everything, and manages users"),
    "contributor": _("sends photos with labels"),
    "reviewer": _("accepts photos and corrects labels"),
    "trainer": _("starts trainings"),
    "promoter": _("decides which version is in service"),
}


@router.get("/users")
def show_users(request: Request, service: ServiceDep, _caller: Admin) -> Response:
    """All users, and the form for a new one."""
    users = service.accounts.users()
    return render(request, "users.html", users=users, acts=_ACTS, targets=_targets(service, users))


@router.post("/users")
async def add_user(
    *, request: Request, service: ServiceDep, caller: Admin, name: Text, password: Text = "", roles: Texts
) -> Response:  # fmt: skip
    """Add one, and show them."""
    await to_thread.run_sync(
        lambda: service.accounts.add(name, password, _named(roles), by=caller), limiter=service.credentials.slots
    )
    return redirect(request, f"/users/{name}")


@router.get("/users/{name}")
def show_user(request: Request, service: ServiceDep, _caller: Admin, name: str) -> Response:
    """Roles, password and keys of one."""
    return _user_page(request, service, name)


@router.post("/users/{name}/roles")
def set_roles(request: Request, service: ServiceDep, caller: Admin, name: str, roles: Texts) -> Response:
    """Replace the roles."""
    service.accounts.set_roles(name, _named(roles), by=caller)
    return redirect(request, f"/users/{name}")


@router.post("/users/{name}/disabled")
def set_disabled(
    request: Request, service: ServiceDep, caller: Admin, name: str, disabled: Annotated[bool, Form()]
) -> Response:
    """Let a user in no more, or again."""
    service.accounts.set_disabled(name, disabled=disabled, by=caller)
    return redirect(request, f"/users/{name}")


@router.post("/users/{name}/password")
async def set_password(request: Request, service: ServiceDep, caller: Admin, name: str, password: Text) -> Response:
    """Replace the password; sign-ins of the user end."""
    await to_thread.run_sync(
        lambda: service.accounts.set_password(name, password, by=caller), limiter=service.credentials.slots
    )
    return redirect(request, f"/users/{name}")


@router.post("/users/{name}/remove")
def remove(request: Request, service: ServiceDep, caller: Admin, name: str) -> Response:
    """Remove the user."""
    service.accounts.remove(name, by=caller)
    return redirect(request, "/users")


@router.post("/users/{name}/keys")
def add_key(
    *, request: Request, service: ServiceDep, caller: Admin, name: str, label: Label = "", days: Days = None
) -> Response:  # fmt: skip
    """Make a key, and show its secret this once."""
    return _user_page(request, service, name, secret=_new_key(service, caller, name, label, days))


@router.post("/users/{name}/keys/{key_id}/revoke")
def revoke_key(request: Request, service: ServiceDep, caller: Admin, name: str, key_id: Id) -> Response:
    """Revoke a key."""
    service.accounts.revoke_key(name, key_id, by=caller)
    return redirect(request, f"/users/{name}")


@router.get("/account")
def show_account(request: Request, service: ServiceDep, caller: Owner) -> Response:
    """One's own roles, password and keys."""
    return _account_page(request, service, caller)


@router.post("/account/password")
async def change_password(request: Request, service: ServiceDep, caller: Owner, old: Text, new: Text) -> Response:
    """Replace one's own password, then sign in anew."""
    change = service.credentials.change_password
    await to_thread.run_sync(change, caller, old, new, limiter=service.credentials.slots)
    return redirect(request, SIGN_IN)


@router.post("/account/keys")
def add_own_key(
    request: Request, service: ServiceDep, caller: Owner, label: Label = "", days: Days = None
) -> Response:  # fmt: skip
    """Make a key for oneself, and show its secret this once."""
    return _account_page(request, service, caller, secret=_new_key(service, caller, caller.name, label, days))


@router.post("/account/keys/{key_id}/revoke")
def revoke_own_key(request: Request, service: ServiceDep, caller: Owner, key_id: Id) -> Response:
    """Revoke one's own key."""
    service.accounts.revoke_key(caller.name, key_id, by=caller)
    return redirect(request, "/account")


@router.get("/audit")
async def show_audit(
    request: Request, service: ServiceDep, _caller: Admin, user: Line = "", act: Line = "", before: Id | None = None
) -> Response:  # fmt: skip
    """Who did what, the newest first."""
    entries = await run_in_threadpool(
        audit.entries, service.database, limit=_PER_PAGE, before=before, user=user or None, act=act or None
    )
    older = entries[-1].id if len(entries) == _PER_PAGE else None
    return render(request, "audit.html", entries=entries, user=user, act=act, older=older)


def _user_page(request: Request, service: Service, name: str, secret: str = "") -> Response:
    user = service.accounts.find(name)
    keys = service.accounts.keys(name)
    targets = _targets(service, [user])
    return render(request, "user.html", user=user, keys=keys, acts=_ACTS, targets=targets, secret=secret)


def _account_page(request: Request, service: Service, caller: Caller, secret: str = "") -> Response:
    return render(request, "account.html", keys=service.accounts.keys(caller.name), secret=secret)


def _new_key(service: Service, caller: Caller, name: str, label: str, days: int | None) -> str:
    seconds = None if days is None else days * _DAY
    return service.accounts.add_key(name, label, None, seconds, by=caller)[1]


def _targets(service: Service, users: Sequence[User]) -> list[str]:
    """Targets that can be roles: those of the datasets and models, and those that are roles already."""
    present = {role for user in users for role in user.roles} - set(ACTS)
    return sorted(present | set(catalogues.target_names(service)))


def _named(roles: Sequence[str]) -> list[str]:
    """Roles of checkboxes, and of a field with some more, separated by commas."""
    return [role.strip() for text in roles for role in text.split(",") if role.strip()]
