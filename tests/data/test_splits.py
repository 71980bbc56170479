import random
import shutil
from collections import Counter, defaultdict
from fractions import Fraction

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plantml import storage
from plantml.data import versions
from plantml.data.manifest import SPLITS, Version
from plantml.data.splits import assign, group_keys, parse_ratios, split_dataset
from plantml.errors import InputError, NotFoundError, UsageError
from plantml.targets import Target

DISEASE = Target("disease", "class", ("none", "rust", "scab"))
TARGETS = (
    Target("category", "class", ("bean", "corn")),
    DISEASE,
    Target("symptoms", "multilabel", ("curl", "spots")),
    Target("severity", "value", unit="fraction"),
)
CATEGORY = (Target("category", "class", ("a", "b", "c")),)
SHARES = parse_ratios("0.7/0.15/0.15")

photos_ = st.fixed_dictionaries(
    {
        "image_id": st.integers(0, 40).map(lambda number: f"{number:064x}"),
        "group": st.none() | st.sampled_from(["p1", "p2", "p3", "p4"]),
        "category": st.sampled_from([None, "bean", "corn"]),
        "disease": st.sampled_from([None, "none", "rust", "scab"]),
        "symptoms": st.none() | st.lists(st.sampled_from(["curl", "spots"]), unique=True),
        "severity": st.none() | st.floats(0, 1),
    }
)
ratios_ = st.sampled_from(["0.7/0.15/0.15", "8/1/1", "1/1/1", "0.8/0.2/0", "1/0/0", "0/1/1"])


def split_of(rows, targets=TARGETS, shares=SHARES, seed=0):
    """Split by name of photo."""
    keys, _ = group_keys(rows, ("group", "image_id"))
    return dict(zip(rows["name"], assign(rows, targets, keys, shares, seed), strict=True))


def singles(make_rows, counts):
    """Photos that belong to nothing: so many of each class."""
    return make_rows([{"disease": name} for name, count in counts.items() for _ in range(count)], [DISEASE])


# --- ratios -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("0.7/0.15/0.15", ("7/10", "3/20", "3/20")),
        ("8/1/1", ("4/5", "1/10", "1/10")),
        ("70/15/15", ("7/10", "3/20", "3/20")),
        ("1/0/0", ("1", "0", "0")),
        (" 7 / 2 / 1 ", ("7/10", "1/5", "1/10")),
        ("0.1/0.1/0.1", ("1/3", "1/3", "1/3")),
    ],
)
def test_ratios_are_exact_shares(text, shares):
    assert parse_ratios(text) == tuple(map(Fraction, shares))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0.7",
        "7/3",
        "1/1/1/1",
        "0/0/0",
        "-1/1/1",
        "a/b/c",
        "nan/1/1",
        "inf/1/1",
        "1//1",
        "1e400/1/1",
        "1e999999999/1/1",
        "1/1e-20/1",
    ],
)
def test_other_texts_are_no_ratios(text):
    with pytest.raises(UsageError) as caught:
        parse_ratios(text)
    assert repr(text) in caught.value.what
    assert "0.7/0.15/0.15" in caught.value.hint


# --- groups -----------------------------------------------------------------------------------


def test_photos_that_share_a_group_or_their_bytes_belong_together(make_rows):
    rows = make_rows(
        [
            {"group": "p1", "image_id": "a"},
            {"group": "p1", "image_id": "b"},
            {"group": None, "image_id": "b"},
            {"group": "p2", "image_id": "c"},
            {"group": None, "image_id": "d"},
            {"group": None, "image_id": "e"},
        ]
    )
    keys, joined = group_keys(rows, ("group", "image_id"))
    assert keys[0] == keys[1] == keys[2]
    assert len(set(keys)) == 4
    assert joined == {"group": 2, "image_id": 2}


def test_groups_that_share_a_copy_are_one(make_rows):
    rows = make_rows(
        [
            {"group": "p1", "image_id": "a"},
            {"group": "p1", "image_id": "x"},
            {"group": "p2", "image_id": "x"},
            {"group": "p2", "image_id": "b"},
            {"group": "p3", "image_id": "b"},
        ]
    )
    keys, _ = group_keys(rows, ("group", "image_id"))
    assert len(set(keys)) == 1


@settings(max_examples=60)
@given(st.lists(photos_, min_size=1, max_size=40), ratios_, st.integers(0, 3))
def test_groups_and_copies_are_never_torn_apart(make_rows, content, ratios, seed):
    rows = make_rows(content, TARGETS)
    assigned = split_of(rows, shares=parse_ratios(ratios), seed=seed)
    together = defaultdict(set)
    for row in rows.iter_rows(named=True):
        together["copy", row["image_id"]].add(assigned[row["name"]])
        if row["group"] is not None:
            together["group", row["group"]].add(assigned[row["name"]])
    assert all(len(splits) == 1 for splits in together.values())
    allowed = {name for name, share in zip(SPLITS, parse_ratios(ratios), strict=True) if share}
    assert set(assigned.values()) <= allowed


@settings(max_examples=40)
@given(st.lists(photos_, min_size=2, max_size=30), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(make_rows, content, order):
    rows = make_rows(content, TARGETS)
    places = list(range(rows.height))
    order.shuffle(places)
    assert split_of(rows) == split_of(rows[places])


@pytest.mark.parametrize("seed", range(5))
def test_the_order_within_groups_does_not_matter(make_rows, seed):
    rows = make_rows([{"group": f"p{number % 9}", "disease": "rust"} for number in range(36)], [DISEASE])
    assert split_of(rows, [DISEASE], seed=seed) == split_of(rows.reverse(), [DISEASE], seed=seed)


@settings(max_examples=20)
@given(st.lists(photos_, min_size=2, max_size=30))
def test_names_and_places_do_not_matter(make_rows, content):
    here = split_of(make_rows(content, TARGETS))
    moved = [{**record, "source": "s3://b", "name": f"{number}.png"} for number, record in enumerate(content)]
    there = split_of(make_rows(moved, TARGETS))
    assert list(here.values()) == list(there.values())


@settings(max_examples=40)
@given(
    st.fixed_dictionaries({name: st.integers(0, 60) for name in DISEASE.classes}).filter(lambda c: sum(c.values())),
    st.sampled_from(["0.7/0.15/0.15", "8/1/1", "1/1/1", "0.8/0.2/0"]),
    st.integers(0, 2),
)
def test_shares_are_near_for_every_class(make_rows, counts, ratios, seed):
    rows = singles(make_rows, counts)
    shares = parse_ratios(ratios)
    assigned = split_of(rows, [DISEASE], shares, seed)
    found = Counter((row["disease"], assigned[row["name"]]) for row in rows.iter_rows(named=True))
    for name, share in zip(SPLITS, shares, strict=True):
        for label, count in counts.items():
            assert abs(found[label, name] - share * count) < 2
        assert abs(sum(found[label, name] for label in counts) - share * rows.height) <= 2


def test_shares_are_near_for_classes_of_several_targets_at_once(make_rows):
    source = random.Random(1)
    content = [
        {
            "category": source.choice(["bean", "corn"]),
            "disease": source.choices(["none", "rust", "scab", None], [60, 30, 8, 10])[0],
            "symptoms": source.choice([[], ["curl"], ["curl", "spots"], None]),
        }
        for _ in range(400)
    ]
    rows = make_rows(content, TARGETS)
    assigned = split_of(rows, TARGETS[:3])
    found, totals = Counter(), Counter()
    for row in rows.iter_rows(named=True):
        for label in ("all", row["category"], row["disease"], *(row["symptoms"] or ())):
            found[label, assigned[row["name"]]] += 1
            totals[label] += 1
    for (label, name), count in found.items():
        share = SHARES[SPLITS.index(name)]
        assert abs(count - share * totals[label]) <= 4


def test_shares_are_near_although_groups_are_whole(make_rows):
    source = random.Random(2)
    content = []
    for plant in range(80):
        disease = source.choice(["none", "rust"])
        content += [{"group": f"p{plant}", "disease": disease} for _ in range(source.randint(1, 8))]
    rows = make_rows(content, [DISEASE])
    assigned = split_of(rows, [DISEASE])
    for disease in ("none", "rust"):
        names = rows.filter(pl.col("disease") == disease)["name"]
        sizes = Counter(assigned[name] for name in names)
        for name, share in zip(SPLITS, SHARES, strict=True):
            assert abs(sizes[name] - share * len(names)) <= 8


def test_numbers_are_spread_evenly(make_rows):
    rows = make_rows([{"severity": (number % 100) / 100} for number in range(300)], [TARGETS[3]])
    assigned = split_of(rows, [TARGETS[3]])
    for name in SPLITS:
        values = [row["severity"] for row in rows.iter_rows(named=True) if assigned[row["name"]] == name]
        assert abs(sum(values) / len(values) - 0.495) < 0.05


def test_photos_without_labels_are_split_too(make_rows):
    sizes = Counter(split_of(make_rows([{}] * 100), ()).values())
    assert sizes == {"train": 70, "val": 15, "test": 15}


def test_the_same_seed_gives_the_same_split_and_another_another(make_rows):
    rows = singles(make_rows, {"none": 50, "rust": 50})
    assert split_of(rows, [DISEASE], seed=1) == split_of(rows, [DISEASE], seed=1)
    assert split_of(rows, [DISEASE], seed=1) != split_of(rows, [DISEASE], seed=2)


def test_a_split_is_the_same_on_every_machine_and_in_every_release(make_rows):
    rows = singles(make_rows, {"none": 12, "rust": 8})
    second_letters = "".join(split_of(rows, [DISEASE], seed=7)[name][1] for name in sorted(rows["name"]))
    assert second_letters == "rarraerrrerrrrraerrr"


# --- splitting a dataset ----------------------------------------------------------------------


@pytest.fixture
def dataset(memory_url, make_rows):
    """Twenty photos, of which the last two are excluded."""
    content = [{"disease": ("none", "rust")[number % 2], "name": f"{number:02}.jpg"} for number in range(20)]
    for record in content[18:]:
        record.update(status="excluded", reason="empty: the file has 0 bytes")
    versions.commit(Version(memory_url, 0, make_rows(content, [DISEASE]), (DISEASE,)), "import", {}, 0)
    return memory_url


def splits_of(dataset):
    return dict(versions.load(dataset).rows.select("name", "split").iter_rows())


def test_every_usable_photo_gets_a_split_and_no_other(dataset):
    report = split_dataset(dataset).report
    found = splits_of(dataset)
    assert [found["18.jpg"], found["19.jpg"]] == [None, None]
    assert Counter(found.values()) == {**report.counts, None: 2}
    assert sum(report.counts.values()) == 18
    assert set(report.counts) == set(SPLITS)
    assert (report.groups, report.matched) == (18, None)
    assert not any(report.joined.values())


def test_a_split_is_a_version_that_tells_how_it_was_made(dataset):
    done = split_dataset(dataset, ratios="8/1/1", seed=5)
    assert (done.changed, done.version.number) == (True, 2)
    commit = versions.load(dataset).commit
    assert commit.operation == "split"
    assert (commit.parameters["ratios"], commit.parameters["seed"]) == ("8/1/1", 5)
    assert versions.load(f"{dataset}@1").rows["split"].null_count() == 20


def test_splitting_again_does_nothing(dataset):
    first = split_dataset(dataset)
    again = split_dataset(dataset)
    assert (again.changed, again.version.number) == (False, 2)
    assert again.report == first.report


def test_another_split_is_made_only_when_asked_for(dataset):
    split_dataset(dataset)
    before = splits_of(dataset)
    with pytest.raises(InputError, match="train") as caught:
        split_dataset(dataset, seed=1)
    assert "--resplit" in caught.value.hint
    assert splits_of(dataset) == before
    split_dataset(dataset, seed=1, resplit=True)
    assert splits_of(dataset) != before
    assert versions.numbers(dataset) == [1, 2, 3]


def test_an_official_split_is_not_replaced_unless_asked_for(memory_url, make_rows):
    content = [{"split": "test"}] * 3 + [{"split": None}] * 7
    versions.commit(Version(memory_url, 0, make_rows(content), ()), "import", {}, 0)
    with pytest.raises(InputError, match="test 3"):
        split_dataset(memory_url)
    assert sum(split_dataset(memory_url, resplit=True).report.counts.values()) == 10
    assert None not in splits_of(memory_url).values()


def test_a_dataset_without_usable_photos_cannot_be_split(memory_url, make_rows):
    rows = make_rows([{"status": "excluded", "reason": "empty"}])
    versions.commit(Version(memory_url, 0, rows, ()), "import", {}, 0)
    with pytest.raises(InputError, match="no usable photo"):
        split_dataset(memory_url)


def test_a_wrong_ratio_is_found_before_anything_is_read(memory_url):
    with pytest.raises(UsageError):
        split_dataset(memory_url, ratios="all")


# --- groups from a table ----------------------------------------------------------------------


@pytest.fixture
def table(memory_url):
    def write(text):
        storage.write(f"{memory_url}-groups.csv", text.encode())
        return f"{memory_url}-groups.csv"

    return write


@pytest.mark.parametrize("header", ["path,group", "image,leaf", "file_name,plant", "path,other,group"])
def test_groups_are_joined_by_name(header, dataset, table):
    middle = "," + "x" if header.count(",") == 2 else ""
    lines = [f"{number:02}.jpg{middle},plant {number // 6}" for number in range(12)]
    groups = table("\n".join([header, *reversed(lines), f"elsewhere.jpg{middle},p", ""]))
    report = split_dataset(dataset, groups=groups).report
    found = splits_of(dataset)
    for plant in range(2):
        assert len({found[f"{number:02}.jpg"] for number in range(6 * plant, 6 * plant + 6)}) == 1
    assert report.matched == 12
    assert report.joined["groups"] == 12
    assert report.groups == 2 + 6
    groups = dict(versions.load(dataset).rows.select("name", "group").iter_rows())
    assert (groups["00.jpg"], groups["11.jpg"], groups["12.jpg"]) == ("plant 0", "plant 1", None)


def test_an_empty_group_is_no_group(dataset, table):
    report = split_dataset(dataset, groups=table("path,leaf\n00.jpg,\n01.jpg,\n02.jpg,a\n03.jpg,a\n")).report
    assert report.joined["groups"] == 2
    assert report.matched == 2


def test_a_table_does_not_take_away_groups_that_are_known(dataset, table):
    split_dataset(dataset, groups=table("path,group\n00.jpg,a\n"))
    split_dataset(dataset, groups=table("path,group\n01.jpg,a\n"), resplit=True)
    groups = dict(versions.load(dataset).rows.select("name", "group").iter_rows())
    assert (groups["00.jpg"], groups["01.jpg"]) == ("a", "a")


def test_a_table_of_other_photos_is_told(dataset, table):
    with pytest.raises(InputError) as caught:
        split_dataset(dataset, groups=table("path,group\nelsewhere/00.jpg,a\n"))
    assert "00.jpg" in caught.value.hint
    assert versions.numbers(dataset) == [1]


@pytest.mark.parametrize("header", ["photo,group", "path", "path,a,b"])
def test_a_table_without_the_two_columns_is_told(header, dataset, table):
    row = ",".join(["00.jpg", "x", "y"][: header.count(",") + 1])
    with pytest.raises(InputError, match="not a group table"):
        split_dataset(dataset, groups=table(f"{header}\n{row}\n"))


# --- real photos ------------------------------------------------------------------------------


def test_no_leaf_and_no_copy_of_real_photos_is_in_two_splits(plantvillage, photos, tmp_path):
    dataset = str(shutil.copytree(plantvillage, tmp_path / "dataset"))
    report = split_dataset(dataset, groups=str(photos / "plantvillage_leaf_groups.csv")).report
    usable = versions.load(dataset).usable()
    assert report.matched == 544
    for column in ("group", "image_id"):
        per_value = usable.drop_nulls(column).group_by(column).agg(pl.col("split").n_unique())
        assert per_value["split"].to_list() == [1] * per_value.height
    assert usable["group"].n_unique() == 77 + 1
    for name, share in zip(SPLITS, SHARES, strict=True):
        assert abs(report.counts[name] - share * 897) < 10
        for (disease,), rows in usable.group_by("disease"):
            assert abs(rows.filter(pl.col("split") == name).height - share * rows.height) < 12, disease


# --- near-duplicates, patterns, frozen test sets ----------------------------------------------


@pytest.fixture
def seen():
    """A row's columns as if its photo had this hash."""
    return lambda phash, **more: {"phash": phash, "entropy": 6.0, "contrast": 0.2, **more}


def committed(tmp_path, rows, targets):
    url = str(tmp_path / "dataset")
    versions.change(url, "make", {}, lambda _: (rows, targets, None))
    return url


HASHES = [0x0F0F_1234_5678_9ABC ^ (n * 0x9E37_79B9_7F4A_7C15 & 0xFFFF_FFFF_FFFF_FFFF) for n in range(40)]


def test_near_duplicates_stay_together(make_rows, seen, tmp_path):
    pairs = [(HASHES[n], HASHES[n] ^ 0b101) for n in range(20)]
    rows = make_rows([seen(phash, category="abc"[n % 3]) for n, pair in enumerate(pairs) for phash in pair], CATEGORY)
    url = committed(tmp_path, rows, CATEGORY)
    report = split_dataset(url).report
    found = list(splits_of(url).values())
    assert report.joined["near-duplicates"] == 40
    assert found[::2] == found[1::2]
    apart = split_dataset(url, near=False, resplit=True).report
    assert apart.joined["near-duplicates"] == 0


def test_plain_pictures_are_no_near_duplicates(make_rows, seen, tmp_path):
    rows = make_rows([seen(7, entropy=0.1, category="a") for _ in range(20)], CATEGORY)
    assert split_dataset(committed(tmp_path, rows, CATEGORY)).report.joined["near-duplicates"] == 0


@pytest.mark.parametrize(("rule", "size"), [(r"DSC_(\d+)", 4), (r"DSC_\d+", 4), ("plant", 2), ("nothing", None)])
def test_groups_come_from_a_pattern_or_a_column(rule, size, make_rows, tmp_path):
    records = [{"name": f"DSC_{n // 4}_{n}.jpg", "meta_plant": str(n // 2)} for n in range(40)]
    url = committed(
        tmp_path, make_rows(records).with_columns(meta_plant=pl.Series([r["meta_plant"] for r in records])), ()
    )
    if size is None:
        with pytest.raises(InputError, match="matches no photo"):
            split_dataset(url, group_by=rule)
        return
    report = split_dataset(url, group_by=rule).report
    assert (report.joined["groups"], report.groups) == (40, 40 // size)
    by_group = {}
    for name, split in splits_of(url).items():
        by_group.setdefault(int(name.split("_")[2].split(".")[0]) // size, set()).add(split)
    assert all(len(found) == 1 for found in by_group.values())


def test_no_pattern_takes_for_ever(make_rows, tmp_path):
    """Backtracking would try 2 ** 40 ways to match."""
    url = committed(tmp_path, make_rows([{"name": f"{'a' * 40}{n}.png"} for n in range(20)]), ())
    with pytest.raises(InputError, match="matches no photo"):
        split_dataset(url, group_by=r"^(a+)+\.jpg$")


@pytest.mark.parametrize("rule", ["(", r"(?=DSC)", r"(a)\1"])
def test_a_pattern_that_cannot_be_used_is_wrong_usage(rule, make_rows, tmp_path):
    with pytest.raises(UsageError, match="regular expression"):
        split_dataset(committed(tmp_path, make_rows([{}] * 4), ()), group_by=rule)


def test_tiny_splits_are_told(make_rows, tmp_path):
    report = split_dataset(committed(tmp_path, make_rows([{} for _ in range(40)]), ())).report
    assert report.counts["train"] > 10 > report.counts["val"]
    assert [warning.split()[0] for warning in report.warnings] == ["val", "test"]


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_keeping_moves_nothing_and_lets_nothing_into_the_test_set(data):
    count = data.draw(st.integers(2, 30))
    before = data.draw(st.lists(st.sampled_from(["train", "val", "test", None]), min_size=count, max_size=count))
    group = data.draw(st.lists(st.integers(0, 8), min_size=count, max_size=count))
    rows = pl.DataFrame(
        {"image_id": [f"{n:064x}" for n in range(count)], "category": [None] * count, "boxes": [None] * count}
    )
    found = assign(rows, (), group, parse_ratios("7/2/1"), 0, fixed=before)
    for old, new, key in zip(before, found, group, strict=True):
        mates = {split for split, other in zip(before, group, strict=True) if other == key and split}
        if old is not None:
            assert new == old
        elif "test" in mates:
            assert new == "left-out"
        elif mates:
            assert new in mates
        elif any(before):
            assert new in {"train", "val"}


def test_the_twin_of_a_test_photo_is_held_back(make_rows, seen, tmp_path):
    old = [seen(HASHES[n], category="a", split="test" if n < 4 else "train") for n in range(20)]
    new = [seen(HASHES[0] ^ 1, category="a"), seen(HASHES[30], category="a"), seen(HASHES[10] ^ 1, category="a")]
    rows = make_rows(old + new, CATEGORY)
    url = committed(tmp_path, rows, CATEGORY)
    report = split_dataset(url, keep=True).report
    after = {row["name"]: row for row in versions.load(url).rows.iter_rows(named=True)}
    assert report.left_out == {"twin-of-test": 1}
    assert after["00020.jpg"]["status"] == "excluded"
    assert after["00020.jpg"]["reason"].startswith("twin-of-test: 00000.jpg")
    assert after["00021.jpg"]["split"] in {"train", "val"}
    assert after["00022.jpg"]["split"] == "train"
    assert [after[f"{n:05d}.jpg"]["split"] for n in range(20)] == ["test"] * 4 + ["train"] * 16
    assert not split_dataset(url, keep=True).changed


def test_a_missing_dataset_is_named_before_its_photos(tmp_path) -> None:
    table = tmp_path / "groups.csv"
    table.write_text("image,group\na.jpg,plant\n")
    for groups in (None, str(table)):
        with pytest.raises(NotFoundError, match="There is no dataset"):
            split_dataset(str(tmp_path / "missing"), groups=groups)
