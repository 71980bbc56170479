import http.server
import io
import json
import os
import tarfile
import threading
import zipfile
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from plantml import storage
from plantml.data import versions
from plantml.detect.sources import Selection, check_apart, collect, parse_since
from plantml.errors import InputError, NotFoundError, UsageError
from plantml.storage.addresses import Trust


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
    return [source.url for source in found.photos]


def test_a_folder_gives_its_images_in_order_and_counts_what_it_passes_over(folder):
    found = collect([str(folder)])
    assert names(found) == [f"{folder}/{name}" for name in ("a.PNG", "b.jpg", "deep/c.tif")]
    assert found.skipped == {"hidden": 2, "no image extension": 2}


def test_a_folder_in_memory_is_a_folder(memory_url):
    for name in ("b.jpg", "deep/a.png", ".hidden.jpg", "notes.md"):
        storage.write(f"{memory_url}/{name}", b"picture")
    found = collect([memory_url])
    assert names(found) == [f"{memory_url}/b.jpg", f"{memory_url}/deep/a.png"]
    assert found.skipped == {"hidden": 1, "no image extension": 1}


def test_a_glob_takes_what_matches(folder):
    assert names(collect([f"{folder}/*.jpg"])) == [f"{folder}/b.jpg"]
    deep = collect([f"{folder}/**/*.*"])
    assert set(names(deep)) == {f"{folder}/{name}" for name in ("a.PNG", "b.jpg", "deep/c.tif")}
    assert deep.skipped["no image extension"] == 2


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
    assert found.photos[0].stamp != "missing"


def test_a_name_that_is_no_unicode_is_still_that_file(tmp_path):
    raw = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    Path(os.fsdecode(raw)).write_bytes(b"picture")
    listed, folder = collect(["-"], io.BytesIO(raw + b"\n")), collect([str(tmp_path)])
    assert list(listed.photos) == list(folder.photos)


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
    assert [source.stamp == "missing" for source in found.photos] == [False, True, False]
    assert not found.skipped


def test_the_stamp_changes_with_the_file(folder):
    (before,) = collect([f"{folder}/b.jpg"]).photos
    assert list(collect([f"{folder}/b.jpg"]).photos) == [before]
    (folder / "b.jpg").write_bytes(b"another picture")
    (after,) = collect([f"{folder}/b.jpg"]).photos
    assert after != before
    assert collect([str(folder)]).photos[1] == after


@pytest.mark.parametrize("name", ["empty", "empty/*.jpg", "void.txt"])
def test_nothing_at_all_is_an_error(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "void.txt").write_bytes(b"\n\n")
    with pytest.raises(InputError, match="nothing matched"):
        collect([str(tmp_path / name)])


def test_nothing_but_other_files_says_how_many(folder):
    for name in ("a.PNG", "b.jpg", "deep/c.tif"):
        (folder / name).unlink()
    with pytest.raises(InputError, match="4 other files were skipped"):
        collect([str(folder)])


def test_a_list_that_is_not_there_is_not_found(tmp_path):
    with pytest.raises(NotFoundError, match="photos"):
        collect([str(tmp_path / "photos.txt")])


# --- tables, datasets, archives ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["list.csv", "list.tsv", "list.parquet", "list.jsonl"])
def test_a_table_names_images_in_a_column(folder, inside, name):
    rows = pl.DataFrame({"plant": [1, 2, 3], "URL": ["deep/c.tif", "s3://bucket/far.jpg", "b.jpg"]})
    if name.endswith(".jsonl"):
        rows.write_ndjson(name)
    elif name.endswith(".parquet"):
        rows.write_parquet(name)
    else:
        rows.write_csv(name, separator="\t" if name.endswith(".tsv") else ",")
    expected = ["deep/c.tif", "s3://bucket/far.jpg", "b.jpg"]
    assert names(collect([name])) == expected
    assert names(collect([name], selection=Selection(column="URL"))) == expected
    with pytest.raises(InputError, match="has no column 'where'") as error:
        collect([name], selection=Selection(column="where"))
    assert "plant, URL" in error.value.why


def test_a_path_of_a_table_is_from_here_or_else_from_beside_it(folder, monkeypatch):
    (folder / "deep" / "list.csv").write_text("image\nc.tif\nb.jpg\ngone.jpg\n")
    monkeypatch.chdir(folder)
    assert names(collect(["deep/list.csv"])) == ["deep/c.tif", "b.jpg", "gone.jpg"]


@pytest.mark.parametrize("name", ["list.txt", "list.csv", "list.jsonl"])
def test_a_list_names_what_lies_around_it_or_under_an_allowed_root(folder, tmp_path_factory, monkeypatch, name):
    monkeypatch.chdir(tmp_path_factory.mktemp("work"))
    expected = ["b.jpg", f"{folder}/a.PNG", "../x.jpg", "/etc/passwd", "http://127.1/a.jpg", "s3://other/a.jpg", "a\0b"]
    expected = expected[:-1] if name == "list.txt" else expected
    records = [json.dumps({"image": url}) for url in expected]
    rows = {"list.txt": expected, "list.csv": ["image", *expected]}.get(name, records)
    (folder / name).write_text("\n".join(rows))
    found = collect([str(folder / name)]).photos
    assert [bool(source.refusal) for source in found] == [False, False, *[True] * (len(expected) - 2)]
    assert found[3].stamp.startswith("not-allowed: ")
    assert "--allow-root /etc" in found[3].stamp
    trust = Trust.of(["/etc", "http://127.1", "s3://other"])
    found = collect([str(folder / name)], selection=Selection(trust=trust)).photos
    assert [bool(source.refusal) for source in found][:6] == [False, False, True, False, False, False]


def test_a_list_far_away_names_nothing_here(folder, inside, memory_url):
    storage.write(f"{memory_url}/list.csv", b"image\nb.jpg\n")
    storage.write(f"{memory_url}/list.txt", b"a.PNG\n")
    found = collect([f"{memory_url}/list.csv", f"{memory_url}/list.txt"])
    assert names(found) == [f"{memory_url}/b.jpg", f"{memory_url}/a.PNG"]


def test_standard_input_is_the_users_word_but_for_what_is_private_or_offline(folder):
    text = f"{folder}/b.jpg\nhttp://169.254.169.254/a.jpg\ns3://bucket/a.jpg\n".encode()
    found = collect(["-"], io.BytesIO(text)).photos
    assert [bool(source.refusal) for source in found] == [False, True, False]
    found = collect(["-"], io.BytesIO(text), Selection(trust=Trust(offline=True))).photos
    assert [bool(source.refusal) for source in found] == [False, True, True]


def test_offline_a_datasets_remote_references_are_not_read(tmp_path, make_rows):
    far = {"source": "s3://bucket/photos", "name": "a.jpg", "path": "s3://bucket/photos/a.jpg"}
    near = {"source": "/photos", "name": "b.jpg", "path": "/photos/b.jpg"}
    url = str(tmp_path / "dataset")
    versions.change(url, "import", {}, lambda _: (make_rows([far, near, {}]), (), None))
    for trust, refused in ((Trust(), 0), (Trust(offline=True), 1), (Trust(("s3://bucket",), offline=True), 0)):
        found = collect([url], selection=Selection(trust=trust)).photos
        assert [bool(source.refusal) for source in found].count(True) == refused
        assert len(found) == 3


def test_links_to_folders_elsewhere_are_named_with_the_flag_that_follows_them(folder, tmp_path_factory):
    links = tmp_path_factory.mktemp("links")
    (links / "season").symlink_to(folder / "deep")
    (links / "loop").symlink_to(links)
    for name in (str(links), f"{links}/**/*.tif"):
        with pytest.raises(InputError, match="2 other files") as error:
            collect([name])
        assert f"--allow-root {folder}/deep" in error.value.hint
        found = collect([name], selection=Selection(trust=Trust.of([str(folder)])))
        assert names(found) == [f"{links}/season/c.tif"]
        assert found.skipped == {storage.LINK_BACK: 1}


def test_what_is_not_allowed_gets_a_record_in_its_place_and_is_counted(tmp_path, cli, trained, photo):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(photo())
    (tmp_path / "list.csv").write_text("image\na.jpg\n/etc/passwd\nhttp://10.0.0.1/x.jpg\nb.jpg\n")
    line = ("detect", tmp_path / "list.csv", "--model", trained.run)
    printed = cli(*line)
    codes = [(json.loads(text)["failure"] or "none").split(":")[0] for text in printed.out.splitlines()]
    assert (printed.code, codes) == (5, ["none", "not-allowed", "not-allowed", "none"])
    out = ("--out", tmp_path / "out" / "r.jsonl", "--json")
    assert cli(*line, *out).json["failures"] == {"not-allowed": 2}
    allowed = cli(*line, *out, "--allow-root", "/etc", "--offline")
    assert allowed.json["failures"] == {"not-allowed": 1, "not-an-image": 1}
    assert "root:" not in (tmp_path / "out" / "r.jsonl").read_text()


def test_a_table_without_a_telling_column_says_so(tmp_path):
    (tmp_path / "list.csv").write_text("plant,photo\n1,a.jpg\n")
    with pytest.raises(InputError, match="does not say which column") as error:
        collect([str(tmp_path / "list.csv")])
    assert "--column" in error.value.hint
    (tmp_path / "one.csv").write_text("photo\na.jpg\n")
    assert names(collect([str(tmp_path / "one.csv")])) == ["a.jpg"]


def test_a_folder_with_versions_is_a_dataset(trained):
    version = versions.load(trained.data)
    found = collect([trained.data])
    assert names(found) == [version.image_url(path) for path in version.usable()["path"]]
    test = collect([f"{trained.data}@{version.number}"], selection=Selection(split="test"))
    assert names(test) == [version.image_url(path) for path in version.usable("test")["path"]]
    assert 0 < len(test.photos) < len(found.photos)
    with pytest.raises(InputError, match="no photos in the split") as error:
        collect([trained.data], selection=Selection(split="tset"))
    assert "test" in error.value.why
    with pytest.raises(InputError, match="no version 99"):
        collect([f"{trained.data}@99"])


def test_a_folder_of_photos_stays_one_whatever_it_is_called(folder):
    for name in ("versions/old.jpg", "plot@3/a.jpg"):
        (folder / name).parent.mkdir()
        (folder / name).write_bytes(b"picture")
    assert f"{folder}/versions/old.jpg" in names(collect([str(folder)]))
    assert names(collect([f"{folder}/plot@3"])) == [f"{folder}/plot@3/a.jpg"]


@pytest.mark.parametrize(
    ("choice", "said"), [(Selection(split="test"), "--split"), (Selection(column="url"), "--column")]
)
def test_a_choice_that_is_about_nothing_is_wrong_usage(folder, choice, said):
    with pytest.raises(UsageError, match=said):
        collect([str(folder)], selection=choice)


@pytest.mark.parametrize("name", ["photos.zip", "photos.tar", "photos.tar.gz"])
def test_an_archive_is_searched_without_unpacking(folder, tmp_path_factory, name):
    place = tmp_path_factory.mktemp("archive") / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(place, "w") as archive:
            for file in sorted(folder.rglob("*")):
                if file.is_file():
                    archive.write(file, file.relative_to(folder))
            archive.writestr("../out.jpg", b"picture")
    else:
        with tarfile.open(place, f"w:{'gz' if name.endswith('gz') else ''}") as archive:
            for file in sorted(folder.rglob("*")):
                if file.is_file():
                    archive.add(file, file.relative_to(folder))
    found = collect([str(place), f"{folder}/b.jpg"])
    kind = "zip" if name.endswith(".zip") else "tar"
    assert names(found) == [
        *(f"{kind}://{member}::{place}" for member in ("a.PNG", "b.jpg", "deep/c.tif")),
        f"{folder}/b.jpg",
    ]
    assert found.skipped["hidden"] == 2
    assert found.skipped["no image extension"] == 2
    assert sum(found.skipped.values()) == (5 if kind == "zip" else 4)
    assert storage.read(names(found)[1]) == b"b.jpg"


@pytest.mark.parametrize("made", ["photos", "photos/drawn", "photos/sheet.png"])
def test_pictures_are_not_made_among_the_photos(tmp_path, monkeypatch, made):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="is inside the source photos"):
        check_apart(["-", "photos"], [None, str(tmp_path / made)])
    check_apart(["photos", "photos/a.jpg"], ["photos-drawn", "s3://photos/drawn", None])


def test_only_what_changed_since(folder):
    now = 1_800_000_000
    for name, age in (("b.jpg", 100), ("a.PNG", 90_000), ("deep/c.tif", 10)):
        os.utime(folder / name, (now - age, now - age))
    found = collect([str(folder)], selection=Selection(since=parse_since("24h", now)))
    assert names(found) == [f"{folder}/b.jpg", f"{folder}/deep/c.tif"]
    assert found.skipped["older than --since"] == 1
    assert parse_since("2026-05-01T18:00+00:00") == 1_777_658_400
    assert parse_since("7d", now) == now - 7 * 86_400
    with pytest.raises(UsageError, match="not a time"):
        parse_since("yesterday")


def test_http_gives_records_of_what_is_there_and_what_is_not(tmp_path, cli, trained, photo):
    (tmp_path / "a.jpg").write_bytes(photo(seed=3))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            if self.path.startswith("/cut"):
                self.send_response(200)
                self.send_header("Content-Length", "100000")
                self.end_headers()
                self.wfile.write(b"\xff\xd8\xff half")
                return
            super().do_GET()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        home = f"http://127.0.0.1:{server.server_port}"
        out = tmp_path / "records.jsonl"
        line = (
            f"{home}/a.jpg?size=full",
            f"{home}/gone.jpg?size=full",
            f"{home}/cut",
            "--model",
            trained.run,
            "--out",
            out,
        )
        result = cli("detect", *line, "--max-failures", 2, "--json")
        assert result.code == 0, result.err
        records = [json.loads(text) for text in out.read_text().splitlines()]
        codes = [(record["failure"] or "none").split(":")[0] for record in records]
        assert codes == ["none", "not-found", "unreachable"]
    finally:
        server.shutdown()
        server.server_close()
