"""What people do wrong with datasets, and what they are told."""

import pytest

from plantml.data import versions


@pytest.fixture
def leaves(tmp_path, write_photos, cli):
    source = write_photos(tmp_path / "photos", [f"{name}/P0{n}_{n}.jpg" for name in ("none", "rust") for n in range(6)])
    url = str(tmp_path / "leaves")
    assert cli("dataset", "import", source, url, "--labels", "disease").code == 0
    return url


def classes(url, target="disease"):
    return versions.load(url).target(target).classes


def test_classes_that_mean_one_become_one_and_plurals_do_not(tmp_path, write_photos, cli):
    names = [f"{name}/{n}.jpg" for name in ("Leaf Crinckle 150", "leaf_crinckle", "rust", "rusts") for n in range(3)]
    url = str(tmp_path / "dataset")
    assert cli("dataset", "import", write_photos(tmp_path / "p", names), url, "--labels", "disease").code == 0
    assert cli("dataset", "clean", url, "--apply", "similar-classes").code == 0
    assert set(classes(url)) == {"leaf_crinckle", "rust", "rusts"}
    assert cli("dataset", "clean", url, "--apply", "similar-classes", "--json").json["changed"] is False


def test_groups_of_a_pattern_are_remembered(leaves, tmp_path, write_photos, cli):
    assert cli("dataset", "split", leaves, "--group-by", r"(P\d+)", "--ratios", "1/1/1").code == 0
    rows = versions.load(leaves).rows
    test_photo = next(name for name, split in rows.select("name", "split").iter_rows() if split == "test")
    plant = test_photo.partition("/")[2][:3]
    assert set(rows["group"]) == {f"P0{n}" for n in range(6)}
    write_photos(tmp_path / "photos", [f"none/{plant}_new.jpg"], first_seed=77)
    assert cli("dataset", "add", leaves, tmp_path / "photos", "--labels", "disease").code == 0
    done = cli("dataset", "split", leaves, "--keep", "--group-by", r"(P\d+)", "--json")
    assert done.json["held"] == {"group-of-test": 1}


def test_a_photo_that_was_replaced_gets_no_vector_under_its_old_name(tmp_path, write_photos, photo, cli, embedder):
    source = write_photos(tmp_path / "photos", [f"a/{n}.jpg" for n in range(6)])
    url = str(tmp_path / "dataset")
    cli("dataset", "import", source, url, "--reference")
    (source / "a/0.jpg").write_bytes(photo(40, 32, seed=99))
    done = cli("dataset", "embed", url, "--model", embedder)
    assert "5 photos" in done.out
    assert "Left out: 1 photo" in done.out


@pytest.mark.parametrize("name", ["", " rust", "rust "])
def test_a_class_has_a_name(name, leaves, cli):
    assert cli("dataset", "rename-class", leaves, "disease", "rust", name).code == 2


def test_wrong_order_names_the_dataset_that_is_not_there(leaves, cli):
    done = cli("dataset", "rename-class", "disease", "rust", "x", leaves)
    assert done.code == 3
    assert "There is no dataset" in done.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image,disease\nwrong/P00_0.jpg,rust\n", "matches no photo"),
        ("image,disese\nnone/P00_0.jpg,rust\n", "corrects nothing"),
        ("image,disease\nnone/P00_0.jpg,rust\nnone/P00_0.jpg,none\n", "twice"),
    ],
)
def test_corrections_that_cannot_be_meant_are_refused(text, said, leaves, tmp_path, cli):
    file = tmp_path / "corrections.csv"
    file.write_text(text)
    done = cli("dataset", "relabel", leaves, file)
    assert done.code == 3
    assert said in done.err
    assert versions.numbers(leaves) == [1]


def test_photos_may_be_named_by_their_whole_path(leaves, tmp_path, cli):
    file = tmp_path / "corrections.csv"
    file.write_text(f"image,disease\n{tmp_path}/photos/none/P00_0.jpg,rust\n")
    assert cli("dataset", "relabel", leaves, file, "--json").json["relabelled"] == 1


def test_no_dataset_is_made_among_other_files(leaves, tmp_path, write_photos, cli, contents):
    other = write_photos(tmp_path / "mine", ["a/1.jpg"])
    before = contents(other)
    for command in (
        ("subset", leaves, other, "--where", 'disease == "rust"'),
        ("merge", other, leaves),
        ("import", tmp_path / "photos", other),
    ):
        done = cli("dataset", *command)
        assert done.code == 3
        assert "other files" in done.err
    file = tmp_path / "file.txt"
    file.write_text("x")
    assert "is a file" in cli("dataset", "import", tmp_path / "photos", file).err
    assert contents(other) == before


def test_a_dataset_is_no_folder_of_photos(leaves, tmp_path, cli):
    done = cli("dataset", "import", leaves, tmp_path / "other")
    assert done.code == 3
    assert "merge" in done.err


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_value_is_a_number(value, tmp_path, write_photos, cli):
    write_photos(tmp_path, ["a.jpg"])
    (tmp_path / "list.csv").write_text(f"image,severity\na.jpg,{value}\n")
    done = cli("dataset", "import", tmp_path / "list.csv", tmp_path / "d", "--target", "severity:value")
    assert done.code == 3
    assert "finite" in done.err


def test_an_empty_split_is_told(leaves, cli):
    done = cli("dataset", "split", leaves, "--group-by", "(P)", "--json")
    assert {warning[:19] for warning in done.json["warnings"]} == {"No photo is in val:", "No photo is in test"}
    assert cli("dataset", "split", leaves, "--group-by", "x*", "--resplit").code == 3
    assert cli("dataset", "split", leaves, "--keep", "--resplit").code == 2


def test_a_set_with_nothing_to_learn_is_told(leaves, tmp_path, cli):
    part = str(tmp_path / "part")
    cli("dataset", "subset", leaves, part, "--where", 'disease == "rust"')
    assert cli("dataset", "check", part, "--only", "labels", "--json").json["counts"]["single-class"] == 2
    versions.change(part, "drop", {}, lambda version: (version.rows.head(0), version.targets, None))
    assert cli("dataset", "check", part, "--only", "labels", "--fail-on", "error").code == 4
    assert cli("dataset", "check", part, "--only", "files", "--skip", "files").code == 2


def test_labels_of_many_can_be_asked_for(tmp_path, write_photos, cli):
    write_photos(tmp_path, ["a.jpg", "b.jpg"])
    (tmp_path / "list.csv").write_text("image,signs\na.jpg,spots|curl\nb.jpg,curl\n")
    url = tmp_path / "d"
    assert cli("dataset", "import", tmp_path / "list.csv", url, "--target", "signs:multilabel").code == 0
    done = cli("dataset", "subset", url, tmp_path / "part", "--where", '"spots" in signs', "--json")
    assert done.json["added"] == 1


def test_boxes_are_counted_and_renamed(tmp_path, photos, cli):
    url = str(tmp_path / "apples")
    cli("dataset", "import", photos / "apple_boxes" / "instances.json", url, "--reference")
    assert cli("dataset", "rename-class", url, "category", "apple", "fruit").code == 0
    assert cli("dataset", "info", url, "--json").json["boxes"] == {"fruit": 1239}
