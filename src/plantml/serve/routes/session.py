"""`/v1/token`, `/v1/me`: sign in, and who is signed in."""

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.security import OAuth2PasswordRequestForm
from pydantic import BaseModel

from plantml.serve.access import CallerDep
from plantml.serve.accounts import ACCESS_TIME
from plantml.serve.problems import responses
from plantml.serve.service import ServiceDep

router = APIRouter(prefix="/v1", tags=["session"])


class TokenAnswer(BaseModel):
    """Tokens as OAuth2 names them."""

    access_token: str
    refresh_token: str
    token_type: str = "bearer"  # noqa: S105 - the name of a type
    expires_in: int


class Me(BaseModel):
    """Who is signed in."""

    name: str
    roles: list[str]


@router.post("/token", summary="Sign in by name and password.", responses=responses(401, 422, 429, 503))
def token(service: ServiceDep, form: Annotated[OAuth2PasswordRequestForm, Depends()]) -> TokenAnswer:
    """Exchange a name and a password for tokens."""
    tokens = service.accounts.begin(service.accounts.sign_in(form.username, form.password))
    return TokenAnswer(
        access_token=tokens.access, refresh_token=tokens.refresh, expires_in=int(ACCESS_TIME.total_seconds())
    )


@router.get("/me", summary="Who is signed in.", responses=responses(401, 503))
def me(caller: CallerDep) -> Me:
    """Name and roles of the caller."""
    return Me(name=caller.name, roles=sorted(caller.roles))
