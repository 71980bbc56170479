import pytest

from plantml.data.boxes import Box
from plantml.data.formats import list_source
from plantml.data.importers import ImportListing, Item
from plantml.data.importers.vetting import vetted
from plantml.errors import InputError
from plantml.targets import Target

TARGETS = (Target("disease", "class"), Target("signs", "multilabel"), Target("severity", "value"))


def vet(*items):
    return vetted(ImportListing(items, TARGETS, "", {})).items


@pytest.mark.parametrize(
    "content",
    [
        {"labels": {"disease": "ru\0st"}},
        {"labels": {"disease": 3}},
        {"labels": {"signs": ["a", None]}},
        {"labels": {"severity": 10**400}},
        {"boxes": [Box(0, 0, float("inf"), 1)]},
        {"boxes": [Box(float("nan"), 0, 1, 1)]},
        {"boxes": [Box(10**400, 0, 1, 1)]},
        {"boxes": [Box(0, 0, 1, 1, {"disease": "\ud800"})]},
        {"boxes": [Box(0, 0, 1, 1, {"severity": float("nan")})]},
        {"boxes": [Box(0, 0, 1, 1, {"severity": True})]},
        {"group": "p\x1b"},
        {"split": "holdout"},
        {"meta": {"class": "\udcff"}},
    ],
)
def test_what_cannot_be_excludes_the_photo_with_the_reason(content):
    good, bad = vet(Item("a.jpg", "/a.jpg", labels={"disease": "rust"}), Item("b.jpg", "/b.jpg", **content))
    assert good.labels == {"disease": "rust"}
    assert (bad.status, bad.labels, bad.boxes, bad.group) == ("excluded", {}, None, None)
    assert bad.reason.startswith("bad-annotation: ")
    bad.reason.encode()


@pytest.mark.parametrize("name", ["", "a\0.jpg", "\ud800.jpg", "x" * 300, "a/" * 3000])
def test_a_name_that_no_file_has_is_not_read(name):
    (item,) = vet(Item(name, "/a.jpg"))
    assert (item.status, item.url) == ("excluded", "")
    assert item.reason.startswith("bad-name: ")
    item.name.encode()


def test_one_name_twice_is_an_error():
    with pytest.raises(InputError, match="named 2 times"):
        vet(Item("a.jpg", "/a.jpg"), Item("a.jpg", "/b.jpg"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_marks_of_byte_order_are_no_part_of_a_name(encoding, tmp_path):
    (tmp_path / "x.csv").write_bytes("image,disease\na.jpg,rust\n".encode(encoding))
    assert list_source(str(tmp_path / "x.csv")).items[0].labels["disease"] == "rust"


def test_a_cell_that_never_ends_is_named_by_its_line(tmp_path):
    (tmp_path / "x.csv").write_text('image,disease\na.jpg,rust\nb.jpg,"rust\nc.jpg,rust\n')
    with pytest.raises(InputError, match="line 3"):
        list_source(str(tmp_path / "x.csv"))
