"""One connection: what arrives is bounded in bytes and in time, before the application is asked, and while it reads.

uvicorn bounds neither with httptools: a header without an end would fill the memory, and one of many megabytes keeps
the server busy while it is put together; a client that sends a byte now and then would hold a connection for ever.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from plantml.serve.web.problems import problem

MOST_BYTES = 2**16
"""Of a request's line and headers, and of whatever else is no body; beside those that came in one piece with what was
understood."""

_PATIENCE, _LEAST = 30.0, 500.0
"""Seconds for a request's line and headers, and bytes per second that a body has at least after as many seconds: slower
than any phone, and what Apache asks for."""


class Connection(HttpToolsProtocol):
    """A connection of uvicorn with bounds; see there for its methods."""

    _timer: asyncio.TimerHandle | None = None
    _until = 0.0
    """When what arrives now has to be there, seconds of the loop's clock; 0 while nothing arrives."""

    _not_understood = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        super().connection_made(transport)  # type: ignore[arg-type]
        self._begin()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:  # noqa: D102
        self._not_understood += len(data)
        super().data_received(data)
        if self._not_understood > MOST_BYTES and not self.transport.is_closing():
            self._refuse(
                431, "The request's line and headers are too large", f"they have more than {MOST_BYTES} bytes",
                "Send what is long in the body.",
            )  # fmt: skip
        elif self._until and self._timer is None:
            self._watch()

    def send_400_response(self, msg: str) -> None:  # noqa: D102
        self._refuse(
            400, "This is no request of HTTP", msg,
            f"Send what is long in the body: a URL may have {MOST_BYTES} bytes.",
        )  # fmt: skip

    def _refuse(self, status: int, what: str, why: str, hint: str) -> None:
        """Answer in the application's place, and close the connection."""
        answer = problem(status, what, why, hint, headers={"connection": "close"})
        headers = b"".join(b"%b: %b\r\n" % pair for pair in answer.raw_headers)
        self.transport.write(STATUS_LINE[status] + headers + b"\r\n" + bytes(answer.body))
        self.transport.close()

    def on_message_begin(self) -> None:  # noqa: D102
        self._begin()
        super().on_message_begin()

    def on_headers_complete(self) -> None:  # noqa: D102
        self._begin()
        super().on_headers_complete()

    def on_body(self, body: Any) -> None:  # noqa: D102
        self._not_understood = 0
        self._until += len(body) / _LEAST
        super().on_body(body)

    def on_message_complete(self) -> None:  # noqa: D102
        self._not_understood, self._until = 0, 0.0
        super().on_message_complete()

    def _begin(self) -> None:
        self._not_understood, self._until = 0, self.loop.time() + _PATIENCE

    def _watch(self) -> None:
        """Look when the time is over, and close the connection unless more has come since."""
        self._timer = None
        left = self._until - self.loop.time()
        if self.flow.read_paused:  # it is we who do not read
            left = _PATIENCE
        if not self._until:
            return
        if left <= 0:
            self.transport.close()
            return
        self._timer = self.loop.call_later(left, self._watch)
