import io
import os
from pathlib import Path

import pytest

from plantml import storage
from plantml.detect.sources import collect
from plantml.errors import InputError, NotFoundError


@pytest.fixture
def folder(tmp_path):
    """Three photos, a hidden one, one in a hidden folder, and two files that are none."""
    for name in ("b.jpg", "a.PNG", "deep/c.tif", ".hidden.jpg", ".cache/d.jpg", "notes.md", "labels.csv"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(name.encode())
    return tmp_path


@pytest.fixture
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


def names(found):
    return [source.url for source in found.found]


def test_a_folder_gives_its_images_in_order_and_counts_what_it_passes_over(folder):
    found = collect([str(folder)])
    assert names(found) == [f"{folder}/{name}" for name in ("a.PNG", "b.jpg", "deep/c.tif")]
    assert found.skipped == {"hidden": 2, "not an image by its name": 2}


def test_a_folder_in_memory_is_a_folder(memory_url):
    for name in ("b.jpg", "deep/a.png", ".hidden.jpg", "notes.md"):
        storage.write(f"{memory_url}/{name}", b"picture")
    found = collect([memory_url])
    assert names(found) == [f"{memory_url}/b.jpg", f"{memory_url}/deep/a.png"]
    assert found.skipped == {"hidden": 1, "not an image by its name": 1}


def test_a_glob_takes_what_matches(folder):
    assert names(collect([f"{folder}/*.jpg"])) == [f"{folder}/b.jpg"]
    deep = collect([f"{folder}/**/*.*"])
    assert set(names(deep)) == {f"{folder}/{name}" for name in ("a.PNG", "b.jpg", "deep/c.tif")}
    assert deep.skipped["not an image by its name"] == 2


def test_a_name_with_glob_marks_that_is_there_is_that_file(folder):
    (folder / "plot[1].jpg").write_bytes(b"picture")
    assert names(collect([f"{folder}/plot[1].jpg"])) == [f"{folder}/plot[1].jpg"]


@pytest.mark.parametrize("name", ["list.txt", "list.lst"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\0"])
def test_a_list_gives_what_it_names_in_its_order(folder, inside, name, end):
    Path(name).write_bytes(end.join(["deep/c.tif", "", "notes.md", "s3://bucket/far.jpg", "a name.jpg"]).encode())
    assert names(collect([name])) == ["deep/c.tif", "notes.md", "s3://bucket/far.jpg", "a name.jpg"]


@pytest.mark.parametrize("text", [b"b.jpg\na.PNG\n", b"b.jpg\r\na.PNG", b"b.jpg\0a.PNG\0"])
def test_standard_input_names_images_by_lines_or_nul(inside, text):
    assert names(collect(["-"], io.BytesIO(text))) == ["b.jpg", "a.PNG"]


def test_nul_lets_a_name_hold_a_line_end(tmp_path):
    file = tmp_path / "two\nlines.jpg"
    file.write_bytes(b"picture")
    found = collect(["-"], io.BytesIO(f"{file}\0".encode()))
    assert names(found) == [str(file)]
    assert found.found[0].stamp != "missing"


def test_a_name_that_is_no_unicode_is_still_that_file(tmp_path):
    raw = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    Path(os.fsdecode(raw)).write_bytes(b"picture")
    listed, folder = collect(["-"], io.BytesIO(raw + b"\n")), collect([str(tmp_path)])
    assert listed == folder


def test_what_is_named_twice_is_looked_at_once(folder):
    found = collect([str(folder), f"{folder}/b.jpg", f"{folder}/*.jpg"])
    assert names(found) == [f"{folder}/{name}" for name in ("a.PNG", "b.jpg", "deep/c.tif")]
    assert found.skipped["named twice"] == 2


def test_names_keep_their_order(folder):
    found = collect([f"{folder}/deep", f"{folder}/b.jpg", f"{folder}/a.PNG"])
    assert [Path(url).name for url in names(found)] == ["c.tif", "b.jpg", "a.PNG"]


def test_a_named_file_is_taken_whatever_it_is(folder):
    missing = f"{folder}/gone.jpg"
    found = collect([f"{folder}/notes.md", missing, f"{folder}/.hidden.jpg"])
    assert names(found) == [f"{folder}/notes.md", missing, f"{folder}/.hidden.jpg"]
    assert [source.stamp == "missing" for source in found.found] == [False, True, False]
    assert not found.skipped


def test_the_stamp_changes_with_the_file(folder):
    (before,) = collect([f"{folder}/b.jpg"]).found
    assert collect([f"{folder}/b.jpg"]).found == [before]
    (folder / "b.jpg").write_bytes(b"another picture")
    (after,) = collect([f"{folder}/b.jpg"]).found
    assert after != before
    assert collect([str(folder)]).found[1] == after


@pytest.mark.parametrize("name", ["empty", "empty/*.jpg", "void.txt"])
def test_nothing_at_all_is_an_error(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "void.txt").write_bytes(b"\n\n")
    with pytest.raises(InputError, match="nothing matched"):
        collect([str(tmp_path / name)])


def test_nothing_but_other_files_says_how_many(folder):
    for name in ("a.PNG", "b.jpg", "deep/c.tif"):
        (folder / name).unlink()
    with pytest.raises(InputError, match="4 other files were passed over"):
        collect([str(folder)])


def test_a_list_that_is_not_there_is_not_found(tmp_path):
    with pytest.raises(NotFoundError, match="photos"):
        collect([str(tmp_path / "photos.txt")])
