"""Sign in and out, and choose a language."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from plantml.serve.access import CallerDep
from plantml.serve.page import translations
from plantml.serve.page.rendering import SIGN_IN, PageRoute, render
from plantml.serve.page.translations import mark as _
from plantml.serve.routes.session import check_password, end_session, start_session
from plantml.serve.service import ServiceDep
from plantml.serve.web.problems import RequestError

router = APIRouter(route_class=PageRoute, include_in_schema=False)
_YEAR = 365 * 86_400


@router.get(SIGN_IN)
def show_sign_in(request: Request, next: str = "/") -> Response:  # noqa: A002 - the usual name of this parameter
    """The form."""
    return render(request, "sign_in.html", next=next, name="", failure=None)


@router.post(SIGN_IN)
async def sign_in(
    request: Request,
    service: ServiceDep,
    name: Annotated[str, Form()],
    password: Annotated[str, Form()],
    next: Annotated[str, Form()] = "/",  # noqa: A002
) -> Response:
    """Set the cookie, and go on to where the visitor wanted to go."""
    try:
        caller = await check_password(request, service, name, password)
    except RequestError as error:
        if error.status not in (401, 429):
            raise
        failure = _("Wrong name or password.") if error.status == 401 else _("Too many attempts. Wait a moment.")
        return render(request, "sign_in.html", status=error.status, next=next, name=name, failure=failure)
    response = RedirectResponse(_local(next), 303)
    await run_in_threadpool(start_session, request, response, service, caller)
    return response


@router.post("/sign-out")
def sign_out(request: Request, service: ServiceDep, caller: CallerDep) -> Response:
    """End the session, and forget its cookie."""
    response = RedirectResponse(SIGN_IN, 303)
    end_session(request, response, service, caller)
    return response


@router.post("/language")
def choose_language(language: Annotated[str, Form()], next: Annotated[str, Form()] = "/") -> Response:  # noqa: A002
    """Keep the choice for a year."""
    response = RedirectResponse(_local(next), 303)
    if language in translations.LANGUAGES:
        response.set_cookie(translations.COOKIE, language, max_age=_YEAR, httponly=True, samesite="lax")
    return response


def _local(path: str) -> str:
    """A path on this server; whatever else was asked for is the start."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"
