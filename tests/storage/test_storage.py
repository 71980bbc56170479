import hashlib
import io
import os
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantml import storage
from plantml.errors import (
    AlreadyExistsError,
    Exit,
    InputError,
    MissingExtraError,
    NotFoundError,
    PlantmlError,
    StorageError,
)
from plantml.storage import Cache, join, object_store, remote, writing

AT_ONCE = 8
ODD_NAMES = ("plain.jpg", "two words, and copy 2.JPG", "a[1].jpg", "a1.jpg", "50%20off#?.png", "größe_ü.jpg")

segments = st.text(st.characters(blacklist_characters="/:", blacklist_categories=("Cs", "Cc")), min_size=1).filter(
    lambda text: text not in {".", ".."}
)
bases = st.sampled_from(
    [
        "/data",
        "/",
        "data",
        "file:///",
        "s3://bucket",
        "s3://bucket/a",
        "memory://",
        "memory:///",
        "zip://::s3://b/x.zip",
    ]
)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("leaf/1.jpg", b"one")
        file.writestr("leaf/2.jpg", b"two")
        file.writestr("stem/3.jpg", b"three")
    return str(path)


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "parts", "joined"),
    [
        ("/data", ("a", "b.jpg"), "/data/a/b.jpg"),
        ("/data/", ("a",), "/data/a"),
        ("/", ("a",), "/a"),
        ("", ("a",), "a"),
        ("data", (), "data"),
        ("s3://bucket", ("a", "b"), "s3://bucket/a/b"),
        ("memory://", ("a",), "memory://a"),
        ("file:///", ("a",), "file:///a"),
        ("zip://::s3://b/x.zip", ("a.jpg",), "zip://a.jpg::s3://b/x.zip"),
        ("zip://in::s3://b/x.zip", ("a.jpg",), "zip://in/a.jpg::s3://b/x.zip"),
    ],
)
def test_join_appends_to_the_first_link_of_a_chain(url, parts, joined):
    assert join(url, *parts) == joined


@pytest.mark.parametrize(
    ("url", "parent", "name"),
    [
        ("/data/a.jpg", "/data", "a.jpg"),
        ("/data/", "/", "data"),
        ("a.jpg", "", "a.jpg"),
        ("s3://bucket/a/b.jpg", "s3://bucket/a", "b.jpg"),
        ("s3://bucket", "s3://", "bucket"),
        ("memory://a", "memory://", "a"),
        ("memory:///a", "memory:///", "a"),
        ("file:///a", "file:///", "a"),
        ("zip://in/a.jpg::s3://b/x.zip", "zip://in::s3://b/x.zip", "a.jpg"),
        ("zip://a.jpg::s3://b/x.zip", "zip://::s3://b/x.zip", "a.jpg"),
    ],
)
def test_split_parts_a_url_from_its_last_segment(url, parent, name):
    assert storage.split(url) == (parent, name)
    assert storage.basename(url) == name


@given(bases, st.lists(segments, min_size=1, max_size=3))
def test_split_undoes_join(base, names):
    joined = join(base, *names)
    parent, name = storage.split(joined)
    assert name == names[-1]
    assert parent == join(base, *names[:-1])
    assert join(parent, name) == joined


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/data/a.JPG", ".jpg"),
        ("s3://b/photo.tar.gz", ".gz"),
        ("s3://b.c/photo", ""),
        ("zip://a.png::s3://b/x.zip", ".png"),
        (".hidden", ""),
    ],
)
def test_suffix_is_the_lower_case_extension_of_the_last_segment(url, expected):
    assert storage.suffix(url) == expected


@pytest.mark.parametrize("url", ["a.jpg", "/a.jpg", "./a", "file:///a.jpg", "C:", "user@host"])
def test_paths_are_local(url):
    assert storage.is_local(url)


@pytest.mark.parametrize("url", ["s3://b/a", "memory://a", "https://x/a.jpg", "zip://a::/x.zip", "file://a::/x.zip"])
def test_other_urls_are_not_local_and_have_no_path(url):
    assert not storage.is_local(url)
    with pytest.raises(ValueError, match="a"):
        storage.local_path(url)


def test_absolute_means_the_same_from_any_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("a/../b/") == str(tmp_path / "b")
    assert storage.absolute(f"file://{tmp_path}/b") == str(tmp_path / "b")
    assert storage.absolute("zip://in::b/x.zip") == f"zip://in::{tmp_path}/b/x.zip"


def test_absolute_keeps_links_as_they_are_written(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert storage.absolute(str(tmp_path / "link")) == str(tmp_path / "link")


def test_a_tilde_is_the_users_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.txt").write_bytes(b"home")
    assert storage.absolute("~/a.txt") == str(tmp_path / "a.txt")
    assert storage.read("~/a.txt") == b"home"


@pytest.mark.parametrize(
    ("url", "expected"),
    [("s3://bucket/a/", "s3://bucket/a"), ("memory://", "memory://"), ("zip://::s3://b/x.zip", "zip://::s3://b/x.zip")],
)
def test_absolute_takes_only_the_last_slash_from_a_remote_url(url, expected):
    assert storage.absolute(url) == expected


# --- reading ----------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"leaf", bytes(range(256)) * 500], ids=["empty", "short", "long"])
def test_what_was_written_is_read(url, data):
    storage.write(join(url, "deep", "er", "a.bin"), data)
    assert storage.read(join(url, "deep", "er", "a.bin")) == data


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_names(url, name):
    storage.write(join(url, name), name.encode())
    assert storage.read(join(url, name)) == name.encode()
    assert storage.exists(join(url, name))
    assert [entry.name for entry in storage.list_files(url)] == [name]


def test_nothing_there_is_bad_input(url):
    storage.write(join(url, "a.txt"), b"")
    with pytest.raises(NotFoundError) as caught:
        storage.read(join(url, "b.txt"))
    assert caught.value.exit_code == Exit.INPUT == 3
    assert join(url, "b.txt") in caught.value.what
    assert caught.value.hint


def test_a_directory_is_not_a_file(url):
    storage.write(join(url, "sub", "a.txt"), b"")
    with pytest.raises(NotFoundError):
        storage.read(join(url, "sub"))


def test_a_file_is_not_a_directory_on_the_way(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"")
    with pytest.raises(NotFoundError):
        storage.read(str(tmp_path / "a.txt" / "b.txt"))


def test_many_are_read_in_order_with_errors_in_their_places(url):
    for name in ODD_NAMES:
        storage.write(join(url, name), name.encode())
    names = [*ODD_NAMES, "missing", *reversed(ODD_NAMES), "missing", ODD_NAMES[0]]
    urls = [join(url, name) for name in names]
    answers = list(storage.read_many(urls))
    assert [each for each, _ in answers] == urls
    for name, (_, data) in zip(names, answers, strict=True):
        if name == "missing":
            assert isinstance(data, NotFoundError)
        else:
            assert data == name.encode()


def test_many_means_more_than_are_asked_for_at_once(url):
    count = 2 * storage.FETCH_BATCH + 3
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda i: storage.write(join(url, f"{i}"), b"%d" % i), range(count)))
    answers = storage.read_many(join(url, f"{i}") for i in range(count))
    assert [data for _, data in answers] == [b"%d" % i for i in range(count)]


def test_many_may_come_from_many_places(tmp_path, memory_url, archive):
    (tmp_path / "a").write_bytes(b"local")
    storage.write(join(memory_url, "a"), b"memory")
    urls = [
        str(tmp_path / "a"),
        f"zip://leaf/2.jpg::{archive}",
        join(memory_url, "a"),
        "nowhere://x",
        f"zip://a::{archive}",
    ]
    answers = [data for _, data in storage.read_many(urls)]
    assert answers[:3] == [b"local", b"two", b"memory"]
    assert isinstance(answers[3], StorageError)
    assert isinstance(answers[4], NotFoundError)


def test_one_of_one_is_read(url):
    storage.write(join(url, "a"), b"alone")
    assert list(storage.read_many([join(url, "a")])) == [(join(url, "a"), b"alone")]


def test_reading_ahead_gives_what_reading_many_gives(url):
    count = 3 * storage.FETCH_BATCH
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda i: storage.write(join(url, f"{i}"), b"%d" % i), range(count)))
    urls = [join(url, f"{i}") for i in (*range(count), count + 1, 5)]
    answers = list(storage.read_ahead(urls))
    assert [each for each, _ in answers] == urls
    assert [data for _, data in answers[:count]] == [b"%d" % i for i in range(count)]
    assert isinstance(answers[count][1], NotFoundError)
    assert answers[-1][1] == b"5"
    assert list(storage.read_ahead([])) == []


@pytest.mark.parametrize("size", [100, 5 << 20, 200 << 20])
def test_little_is_held_ahead_whatever_the_size(monkeypatch, size):
    """Of objects that only say how long they are."""

    class Large(bytes):
        def __len__(self):
            return size

    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield f"far://{taken}"

    monkeypatch.setattr("plantml.storage.bulk_reading._read_batch", lambda urls, _: [Large()] * len(urls))
    found = storage.read_ahead(endless())
    for done in range(1, 400):
        assert isinstance(next(found)[1], Large)
        ahead = taken - done
        assert ahead <= 6 * storage.FETCH_BATCH
        if done > 50:
            assert ahead * size <= max(64 << 20, 6 * size)
    found.close()


def test_a_directory_is_there_and_so_is_a_file(url):
    storage.write(join(url, "sub", "a.txt"), b"")
    assert storage.exists(join(url, "sub"))
    assert storage.exists(join(url, "sub", "a.txt"))
    assert storage.is_dir(join(url, "sub"))
    assert not storage.is_dir(join(url, "sub", "a.txt"))


def test_the_beginning_of_a_name_is_not_there(url):
    storage.write(join(url, "photos", "a.txt"), b"")
    assert not storage.exists(join(url, "phot"))
    assert not storage.is_dir(join(url, "phot"))


def test_files_are_listed_by_name_with_their_sizes_at_any_depth(url):
    for name, size in (("b.jpg", 2), ("a/z.jpg", 3), ("a/b/c.jpg", 0)):
        storage.write(join(url, name), b"x" * size)
    entries = list(storage.list_files(url))
    assert [(entry.name, entry.size) for entry in entries] == [("a/b/c.jpg", 0), ("a/z.jpg", 3), ("b.jpg", 2)]
    assert [storage.read(entry.url) for entry in entries] == [b"", b"xxx", b"xx"]


def test_a_listing_does_not_leak_into_a_sibling_with_a_longer_name(url):
    storage.write(join(url, "photos", "a.jpg"), b"")
    storage.write(join(url, "photos2", "b.jpg"), b"")
    assert [entry.name for entry in storage.list_files(join(url, "photos"))] == ["a.jpg"]


def test_a_trailing_slash_makes_no_difference_to_a_listing(url):
    storage.write(join(url, "a.jpg"), b"")
    assert [entry.name for entry in storage.list_files(f"{url}/")] == ["a.jpg"]


def test_listing_what_is_not_there_says_so(url):
    storage.write(join(url, "a.jpg"), b"")
    with pytest.raises(NotFoundError):
        list(storage.list_files(join(url, "nothing")))


def test_what_others_write_and_remove_is_seen(s3_url):
    import s3fs

    other = s3fs.S3FileSystem(skip_instance_cache=True)
    storage.write(join(s3_url, "a"), b"old")
    before = storage.stat(join(s3_url, "a"))
    assert [entry.name for entry in storage.list_files(s3_url)] == ["a"]
    other.pipe_file(join(s3_url, "a"), b"longer")
    other.pipe_file(join(s3_url, "b"), b"")
    assert storage.exists(join(s3_url, "b"))
    assert storage.stat(join(s3_url, "a")).size == 6
    assert storage.stat(join(s3_url, "a")).stamp != before.stamp
    other.rm_file(join(s3_url, "a"))
    assert not storage.exists(join(s3_url, "a"))
    assert [entry.name for entry in storage.list_files(s3_url)] == ["b"]


def test_links_to_directories_are_not_followed_and_dead_ones_passed_over(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.jpg").write_bytes(b"a")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "dead.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "alive.jpg").symlink_to(tmp_path / "real" / "a.jpg")
    assert [entry.name for entry in storage.list_files(str(tmp_path))] == ["alive.jpg", "real/a.jpg"]


@pytest.fixture
def linked(tmp_path):
    """A folder `set` with a real folder in it, links of every kind, and a folder beside it."""
    for name in ("set/real/a.jpg", "elsewhere/b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"")
    links = {
        "alias": "real", "real/up": "..", "out": "../elsewhere", "self.jpg": "self.jpg", "dead.jpg": "nowhere",
        "file.jpg": "../elsewhere/b.jpg",
    }  # fmt: skip
    for name, target in links.items():
        (tmp_path / "set" / name).symlink_to(target)
    return tmp_path


def listed(place, links=None):
    return [entry.name for entry in storage.list_files(str(place), links)]


def test_links_to_folders_are_followed_inside_the_folder_and_the_others_are_named(linked):
    links = storage.Links()
    assert listed(linked / "set", links) == ["alias/a.jpg", "file.jpg", "real/a.jpg"]
    assert links.outside == {"out": str(linked / "elsewhere")}
    assert links.back == ["alias/up", "real/up"]
    assert sorted(links.dead) == ["dead.jpg", "self.jpg"]
    assert links.skipped == {storage.LINK_OUTSIDE: 1, storage.LINK_BACK: 2, storage.LINK_DEAD: 2}
    assert links.note.endswith(f"--allow-root {linked}/elsewhere")


def test_links_to_folders_are_followed_to_an_allowed_root(linked):
    links = storage.Links([str(linked / "elsewhere")])
    assert listed(linked / "set", links) == ["alias/a.jpg", "file.jpg", "out/b.jpg", "real/a.jpg"]
    assert (links.outside, links.note) == ({}, "")


def test_a_folder_that_is_a_link_itself_is_what_it_leads_to(linked):
    (linked / "named").symlink_to("set")
    assert listed(linked / "named", storage.Links()) == ["alias/a.jpg", "file.jpg", "real/a.jpg"]


def test_a_link_to_itself_is_no_trouble_of_the_storage(linked):
    assert listed(linked / "set") == ["file.jpg", "real/a.jpg"]


@pytest.mark.parametrize("how", ["list", "glob"])
def test_folders_that_lead_to_each_other_end(tmp_path, how):
    folders = [tmp_path / f"f{number}" for number in range(9)]
    for folder in folders:
        folder.mkdir()
        (folder / "a.jpg").write_bytes(b"")
    for folder, other in ((folder, other) for folder in folders for other in folders):
        (folder / other.name).symlink_to(other)
    links = storage.Links()
    entries = storage.list_files(str(tmp_path), links) if how == "list" else storage.glob(f"{tmp_path}/**/*.jpg", links)
    real = {os.path.realpath(entry.url) for entry in entries}
    assert real == {str(folder / "a.jpg") for folder in folders}
    assert links.back


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("**", ["a/b/3.jpg", "a/1.jpg", "a/2.png", "4.jpg"]),
        ("**/*.jpg", ["a/b/3.jpg", "a/1.jpg", "4.jpg"]),
        ("a/**/*.jpg", ["a/b/3.jpg", "a/1.jpg"]),
        ("*/**/[13].jpg", ["a/b/3.jpg", "a/1.jpg"]),
        ("**/b/*", ["a/b/3.jpg"]),
        ("**/.h/*", [".h/5.jpg", "a/.h/6.jpg"]),
        ("none/**", []),
    ],
)
def test_two_stars_stand_for_any_folders_that_are_not_hidden(tmp_path, monkeypatch, pattern, matches):
    monkeypatch.chdir(tmp_path)
    for name in ("a/b/3.jpg", "a/1.jpg", "a/2.png", "4.jpg", ".h/5.jpg", "a/.h/6.jpg"):
        storage.write(name, b"")
    for start in ("", f"{tmp_path}/"):
        assert sorted(entry.url for entry in storage.glob(start + pattern)) == sorted(start + name for name in matches)


def test_a_folder_that_cannot_be_listed_is_not_passed_over(tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()
    (tmp_path / "a.jpg").write_bytes(b"")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageError, match="Not allowed to list"):
        list(storage.list_files(str(tmp_path)))


def test_a_stamp_changes_with_the_content(url):
    file = join(url, "a")
    storage.write(file, b"old")
    first = storage.stat(file)
    assert storage.stat(file) == first
    time.sleep(0.01)
    storage.write(file, b"new")
    assert storage.stat(file).stamp != first.stamp
    assert storage.stat(file).size == first.size == 3


@pytest.mark.parametrize("kind", ["tmp_path", "s3_url"])
def test_a_stamp_is_the_same_in_a_listing(kind, request):
    url = str(request.getfixturevalue(kind))
    storage.write(join(url, "a"), b"old")
    (entry,) = storage.list_files(url)
    assert storage.stat(join(url, "a")) == entry


def test_a_pattern_names_files_in_order(url):
    for name in ("b/2.jpg", "a/1.jpg", "a/1.txt", "a/deep/3.jpg"):
        storage.write(join(url, name), name.encode())
    found = storage.glob(join(url, "*", "*.jpg"))
    assert [storage.read(entry.url) for entry in found] == [b"a/1.jpg", b"b/2.jpg"]
    found = storage.glob(join(url, "**", "*.jpg"))
    assert {storage.read(entry.url) for entry in found} == {b"a/1.jpg", b"a/deep/3.jpg", b"b/2.jpg"}


def test_a_pattern_names_files_and_not_directories(url):
    storage.write(join(url, "a", "1.jpg"), b"")
    assert storage.glob(join(url, "*")) == []


def test_a_pattern_that_nothing_matches_gives_nothing(url):
    storage.write(join(url, "a.jpg"), b"")
    assert storage.glob(join(url, "*.png")) == []


def test_brackets_are_a_pattern_unless_a_file_is_called_so(url):
    storage.write(join(url, "a[1].jpg"), b"")
    assert not storage.has_pattern(join(url, "a[1].jpg"))
    assert storage.has_pattern(join(url, "a[2].jpg"))
    assert storage.has_pattern(join(url, "*.jpg"))
    assert not storage.has_pattern(join(url, "b.jpg"))


# --- inside an archive ------------------------------------------------------------------------


def test_files_in_an_archive_are_listed_and_read_where_they_lie(archive):
    entries = list(storage.list_files(f"zip://::{archive}"))
    assert [entry.name for entry in entries] == ["leaf/1.jpg", "leaf/2.jpg", "stem/3.jpg"]
    assert [storage.read(entry.url) for entry in entries] == [b"one", b"two", b"three"]
    assert [entry.name for entry in storage.list_files(f"zip://leaf::{archive}")] == ["1.jpg", "2.jpg"]


def test_a_pattern_in_an_archive_gives_urls_that_can_be_read(archive):
    found = storage.glob(f"zip://leaf/*.jpg::{archive}")
    assert [storage.read(entry.url) for entry in found] == [b"one", b"two"]


def test_an_archive_may_lie_in_an_object_store(archive, s3_url):
    storage.write(join(s3_url, "x.zip"), Path(archive).read_bytes())
    root = f"zip://::{s3_url}/x.zip"
    assert [data for _, data in storage.read_many(entry.url for entry in storage.list_files(root))] == [
        b"one",
        b"two",
        b"three",
    ]
    assert storage.is_dir(join(root, "leaf"))
    assert not storage.exists(join(root, "root"))


def test_nothing_there_in_an_archive_is_bad_input(archive):
    with pytest.raises(NotFoundError):
        storage.read(f"zip://leaf/9.jpg::{archive}")
    with pytest.raises(NotFoundError):
        storage.read(f"zip://leaf/9.jpg::{archive}.gone")


# --- writing ----------------------------------------------------------------------------------


def test_write_replaces_and_leaves_nothing_else(url):
    storage.write(join(url, "a"), b"long old content")
    storage.write(join(url, "a"), b"new")
    assert storage.read(join(url, "a")) == b"new"
    assert [entry.name for entry in storage.list_files(url)] == ["a"]


def test_a_reader_never_sees_half_a_file(tmp_path):
    file = str(tmp_path / "a")
    contents = [bytes([i]) * 500_000 for i in range(4)]
    storage.write(file, contents[0])
    stop = threading.Event()
    seen = set()

    def watch():
        while not stop.is_set():
            seen.add(sha256(storage.read(file)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(10):
            for content in contents:
                storage.write(file, content)
    finally:
        stop.set()
        watcher.join()
    assert seen <= {sha256(content) for content in contents}


def test_a_failed_write_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch):
    storage.write(str(tmp_path / "a"), b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(StorageError, match="No space left") as caught:
        storage.write(str(tmp_path / "a"), b"new")
    assert caught.value.exit_code == Exit.STORAGE == 6
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_files_have_the_permissions_that_the_user_gives_to_all_files(tmp_path, mask):
    before = os.umask(mask)
    try:
        storage.write(str(tmp_path / "a"), b"")
        storage.create(str(tmp_path / "b"), b"")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~mask
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o666 & ~mask


def test_writers_in_threads_leave_the_permissions_of_the_process_alone(tmp_path, run_python):
    code = """
import os, sys, time
os.umask(0o077)
from concurrent.futures import ThreadPoolExecutor
from plantml import storage
set_mask = os.umask
def slow(mask):
    before = set_mask(mask)
    time.sleep(0.002)
    return before
os.umask = slow
with ThreadPoolExecutor(8) as pool:
    list(pool.map(lambda number: storage.write(f"{sys.argv[1]}/{number}", b"x"), range(40)))
print(oct(set_mask(0)))
"""
    out, err = run_python(code, tmp_path).communicate(timeout=60)
    assert out.strip() == "0o77", err
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_long_name_can_be_written(tmp_path):
    name = "ü" * 120 + ".jpg"
    storage.write(str(tmp_path / name), b"x")
    storage.create(str(tmp_path / f"a{name}"), b"y")
    assert storage.read(str(tmp_path / name)) == b"x"


def test_create_makes_what_is_not_there_once(url):
    storage.create(join(url, "deep", "a"), b"first")
    with pytest.raises(AlreadyExistsError) as caught:
        storage.create(join(url, "deep", "a"), b"second")
    assert caught.value.exit_code == Exit.STORAGE
    assert storage.read(join(url, "deep", "a")) == b"first"
    assert [entry.name for entry in storage.list_files(url)] == ["deep/a"]


def test_create_loses_to_what_write_wrote(url):
    storage.write(join(url, "a"), b"first")
    with pytest.raises(AlreadyExistsError):
        storage.create(join(url, "a"), b"second")
    assert storage.read(join(url, "a")) == b"first"


@pytest.mark.parametrize(("kind", "turns"), [("tmp_path", 10), ("s3_url", 1), ("s3fs_url", 1)])
def test_of_many_threads_that_create_at_once_exactly_one_wins(kind, turns, request):
    place = str(request.getfixturevalue(kind))
    for turn in range(turns):
        file = join(place, f"{turn}")
        start = threading.Barrier(AT_ONCE)

        def create(number, file=file, start=start):
            start.wait()
            try:
                storage.create(file, b"%d" % number)
            except AlreadyExistsError:
                return None
            return number

        with ThreadPoolExecutor(AT_ONCE) as pool:
            winners = [number for number in pool.map(create, range(AT_ONCE)) if number is not None]
        assert len(winners) == 1
        assert storage.read(file) == b"%d" % winners[0]


def test_of_many_processes_that_create_at_once_exactly_one_wins(tmp_path, run_python):
    code = """
import pathlib, sys, time
from plantml import storage
from plantml.errors import AlreadyExistsError
file, number, go = sys.argv[1:]
print("ready", flush=True)
while not pathlib.Path(go).exists():
    time.sleep(0.001)
try:
    storage.create(file, number.encode())
except AlreadyExistsError:
    print("lost")
else:
    print("won")
"""
    file, go = tmp_path / "place" / "a", tmp_path / "go"
    processes = [run_python(code, file, number, go) for number in range(AT_ONCE)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    go.touch()
    answers = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert sorted(answers) == ["lost"] * (AT_ONCE - 1) + ["won"]
    assert file.read_bytes() == b"%d" % answers.index("won")
    assert [path.name for path in file.parent.iterdir()] == ["a"]


def test_staged_work_appears_in_one_step(url):
    with storage.staged(join(url, "deep", "table.parquet")) as path:
        path.write_bytes(b"half")
        assert not storage.exists(join(url, "deep", "table.parquet"))
        path.write_bytes(b"whole")
    assert storage.read(join(url, "deep", "table.parquet")) == b"whole"
    assert [entry.name for entry in storage.list_files(url)] == ["deep/table.parquet"]
    assert not path.exists()


def test_staged_work_that_fails_leaves_what_was_there(url):
    storage.write(join(url, "table"), b"old")

    def work():
        with storage.staged(join(url, "table")) as path:
            begun.append(path)
            path.write_bytes(b"half")
            raise ZeroDivisionError

    begun = []
    with pytest.raises(ZeroDivisionError):
        work()
    assert storage.read(join(url, "table")) == b"old"
    assert [entry.name for entry in storage.list_files(url)] == ["table"]
    assert not begun[0].exists()


def test_what_goes_wrong_in_staged_work_is_not_blamed_on_its_place(url):
    with pytest.raises(FileNotFoundError, match=r"other\.txt"), storage.staged(join(url, "table")):
        Path("other.txt").read_bytes()


def test_remove_removes_and_is_silent_where_nothing_is(url):
    storage.write(join(url, "a"), b"")
    storage.remove(join(url, "a"))
    storage.remove(join(url, "a"))
    assert not storage.exists(join(url, "a"))


BUNDLE = {name: name.encode() for name in ("model.json", "a.bin", "z.bin", "sub/b.bin")}


def test_publish_writes_all_files_with_the_last_one_last(url, monkeypatch):
    seen_before_last = []
    write = storage.write

    def watch(target, data):
        if target.endswith("model.json"):
            seen_before_last.extend(entry.name for entry in storage.list_files(join(url, "v1")))
        write(target, data)

    monkeypatch.setattr(writing, "write", watch)
    storage.publish(join(url, "v1"), BUNDLE, last="model.json")
    assert seen_before_last == ["a.bin", "sub/b.bin", "z.bin"]
    assert {entry.name: storage.read(entry.url) for entry in storage.list_files(join(url, "v1"))} == BUNDLE


def test_publish_may_have_no_last_file(url):
    storage.publish(url, BUNDLE)
    assert [entry.name for entry in storage.list_files(url)] == sorted(BUNDLE)


def test_publish_that_fails_does_not_publish_the_last_file(tmp_path, monkeypatch):
    write = storage.write

    def fail(target, data):
        if target.endswith("a.bin"):
            raise StorageError("No")
        write(target, data)

    monkeypatch.setattr(writing, "write", fail)
    with pytest.raises(StorageError):
        storage.publish(str(tmp_path), BUNDLE, last="model.json")
    assert not (tmp_path / "model.json").exists()


def test_reading_listing_and_looking_up_write_nothing(tmp_path, contents):
    source = tmp_path / "source"
    for name in ("a/1.jpg", "b/2.jpg"):
        (source / name).parent.mkdir(parents=True)
        (source / name).write_bytes(name.encode())
    before = contents(source)
    entries = list(storage.list_files(str(source)))
    list(storage.read_many(entry.url for entry in entries))
    storage.glob(str(source / "**" / "*.jpg"))
    storage.exists(str(source / "none"))
    cache = Cache(tmp_path / "cache", 1000)
    for entry in entries:
        cache.read(sha256(storage.read(entry.url)), entry.url)
        storage.stat(entry.url)
    assert contents(source) == before


# --- the cache --------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path):
    """Writes contents to the source and gives (hash, url) of each."""

    def write(*contents):
        pairs = [(sha256(content), str(tmp_path / "source" / sha256(content))) for content in contents]
        for content, (_, url) in zip(contents, pairs, strict=True):
            storage.write(url, content)
        return pairs

    return write


def cached(cache):
    return {path.name for path in cache.folder.rglob("*") if path.is_file()}


def test_what_was_read_once_is_read_from_here(tmp_path, source):
    ((key, url),) = source(b"leaf")
    cache = Cache(tmp_path / "cache", 1000)
    assert cache.read(key, url) == b"leaf"
    storage.remove(url)
    assert cache.read(key, url) == b"leaf"
    assert Cache(tmp_path / "cache", 1000).read(key, url) == b"leaf"


def test_the_cache_knows_content_and_not_places(tmp_path, source):
    ((key, url),) = source(b"leaf")
    cache = Cache(tmp_path / "cache", 1000)
    cache.read(key, url)
    assert cache.read(key, str(tmp_path / "nowhere")) == b"leaf"


def test_bytes_that_are_not_those_that_were_promised_are_refused_and_not_kept(tmp_path, source):
    ((key, url),) = source(b"leaf")
    storage.write(url, b"rotten")
    cache = Cache(tmp_path / "cache", 1000)
    with pytest.raises(StorageError, match="SHA-256") as caught:
        cache.read(key, url)
    assert url in caught.value.what
    assert caught.value.hint
    assert cached(cache) == set()


def test_a_missing_source_is_told_as_such(tmp_path):
    with pytest.raises(NotFoundError):
        Cache(tmp_path / "cache", 1000).read(sha256(b""), str(tmp_path / "nowhere"))


def test_the_cache_keeps_to_its_limit_and_the_least_recently_used_go_first(tmp_path, source):
    pairs = source(*(bytes([i]) * 100 for i in range(12)))
    cache = Cache(tmp_path / "cache", 1000)
    for number, pair in enumerate(pairs[:10]):
        cache.read(*pair)
        os.utime(cache.folder / pair[0][:2] / pair[0], (number, number))
    cache.read(*pairs[0])
    cache.read(*pairs[10])
    kept = cached(cache)
    assert sum(path.stat().st_size for path in cache.folder.rglob("*") if path.is_file()) <= 1000
    assert {pairs[0][0], pairs[10][0]} <= kept
    assert pairs[1][0] not in kept
    assert len(kept) >= 8


def test_what_other_processes_left_counts_against_the_limit(tmp_path, source):
    pairs = source(*(bytes([i]) * 100 for i in range(11)))
    for pair in pairs:
        Cache(tmp_path / "cache", 1000).read(*pair)
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file()) <= 1000


def test_a_cache_of_no_size_keeps_nothing_and_gives_everything(tmp_path, source):
    cache = Cache(tmp_path / "cache", 0)
    for key, url in source(b"leaf", b"stem"):
        assert len(cache.read(key, url)) == 4
    assert cached(cache) == set()


def test_threads_share_a_cache_that_is_too_small_for_them(tmp_path, source):
    pairs = source(*(bytes([i]) * 2000 for i in range(20)))
    cache = Cache(tmp_path / "cache", 3000)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            got = list(pool.map(lambda pair: cache.read(*pair), pairs * 4))
    finally:
        sys.setswitchinterval(before)
    assert got == [bytes([i]) * 2000 for i in range(20)] * 4


def test_remote_bytes_come_from_the_cache_the_second_time(tmp_path, s3_url):
    storage.write(join(s3_url, "a"), b"leaf")
    cache = Cache(tmp_path / "cache", 1000)
    cache.read(sha256(b"leaf"), join(s3_url, "a"))
    storage.remove(join(s3_url, "a"))
    assert cache.read(sha256(b"leaf"), join(s3_url, "a")) == b"leaf"


# --- what goes wrong --------------------------------------------------------------------------


def test_an_unknown_protocol_is_told(url):
    with pytest.raises(StorageError, match="nowhere") as caught:
        storage.read("nowhere://a")
    assert caught.value.exit_code == 6
    assert caught.value.hint


def test_a_protocol_whose_package_is_missing_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ossfs", None)
    with pytest.raises(MissingExtraError, match="ossfs") as caught:
        storage.read("oss://bucket/a")
    assert caught.value.exit_code == 7


@pytest.mark.parametrize(
    "act",
    [
        storage.read,
        lambda url: storage.write(url, b""),
        lambda url: storage.create(url, b""),
        lambda url: list(storage.list_files(url)),
        storage.stat,
    ],
    ids=["read", "write", "create", "list", "stat"],
)
@pytest.mark.parametrize("place", ["s3_url", "s3fs_url"])
def test_a_missing_bucket_is_bad_input_and_not_a_lost_race(act, place, request):
    request.getfixturevalue(place)
    with pytest.raises(NotFoundError) as caught:
        act("s3://plantml-no-such-bucket/a")
    assert caught.value.exit_code == 3
    assert "bucket" in caught.value.hint


@pytest.mark.parametrize(
    ("act", "verb"), [(storage.read, "read"), (lambda url: list(storage.list_files(url)), "list")], ids=["read", "list"]
)
@pytest.mark.parametrize("place", ["s3_url", "s3fs_url"])
def test_a_wrong_key_is_told_as_such(place, act, verb, request, monkeypatch):
    import s3fs

    url = request.getfixturevalue(place)
    storage.write(join(url, "a"), b"")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    s3fs.S3FileSystem.clear_instance_cache()
    object_store.forget()
    try:
        with pytest.raises(StorageError, match=f"Not allowed to {verb}") as caught:
            act(join(url, "a"))
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        object_store.forget()
    assert caught.value.exit_code == 6
    assert "credentials" in caught.value.hint


def test_a_folder_that_must_not_be_read_is_told(monkeypatch, tmp_path):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a").write_bytes(b"")
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StorageError, match="Not allowed to read") as caught:
        storage.read(str(tmp_path / "a"))
    assert caught.value.hint


class Flaky:
    """A filesystem that fails some times before it answers."""

    def __init__(self, failures, error):
        self.failures, self.error, self.calls = failures, error, 0

    def cat_file(self, _path):
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return b"leaf"


@pytest.fixture
def flaky(monkeypatch):
    monkeypatch.setattr(remote, "_FIRST_PAUSE", 0.01)

    def make(failures, error):
        fs = Flaky(failures, error)
        monkeypatch.setattr("fsspec.core.url_to_fs", lambda url: (fs, url))
        return fs

    return make


def test_a_failure_that_passes_is_tried_again(flaky):
    fs = flaky(2, ConnectionResetError("reset by peer"))
    assert storage.read("far://bucket/a") == b"leaf"
    assert fs.calls == 3


def test_a_failure_that_does_not_pass_ends_as_a_storage_error(flaky):
    fs = flaky(100, ConnectionResetError("reset by peer"))
    with pytest.raises(StorageError, match="reset by peer"):
        storage.read("far://bucket/a")
    assert fs.calls == 4


@pytest.mark.parametrize("error", [FileNotFoundError("a"), PermissionError("a"), ValueError("a")], ids=type)
def test_a_failure_that_cannot_pass_is_not_tried_again(flaky, error):
    fs = flaky(100, error)
    with pytest.raises(PlantmlError):
        storage.read("far://bucket/a")
    assert fs.calls == 1


class RefusedByStoreError(Exception):
    """As gcsfs and azure raise them."""

    def __init__(self, **facts):
        super().__init__("no")
        self.__dict__.update(facts)


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        caused(OSError(22, "no"), RefusedByStoreError(response={"ResponseMetadata": {"HTTPStatusCode": 412}})),
        RefusedByStoreError(code="412"),
        RefusedByStoreError(status_code=412),
        FileExistsError("a"),
    ],
    ids=["s3fs", "gcsfs", "azure", "exists"],
)
def test_stores_say_in_different_ways_that_a_race_was_lost(error, monkeypatch):
    class Store:
        def pipe_file(self, *_, **__):
            raise error

    monkeypatch.setattr("fsspec.core.url_to_fs", lambda url: (Store(), url))
    with pytest.raises(AlreadyExistsError):
        storage.create("far://bucket/a", b"")


def test_another_refusal_is_no_lost_race(monkeypatch):
    class Store:
        def pipe_file(self, *_, **__):
            raise RefusedByStoreError(status_code=409)

    monkeypatch.setattr("fsspec.core.url_to_fs", lambda url: (Store(), url))
    with pytest.raises(StorageError, match="Could not create") as caught:
        storage.create("far://bucket/412", b"")
    assert not isinstance(caught.value, AlreadyExistsError)


def test_an_error_is_told_in_one_line(flaky):
    flaky(100, RuntimeError("first line\nsecond line " + "x" * 1000))
    with pytest.raises(StorageError) as caught:
        storage.read("far://bucket/a")
    assert "first line" in caught.value.why
    assert "\n" not in caught.value.why
    assert len(caught.value.why) <= 300


def test_damage_is_recognised_by_the_hash():
    storage.check_sha256(b"leaf", sha256(b"leaf"), "a")
    with pytest.raises(StorageError, match="damaged"):
        storage.check_sha256(b"leaF", sha256(b"leaf"), "a")


def test_times_are_utc_to_the_second():
    assert time.strptime(storage.now_utc(), "%Y-%m-%dT%H:%M:%SZ")
    assert storage.now_utc() >= time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 5))


def test_an_archive_in_memory_can_be_a_source(memory_url):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a.jpg", b"one")
    storage.write(join(memory_url, "x.zip"), buffer.getvalue())
    assert storage.read(f"zip://a.jpg::{memory_url}/x.zip") == b"one"


def test_a_result_is_written_neither_into_a_bundle_nor_among_the_files_of_a_dataset(url):
    storage.publish(url, {"ds/versions/000001.parquet": b"", "leaf/model.json": b"{}"})
    for place in ("ds/versions/000001.parquet", "ds/images/ab/x.jpg", "ds/derived/deep/page.html", "leaf/model.onnx"):
        with pytest.raises(InputError, match=r"belongs to the dataset|folder of a model"):
            storage.check_output(None, join(url, place))
    storage.check_output(*(join(url, place) for place in ("ds/report.html", "images/x.jpg", "leaf.onnx", "leaf/sub/x")))
