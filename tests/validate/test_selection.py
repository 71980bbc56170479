import pytest

from plantml.errors import InputError
from plantml.targets import Target
from plantml.validate.config import ValidateConfig
from plantml.validate.selection import groups_of, select

DISEASE = Target("disease", "class", ("none", "rust", "blight"))
HEALTH = Target("health", "class", ("healthy", "diseased"))
MODEL = [[HEALTH, DISEASE]]


@pytest.fixture
def field(paint):
    """Photos of the model's classes, and of one that it does not know."""
    names = ["none", "rust", "blight", "leaf rust", "scorch"]
    return paint([(name, "rust", {"site": name[:4]}) for name in names], "field")


def config(**more):
    return ValidateConfig(**more)


def test_an_unknown_class_is_refused_and_a_table_renames_it(field, tmp_path):
    with pytest.raises(InputError, match="leaf rust"):
        select([field], MODEL, config())
    table = tmp_path / "classes.csv"
    table.write_text("from,to\nleaf rust,rust\nscorch,\n")
    result = select([field], MODEL, config(map=str(table)))
    assert result.rows["disease"].to_list() == ["none", "rust", "blight", "rust", None]
    assert result.rows["health"].to_list() == ["healthy", "diseased", "diseased", "diseased", "diseased"]


def test_a_table_may_name_the_target(field, tmp_path):
    table = tmp_path / "classes.csv"
    table.write_text("target,from,to\ndisease,leaf rust,rust\ndisease,scorch,blight\nhealth,healthy,diseased\n")
    result = select([field], MODEL, config(map=str(table)))
    assert result.rows["disease"].to_list() == ["none", "rust", "blight", "rust", "blight"]
    assert set(result.rows["health"]) == {"diseased"}


@pytest.mark.parametrize(
    ("content", "said"),
    [("from,to\nleaf rst,rust\n", "leaf rst"), ("old,new\na,b\n", "from and to"), ("", "from and to")],
)
def test_a_table_that_means_nothing_is_refused(field, tmp_path, content, said):
    (tmp_path / "classes.csv").write_text(content)
    with pytest.raises(InputError) as error:
        select([field], MODEL, config(map=str(tmp_path / "classes.csv")))
    assert said in f"{error.value} {error.value.hint}"


def test_shared_classes_leave_out_what_the_model_does_not_know(field):
    result = select([field], MODEL, config(shared_classes=True))
    assert result.rows["disease"].to_list() == ["none", "rust", "blight", None, None]
    assert result.left_out == {"disease": 2}
    assert result.shared["disease"] == {"none", "rust", "blight"}


def test_shared_classes_are_those_of_both_models(field):
    other = [Target("disease", "class", ("rust", "none", "scorch"))]
    result = select([field], [*MODEL, other], config(shared_classes=True))
    assert result.rows["disease"].to_list() == ["none", "rust", None, None, None]
    assert result.shared["disease"] == {"none", "rust"}


def test_nothing_shared_is_told(paint):
    data = paint([("scorch", "rust", {})], "other")
    with pytest.raises(InputError, match="No photo has a class"):
        select([data], [[DISEASE]], config(shared_classes=True))


def test_a_condition_chooses_photos(field):
    result = select([field], MODEL, config(where='site in ["none", "rust"]'))
    assert result.rows["disease"].to_list() == ["none", "rust"]
    with pytest.raises(InputError, match="No photos are left"):
        select([field], MODEL, config(where='site == "no"'))


def test_several_datasets_are_judged_together(cli, paint, write_photos, tmp_path):
    one = paint([("none", "none", {"group": "a"}), ("rust", "rust", {"group": "a"})], "one")
    home = write_photos(tmp_path / "plants", ["test/bean/1.png"])
    two = tmp_path / "two"
    assert cli("dataset", "import", home, two, "--labels", "category").code == 0
    plant = Target("category", "class", ("bean", "tomato"))
    result = select([one, str(two)], [[HEALTH, DISEASE, plant]], config())
    assert result.rows["dataset"].to_list() == [f"{one}@1", f"{one}@1", f"{two}@1"]
    assert result.rows["health"].to_list() == ["healthy", "diseased", None]
    assert result.rows["category"].to_list() == [None, None, "bean"]
    assert groups_of(result.rows).number.tolist()[0] == groups_of(result.rows).number.tolist()[1]
    assert groups_of(result.rows).count == 2  # the groups of two datasets have nothing to do with each other


def test_photos_without_a_group_are_their_own_and_copies_are_one(paint):
    data = paint([("none", "none", {}), ("rust", "rust", {}), ("rust", "rust", {"group": "x"})])
    assert groups_of(select([data], MODEL, config()).rows).count == 3


def test_only_the_asked_split_is_judged(paint):
    data = paint([("none", "none", {"split": split}) for split in ("train", "val", "test", "test")])
    counts = {
        split: select([data], MODEL, config(split=split)).rows.height for split in ("train", "val", "test", "all")
    }
    assert counts == {"train": 1, "val": 1, "test": 2, "all": 4}
