import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from plantml import storage
from plantml.data import manifest, versions
from plantml.data.manifest import Version
from plantml.errors import AlreadyExistsError, InputError, NotFoundError
from plantml.targets import Target

DISEASE = (Target("disease", "class", ("none", "rust")),)


@pytest.fixture
def add(make_rows):
    """`add(ref, name)`: commit a version with one row more."""

    def one_more(name):
        def apply(version):
            row = make_rows([{"name": name, "disease": "rust"}], DISEASE)
            return pl.concat([manifest.conform(version.rows, DISEASE), row]).sort("name"), DISEASE, None

        return apply

    def change(ref, name):
        return versions.change(ref, "add", {"name": name}, one_more(name))

    return change


# --- references -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ref", "url", "at"),
    [
        ("/data/set", "/data/set", None),
        ("/data/set@7", "/data/set", "7"),
        ("/data/set@best", "/data/set", "best"),
        ("/data/set@v1.2-rc_3", "/data/set", "v1.2-rc_3"),
        ("/data/set@7/", "/data/set", "7"),
        ("/home/me@work/set", "/home/me@work/set", None),
        ("/home/me@work/set@7", "/home/me@work/set", "7"),
        ("/data/me@home@7", "/data/me@home", "7"),
        ("s3://bucket/set@7", "s3://bucket/set", "7"),
        ("s3://bucket/a@b/set", "s3://bucket/a@b/set", None),
        ("s3://bucket/a@b/set@best", "s3://bucket/a@b/set", "best"),
        ("s3://bucket@7", "s3://bucket", "7"),
        ("memory://set@7", "memory://set", "7"),
        ("file:///set@7", "/set", "7"),
        ("/set@7", "/set", "7"),
        ("/data/set@", "/data/set@", None),
        ("/data/@7", "/data/@7", None),
        ("/data/set@-1", "/data/set@-1", None),
        ("/data/set@a b", "/data/set@a b", None),
    ],
)
def test_a_reference_is_a_url_and_what_comes_after_its_last_at(ref, url, at):
    assert versions.parse_reference(ref) == (url, at)


def test_a_relative_reference_means_the_same_later(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert versions.parse_reference("set@7") == (str(tmp_path / "set"), "7")


def test_a_directory_with_an_at_in_its_name_can_be_a_dataset(tmp_path, add):
    ref = str(tmp_path / "me@home" / "set")
    add(ref, "a.jpg")
    add(ref, "b.jpg")
    assert versions.load(f"{ref}@1").rows["name"].to_list() == ["a.jpg"]
    assert versions.load(ref).number == 2


# --- reading ----------------------------------------------------------------------------------


def test_a_version_is_named_by_number_or_tag_and_the_newest_by_nothing(url, add):
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        add(url, name)
    versions.tag(f"{url}@2", "best")
    assert versions.load(url).rows["name"].to_list() == ["a.jpg", "b.jpg", "c.jpg"]
    assert versions.load(f"{url}@1").rows["name"].to_list() == ["a.jpg"]
    assert versions.load(f"{url}@best").number == 2
    assert versions.load(f"{url}@2").ref == f"{url}@2"


def test_what_is_no_dataset_is_bad_input_with_the_way_to_one(url):
    with pytest.raises(NotFoundError) as caught:
        versions.load(url)
    assert "dataset import" in caught.value.hint
    assert caught.value.exit_code == 3
    assert versions.numbers(url) == []


@pytest.mark.parametrize("number", [0, 3, 7])
def test_a_version_that_is_not_there_tells_which_are(number, memory_url, add):
    add(memory_url, "a.jpg")
    add(memory_url, "b.jpg")
    with pytest.raises(InputError, match="1 to 2"):
        versions.load(f"{memory_url}@{number}")


def test_a_tag_that_is_not_there_tells_which_are(memory_url, add):
    add(memory_url, "a.jpg")
    versions.tag(memory_url, "first")
    with pytest.raises(InputError, match="first"):
        versions.load(f"{memory_url}@best")


def test_other_files_are_no_versions(tmp_path, add):
    add(str(tmp_path), "a.jpg")
    for name in ("notes.txt", ".000002.parquet.x.part", "000002.parquet.bak", "2.parquet", "0000002.parquet"):
        (tmp_path / "versions" / name).write_bytes(b"")
    (tmp_path / "versions" / "old").mkdir()
    (tmp_path / "versions" / "old" / "000009.parquet").write_bytes(b"")
    assert versions.numbers(str(tmp_path)) == [1]
    assert versions.load(str(tmp_path)).number == 1


def test_a_damaged_version_is_told_and_the_others_stay(tmp_path, add):
    add(str(tmp_path), "a.jpg")
    add(str(tmp_path), "b.jpg")
    (tmp_path / "versions" / "000002.parquet").write_bytes(b"rotten")
    with pytest.raises(InputError):
        versions.load(str(tmp_path))
    assert versions.load(f"{tmp_path}@1").rows.height == 1


def test_the_log_has_the_newest_first(url, add):
    for name in ("a.jpg", "b.jpg"):
        add(url, name)
    log = versions.log(url)
    assert [number for number, _ in log] == [2, 1]
    assert [commit.parameters["name"] for _, commit in log] == ["b.jpg", "a.jpg"]
    assert [commit.parent for _, commit in log] == [1, 0]
    assert all(commit.targets == DISEASE for _, commit in log)


def test_the_log_of_no_dataset_is_told(memory_url):
    with pytest.raises(NotFoundError):
        versions.log(memory_url)


# --- committing -------------------------------------------------------------------------------


def test_of_two_commits_on_one_parent_the_second_is_told_and_changes_nothing(url, make_rows):
    first = Version(url, 0, make_rows([{"name": "a.jpg"}]), ())
    second = Version(url, 0, make_rows([{"name": "b.jpg"}]), ())
    assert versions.commit(first, "one", {}, 0).number == 1
    with pytest.raises(AlreadyExistsError):
        versions.commit(second, "two", {}, 0)
    assert versions.load(url).rows["name"].to_list() == ["a.jpg"]
    assert versions.numbers(url) == [1]


def test_a_commit_gives_the_version_as_it_will_be_read(memory_url, make_rows):
    version = versions.commit(Version(memory_url, 0, make_rows([{}]), ()), "one", {"x": 1}, 0)
    again = versions.load(memory_url)
    assert version.commit == again.commit
    assert version.rows.equals(again.rows)
    assert version.ref == again.ref == f"{memory_url}@1"


def test_a_change_is_made_again_on_top_of_what_others_committed_meanwhile(url, add, make_rows):
    add(url, "a.jpg")
    seen = []

    def apply(version):
        seen.append(version.number)
        if len(seen) == 1:
            add(url, "other.jpg")
        rows = pl.concat([version.rows, make_rows([{"name": "mine.jpg", "disease": "none"}], DISEASE)])
        return rows.sort("name"), DISEASE, f"on top of {version.number}"

    done = versions.change(url, "mine", {}, apply)
    assert (seen, done.report) == ([1, 2], "on top of 2")
    assert (done.changed, done.version.number) == (True, 3)
    assert done.version.commit.parent == 2
    assert versions.load(url).rows["name"].to_list() == ["a.jpg", "mine.jpg", "other.jpg"]


@pytest.mark.parametrize(("kind", "writers"), [("local", 8), ("s3", 3)])
def test_writers_at_the_same_time_lose_nothing(kind, writers, request, tmp_path, add):
    url = str(tmp_path / "set") if kind == "local" else request.getfixturevalue("s3_url")
    start = threading.Barrier(writers)

    def write(number):
        start.wait()
        return add(url, f"{number}.jpg").version.number

    with ThreadPoolExecutor(writers) as pool:
        numbers = sorted(pool.map(write, range(writers)))
    assert numbers == list(range(1, writers + 1))
    assert versions.load(url).rows["name"].to_list() == [f"{number}.jpg" for number in range(writers)]
    for number in numbers:
        assert versions.load(f"{url}@{number}").rows.height == number


def test_a_change_that_changes_nothing_commits_nothing(url, add):
    add(url, "a.jpg")
    done = versions.change(url, "nothing", {}, lambda version: (version.rows, version.targets, None))
    assert (done.changed, done.version.number) == (False, 1)
    assert versions.numbers(url) == [1]


def test_a_change_of_targets_alone_is_a_change(memory_url, add):
    add(memory_url, "a.jpg")
    renamed = (Target("disease", "class", ("rust", "none")),)
    done = versions.change(memory_url, "reorder", {}, lambda version: (version.rows, renamed, None))
    assert (done.changed, done.version.number) == (True, 2)
    assert versions.load(memory_url).targets == renamed


def test_an_error_of_the_change_commits_nothing(memory_url, add):
    add(memory_url, "a.jpg")
    with pytest.raises(ZeroDivisionError):
        versions.change(memory_url, "fail", {}, lambda version: 1 / 0)
    assert versions.numbers(memory_url) == [1]


@pytest.mark.parametrize("at", ["1", "best"])
def test_a_fixed_version_cannot_be_changed(at, memory_url, add):
    add(memory_url, "a.jpg")
    with pytest.raises(InputError, match="immutable") as caught:
        add(f"{memory_url}@{at}", "b.jpg")
    assert memory_url in caught.value.hint


def test_versions_are_never_written_again(tmp_path, add):
    add(str(tmp_path), "a.jpg")
    file = Path(tmp_path, "versions", "000001.parquet")
    before = file.read_bytes(), file.stat().st_mtime_ns
    for name in ("b.jpg", "c.jpg"):
        add(str(tmp_path), name)
    versions.tag(str(tmp_path), "best")
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before


# --- tags -------------------------------------------------------------------------------------


def test_the_newest_tag_of_a_name_wins_and_no_old_one_is_lost(url, add):
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        add(url, name)
    assert versions.tag(f"{url}@1", "best") == 1
    assert versions.tag(f"{url}@2", "other") == 2
    assert versions.tag(url, "best") == 3
    assert versions.tag(f"{url}@other", "best") == 2
    assert versions.tags(url) == {"best": 2, "other": 2}
    assert [entry.name for entry in storage.list_files(storage.join(url, "tags"))] == [
        f"{number:06d}.json" for number in (1, 2, 3, 4)
    ]


def test_a_dataset_without_tags_has_none(memory_url, add):
    add(memory_url, "a.jpg")
    assert versions.tags(memory_url) == {}


@pytest.mark.parametrize("name", ["", "7", "7th", "two words", "a/b", "a@b", "-x", "ü", "x" * 65])
def test_a_tag_is_a_plain_word(name, memory_url, add):
    add(memory_url, "a.jpg")
    with pytest.raises(InputError, match="starts with a letter"):
        versions.tag(memory_url, name)


def test_what_is_not_there_cannot_be_tagged(memory_url, add):
    with pytest.raises(NotFoundError):
        versions.tag(memory_url, "best")
    add(memory_url, "a.jpg")
    with pytest.raises(InputError):
        versions.tag(f"{memory_url}@2", "best")


def test_tags_given_at_the_same_time_are_all_kept(tmp_path, add):
    url = str(tmp_path)
    add(url, "a.jpg")
    names = [f"tag{number}" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: versions.tag(url, name), names))
    assert versions.tags(url) == dict.fromkeys(names, 1)


def test_a_version_under_another_number_is_refused(url, make_rows):
    for name in ("a.jpg", "b.jpg"):
        versions.change(url, "import", {}, lambda head, name=name: (make_rows([{"name": name}]), (), None))
    first = storage.read(versions.file_of(url, 1))
    for number in (2, 3):
        storage.write(versions.file_of(url, number), first)
        with pytest.raises(InputError, match="is that of version 1"):
            versions.load(f"{url}@{number}")
    assert versions.load(f"{url}@1").number == 1
