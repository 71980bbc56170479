import bz2
import contextlib
import functools
import gzip
import http.server
import io
import lzma
import os
import stat
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plantml import storage
from plantml.errors import InputError, NotFoundError
from plantml.storage import archives, reading
from plantml.storage.archives import LINK, ODD, TWICE, UNSAFE, Archive
from plantml.storage.byte_ranges import Held

FILES = {"leaf/1.jpg": b"one", "leaf/2.jpg": b"two" * 1000, "stem/3.jpg": b"", "4.txt": b"four"}


def zipped(files, method=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return buffer.getvalue()


def tarred(files, pack=bytes):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return pack(buffer.getvalue())


KINDS = {
    "stored.zip": zipped,
    "deflated.zip": lambda files: zipped(files, zipfile.ZIP_DEFLATED),
    "bzipped.zip": lambda files: zipped(files, zipfile.ZIP_BZIP2),
    "plain.tar": tarred,
    "packed.tar.gz": lambda files: tarred(files, gzip.compress),
    "packed.tgz": lambda files: tarred(files, gzip.compress),
    "packed.tar.bz2": lambda files: tarred(files, bz2.compress),
    "packed.tar.xz": lambda files: tarred(files, lzma.compress),
}


@pytest.mark.parametrize("name", KINDS)
def test_members_are_listed_and_read_where_they_lie(name, url):
    storage.write(storage.join(url, name), KINDS[name](FILES))
    root = storage.inside(storage.join(url, name))
    assert [entry.name for entry in storage.list_files(root)] == sorted(FILES)
    assert {entry.name: storage.read(entry.url) for entry in storage.list_files(root)} == FILES
    assert (
        dict(zip(FILES, (data for _, data in storage.read_many(storage.join(root, n) for n in FILES)), strict=True))
        == FILES
    )
    assert storage.is_dir(storage.join(root, "leaf"))
    assert not storage.is_dir(storage.join(root, "4.txt"))
    assert storage.exists(storage.join(root, "4.txt"))
    assert not storage.exists(storage.join(root, "5.txt"))
    assert storage.stat(storage.join(root, "leaf/2.jpg")).size == 3000
    assert storage.read_head(storage.join(root, "leaf/2.jpg"), 4) == b"twot"
    assert [entry.name for entry in storage.glob(storage.join(root, "leaf/*.jpg"))] == ["1.jpg", "2.jpg"]
    with pytest.raises(NotFoundError):
        storage.read(storage.join(root, "leaf/9.jpg"))


@pytest.mark.parametrize("name", ["deflated.zip", "plain.tar", "packed.tar.gz"])
def test_many_threads_may_read_one_archive(name, tmp_path):
    files = {f"{number}.bin": os.urandom(5000) for number in range(60)}
    (tmp_path / name).write_bytes(KINDS[name](files))
    root = storage.inside(str(tmp_path / name))
    with ThreadPoolExecutor(8) as pool:
        found = dict(pool.map(lambda n: (n, storage.read(storage.join(root, n))), list(files) * 3))
    assert found == files


def test_a_remote_archive_is_not_fetched_for_each_read(memory_url, monkeypatch):
    files = {f"{number}.bin": os.urandom(100_000) for number in range(20)}
    storage.write(storage.join(memory_url, "x.zip"), zipped(files))
    storage.write(storage.join(memory_url, "x.tgz"), tarred(files, gzip.compress))
    fetched = []
    real = reading._FarRanges.read

    def watch(self, start, length):
        data = real(self, start, length)
        fetched.append(len(data))
        return data

    monkeypatch.setattr(reading._FarRanges, "read", watch)
    for name in ("x.zip", "x.tgz"):
        fetched.clear()
        root = storage.inside(storage.join(memory_url, name))
        assert {entry.name: storage.read(entry.url) for entry in storage.list_files(root)} == files
        assert sum(fetched) < 2 * 20 * 100_000


@pytest.mark.parametrize("name", ["deflated.zip", "plain.tar", "packed.tgz"])
def test_a_server_that_knows_no_ranges_sends_the_archive_once(name, tmp_path):
    (tmp_path / name).write_bytes(KINDS[name](FILES))
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *given):
            asked.append(self.command)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        root = storage.inside(f"http://127.0.0.1:{server.server_port}/{name}")
        assert {entry.name: storage.read(entry.url) for entry in storage.list_files(root)} == FILES
        assert asked.count("GET") <= 3
    finally:
        server.shutdown()
        server.server_close()


def test_an_archive_that_changed_is_opened_again(tmp_path):
    path = tmp_path / "x.zip"
    root = storage.inside(str(path))
    path.write_bytes(zipped({"a": b"old"}))
    assert storage.read(storage.join(root, "a")) == b"old"
    path.write_bytes(zipped({"a": b"newer"}))
    assert storage.read(storage.join(root, "a")) == b"newer"


def test_an_archive_may_lie_in_an_archive(tmp_path):
    (tmp_path / "x.tar").write_bytes(tarred({"in/y.zip": zipped(FILES)}))
    inner = storage.join(storage.inside(str(tmp_path / "x.tar")), "in/y.zip")
    assert storage.read(f"zip://leaf/1.jpg::{inner}") == b"one"


def test_opening_is_done_once_by_many_threads(tmp_path, monkeypatch):
    (tmp_path / "x.zip").write_bytes(zipped(FILES))
    opened = []
    real = reading._open_archive
    monkeypatch.setattr(reading, "_open_archive", lambda *given: opened.append(1) or real(*given))
    ready = threading.Barrier(6)

    def read(_):
        ready.wait()
        return storage.read(f"zip://4.txt::{tmp_path}/x.zip")

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(read, range(6))) == {b"four"}
    assert len(opened) == 1


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.zip", "zip"),
        ("A.ZIP", "zip"),
        ("a.tar.gz", "tar"),
        ("a.tgz", "tar"),
        ("a.tar", "tar"),
        ("a.gz", ""),
        ("zip", ""),
    ],
)
def test_archives_are_told_by_their_names(name, kind):
    assert storage.inside(name).partition("://")[0] == kind


# --- what is not to be trusted ----------------------------------------------------------------


EVIL = ["../a.jpg", "a/../../b.jpg", "/etc/a.jpg", "C:/a.jpg", "a\\..\\b.jpg", "a//b.jpg", "./../a.jpg", "a::b.jpg"]


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_names_that_lead_elsewhere_are_passed_over_and_counted(pack, tmp_path):
    files = {"good.jpg": b"good", **dict.fromkeys(EVIL, b"evil")}
    path = tmp_path / ("x.zip" if pack is zipped else "x.tar")
    path.write_bytes(pack(files))
    root = storage.inside(str(path))
    assert [entry.name for entry in storage.list_files(root)] == ["good.jpg"]
    assert storage.passed_over(root) == {UNSAFE: len(EVIL)}
    for name in EVIL:
        with pytest.raises(NotFoundError):
            storage.read(f"{root.partition('::')[0]}{name}::{path}")


def test_links_and_devices_are_never_followed(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name, kind in (
            ("s", tarfile.SYMTYPE),
            ("h", tarfile.LNKTYPE),
            ("d", tarfile.CHRTYPE),
            ("f", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name + ".jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            file.addfile(info)
    assert Archive("x.tar", "tar", Held(buffer.getvalue())).skipped == {LINK: 4}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        info = zipfile.ZipInfo("s.jpg")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(info, "/etc/passwd")
    assert Archive("x.zip", "zip", Held(buffer.getvalue())).skipped == {LINK: 1}


def test_a_repeated_name_is_counted_and_the_last_one_counts(recwarn):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a", b"first")
        file.writestr("a", b"last")
    found = Archive("x.zip", "zip", Held(buffer.getvalue()))
    assert found.read("a") == b"last"
    assert found.skipped == {TWICE: 1}


def test_encrypted_members_are_passed_over():
    data = bytearray(zipped({"a": b"secret"}))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert Archive("x.zip", "zip", Held(bytes(data))).skipped == {ODD: 1}


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_bomb_is_refused(kind, monkeypatch):
    monkeypatch.setattr(archives, "FREE", 1 << 20)
    zeros = {"a": bytes(8 << 20)}
    bomb = zipped(zeros, zipfile.ZIP_DEFLATED) if kind == "zip" else tarred(zeros, gzip.compress)
    with pytest.raises(InputError, match="200 times"):
        Archive(f"x.{kind}", kind, Held(bomb))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_member_and_a_whole_may_be_too_large(kind, monkeypatch):
    pack = zipped if kind == "zip" else tarred
    files = {"a": bytes(3000), "b": bytes(3000)}
    monkeypatch.setattr(archives, "MAX_MEMBER", 2000)
    with pytest.raises(InputError, match="'a' would be"):
        Archive("x", kind, Held(pack(files)))
    monkeypatch.setattr(archives, "MAX_MEMBER", 5000)
    monkeypatch.setattr(archives, "MAX_TOTAL", 5000)
    with pytest.raises(InputError, match="more than"):
        Archive("x", kind, Held(pack(files)))


def test_a_member_that_is_longer_than_it_says_is_refused():
    data = bytearray(zipped({"a": bytes(100_000)}, zipfile.ZIP_DEFLATED))
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = (10).to_bytes(4, "little")
    with pytest.raises(InputError, match="promises"):
        Archive("x.zip", "zip", Held(bytes(data))).read("a")


def read_all(root):
    return [storage.read(entry.url) for entry in storage.list_files(root)]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"no archive at all",
        lambda data: data[:1024] + b"x" * 512 + data[1536:],
    ],
)
@pytest.mark.parametrize("name", ["stored.zip", "plain.tar", "packed.tar.gz", "packed.tar.bz2", "packed.tar.xz"])
def test_damage_is_told(name, damage, tmp_path):
    files = {f"{number}.bin": os.urandom(400) for number in range(8)}
    (tmp_path / name).write_bytes(damage(KINDS[name](files)))
    with pytest.raises(InputError):
        read_all(storage.inside(str(tmp_path / name)))


def test_a_tar_that_leads_back_to_its_start_ends():
    data = bytearray(tarred({"a": b"x"}))
    data[124:136] = b"\xff" * 11 + b"\x00"  # a size of -256, in base 256
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    with pytest.raises(InputError, match="damaged"):
        Archive("x.tar", "tar", Held(bytes(data)))


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(sorted(KINDS)),
    places=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4),
)
def test_bytes_that_make_no_sense_raise_nothing_else(name, places):
    data = bytearray(KINDS[name]({"a/1.jpg": b"one", "b.txt": b"two" * 50}))
    for place, value in places:
        data[place % len(data)] = value
    with contextlib.suppress(InputError):
        archive = Archive(name, "tar" if "tar" in name else "zip", Held(bytes(data)))
        for member in archive.members():
            with contextlib.suppress(InputError):
                archive.read(member.name)


def test_a_flipped_bit_in_a_zip_is_found():
    data = bytearray(zipped({"a": b"content" * 9}))
    data[data.index(b"content")] ^= 1
    with pytest.raises(InputError, match="damaged"):
        Archive("x.zip", "zip", Held(bytes(data))).read("a")
