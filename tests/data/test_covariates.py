"""Measured columns join the photos that a table names."""

import polars as pl
import pytest

from plantml.data import covariates, versions
from plantml.errors import InputError
from plantml.targets import Target

DISEASE = (Target("disease", "class", ("none", "rust")),)


@pytest.fixture
def leaves(make_rows, tmp_path):
    """URL of a dataset of four rows, of which the last two are copies of one photo."""
    url = str(tmp_path / "leaves")
    names = ["a/1.jpg", "a/2.jpg", "b/2.jpg", "b/3.jpg"]
    rows = make_rows([{"name": name, "disease": "rust"} for name in names], DISEASE)
    rows = rows.with_columns(image_id=pl.Series([*rows["image_id"][:3], rows["image_id"][2]]))
    versions.change(url, "make", {}, lambda _: (rows, DISEASE, None))
    return url


def table(folder, text, name="table.csv"):
    file = folder / name
    file.write_text(text)
    return str(file)


def column(url, name):
    return versions.load(url).rows[name].to_list()


def test_columns_are_joined_by_path_file_name_and_hash_and_other_rows_are_counted(leaves, tmp_path):
    image_id = versions.load(leaves).rows["image_id"][2]
    text = f"image,temperature,split,disease\na/2.jpg, 21.5,test,none\n1.jpg,20,test,none\n{image_id},19,,\nz.jpg,5,,\n"
    done = covariates.join(leaves, table(tmp_path, text))
    assert done.report == covariates.Joined(["temperature"], 4, 4, 1)
    assert column(leaves, "meta_temperature") == ["20", "21.5", "19", "19"]
    assert column(leaves, "disease") == ["rust"] * 4
    assert column(leaves, "split") == [None] * 4
    assert not covariates.join(leaves, table(tmp_path, text)).changed


def test_the_fingerprint_covers_the_columns_that_are_named(leaves, tmp_path):
    def fingerprint(*names):
        version = versions.load(leaves)
        return covariates.fingerprint(version.rows, version.targets, names)

    plain = fingerprint()
    covariates.join(leaves, table(tmp_path, "image,t,v\na/1.jpg,1,x\na/2.jpg,2,y\n"))
    before = [fingerprint(*names) for names in ((), ("t",), ("v",), ("t", "v"), ("v", "t"), ("disease",))]
    assert plain == before[0] == before[5] == versions.load(leaves).fingerprint
    assert len(set(before)) == 4 == len(set(before[:4]))
    covariates.join(leaves, table(tmp_path, "image,t\na/1.jpg,5\n"))
    after = [fingerprint(*names) for names in ((), ("t",), ("v",), ("t", "v"))]
    assert [old == new for old, new in zip(before, after, strict=False)] == [True, False, True, False]


def test_an_empty_cell_changes_nothing_and_a_new_value_replaces(leaves, tmp_path):
    covariates.join(leaves, table(tmp_path, "image,t,v\na/1.jpg,1,x\na/2.jpg,2,y\n"))
    covariates.join(leaves, table(tmp_path, "image,t,v\na/1.jpg,,z\na/2.jpg,5,\n"))
    assert column(leaves, "meta_t") == ["1", "5", None, None]
    assert column(leaves, "meta_v") == ["z", "y", None, None]
    assert covariates.rows_of(versions.load(leaves).rows, ["v", "disease", "nothing"])[0] == {
        "v": "z",
        "disease": "rust",
    }


@pytest.mark.parametrize(
    ("text", "columns", "match"),
    [
        ("image,t\n2.jpg,1\n", [], "matches 2 photos"),
        ("image,t\na/1.jpg,1\n1.jpg,2\n", [], "twice"),
        ("image,t\nz.jpg,1\n", [], "names no photo"),
        ("image,t\na/1.jpg,1\n", ["humidity"], "no column 'humidity'"),
        ("image,disease\na/1.jpg,none\n", ["disease"], "is a target"),
        ("image,disease\na/1.jpg,none\n", [], "no columns to join"),
        ("photo,t\na/1.jpg,1\n", [], "which column names the photos"),
    ],
)
def test_what_cannot_be_joined_is_refused_and_nothing_changes(leaves, tmp_path, text, columns, match):
    with pytest.raises(InputError, match=match) as error:
        covariates.join(leaves, table(tmp_path, text), columns)
    assert error.value.hint
    assert versions.load(leaves).number == 1


def test_the_command_names_the_next_one(cli, leaves, tmp_path):
    result = cli("dataset", "join", leaves, table(tmp_path, "image,t,v\na/1.jpg,1,x\n"), "--columns", "v")
    assert result.code == 0, result.err
    assert "v of 1 photo" in result.out
    assert "--covariates v" in result.out
    assert "meta_t" not in versions.load(leaves).rows.columns
