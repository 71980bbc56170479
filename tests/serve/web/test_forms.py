"""Forms whose bytes are all there: as Starlette reads them, or refused."""

import asyncio

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import UploadFile
from starlette.requests import Request

from plantml.serve.web import forms
from plantml.serve.web.problems import RequestError

KIND = "multipart/form-data; boundary=B"


def request_of(parts):
    """Content type and body as httpx2 writes them; parts are pairs of a field and its (file name, content)."""
    request = httpx2.Request("POST", "http://x", files=parts)
    return request.headers["content-type"], request.read()


def by_starlette(content_type, body):
    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def read():
        headers = [(b"content-type", content_type.encode())]
        async with Request({"type": "http", "headers": headers}, receive).form() as form:
            return [
                (each.filename, await each.read()) for each in form.getlist("files") if isinstance(each, UploadFile)
            ]

    return asyncio.run(read())


NAMES = st.text(min_size=1, max_size=20).filter(lambda name: name.isprintable())
PARTS = st.lists(
    st.tuples(st.sampled_from(["files", "other"]), st.tuples(st.one_of(st.none(), NAMES), st.binary(max_size=200))),
    min_size=1,
    max_size=5,
)


@given(PARTS)
def test_files_are_those_that_starlette_finds(parts):
    content_type, body = request_of(parts)
    assert forms.files(content_type, body, "files", 8) == by_starlette(content_type, body)


def test_a_boundary_may_be_quoted_and_what_comes_after_the_parts_is_skipped():
    part = b'--a b\r\ncontent-disposition:form-data; name="files"; filename="\xff.jpg"\r\n\r\n\r\n--a\r\n--a b\r\n'
    part += b'Content-Type: text/plain\r\nContent-Disposition: form-data; name="files"\r\n\r\nx\r\n--a b--\r\nafter'
    for before in (b"", b"\r\n"):
        chosen = forms.files('multipart/form-data; boundary="a b"', before + part, "files", 1)
        assert chosen == [("\xff.jpg", b"\r\n--a")]


@pytest.mark.parametrize(
    ("status", "kind", "body"),
    [
        (400, KIND, b""),
        (400, KIND, b"x"),
        (400, KIND, b"--B\r\n\r\n--B--"),
        (400, KIND, b"--B\r\nContent-Type: image/jpeg\r\n\r\nx\r\n--B--"),
        (400, KIND, b"--B\r\nContent-Disposition: form-data\r\n\r\nx\r\n--B--"),
        (400, KIND, b'--B\r\nContent-Disposition: form-data; name="files"; filename="cut.jpg"\r\n\r\nx'),
        (400, KIND, b'--BC\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\nx\r\n--B--'),
        (400, KIND, b"--B\r\nX: " + b"x" * 5000 + b"\r\n\r\nx\r\n--B--"),
        (400, "multipart/form-data", b"--B--"),
        (400, "multipart/form-data; boundary=" + "B" * 71, b"--" + b"B" * 71 + b"--"),
        (400, KIND, b"--B\r\n" + b"X: x\r\n" * 1000 + b"\r\nx\r\n--B--"),
        (413, KIND, b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 20 + b"--B--"),
    ],
)
def test_what_is_no_such_form_is_refused(status, kind, body):
    with pytest.raises(RequestError) as refused:
        forms.files(kind, body, "files", 1)
    assert refused.value.status == status
    assert refused.value.hint


def test_a_form_without_parts_has_no_files():
    assert forms.files(KIND, b"--B--\r\n", "files", 1) == []
