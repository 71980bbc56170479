import pytest

from plantml.data import versions
from plantml.data.boxes import Box
from plantml.data.manifest import Version
from plantml.data.summary import count_boxes, diff, info, next_step
from plantml.errors import InputError, NotFoundError
from plantml.targets import Target

DISEASE = Target("disease", "class", ("none", "rust", "scab"))
SYMPTOMS = Target("symptoms", "multilabel", ("curl", "spots"))
SEVERITY = Target("severity", "value", unit="fraction")
TARGETS = (DISEASE, SYMPTOMS, SEVERITY)
BOX = {"x": 1.0, "y": 2.0, "w": 3.0, "h": 4.0, "labels": "{}"}

ROWS = [
    {"image_id": "a", "split": "train", "disease": "none", "symptoms": [], "severity": 0.0, "width": 100, "bytes": 10},
    {"image_id": "b", "split": "train", "disease": "rust", "symptoms": ["curl", "spots"], "severity": 0.5, "bytes": 20},
    {"image_id": "b", "split": "test", "disease": "rust", "symptoms": ["spots"], "height": 20, "bytes": 20},
    {"image_id": "c", "split": None, "disease": None, "format": "PNG", "bytes": 5},
    {"image_id": "d", "status": "excluded", "reason": "empty: the file has 0 bytes", "disease": "scab", "bytes": 99},
    {"image_id": "e", "status": "excluded", "reason": "truncated: 7 bytes lack", "format": "GIF"},
    {"image_id": "f", "status": "excluded", "reason": "truncated: 9 bytes lack"},
]


@pytest.fixture
def commit(memory_url, make_rows):
    """`commit(records, targets)`: the next version; returns its reference."""

    def make(records, targets=TARGETS):
        parent = len(versions.numbers(memory_url))
        return versions.commit(Version(memory_url, 0, make_rows(records, targets), targets), "test", {}, parent).ref

    return make


# --- counts -----------------------------------------------------------------------------------


def test_counts_are_of_what_can_be_used(commit):
    found = info(commit(ROWS))
    assert (found.rows, found.usable, found.distinct) == (7, 4, 3)
    assert found.excluded == {"empty": 1, "truncated": 2}
    assert found.splits == {"train": 2, "test": 1, "none": 1}
    assert list(found.splits) == ["train", "test", "none"]
    assert found.formats == {"JPEG": 3, "PNG": 1}
    assert found.bytes == 55
    assert found.sizes == {"min_width": 64, "max_width": 100, "min_height": 20, "max_height": 48}


def test_classes_are_counted_by_split_and_empty_ones_are_shown(commit):
    found = info(commit(ROWS))
    assert found.classes == {
        "disease": {"none": {"train": 1}, "rust": {"train": 1, "test": 1}, "scab": {}},
        "symptoms": {"curl": {"train": 1}, "spots": {"train": 1, "test": 1}},
    }


def test_values_have_a_range_and_a_mean(commit):
    assert info(commit(ROWS)).values == {"severity": {"count": 2, "min": 0.0, "mean": 0.25, "max": 0.5}}


def test_photos_without_a_label_are_counted_and_no_symptoms_are_a_label(commit):
    assert info(commit(ROWS)).unlabelled == {"disease": 1, "symptoms": 1, "severity": 2}


def test_a_version_has_its_own_tags(commit, memory_url):
    first = commit(ROWS)
    second = commit(ROWS[:2])
    versions.tag(first, "zeta")
    versions.tag(first, "alpha")
    versions.tag(second, "best")
    assert info(first).tags == ["alpha", "zeta"]
    assert info(memory_url).tags == ["best"]
    assert info(f"{memory_url}@alpha").version.number == 1


def test_a_version_in_which_nothing_can_be_used_has_counts_too(commit):
    found = info(commit(ROWS[4:]))
    assert (found.rows, found.usable, found.distinct, found.bytes) == (3, 0, 0, 0)
    assert found.sizes == {}
    assert found.values == {"severity": {"count": 0}}
    assert found.classes["disease"] == {"none": {}, "rust": {}, "scab": {}}


def test_a_missing_dataset_is_told(memory_url):
    with pytest.raises(NotFoundError):
        info(memory_url)


# --- differences ------------------------------------------------------------------------------


def named(*records):
    return [{"name": name, **record} for name, record in records]


def test_a_version_does_not_differ_from_itself(commit):
    ref = commit(ROWS)
    found = diff(ref, ref)
    assert found.same
    assert (found.before, found.after) == (ref, ref)


def test_rows_that_came_and_went_are_named(commit):
    before = commit(named(("a.jpg", {}), ("b.jpg", {})), ())
    after = commit(named(("b.jpg", {"image_id": "x", "path": "src/x"}), ("c.jpg", {}), ("a0.jpg", {})), ())
    found = diff(before, after)
    assert not found.same
    assert found.added == ["src/a0.jpg", "src/c.jpg"]
    assert found.removed == ["src/a.jpg"]
    assert set(found.changed) == {"image_id", "path"}


@pytest.mark.parametrize(
    ("column", "old", "new", "shown"),
    [
        ("split", "train", "val", ("train", "val")),
        ("disease", "none", None, ("none", "")),
        ("disease", None, "rust", ("", "rust")),
        ("symptoms", [], ["curl"], ("[]", "['curl']")),
        ("severity", 0.5, 0.25, ("0.5", "0.25")),
        ("status", "ok", "excluded", ("ok", "excluded")),
        ("meta_camera", "phone", "slr", ("phone", "slr")),
    ],
)
def test_values_that_changed_are_shown_as_they_were_and_are(column, old, new, shown, commit):
    before = commit(named(("a.jpg", {column: old}), ("b.jpg", {column: old})))
    after = commit(named(("a.jpg", {column: new}), ("b.jpg", {column: old})))
    found = diff(before, after)
    assert found.changed == {column: [("src/a.jpg", *shown)]}
    assert (found.added, found.removed, found.classes) == ([], [], {})


def test_boxes_that_changed_are_shown(commit):
    before = commit(named(("a.jpg", {"boxes": [BOX]}), ("b.jpg", {"boxes": [BOX]})))
    after = commit(named(("a.jpg", {"boxes": [{**BOX, "x": 9.0}]}), ("b.jpg", {"boxes": [BOX]})))
    (change,) = diff(before, after).changed["boxes"]
    assert change[0] == "src/a.jpg"
    assert "9.0" in change[2]


def test_the_same_name_of_two_sources_is_two_rows(commit):
    before = commit([{"name": "a.jpg", "source": "one", "split": "train"}], ())
    after = commit([{"name": "a.jpg", "source": "two", "split": "val"}], ())
    found = diff(before, after)
    assert (found.added, found.removed, found.changed) == (["two/a.jpg"], ["one/a.jpg"], {})


def test_classes_and_targets_that_came_and_went_are_named(commit):
    before = commit([{}], (Target("disease", "class", ("none", "rust")), SEVERITY))
    after = commit([{}], (Target("disease", "class", ("none", "scab")), Target("health", "class", ("healthy",))))
    found = diff(before, after)
    assert found.classes == {"disease": ["+scab", "-rust"], "severity": [], "health": ["+healthy"]}
    assert not found.same


def test_a_difference_has_a_direction(commit):
    before, after = commit(ROWS[:1]), commit(ROWS[:2])
    assert len(diff(before, after).added) == len(diff(after, before).removed) == 1


def test_a_missing_version_is_told(commit, memory_url):
    ref = commit(ROWS)
    with pytest.raises(InputError):
        diff(ref, f"{memory_url}@9")


def test_boxes_are_counted_by_their_classes_whatever_their_values(make_rows):
    labels = [
        {"category": "pear", "severity": 0.1},
        {"category": "pear", "severity": 0.2},
        {"severity": 1},
        {},
        {"a": "b"},
    ]
    rows = make_rows([{"boxes": [Box(1, 1, 2, 2, each).as_row() for each in labels]}, {"boxes": None}], ())
    assert list(count_boxes(rows).items()) == [("b", 1), ("pear", 2), ("", 2)]


# --- what to do next --------------------------------------------------------------------------


def boxed(*names):
    return [Box(1, 1, 2, 2, {"category": name}).as_row() for name in names]


@pytest.mark.parametrize(
    ("records", "command", "why"),
    [
        ([{"disease": "rust"}, {"disease": "none"}], "split D", ""),
        ([{"disease": "rust", "split": "train"}, {"disease": "none"}], "split D --keep", ""),
        ([{"disease": "rust", "split": "train"}, {"disease": "none", "split": "val"}], "plantml train D", ""),
        ([{}, {"boxes": []}], "--format label-studio", "No photo has a label"),
        ([{"disease": "rust"}, {"disease": "rust"}], "import PHOTOS-OF-ANOTHER-CLASS D", "disease is rust"),
        ([{"boxes": boxed("apple", "pear")}], "split D", ""),
        ([{"boxes": boxed("apple", "apple"), "split": split} for split in ("train", "val")], "plantml train D", ""),
        ([{"boxes": boxed("apple", "apple"), "split": "train"}], "split D --resplit", ""),
        ([{"disease": "rust", "status": "excluded"}], "check D", "No photo can be used"),
    ],
)
def test_the_next_step_fits_what_the_set_needs(records, command, why, make_rows):
    records = [{"name": f"{number}.jpg", **record} for number, record in enumerate(records)]
    step = next_step(Version("D", 1, make_rows(records, [DISEASE]), (DISEASE,)), "D")
    assert command in step.command
    assert why in step.why
    assert bool(step.why) == bool(why)
