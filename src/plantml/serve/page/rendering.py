"""From a template and its values to a response: in the visitor's language, with what the caller may see."""

import functools
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from plantml.about import __version__
from plantml.errors import InputError, PlantmlError
from plantml.serve.page import labels, translations
from plantml.serve.page.translations import mark as _
from plantml.serve.service import Service
from plantml.serve.users.caller import Caller
from plantml.serve.web.problems import RequestError, for_clients, status_of

if TYPE_CHECKING:
    from jinja2 import Environment

SIGN_IN = "/sign-in"
_MENU = (
    ("/", _("Ask"), None),
    ("/history", _("History"), None),
    ("/contribute", _("Contribute"), "contributor"),
    ("/review", _("Review"), "reviewer"),
    ("/models", _("Models"), None),
    ("/trainings", _("Trainings"), "trainer"),
    ("/users", _("Users"), "admin"),
    ("/audit", _("Audit"), "admin"),
)
"""Path, title, and the role that it needs."""

_HEADLINES: Mapping[int, str] = {
    403: _("You are not allowed to do this."),
    404: _("Not found."),
    409: _("This conflicts with the current state."),
    413: _("This is too large."),
    429: _("Too many attempts. Wait a moment."),
    503: _("The server is busy, or storage cannot be reached. Try again in a moment."),
}
_PERCENT = _("%(number)s%%")
_TARGETS: Mapping[str, str] = {
    "category": _("category"),
    "health": _("health"),
    "disease": _("disease"),
    "severity": _("severity"),
    "symptoms": _("symptoms"),
}
"""Common names of targets, for translation. Others are shown as they are, and so are all labels: they are data."""


def render(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Fill a template. A request by htmx gets the same template, which then extends no page."""
    language = language_of(request)
    caller: Caller | None = getattr(request.state, "caller", None)
    context = {
        "caller": caller,
        "csrf_token": csrf_token(request),
        "language": language,
        "languages": translations.LANGUAGES,
        "menu": [(path, title) for path, title, role in _MENU if caller and (role is None or caller.may(role))],
        "path": request.url.path,
        "version": __version__,
        **values,
    }
    return HTMLResponse(_environment(language).get_template(template).render(context), status)


def language_of(request: Request) -> str:
    """The language in which the visitor reads."""
    return translations.choose(request.cookies.get(translations.COOKIE), request.headers.get("accept-language"))


def csrf_token(request: Request) -> str:
    """What a form must send back to prove that it is ours; "" for who is not signed in by a cookie."""
    caller: Caller | None = getattr(request.state, "caller", None)
    if caller is None or caller.via != "cookie":
        return ""
    service: Service = request.app.state.service
    return service.credentials.csrf_token(caller)


def is_fragment(request: Request) -> bool:
    """True if htmx asks for a part of a page."""
    return "hx-request" in request.headers


def redirect(request: Request, path: str) -> Response:
    """Send the browser to another page, after a form or an htmx request."""
    if is_fragment(request):
        return Response(headers={"HX-Redirect": quote(path, safe="/?=%")})
    return RedirectResponse(path, 303)


class PageRoute(APIRoute):
    """A route whose errors are pages for people; who is not signed in is sent to sign in."""

    def get_route_handler(self) -> Callable[..., Any]:
        """The handler of the route, with its errors answered."""
        answer = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                response: Response = await answer(request)
            except PlantmlError as error:
                return error_page(request, error)
            except RequestValidationError as error:
                why = "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors())
                return error_page(request, InputError("The form is not complete", why, "Check it, then send it again."))
            except HTTPException as error:
                return error_page(request, RequestError(error.status_code, str(error.detail)))
            return response

        return handle


def error_page(request: Request, error: PlantmlError) -> Response:
    """The page, or for htmx the message, of an error."""
    status, error = status_of(error), for_clients(error, request)
    if status == 401:
        return redirect(request, SIGN_IN if request.method != "GET" else f"{SIGN_IN}?next={request.url.path}")
    headline = _HEADLINES.get(status, _("This did not work."))
    template = "problem.html" if is_fragment(request) else "error.html"
    return render(request, template, status=status, headline=headline, error=error)


@functools.cache
def _environment(language: str) -> "Environment":
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        extensions=["jinja2.ext.i18n"],
    )
    catalogue = translations.catalogue(language)
    environment.install_gettext_translations(catalogue, newstyle=True)  # type: ignore[attr-defined]
    translate = catalogue.gettext
    environment.filters.update(
        percent=lambda share: translate(_PERCENT) % {"number": _percent(share)},
        words=lambda label: str(label).replace("_", " "),
        target=lambda name: translate(_TARGETS[name]) if name in _TARGETS else str(name).replace("_", " "),
        translated=translate,
        when=_when,
        duration=_duration,
        label_texts=labels.of_record,
    )
    return environment


def _percent(share: float) -> str:
    """A share as a number of percent; never rounded to all or nothing."""
    return f"{min(max(share * 100, 0.1), 99.9):.1f}" if 0 < share < 0.01 or 0.99 < share < 1 else f"{share * 100:.0f}"


def _when(time: datetime | str) -> str:
    """A time to the minute, in UTC."""
    return str(time if isinstance(time, str) else time.isoformat())[:16].replace("T", " ")


def _duration(seconds: float) -> str:
    """Seconds as hours and minutes; below a minute, seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{rest} s"
