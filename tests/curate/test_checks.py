"""Checks that need rows only."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plantml.curate import findings
from plantml.curate.check import CHECKS, levels
from plantml.curate.checks import boxes, duplicates, files, labels, pictures
from plantml.curate.findings import CODES
from plantml.errors import UsageError
from plantml.targets import Target

DISEASE = (Target("disease", "class", ("none", "rust")),)
HEALTH = (Target("health", "class", ("diseased", "healthy")), *DISEASE)


def codes(findings):
    return sorted((finding.code, finding.rows) for finding in findings)


def box(x, y, w, h, label="apple"):
    return {"x": x, "y": y, "w": w, "h": h, "labels": f'{{"category":"{label}"}}'}


# --- codes ------------------------------------------------------------------------------------


def test_every_code_has_a_title_a_remedy_and_a_severity():
    for code, kind in CODES.items():
        assert code == code.lower()
        assert kind.title
        assert kind.remedy
        assert kind.severity in findings.SEVERITIES
        assert kind.cleans == ("`clean`" in kind.remedy), code


def test_levels_are_severities_and_codes():
    assert levels("error, blurry") == ("error", "blurry")
    with pytest.raises(UsageError, match="blury"):
        levels("blury")


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"name": "a.png", "format": "JPEG"}, "wrong-extension"),
        ({"width": 1000, "height": 100}, "extreme-aspect"),
        ({"width": 63, "height": 63}, "extreme-size"),
        ({"orientation": 6}, "exif-rotated"),
        ({"mode": "CMYK"}, "unusual-mode"),
        ({"frames": 3}, "multi-picture"),
    ],
)
def test_what_is_unusual_of_a_file_is_told(change, code, looked, subject_of):
    rows = [looked(n) for n in range(3)]
    rows[1] |= change
    findings = codes(files.check(subject_of(rows)))
    assert [finding for finding in findings if finding[0] != "missing"] == [(code, (1,))]
    assert sum(name == "missing" for name, _ in findings) == 3  # there are rows only


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("empty: the file has 0 bytes", "empty-file"),
        ("truncated: x", "truncated"),
        ("not-an-image: text", "not-an-image"),
        ("damaged: x", "unreadable"),
        ("unsupported: a HEIC photo", "unsupported"),
        ("not-found: gone", "missing"),
    ],
)
def test_what_an_import_left_out_is_a_finding_until_it_is_cleaned(reason, code, looked, subject_of):
    row = looked(0, status="excluded", reason=reason, phash=None)
    assert codes(files.check(subject_of([row]))) == [(code, (0,))]
    cleaned = row | {"reason": f"cleaned {code}: {reason}"}
    assert codes(files.check(subject_of([cleaned]))) == []


# --- pictures ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"sharpness": 20.0}, "blurry"),
        ({"brightness": 0.05}, "dark"),
        ({"brightness": 0.15}, "dark"),
        ({"white": 0.8, "contrast": 0.06, "brightness": 0.9}, "overexposed"),
        ({"entropy": 1.0}, "low-information"),
        ({"redness": 0.4}, "off-colour"),
    ],
)
def test_a_bad_picture_is_told_from_ordinary_ones(change, code, looked, subject_of):
    rows = [looked(n) for n in range(60)]
    rows[7] |= change
    assert (code, (7,)) in codes(pictures.check(subject_of(rows)))
    rows[7] = looked(7)
    assert codes(pictures.check(subject_of(rows))) == []


def test_a_leaf_that_fills_the_picture_is_not_off_colour(looked, subject_of):
    rows = [looked(n) for n in range(60)]
    rows[7] |= {"redness": -0.2, "blueness": -0.3}
    assert codes(pictures.check(subject_of(rows))) == []


def test_white_paper_is_not_overexposure(looked, subject_of):
    rows = [looked(n, white=0.6, contrast=0.28, brightness=0.7) for n in range(60)]
    assert codes(pictures.check(subject_of(rows))) == []


# --- labels -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "two"),
    [("Leaf Crinkle", "leaf_crinkle"), ("Leaf Crinkle", "Leaf Crinckle 150"), ("rust", "rusts"), ("blight", "Blight ")],
)
def test_names_that_mean_one_class_are_told(one, two, looked, subject_of):
    rows = [looked(n, disease=one if n < 30 else two) for n in range(45)]
    findings = [item for item in labels.check(subject_of(rows, DISEASE)) if item.code == "similar-classes"]
    assert len(findings) == 1
    assert (findings[0].facts["name"], findings[0].facts["like"]) == (two, one)
    assert len(findings[0].rows) == 15


@pytest.mark.parametrize(("one", "two"), [("early blight", "late blight"), ("rust", "rot"), ("mite", "miner")])
def test_names_of_two_classes_are_not(one, two, looked, subject_of):
    rows = [looked(n, disease=one if n < 30 else two) for n in range(45)]
    assert [item.code for item in labels.check(subject_of(rows, DISEASE))] == []


def test_a_count_at_the_end_of_a_name_is_told(looked, subject_of):
    rows = [looked(n, disease="rust" if n < 30 else "mosaic 150") for n in range(45)]
    findings = [item for item in labels.check(subject_of(rows, DISEASE)) if item.code == "similar-classes"]
    assert [item.facts["like"] for item in findings] == ["mosaic"]


def test_small_unequal_missing_and_impossible_labels_are_told(looked, subject_of):
    rows = [looked(n, disease="none", health="healthy") for n in range(100)]
    rows += [looked(200 + n, disease="rust", health="diseased") for n in range(4)]
    rows += [looked(300, disease="rust", health="healthy"), looked(301)]
    findings = {item.code: item for item in labels.check(subject_of(rows, HEALTH))}
    assert set(findings) == {"tiny-class", "imbalance", "impossible-labels", "missing-labels"}
    assert findings["impossible-labels"].rows == (104,)
    assert findings["missing-labels"].rows == (105,)


def test_one_file_name_in_two_classes_is_told_unless_all_are_numbered(looked, subject_of):
    rows = [looked(n, disease="rust", name=f"rust/{n}.jpg") for n in range(30)]
    rows += [looked(100 + n, disease="none", name=f"none/{100 + n}.jpg") for n in range(30)]
    rows[3]["name"], rows[40]["name"] = "rust/IMG_7.jpg", "none/img_7.jpg"
    assert ("same-name", (3, 40)) in codes(labels.check(subject_of(rows, DISEASE)))
    for n in range(30):
        rows[n]["name"], rows[30 + n]["name"] = f"rust/{n}.jpg", f"none/{n}.jpg"
    subject = subject_of(rows, DISEASE)
    assert [item for item in labels.check(subject) if item.code == "same-name"] == []
    assert "numbered" in subject.notes[0]


# --- boxes ------------------------------------------------------------------------------------


def test_each_fault_of_a_box_is_told(looked, subject_of):
    inside = [box(10, 10, 30, 30)]
    rows = [looked(n, boxes=inside) for n in range(100)]
    rows[1]["boxes"] = [box(180, 10, 40, 20)]
    rows[2]["boxes"] = [box(10, 10, 0, 20)]
    rows[3]["boxes"] = [box(10, 10, 20, 20), box(10, 10, 20, 20)]
    assert codes(boxes.check(subject_of(rows))) == [
        ("box-degenerate", (2,)),
        ("box-duplicate", (3,)),
        ("box-outside", (1,)),
    ]


def corners(rng, count):
    w, h = rng.uniform(20, 60, count), rng.uniform(20, 40, count)
    return np.stack([rng.uniform(0, 200 - w), rng.uniform(0, 100 - h), w, h], axis=1)


@pytest.mark.parametrize("wrong", ["boxes-centre-as-corner", "boxes-normalised"])
def test_one_cause_is_told_once(wrong, looked, subject_of):
    drawn = corners(np.random.default_rng(0), 60)
    if wrong == "boxes-centre-as-corner":
        drawn[:, :2] += drawn[:, 2:] / 2
    else:
        drawn /= np.array([200, 100, 200, 100])
    subject = subject_of([looked(n, boxes=[box(*xywh)]) for n, xywh in enumerate(drawn.tolist())])
    assert [item.code for item in boxes.check(subject)] == [wrong]
    (finding,) = boxes.check(subject)
    assert len(finding.rows) == 60


def test_boxes_of_pictures_as_they_are_stored_are_told(looked, subject_of):
    rng = np.random.default_rng(0)
    rows = []
    for n in range(40):
        w, h = 30.0, 20.0
        stored = [box(rng.uniform(0, 100 - w), rng.uniform(60, 200 - h), w, h)]  # stored: 100 wide, 200 high
        rows.append(looked(n, orientation=6, boxes=stored))
    assert [item.code for item in boxes.check(subject_of(rows))] == ["boxes-unrotated"]


@given(st.integers(1, 8), st.integers(0, 80), st.integers(0, 40), st.integers(1, 20), st.integers(1, 10))
@settings(max_examples=60, deadline=None)
def test_a_box_turns_with_its_pixels(orientation, x, y, w, h):
    from PIL import Image, ImageOps

    stored = Image.new("L", (100, 50))
    stored.paste(255, (x, y, x + w, y + h))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.info["exif"] = exif.tobytes()
    upright = ImageOps.exif_transpose(stored)
    size = np.array([upright.size], np.float64)
    turned = boxes.turn(np.array([[x, y, w, h]], np.float64), size, orientation)[0]
    left, top, right, bottom = upright.getbbox()
    assert turned.tolist() == [left, top, right - left, bottom - top]


def test_another_size_in_the_annotation_is_told(looked, subject_of):
    subject = subject_of([looked(n, boxes=[]) for n in range(4)])
    subject.version.__dict__["rows"] = subject.version.rows.with_columns(
        meta_annotated_size=pl.Series(["512x512", "512x512", "200x100", None])
    )
    assert codes(boxes.check(subject)) == [("annotated-size", (0, 1))]


# --- copies -----------------------------------------------------------------------------------


def test_exact_copies_their_conflicts_and_leaks_are_told(looked, subject_of):
    one = {"image_id": "a" * 64, "phash": 5}
    rows = [looked(n, disease="rust", split="train") for n in range(4)]
    rows[1] |= one | {"disease": "none"}
    rows[3] |= one | {"split": "test"}
    findings = codes(duplicates.check(subject_of(rows, DISEASE)))
    assert findings == [("conflicting-labels", (3, 1)), ("exact-duplicates", (3, 1)), ("split-leak", (3, 1))]


@pytest.fixture
def overlaps_of(monkeypatch, looked, subject_of):
    """`overlaps_of(names, splits, pairs)`: the findings of `crops` and the notes, where these photos overlap."""

    def make(names, splits, pairs, **more):
        overlapping = [duplicates.Pair(one, other, "overlapping", "30 % in common", 1.0) for one, other in pairs]
        monkeypatch.setattr(duplicates, "by_keypoints", lambda _: overlapping)
        photos = zip(names, splits, strict=True)
        subject = subject_of([looked(n, name=name, split=split, **more) for n, (name, split) in enumerate(photos)])
        return codes(duplicates.check_crops(subject)), subject.notes

    return make


def test_tiles_in_different_splits_leak_but_are_no_copies(overlaps_of):
    names = ["b_0.jpg", "b_1.jpg", "b_2.jpg", "c_0.jpg", "c_1.jpg"]
    found, notes = overlaps_of(names, ["train", "train", "test", "val", "val"], [(0, 1), (1, 2), (3, 4)])
    assert found == [("overlap-leak", (2, 0, 1)), ("overlapping", (2, 0, 1)), ("overlapping", (3, 4))]
    assert "tiles of 2 photos" in notes[0]
    assert not CODES["overlap-leak"].cleans


@pytest.mark.parametrize(
    ("names", "pairs", "pattern"),
    [
        (["b_0.jpg", "b_1.jpg", "c_0.jpg"], [(0, 1)], duplicates._TILE_NAMES[0]),
        (["b-0-0.jpg", "b-0-9.jpg", "b-9-0.jpg", "c-0-0.jpg"], [(0, 1), (0, 2)], duplicates._TILE_NAMES[1]),
        (["b_0.jpg", "b_1.jpg", "c_0.jpg"], [(0, 2)], None),
        (["img_0.jpg", "img_1.jpg", "img_2.jpg"], [(0, 1)], None),
        (["one.jpg", "two.jpg"], [(0, 1)], None),
        (["b_0.jpg", "b_1.jpg", "c_0.jpg"], [], None),
    ],
)
def test_a_pattern_of_names_is_suggested_where_it_explains_the_overlaps(names, pairs, pattern, overlaps_of):
    _, notes = overlaps_of(names, [None] * len(names), pairs)
    assert [note.rpartition("--group-by ")[2] for note in notes] == ([f"'{pattern}'"] if pattern else [])
    assert overlaps_of(names, [None] * len(names), pairs, group="known")[1] == []


def test_the_best_copy_comes_first(looked, subject_of):
    rows = [looked(n, image_id="a" * 64, bytes=size) for n, size in enumerate((100, 300, 200))]
    (finding,) = duplicates.check(subject_of(rows))
    assert finding.rows == (1, 2, 0)


def test_a_group_in_two_splits_is_told(looked, subject_of):
    rows = [looked(n, group="plant 1", split=split) for n, split in enumerate(("train", "test", None))]
    assert codes(duplicates.check_groups(subject_of(rows))) == [("torn-group", (0, 1))]


def test_every_check_is_in_the_table():
    assert list(CHECKS) == [
        "files", "pictures", "duplicates", "groups", "labels", "boxes", "box-labels", "shortcuts", "suspicious",
        "outliers", "crops",
    ]  # fmt: skip
