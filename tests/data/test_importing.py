import hashlib
import os
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from plantml import storage
from plantml.data import versions
from plantml.data.formats import list_source
from plantml.data.importing import import_source
from plantml.data.labels import Taxonomy
from plantml.errors import InputError
from plantml.storage.addresses import Trust

NAMES = [f"{disease}/{number}.jpg" for disease in ("healthy", "rust") for number in range(3)]


@pytest.fixture
def source(tmp_path, write_photos):
    return write_photos(tmp_path / "photos", NAMES)


@pytest.fixture
def dataset(tmp_path):
    return str(tmp_path / "dataset")


def bring(source, dataset, *, reference=False, progress=None, **options):
    listing = list_source(str(source), **options)
    more = {} if progress is None else {"progress": progress}
    return import_source(str(source), str(dataset), listing, reference=reference, **more)


def rows_of(dataset):
    return {row["name"]: row for row in versions.load(str(dataset)).rows.iter_rows(named=True)}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


# --- what an import does ----------------------------------------------------------------------


def test_photos_come_in_as_they_are_with_their_labels(source, dataset):
    done = bring(source, dataset)
    assert (done.changed, done.listed, done.added, done.known, done.copies) == (True, 6, 6, 0, 0)
    assert (list(done.excluded), list(done.relabelled)) == ([], [])
    assert done.version.number == 1
    version = versions.load(dataset)
    assert version.rows.height == 6
    for row in version.rows.iter_rows(named=True):
        data = (source / row["name"]).read_bytes()
        assert row["source"] == str(source)
        assert row["image_id"] == sha256(data)
        assert row["path"] == f"images/{row['image_id'][:2]}/{row['image_id']}.jpg"
        assert storage.read(version.image_url(row["path"])) == data
        assert (row["width"], row["height"], row["format"], row["bytes"]) == (40, 32, "JPEG", len(data))
        assert row["disease"] == ("none" if row["name"].startswith("healthy") else "rust")
        assert (row["status"], row["reason"], row["split"]) == ("ok", None, None)
        assert row["phash"] is not None
    assert {target.name: target.classes for target in version.targets} == {
        "health": ("diseased", "healthy"),
        "disease": ("none", "rust"),
    }


def test_nothing_but_images_and_a_version_is_written(source, dataset):
    bring(source, dataset)
    files = [entry.name for entry in storage.list_files(dataset)]
    assert sum(name.startswith("images/") for name in files) == 6
    assert [name for name in files if not name.startswith("images/")] == ["versions/000001.parquet"]


def test_the_commit_tells_what_was_imported(source, dataset):
    bring(source, dataset)
    commit = versions.load(dataset).commit
    assert commit.operation == "import"
    assert commit.parameters == {"source": str(source), "labels": "disease", "reference": False}
    assert commit.counts == {"ok": 6}
    assert commit.parent == 0


@pytest.mark.parametrize("reference", [False, True])
def test_nothing_is_written_to_the_source(reference, source, dataset, contents):
    before = contents(source)
    bring(source, dataset, reference=reference)
    bring(source, dataset, reference=reference)
    assert contents(source) == before


def test_photos_may_be_left_where_they_are(source, dataset):
    bring(source, dataset, reference=True)
    version = versions.load(dataset)
    assert version.rows["path"].to_list() == [str(source / name) for name in sorted(NAMES)]
    assert storage.read(version.image_url(version.rows["path"][0])) == (source / min(NAMES)).read_bytes()
    assert not Path(dataset, "images").exists()


def test_a_relative_source_means_the_same_later(source, dataset, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    bring("photos", "dataset", reference=True)
    monkeypatch.chdir("/")
    again = bring(source, dataset, reference=True)
    assert (again.added, again.known) == (0, 6)


def test_two_archives_of_one_relative_name_are_two_sources(write_photos, tmp_path, monkeypatch):
    for number, place in enumerate(("one", "two")):
        write_photos(tmp_path / place / "in", ["a/1.jpg", "b/1.jpg"], first_seed=10 * number)
        with zipfile.ZipFile(tmp_path / place / "x.zip", "w") as file:
            for name in ("a/1.jpg", "b/1.jpg"):
                file.write(tmp_path / place / "in" / name, name)
        monkeypatch.chdir(tmp_path / place)
        bring("zip://::x.zip", tmp_path / "dataset")
    assert versions.load(str(tmp_path / "dataset")).rows.height == 4


def test_a_dataset_may_be_anywhere(source, url):
    bring(source, url)
    version = versions.load(url)
    assert version.rows.height == 6
    for row in version.rows.iter_rows(named=True):
        assert sha256(storage.read(version.image_url(row["path"]))) == row["image_id"]
    assert not bring(source, url).changed


def test_the_same_content_has_the_same_fingerprint_wherever_it_lies(source, dataset, memory_url, tmp_path):
    elsewhere = shutil.copytree(source, tmp_path / "elsewhere")
    here, there = bring(source, dataset), bring(elsewhere, memory_url, reference=True)
    assert here.version.fingerprint == there.version.fingerprint


def test_bytes_that_are_there_are_not_written_again(source, dataset, tmp_path):
    bring(source, dataset)
    images = Path(dataset, "images")
    before = {path: path.stat().st_mtime_ns for path in images.rglob("*.jpg")}
    bring(shutil.copytree(source, tmp_path / "copy"), dataset)
    assert {path: path.stat().st_mtime_ns for path in images.rglob("*.jpg")} == before


def test_a_file_is_stored_under_the_extension_of_its_content(dataset, tmp_path, photo):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "really_png.jpg").write_bytes(photo(format="PNG"))
    bring(tmp_path / "photos", dataset)
    row = rows_of(dataset)["really_png.jpg"]
    assert row["format"] == "PNG"
    assert row["path"].endswith(".png")


def test_progress_counts_photos_to_the_end(source, dataset):
    told = []
    bring(source, dataset, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (6, 6)


# --- repeating --------------------------------------------------------------------------------


def test_importing_twice_adds_nothing(source, dataset):
    first = bring(source, dataset)
    again = bring(source, dataset)
    assert (again.changed, again.listed, again.added, again.known) == (False, 6, 0, 6)
    assert again.version.number == first.version.number == 1
    assert versions.numbers(dataset) == [1]


def test_only_what_is_new_is_read_and_added(source, dataset, write_photos, monkeypatch):
    bring(source, dataset)
    write_photos(source, ["rust/new.jpg"], first_seed=50)
    reads = []
    read = storage.read
    monkeypatch.setattr("plantml.storage.bulk_reading.read", lambda url, *limit: reads.append(url) or read(url, *limit))
    done = bring(source, dataset)
    assert (done.added, done.known, done.version.number) == (1, 6, 2)
    assert [url for url in reads if url.endswith(".jpg")] == [str(source / "rust/new.jpg")]


def test_photos_that_left_the_source_stay_in_the_dataset(source, dataset):
    bring(source, dataset)
    (source / "rust/0.jpg").unlink()
    assert not bring(source, dataset).changed
    assert "rust/0.jpg" in rows_of(dataset)


def test_what_was_curated_since_stays_curated(source, dataset):
    bring(source, dataset)

    def curate(version):
        rows = version.rows.with_columns(
            status=pl.when(pl.col("name") == "rust/0.jpg").then(pl.lit("excluded")).otherwise("status"),
            disease=pl.when(pl.col("name") == "rust/1.jpg").then(pl.lit("none")).otherwise("disease"),
        )
        return rows, version.targets, None

    versions.change(dataset, "curate", {}, curate)
    done = bring(source, dataset)
    assert not done.changed
    assert rows_of(dataset)["rust/0.jpg"]["status"] == "excluded"
    assert rows_of(dataset)["rust/1.jpg"]["disease"] == "none"
    assert done.relabelled == ["rust/1.jpg"]


def test_labels_that_changed_at_the_source_are_noticed_and_not_taken(tmp_path, dataset, source):
    table = source / "labels.csv"
    table.write_text("path,disease\nrust/0.jpg,rust\nrust/1.jpg,rust\nrust/2.jpg,\n")
    bring(table, dataset)
    table.write_text("path,disease\nrust/0.jpg,scab\nrust/1.jpg,rust\nrust/2.jpg,rust\n")
    done = bring(table, dataset)
    assert done.relabelled == ["rust/0.jpg", "rust/2.jpg"]
    assert not done.changed
    assert rows_of(dataset)["rust/0.jpg"]["disease"] == "rust"


def test_a_file_that_is_another_one_now_is_noticed_and_not_taken(source, dataset, photo):
    bring(source, dataset)
    before = rows_of(dataset)["rust/1.jpg"]["image_id"]
    (source / "rust/1.jpg").write_bytes(photo(48, 40, seed=99))
    done = bring(source, dataset)
    assert (done.changed, list(done.replaced)) == (False, ["rust/1.jpg"])
    assert rows_of(dataset)["rust/1.jpg"]["image_id"] == before


def test_labels_for_photos_that_came_in_without_any_are_noticed(source, dataset):
    first = bring(source, dataset, rule="none")
    assert first.version.targets == ()
    done = bring(source, dataset)
    assert done.relabelled == sorted(NAMES)
    assert not done.changed
    assert done.version.targets == ()


# --- copies -----------------------------------------------------------------------------------


def test_exact_copies_are_rows_and_their_bytes_are_stored_once(source, dataset):
    shutil.copy(source / "rust/0.jpg", source / "rust/0_1.jpg")
    shutil.copy(source / "rust/0.jpg", source / "healthy/conflict.jpg")
    done = bring(source, dataset)
    assert (done.added, done.copies) == (8, 2)
    assert len(list(Path(dataset, "images").rglob("*.jpg"))) == 6
    rows = rows_of(dataset)
    assert rows["rust/0.jpg"]["path"] == rows["healthy/conflict.jpg"]["path"]
    assert (rows["rust/0.jpg"]["disease"], rows["healthy/conflict.jpg"]["disease"]) == ("rust", "none")


def test_copies_of_photos_that_were_there_before_are_counted(source, dataset, tmp_path, write_photos):
    bring(source, dataset)
    other = write_photos(tmp_path / "other", ["new/1.jpg"], first_seed=70)
    (other / "old").mkdir()
    shutil.copy(source / "rust/0.jpg", other / "old" / "copy.jpg")
    done = bring(other, dataset)
    assert (done.added, done.copies) == (2, 1)


def test_files_without_a_picture_are_no_copies(source, dataset):
    for name in ("rust/a.jpg", "rust/b.jpg"):
        (source / name).write_bytes(b"")
    assert bring(source, dataset).copies == 0


# --- what cannot be used ----------------------------------------------------------------------


def test_files_that_are_no_pictures_come_in_excluded_with_their_reason(source, dataset, photo):
    broken = {
        "train/rust/empty.jpg": (b"", "empty"),
        "train/rust/text.png": (b"Not found", "not-an-image"),
        "train/rust/cut.jpg": (photo(200, 150)[:900], "truncated"),
    }
    (source / "train" / "rust").mkdir(parents=True)
    for name, (data, _) in broken.items():
        (source / name).write_bytes(data)
    done = bring(source, dataset)
    assert {name: reason.partition(":")[0] for name, reason in done.excluded} == {
        name: code for name, (_, code) in broken.items()
    }
    rows = rows_of(dataset)
    for name, (data, code) in broken.items():
        row = rows[name]
        assert row["status"] == "excluded"
        assert row["reason"].startswith(f"{code}: ")
        assert row["split"] is None
        assert row["disease"] == "rust"
        assert row["bytes"] == len(data)
        assert row["image_id"] == sha256(data)
    assert rows["train/rust/cut.jpg"]["width"] == 200
    assert versions.load(dataset).usable().height == 6
    assert versions.load(dataset).commit.counts == {"excluded": 3, "ok": 6}


def test_a_photo_that_a_list_names_and_nobody_finds_is_a_finding(source, dataset):
    (source / "labels.csv").write_text("path,disease,split\nrust/0.jpg,rust,train\nrust/9.jpg,rust,test\n")
    done = bring(source / "labels.csv", dataset)
    ((name, reason),) = done.excluded
    assert name == "rust/9.jpg"
    assert reason.startswith("not-found: ")
    row = rows_of(dataset)["rust/9.jpg"]
    assert (row["status"], row["split"], row["image_id"], row["path"]) == ("excluded", None, None, None)


@pytest.fixture
def opened(monkeypatch):
    """URLs whose bytes were asked for."""
    urls = []

    def note(call):
        def noted(url, *rest):
            urls.append(url)
            return call(url, *rest)

        return noted

    for name in ("read", "read_head", "stat"):
        monkeypatch.setattr(storage, name, note(getattr(storage, name)))
    return urls


OUTSIDE = ["/etc/passwd", "file:///etc/hosts", "http://169.254.169.254/a.jpg", "s3://other/a.jpg", "../elsewhere/b.jpg"]


def test_what_a_list_names_elsewhere_is_not_read_but_excluded_with_the_flag_that_allows_it(source, dataset, opened):
    lines = "".join(f"{name},rust\n" for name in OUTSIDE)
    (source / "labels.csv").write_text(f"path,disease\nrust/0.jpg,rust\n{lines}")
    done = bring(source / "labels.csv", dataset)
    assert done.refused == len(OUTSIDE)
    assert {name for name, _ in done.excluded} == set(OUTSIDE)
    assert all(reason.startswith("not-allowed: ") and "--allow-root " in reason for _, reason in done.excluded)
    assert not any(url.endswith(name.removeprefix("file://")) for url in opened for name in OUTSIDE)
    assert [row["path"] for row in rows_of(dataset).values() if row["status"] == "excluded"] == [None] * len(OUTSIDE)
    assert bring(source / "labels.csv", dataset).changed is False


@pytest.mark.parametrize("reference", [False, True])
def test_a_photo_that_was_not_allowed_comes_in_when_it_is(source, dataset, write_photos, tmp_path, reference):
    elsewhere = write_photos(tmp_path / "elsewhere", ["a.jpg", "b.jpg"], first_seed=20)
    (source / "labels.csv").write_text(f"path,disease\n{elsewhere}/a.jpg,rust\n../elsewhere/b.jpg,rust\n")
    assert bring(source / "labels.csv", dataset, reference=reference).refused == 2
    done = bring(source / "labels.csv", dataset, reference=reference, trust=Trust.of([str(elsewhere)]))
    assert (done.refused, len(done.mended)) == (0, 2)
    version = versions.load(dataset)
    assert {sha256(storage.read(version.image_url(path))) for path in version.usable()["path"]} == {
        sha256((elsewhere / name).read_bytes()) for name in ("a.jpg", "b.jpg")
    }


@pytest.mark.parametrize(
    ("name", "content", "image"),
    [
        ("a.json", '{"images": [{"id": 1, "file_name": "../../x.jpg"}], "annotations": [], "categories": []}', "x.jpg"),
        ("b.json", '[{"data": {"image": "s3://other/x.jpg"}, "annotations": []}]', "x.jpg"),
        ("c.jsonl", '{"image": "/etc/x.jpg"}', "x.jpg"),
        ("d.jsonl", '{"image": "zip://x.jpg::/etc/set.zip"}', "x.jpg"),
        ("metadata.csv", "file_name\n/etc/x.jpg\n", "x.jpg"),
    ],
)
def test_no_format_names_what_lies_elsewhere(tmp_path, name, content, image):
    home = tmp_path / "set" / "in"
    home.mkdir(parents=True)
    (home / name).write_text(content)
    (tmp_path / image).write_bytes(b"")
    (item,) = list_source(str(home if name == "metadata.csv" else home / name)).items
    assert image in item.url
    assert "--allow-root" in item.refusal


def test_a_source_of_nothing_but_broken_files_is_imported_all_the_same(tmp_path, dataset):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"")
    done = bring(tmp_path / "photos", dataset)
    assert (done.added, len(done.excluded)) == (1, 1)
    assert versions.load(dataset).usable().is_empty()


@pytest.mark.parametrize("place", ["photos", "photos/dataset", "."])
def test_source_and_dataset_must_not_lie_inside_each_other(place, source, contents):
    before = contents(source)
    with pytest.raises(InputError, match="are nested"):
        bring(source, source.parent / place)
    assert contents(source) == before


def test_a_dataset_beside_its_source_with_a_longer_name_is_apart(source):
    assert bring(source, f"{source}2").added == 6


def test_one_target_has_one_kind(source, dataset):
    (source / "a.csv").write_text("path,severity\nrust/0.jpg,low\n")
    (source / "b.csv").write_text("path,severity\nrust/1.jpg,0.5\n")
    bring(source / "a.csv", dataset, targets=["severity"])
    with pytest.raises(InputError, match="a target has one kind"):
        bring(source / "b.csv", dataset, targets=["severity"])
    assert versions.numbers(dataset) == [1]


@pytest.mark.parametrize("at", ["1", "best"])
def test_a_fixed_version_cannot_be_imported_into(at, source, dataset):
    with pytest.raises(InputError, match="immutable"):
        bring(source, f"{dataset}@{at}")
    assert not Path(dataset).exists()


# --- more than one source ---------------------------------------------------------------------


def test_a_second_source_adds_its_rows_and_classes(source, dataset, tmp_path, write_photos):
    bring(source, dataset)
    other = write_photos(tmp_path / "other", ["bean___scab/0.jpg", "corn___healthy/0.jpg"], first_seed=90)
    done = bring(other, dataset)
    version = done.version
    assert version.rows.height == 8
    assert version.target("disease").classes == ("none", "rust", "scab")
    assert version.target("category").classes == ("bean", "corn")
    assert version.rows.filter(pl.col("source") == str(source))["category"].null_count() == 6


def test_classes_keep_their_order_when_more_come(dataset, tmp_path, write_photos):
    taxonomy = Taxonomy({"a": {"category": "m"}, "b": {"category": "z"}, "c": {"category": "a"}}, "")
    bring(write_photos(tmp_path / "one", ["a/1.jpg", "b/1.jpg"]), dataset, taxonomy=taxonomy)
    bring(write_photos(tmp_path / "two", ["a/1.jpg", "c/1.jpg"], first_seed=5), dataset, taxonomy=taxonomy)
    assert versions.load(dataset).target("category").classes == ("m", "z", "a")


def test_two_sources_may_use_one_name(source, dataset, tmp_path, write_photos):
    bring(source, dataset)
    bring(write_photos(tmp_path / "other", NAMES, first_seed=20), dataset)
    assert versions.load(dataset).rows.height == 12


def test_the_order_of_imports_does_not_matter(tmp_path, write_photos):
    one = write_photos(tmp_path / "one", NAMES)
    two = write_photos(tmp_path / "two", NAMES, first_seed=20)
    fingerprints = set()
    for number, order in enumerate([(one, two), (two, one)]):
        for each in order:
            bring(each, tmp_path / f"dataset{number}")
        fingerprints.add(versions.load(str(tmp_path / f"dataset{number}")).fingerprint)
    assert len(fingerprints) == 1


# --- at the same time, and cut off ------------------------------------------------------------

IMPORT = """
import pathlib, sys, time
from plantml.data.importing import import_source
from plantml.data.formats import list_source
source, dataset, go = sys.argv[1:]
listing = list_source(source)
print("ready", flush=True)
while not pathlib.Path(go).exists():
    time.sleep(0.001)
done = import_source(source, dataset, listing)
print(done.added)
"""


@pytest.mark.parametrize("same", [False, True], ids=["two sources", "one source"])
def test_imports_by_two_processes_lose_no_row(same, tmp_path, dataset, write_photos, run_python):
    sources = [write_photos(tmp_path / f"photos{n}", NAMES, first_seed=20 * n) for n in range(2)]
    if same:
        sources[1] = sources[0]
    processes = [run_python(IMPORT, source, dataset, tmp_path / "go") for source in sources]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    version = versions.load(dataset)
    expected = {(str(source), name) for source in sources for name in NAMES}
    assert set(version.rows.select("source", "name").iter_rows()) == expected
    assert version.rows.height == len(expected)
    assert versions.numbers(dataset) == ([1] if same else [1, 2])


def test_imports_at_the_same_time_into_an_object_store_lose_no_row(tmp_path, s3_url, write_photos):
    sources = [write_photos(tmp_path / f"photos{n}", NAMES[:2], first_seed=20 * n) for n in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda source: bring(source, s3_url, rule="disease"), sources))
    assert versions.load(s3_url).rows.height == 6
    assert versions.numbers(s3_url) == [1, 2, 3]


@pytest.mark.parametrize("moment", ["replace", "link"], ids=["while copying", "while committing"])
def test_an_import_that_was_killed_can_be_repeated(moment, source, dataset, run_python):
    kill = f"""
import os, signal
act, count = os.{moment}, 0
def die(*arguments):
    global count
    count += 1
    if count == {3 if moment == "replace" else 1}:
        os.kill(os.getpid(), signal.SIGKILL)
    act(*arguments)
os.{moment} = die
"""
    process = run_python(kill + IMPORT, source, dataset, os.devnull)
    process.communicate(timeout=60)
    assert process.returncode == -9
    assert versions.numbers(dataset) == []
    assert Path(dataset, "images").exists()
    done = bring(source, dataset)
    assert (done.added, done.version.number) == (6, 1)
    for row in done.version.rows.iter_rows(named=True):
        assert sha256(storage.read(done.version.image_url(row["path"]))) == row["image_id"]


def test_photos_that_were_read_before_the_end_came_are_not_read_again(tmp_path, dataset, write_photos, monkeypatch):
    source = write_photos(tmp_path / "many", [f"{disease}/{n}.jpg" for disease in ("a", "b") for n in range(20)])

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bring(source, dataset, progress=stop)
    assert versions.numbers(dataset) == []
    reads = []
    read = storage.read
    monkeypatch.setattr("plantml.storage.bulk_reading.read", lambda url, *limit: reads.append(url) or read(url, *limit))
    done = bring(source, dataset)
    assert (done.added, done.version.rows["image_id"].null_count()) == (40, 0)
    assert 0 < len([url for url in reads if url.endswith(".jpg")]) < 40
    assert not list(Path(dataset, "derived").rglob("*.jsonl"))


def test_known_bytes_under_another_label_are_told(source, dataset, tmp_path):
    bring(source, dataset)
    feed = tmp_path / "feed"
    (feed / "rust").mkdir(parents=True)
    shutil.copy(source / "healthy/0.jpg", feed / "rust/again.jpg")
    (feed / "healthy").mkdir()
    shutil.copy(source / "healthy/1.jpg", feed / "healthy/same.jpg")
    done = bring(feed, dataset, rule="disease")
    assert ("rust/again.jpg", "disease", "rust, known as none") in done.conflicts
    assert {name for name, _, _ in done.conflicts} == {"rust/again.jpg"}


@pytest.mark.parametrize("at_first", [None, b"", "half"])
def test_a_file_that_was_not_whole_is_read_again_once_it_is_another(source, dataset, at_first):
    photo = source / NAMES[0]
    whole = photo.read_bytes()
    if at_first is None:
        listed = list_source(str(source))
        photo.unlink()
        import_source(str(source), dataset, listed)
    else:
        photo.write_bytes(whole[: len(whole) // 2] if at_first == "half" else at_first)
        bring(source, dataset)
    assert rows_of(dataset)[NAMES[0]]["status"] == "excluded"
    assert not bring(source, dataset).changed or at_first is None
    photo.write_bytes(whole)
    done = bring(source, dataset)
    assert (list(done.mended), done.added, list(done.replaced)) == ([NAMES[0]], 0, [])
    assert rows_of(dataset)[NAMES[0]]["status"] == "ok"
    assert rows_of(dataset)[NAMES[0]]["image_id"] == sha256(whole)
    assert not bring(source, dataset).changed


def test_what_people_left_out_stays_out(source, dataset):
    bring(source, dataset)

    def leave_out(version):
        said = pl.when(pl.col("name") == NAMES[0])
        rows = version.rows.with_columns(
            status=said.then(pl.lit("excluded")).otherwise("status"), reason=said.then(pl.lit("cleaned blurry"))
        )
        return rows, version.targets, None

    versions.change(dataset, "test", {}, leave_out)
    (source / NAMES[0]).write_bytes((source / NAMES[1]).read_bytes())
    assert not bring(source, dataset).mended
    assert rows_of(dataset)[NAMES[0]]["status"] == "excluded"


# --- what the command tells -------------------------------------------------------------------


def test_an_import_without_a_photo_that_can_be_used_is_an_error_each_time(tmp_path, cli):
    (tmp_path / "photos" / "rust").mkdir(parents=True)
    (tmp_path / "photos" / "rust" / "a.jpg").write_bytes(b"")
    (tmp_path / "list.csv").write_text("image,disease\nb.jpg,rust\nphotos/rust/a.jpg,none\n")
    for _ in range(2):
        result = cli("dataset", "import", tmp_path / "list.csv", tmp_path / "dataset")
        assert result.code == 3
        assert "all of 2 photos are excluded: " in result.err
        assert "not-found 1" in result.err
        assert "empty 1" in result.err
    assert cli("dataset", "import", tmp_path / "list.csv", tmp_path / "dataset", "--json").json["usable"] == 0


def test_a_photo_that_can_be_used_is_enough(tmp_path, photo, cli):
    (tmp_path / "a.jpg").write_bytes(photo())
    (tmp_path / "list.csv").write_text("image,disease\na.jpg,rust\n" + "".join(f"{n}.jpg,rust\n" for n in range(5)))
    result = cli("dataset", "import", tmp_path / "list.csv", tmp_path / "dataset")
    assert result.code == 0
    assert "6 of 6 photos added, 5 of them excluded" in result.out
    assert result.out.count("Excluded: ") == 4
    assert "Excluded: 2 more (not-found)" in result.out


def test_an_import_counts_boxes_by_class_and_says_what_can_be_done_with_them(tmp_path, photo, cli):
    files = {
        "classes.txt": b"apple\npear\n",
        "a.jpg": photo(),
        "a.txt": b"0 .5 .5 .2 .2\n1 .5 .5 .2 .2\n1 .4 .4 .1 .1\n",
    }
    for name, data in files.items():
        (tmp_path / "set" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "set" / name).write_bytes(data)
    result = cli("dataset", "import", tmp_path / "set", tmp_path / "dataset")
    assert "Boxes: 3: pear 2, apple 1" in result.out
    assert f"plantml dataset split {tmp_path / 'dataset'}" in result.out


def test_a_photo_whose_annotation_was_mended_comes_in_anew(tmp_path, photo, cli):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(photo())
    for label, usable in (("ru\0st", 1), ("rust", 2)):
        (tmp_path / "list.csv").write_text(f"image,disease\na.jpg,{label}\nb.jpg,none\n")
        result = cli("dataset", "import", tmp_path / "list.csv", tmp_path / "dataset", "--json")
        assert (result.code, result.json["usable"]) == (0, usable)
    assert result.json["mended"] == ["a.jpg"]
    assert rows_of(tmp_path / "dataset")["a.jpg"]["disease"] == "rust"


# --- what cannot be read, or cannot be written down -------------------------------------------


def test_what_is_no_regular_file_is_left_out_with_the_reason(source, dataset):
    os.mkfifo(source / "healthy" / "pipe.jpg")
    (source / "rust" / "zero.jpg").symlink_to("/dev/zero")
    done = bring(source, dataset)
    assert done.added == len(NAMES) + 2
    reasons = dict(done.excluded)
    assert "a named pipe" in reasons["healthy/pipe.jpg"]
    assert "a device" in reasons["rust/zero.jpg"]


def test_names_that_are_not_utf_8_are_passed_over_and_counted(source, dataset, photo):
    (source / "healthy" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(photo())
    (source / os.fsdecode(b"caf\xe9")).mkdir()
    (source / os.fsdecode(b"caf\xe9") / "a.jpg").write_bytes(photo())
    done = bring(source, dataset)
    assert done.added == len(NAMES)
    assert done.skipped == {"its name is not UTF-8: rename it": 2}


def test_a_source_whose_name_is_not_utf_8_is_refused(tmp_path, write_photos, dataset):
    source = write_photos(tmp_path / os.fsdecode(b"caf\xe9"), NAMES)
    with pytest.raises(InputError, match="cannot be imported"):
        bring(source, dataset)


def test_copies_across_given_splits_are_told(tmp_path, photo, dataset):
    data = photo(seed=1)
    for name in ("train/rust/a.jpg", "test/rust/b.jpg", "train/scab/c.jpg"):
        (tmp_path / "s" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "s" / name).write_bytes(photo(seed=2) if "scab" in name else data)
    notes = bring(tmp_path / "s", dataset).notes
    assert any("train/rust/a.jpg in train" in note and "test/rust/b.jpg in test" in note for note in notes)
    assert not any("c.jpg" in note for note in notes)
