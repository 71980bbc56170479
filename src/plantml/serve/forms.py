"""The files of a form (RFC 7578) whose bytes are all there: a fraction of the work of a parser of streams."""

from collections.abc import Iterator

from python_multipart.multipart import parse_options_header

from plantml.serve.problems import RequestError

_MOST_FIELDS = 16
"""Parts that may come beside the files; what they say is ignored."""

_MOST_HEAD = 2**12
"""Bytes of a part's headers."""


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
    chosen = []
    for number, (head, content) in enumerate(_parts(body, boundary)):
        if number >= most + _MOST_FIELDS:
            raise RequestError(413, "The form has too many parts", f"at most {most} files", "Send several requests.")
        options = _disposition(head)
        if b"filename" in options and options[b"name"] == field.encode():
            chosen.append((_text(options[b"filename"]), content))
    return chosen


def _parts(body: bytes, boundary: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Headers and content of each part."""
    if not 0 < len(boundary) <= 70:
        raise _malformed("it names no boundary")
    delimiter = b"\r\n--" + boundary
    start = len(delimiter) - 2
    if not body.startswith(delimiter[2:]):  # text before the first part
        start = body.find(delimiter) + len(delimiter)
        if start < len(delimiter):
            raise _malformed("it does not begin with its boundary")
    while body[start : start + 2] != b"--":
        end = body.find(delimiter, start)
        line = body.find(b"\r\n", start, start + 80)
        blank = body.find(b"\r\n\r\n", line, line + _MOST_HEAD)
        if end < 0 or line < 0 or body[start:line].strip(b" \t") or not 0 <= blank < end:
            raise _malformed("a part has no headers or no end")
        yield body[line + 2 : blank], body[blank + 4 : end]
        start = end + len(delimiter)


def _disposition(head: bytes) -> dict[bytes, bytes]:
    for line in head.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.lower() == b"content-disposition":
            options = parse_options_header(value.strip())[1]
            if b"name" in options:
                return options
    raise _malformed("a part has no name")


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("latin-1")


def _malformed(why: str) -> RequestError:
    return RequestError(400, "The form cannot be read", why, "Send multipart/form-data as RFC 7578 defines it.")
