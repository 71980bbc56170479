"""`/v1/users`, `/v1/audit`: users, their roles and API keys, and who did what."""

from datetime import datetime
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from plantml.serve.access import Admin, CallerDep
from plantml.serve.database import User
from plantml.serve.service import ServiceDep
from plantml.serve.users import audit
from plantml.serve.users.caller import ADMIN, Caller
from plantml.serve.web.json_bodies import JsonRoute
from plantml.serve.web.problems import RequestError, responses

router = APIRouter(prefix="/v1", tags=["users"], route_class=JsonRoute)


def _owner(caller: CallerDep, name: str) -> Caller:
    """The caller, who must be the user of that name, or an administrator.

    A key makes no other keys: it may be narrower than its user, and outlived by them.
    """
    if caller.may(ADMIN) or (caller.name == name and caller.via != "key"):
        return caller
    raise RequestError(403, "These are not your keys", "", "Sign in with your password, or ask an administrator.")


OwnerDep = Annotated[Caller, Depends(_owner)]
_ROLES = Field(description="Roles, and names of targets that the user may see.", examples=[["category", "contributor"]])
_YEAR = 366 * 86_400
Id = Annotated[int, Field(ge=1, le=2**31 - 1)]
Line = Annotated[str, Field(max_length=64, pattern=r"^[^\x00-\x1f]*$")]


class UserAnswer(BaseModel):
    """A user."""

    model_config = ConfigDict(from_attributes=True)

    name: str = Field(examples=["ada"])
    roles: list[str] = _ROLES
    created: datetime
    disabled: bool = Field(description="True if the user may not sign in.")


class NewUser(BaseModel):
    """A user to add."""

    name: str = Field(examples=["grader-3"])
    roles: list[str] = _ROLES
    password: SecretStr = Field(SecretStr(""), description="Empty for a machine, which uses API keys.")


class UserChange(BaseModel):
    """Changes to a user; fields that are left out stay as they are."""

    disabled: bool | None = Field(None, examples=[True])
    password: SecretStr | None = None


class Roles(BaseModel):
    """The roles of a user."""

    roles: list[str] = _ROLES


class KeyAnswer(BaseModel):
    """An API key, without its secret."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    label: str = Field(examples=["line 3"])
    roles: list[str] | None = Field(description="A subset of the user's roles; null for all of them.")
    created: datetime
    expires: datetime | None
    revoked: datetime | None
    used: datetime | None = Field(description="Last use, to the minute.")


class NewKey(BaseModel):
    """An API key to create."""

    label: Line = Field("", examples=["line 3"])
    roles: list[str] | None = Field(None, examples=[["category"]])
    expires_in: int | None = Field(None, ge=1, le=10 * _YEAR, description="Seconds.", examples=[7_776_000])


class NewKeyAnswer(KeyAnswer):
    """A new API key, with its secret, which is shown only once."""

    secret: str


class AuditAnswer(BaseModel):
    """An entry of the audit log."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    time: datetime
    user: str
    act: str = Field(examples=["user.add"])
    subject: str
    detail: dict[str, Any]
    address: str


@router.get("/users", summary="List the users.", responses=responses(401, 403, 503))
def list_users(service: ServiceDep, _: Admin) -> list[UserAnswer]:
    """All users, by name."""
    return [UserAnswer.model_validate(user) for user in service.accounts.users()]


@router.post("/users", summary="Add a user.", status_code=201, responses=responses(401, 403, 409, 422, 503))
async def add_user(service: ServiceDep, caller: Admin, body: NewUser) -> UserAnswer:
    """Add a person with a password, or a machine without one."""

    def add() -> User:
        return service.accounts.add(body.name, body.password.get_secret_value(), body.roles, by=caller)

    return UserAnswer.model_validate(await to_thread.run_sync(add, limiter=service.credentials.slots))


@router.patch(
    "/users/{name}", summary="Disable a user, or set a password.", responses=responses(401, 403, 404, 409, 422, 503)
)
async def change_user(service: ServiceDep, caller: Admin, name: str, body: UserChange) -> UserAnswer:
    """Either ends the sign-ins of the user. API keys of a disabled user are refused."""

    def change() -> User:
        if body.password is not None:
            service.accounts.set_password(name, body.password.get_secret_value(), by=caller)
        if body.disabled is not None:
            service.accounts.set_disabled(name, disabled=body.disabled, by=caller)
        return service.accounts.find(name)

    return UserAnswer.model_validate(await to_thread.run_sync(change, limiter=service.credentials.slots))


@router.delete("/users/{name}", summary="Remove a user.", status_code=204, responses=responses(401, 403, 404, 409, 503))
def remove_user(service: ServiceDep, caller: Admin, name: str) -> None:
    """Remove a user with their API keys and prediction history; photos and the audit log stay."""
    service.accounts.remove(name, by=caller)


@router.put(
    "/users/{name}/roles", summary="Set the roles of a user.", responses=responses(401, 403, 404, 409, 422, 503)
)
def set_roles(service: ServiceDep, caller: Admin, name: str, body: Roles) -> UserAnswer:
    """Replace the roles; they take effect with the next request."""
    return UserAnswer.model_validate(service.accounts.set_roles(name, body.roles, by=caller))


@router.get("/users/{name}/keys", summary="List a user's API keys.", responses=responses(401, 403, 404, 503))
def list_keys(service: ServiceDep, _: OwnerDep, name: str) -> list[KeyAnswer]:
    """Your own keys; administrators see everyone's."""
    return [KeyAnswer.model_validate(key) for key in service.accounts.keys(name)]


@router.post(
    "/users/{name}/keys",
    summary="Create an API key.",
    status_code=201,
    responses=responses(401, 403, 404, 409, 422, 503),
)
def add_key(service: ServiceDep, caller: OwnerDep, name: str, body: NewKey) -> NewKeyAnswer:
    """Create a key for yourself; administrators create them for anyone. The secret is shown only once."""
    key, secret = service.accounts.add_key(name, body.label, body.roles, body.expires_in, by=caller)
    return NewKeyAnswer(**KeyAnswer.model_validate(key).model_dump(), secret=secret)


@router.delete(
    "/users/{name}/keys/{key_id}",
    summary="Revoke an API key.",
    status_code=204,
    responses=responses(401, 403, 404, 422, 503),
)
def revoke_key(service: ServiceDep, caller: OwnerDep, name: str, key_id: Id) -> None:
    """The key stops working with the next request."""
    service.accounts.revoke_key(name, key_id, by=caller)


@router.get("/audit", summary="Read the audit log.", responses=responses(401, 403, 422, 503))
def read_audit(
    service: ServiceDep,
    _: Admin,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[Id | None, Query(description="Only entries with a smaller id, for the next page.")] = None,
    user: Annotated[Line | None, Query(description="Only entries of this user.")] = None,
    act: Annotated[Line | None, Query(description="Only acts that start with this.", examples=["user."])] = None,
) -> list[AuditAnswer]:
    """Newest entries first."""
    rows = audit.entries(service.database, limit=limit, before=before, user=user, act=act)
    return [AuditAnswer.model_validate(row) for row in rows]
