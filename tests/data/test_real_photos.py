import pytest

from plantml import storage
from plantml.data import versions
from plantml.data.formats import list_source
from plantml.data.importing import import_source
from plantml.data.summary import info


@pytest.fixture
def bring(photos, tmp_path):
    """Import a folder of the real photos into a dataset of its own."""

    def run(name, **options):
        source = str(photos / name)
        done = import_source(source, str(tmp_path / name), list_source(source), **options)
        return done, info(str(tmp_path / name))

    return run


def test_bean_keeps_its_official_split_and_its_three_classes(bring):
    done, found = bring("bean", reference=True)
    assert (done.added, done.copies, list(done.excluded)) == (372, 0, [])
    assert found.splits == {"train": 240, "val": 60, "test": 72}
    assert found.distinct == 372
    assert set(found.classes["disease"]) == {"angular_leaf_spot", "bean_rust", "none"}
    assert set(found.classes["health"]) == {"diseased", "healthy"}
    assert "category" not in found.classes
    assert found.sizes == {"min_width": 500, "max_width": 500, "min_height": 500, "max_height": 500}
    assert all(count == 0 for count in found.unlabelled.values())


def test_plantvillage_has_its_copies_its_empty_files_and_its_classes(plantvillage):
    found = info(plantvillage)
    assert (found.rows, found.usable, found.distinct) == (899, 897, 793)
    assert found.excluded == {"empty": 2}
    assert len(found.classes["category"]) == 5
    assert len(found.classes["health"]) == 2
    assert len(found.classes["disease"]) == 9
    assert "none" in found.classes["disease"]
    assert found.splits == {"none": 897}
    healthy = sum(found.classes["health"]["healthy"].values())
    assert healthy == sum(found.classes["disease"]["none"].values()) > 0


def test_plantvillage_is_known_the_second_time(plantvillage, photos):
    source = str(photos / "plantvillage")
    done = import_source(source, plantvillage, list_source(source), reference=True)
    assert (done.changed, done.added, done.known) == (False, 0, 899)
    assert versions.numbers(plantvillage) == [1]


def test_names_with_blanks_and_commas_lead_to_their_photos(plantvillage):
    version = versions.load(plantvillage)
    odd = [row for row in version.usable().iter_rows(named=True) if "copy" in row["name"] or "," in row["name"]]
    assert odd
    for row in odd[:5]:
        storage.check_sha256(storage.read(version.image_url(row["path"])), row["image_id"], row["path"])


def test_of_thirteen_odd_files_three_come_in_excluded(bring, tmp_path):
    done, found = bring("odd")
    assert (found.rows, found.usable) == (13, 10)
    assert found.excluded == {"empty": 1, "not-an-image": 2}
    assert len(done.excluded) == 3
    assert found.formats == {"JPEG": 2, "PNG": 8}
    stored = [entry.name for entry in storage.list_files(str(tmp_path / "odd" / "images"))]
    assert sum(name.endswith(".jpg") for name in stored) == 2


def test_stereo_photos_come_in_as_jpegs(bring, tmp_path):
    done, found = bring("hires")
    assert (done.added, list(done.excluded)) == (10, [])
    assert found.formats == {"JPEG": 7, "MPO": 3}
    assert all(entry.name.endswith(".jpg") for entry in storage.list_files(str(tmp_path / "hires" / "images")))
