"""The files of a form (RFC 7578) whose bytes are all there, as Starlette reads them.

The parser is Starlette's, and is given the body at once: without temporary files and turns of the event loop.
"""

from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from plantml.serve.web.problems import RequestError

_MOST_FIELDS = 16
"""Parts that may come beside the files; what they say is ignored."""

_MOST_HEAD = 2**12
"""Bytes of a part's headers."""

_LONGEST_BOUNDARY = 70
"""As RFC 2046 says."""


@dataclass
class _Part:
    disposition: dict[bytes, bytes] = field(default_factory=dict)
    content: list[bytes] = field(default_factory=list)


def files(content_type: str, body: bytes, field: str, most: int) -> list[tuple[str, bytes]]:
    """Names and contents of the files of a field, in order.

    Args:
        content_type: of the request, with its boundary.
        body: of the request.
        field: whose files.
        most: files that the form may have.

    Raises:
        RequestError: 400, it is no such form; 413, it has more files or fields.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 0 < len(boundary) <= _LONGEST_BOUNDARY:
        raise _malformed("it names no boundary")
    chosen = []
    for part in _parts(body, boundary, most):
        if b"name" not in part.disposition:
            raise _malformed("a part has no name")
        if b"filename" in part.disposition and part.disposition[b"name"] == field.encode():
            chosen.append((_text(part.disposition[b"filename"]), b"".join(part.content)))
    return chosen


def _parts(body: bytes, boundary: bytes, most: int) -> list[_Part]:
    """All parts; raises for more than so many files and some fields."""
    parts: list[_Part] = []
    key, value = bytearray(), bytearray()
    has_ended = False

    def begin() -> None:
        if len(parts) >= most + _MOST_FIELDS:
            raise RequestError(413, "The form has too many parts", f"at most {most} files", "Send several requests.")
        parts.append(_Part())

    def end_header() -> None:
        if key.lower() == b"content-disposition":
            parts[-1].disposition = parse_options_header(bytes(value))[1]
        key.clear()
        value.clear()

    def end() -> None:
        nonlocal has_ended
        has_ended = True

    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": begin,
            "on_header_field": lambda data, start, end: key.extend(data[start:end]),
            "on_header_value": lambda data, start, end: value.extend(data[start:end]),
            "on_header_end": end_header,
            "on_part_data": lambda data, start, end: parts[-1].content.append(data[start:end]),
            "on_end": end,
        },
        max_header_size=_MOST_HEAD,
    )
    try:
        parser.write(body)
    except FormParserError as error:
        raise _malformed(str(error)) from error
    if not has_ended:
        raise _malformed("it does not end with its boundary")
    return parts


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("latin-1")


def _malformed(why: str) -> RequestError:
    return RequestError(400, "The form cannot be read", why, "Send multipart/form-data as RFC 7578 defines it.")
