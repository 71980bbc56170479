"""Files that are no photos, or more than that: each is refused by name of what is wrong, or served as a photo only."""

import io
import struct
import threading
import zipfile
import zlib

import pytest
from PIL import Image
from tests.serve.conftest import sign_in

from plantml.serve.photos import uploads
from plantml.serve.photos.uploads import Refused, Upload, UploadChecks, display_name

HTML = b"<html><script>alert(1)</script></html>"


@pytest.fixture
def check():
    checks = UploadChecks(1, 4)
    yield lambda data, name="x.jpg": checks.check_one(name, data)
    checks.close()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, pixels=b""):
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def bomb():
    """A PNG of a few kilobytes that would be 400 million pixels."""
    return png(20_000, 20_000, zlib.compress(bytes(20_000 * (1 + 20_000 // 8)), 9))


def saved(format_, **options):
    buffer = io.BytesIO()
    Image.effect_noise((64, 48), 40).convert("RGB").save(buffer, format_, **options)
    return buffer.getvalue()


def animation(format_):
    frames = [Image.effect_noise((32, 32), 40).convert("RGB") for _ in range(3)]
    return saved_frames(frames, format_)


def saved_frames(frames, format_):
    buffer = io.BytesIO()
    frames[0].save(buffer, format_, save_all=True, append_images=frames[1:], duration=50)
    return buffer.getvalue()


def archive():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as there:
        there.writestr("a.jpg", "x")
    return buffer.getvalue()


JPEG = saved("JPEG")
HOSTILE = {
    "empty": (b"", "empty"),
    "text": (b"a leaf", "not-an-image"),
    "html": (HTML, "not-an-image"),
    "html before a JPEG": (HTML + JPEG, "not-an-image"),
    "script": (b"#!/bin/sh\nrm -rf /", "not-an-image"),
    "php": (b"<?php system($_GET['c']); ?>", "not-an-image"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>', "unsupported"),
    "svg with a declaration": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported"),
    "external entity": (b'<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>', "unsupported"),
    "pdf": (b"%PDF-1.7\n1 0 obj<<>>endobj", "not-an-image"),
    "pdf before a JPEG": (b"%PDF-1.7\n" + JPEG, "not-an-image"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n(%pipe%id) (r) file", "unsupported"),
    "zip": (archive(), "not-an-image"),
    "zip before a JPEG": (archive() + JPEG, "not-an-image"),
    "program": (b"\x7fELF\x02\x01\x01" + bytes(60), "not-an-image"),
    "pickle": (b"\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94", "not-an-image"),
    "truncated JPEG": (JPEG[: len(JPEG) // 2], "truncated"),
    "head of a JPEG": (JPEG[:20], None),
    "damaged PNG": (saved("PNG")[:-200] + bytes(200), None),
    "PNG without pixels": (png(64, 64), None),
    "bomb": (bomb(), "too-large"),
    "huge PNG header": (png(2**31 - 1, 2**31 - 1), "too-large"),
    "no width": (png(0, 10), None),
    "thin as a hair": (png(100_000, 1, zlib.compress(bytes(1 + 100_000 // 8))), "too-thin"),
    "animated GIF": (animation("GIF"), "animated"),
    "animated PNG": (animation("PNG"), "animated"),
    "animated WebP": (animation("WEBP"), "animated"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_by_what_they_are(check, name):
    data, code = HOSTILE[name]
    refused = check(data)
    assert isinstance(refused, Refused), refused
    assert refused.why
    assert code is None or refused.code == code


@pytest.mark.parametrize("name", ["empty", "svg", "bomb", "truncated JPEG", "animated GIF", "pdf before a JPEG"])
def test_a_hostile_file_is_a_422_that_names_the_code(site, name):
    headers = sign_in(site, "lab", "contributor")
    data, code = HOSTILE[name]
    answer = site.post("/v1/datasets/leaves/photos", files=[("files", ("x.jpg", data, "image/jpeg"))], headers=headers)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(f"{code}: ")


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_what_a_file_is_decides_not_its_name(check, format_):
    upload = check(saved(format_), "evil.php")
    assert isinstance(upload, Upload)
    assert upload.scan.facts.format == format_


@pytest.mark.parametrize("tail", [HTML, archive(), b"<?php system('id'); ?>", b"\x7fELF" + bytes(60)])
def test_a_photo_that_is_something_else_too_is_served_as_a_photo_only(site, tail):
    headers = sign_in(site, "boss", "admin")
    data = JPEG + tail
    files = [("files", ("x.html", data, "text/html"))]
    sent = site.post("/v1/datasets/leaves/photos", files=files, headers=headers).json()["photos"][0]
    site.post("/v1/contributions/accept", json={"ids": [sent["id"]]}, headers=headers)
    for url in (f"/v1/contributions/{sent['id']}/photo", f"/v1/datasets/leaves/photos/{sent['image_id']}"):
        whole, small = site.get(url, headers=headers), site.get(f"{url}?size=32", headers=headers)
        assert whole.content == data
        assert tail not in small.content
        for answer in (whole, small):
            assert answer.headers["content-type"] == "image/jpeg"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "sandbox" in answer.headers["content-security-policy"]


def test_bounds_of_a_request(start, leaves, photo, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_BYTES", 20_000)
    with start(dataset=(leaves,), max_photos=2, max_upload=100_000) as site:
        headers = sign_in(site, "lab", "contributor")

        def send(*photos):
            files = [("files", ("x.jpg", data, "image/jpeg")) for data in photos]
            return site.post("/v1/datasets/leaves/photos", files=files, headers=headers)

        assert send(*[photo(seed=seed) for seed in range(3)]).status_code == 413
        assert send(photo() + bytes(20_000)).json()["detail"].startswith("too-many-bytes")
        assert send(photo() + bytes(200_000)).status_code == 413
        assert send(photo()).status_code == 202


def test_large_photos_are_decoded_one_at_a_time(monkeypatch, photo):
    monkeypatch.setattr(uploads, "_LARGE", 1000)
    decoding, most = [], []
    scan = uploads.scan

    def slowly(data):
        decoding.append(1)
        most.append(len(decoding))
        threading.Event().wait(0.02)
        decoding.pop()
        return scan(data)

    monkeypatch.setattr(uploads, "scan", slowly)
    checks = UploadChecks(4, 8)
    threads = [threading.Thread(target=checks.check_one, args=("x", photo(seed=seed))) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("leaf.jpg", "leaf.jpg"), ("../../etc/passwd", "passwd"), ("C:\\photos\\leaf.jpg", "leaf.jpg"), ("", "photo"),
        ("..", "photo"), ("a\x00b\n.jpg", "ab.jpg"), ("\u202egpj.exe", "gpj.exe"), ("/", "photo"),
        ("x" * 300 + ".jpg", "x" * 96 + ".jpg"), ("Blätter.png", "Blätter.png"),
    ],
)  # fmt: skip
def test_names_are_for_people_and_never_paths(name, shown):
    assert display_name(name) == shown


def test_a_photo_sent_under_a_path_is_stored_by_its_content(site, tmp_path, photo):
    headers = sign_in(site, "boss", "admin")
    files = [("files", ("../../../escape.jpg", photo(seed=10), "image/jpeg"))]
    sent = site.post("/v1/datasets/leaves/photos", files=files, headers=headers).json()["photos"][0]
    site.post("/v1/contributions/accept", json={"ids": [sent["id"]]}, headers=headers)
    named = [path for path in tmp_path.rglob("*") if "escape" in path.name]
    assert named == []
