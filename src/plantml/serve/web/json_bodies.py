"""JSON that callers send, read as strictly as everywhere in this house."""

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from plantml.errors import InputError
from plantml.parsing import parse_json


class _Request(Request):
    async def json(self) -> Any:
        """The body's value. Raises `JSONDecodeError`, which FastAPI answers with 422."""
        try:  # half a surrogate pair is refused, too: no answer, event or hash could hold it
            return parse_json(await self.body(), "The body")
        except InputError as error:
            raise json.JSONDecodeError(error.why, "", 0) from error


class JsonRoute(APIRoute):
    """A route whose JSON body is read by `parse_json`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of requests."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            return await handle(_Request(request.scope, request.receive))

        return answer
