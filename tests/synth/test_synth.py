import csv
import io
import json
from collections import Counter
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from plantml import storage
from plantml.errors import InputError
from plantml.synth import DEFAULT_CLASSES, DEFECTS, SynthSpec, render, write
from plantml.synth.defects import encode_jpeg, plan_defects
from plantml.synth.spec import look_of, parse_class, slot_of

SMALL = 96


def read_table(out, name):
    return list(csv.DictReader(io.StringIO(storage.read(storage.join(out, name)).decode())))


def read_all(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def difference(one, other):
    """Mean absolute difference in grey levels."""
    return np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float)).mean()


# --- one photo --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos():
    spec = SynthSpec(images=48, size=SMALL, seed=7)
    return [render(spec, index) for index in range(48)]


def test_a_photo_is_a_function_of_seed_and_index():
    spec = SynthSpec(images=10, size=SMALL, seed=3)
    one, same = render(spec, 5), render(SynthSpec(images=999, size=SMALL, seed=3), 5)
    other = render(SynthSpec(images=10, size=SMALL, seed=4), 5)
    assert np.array_equal(one.pixels, same.pixels)
    assert (one.boxes, one.severity, one.plant) == (same.boxes, same.severity, same.plant)
    assert difference(one.pixels, other.pixels) > 5


def test_all_photos_differ(photos):
    assert len({photo.pixels.tobytes() for photo in photos}) == len(photos)


def test_a_photo_is_rgb_bytes_with_contrast(photos):
    for photo in photos:
        assert photo.pixels.shape == (SMALL, SMALL, 3)
        assert photo.pixels.dtype == np.uint8
        assert photo.pixels.std() > 8


def test_severity_is_zero_for_healthy_plants_only(photos):
    for photo in photos:
        assert (photo.severity == 0) == (photo.health == "healthy") == (photo.disease == "none")
        assert 0 <= photo.severity < 0.8


def test_severity_varies_from_barely_visible_to_heavy():
    spec = SynthSpec(images=720, classes=("bean___blight",), size=48)
    severities = [render(spec, index).severity for index in range(0, 720, 6)]
    assert min(severities) < 0.03
    assert max(severities) > 0.4


def test_severity_can_be_kept_within_a_range():
    spec = SynthSpec(images=60, classes=("bean___blight",), size=48, severity=(0.3, 0.4))
    severities = [render(spec, index).severity for index in range(60)]
    assert 0.25 < np.mean(severities) < 0.45
    assert min(severities) > 0.1


def test_zoom_shows_the_same_leaves_larger():
    small, large = (SynthSpec(images=24, size=SMALL, zoom=zoom) for zoom in (1.0, 1.5))
    shares = [[(render(spec, index).leaves > 0).mean() for index in range(24)] for spec in (small, large)]
    assert np.mean(shares[1]) > 1.3 * np.mean(shares[0])


def test_boxes_are_inside_the_photo_and_tight_around_leaves(photos):
    for photo in photos:
        assert photo.boxes
        assert set(np.unique(photo.leaves)) - {0} == set(range(1, len(photo.boxes) + 1))
        for number, (x, y, w, h) in enumerate(photo.boxes, 1):
            assert x >= 0
            assert y >= 0
            assert w > 0
            assert h > 0
            assert x + w <= SMALL
            assert y + h <= SMALL
            mine = photo.leaves == number
            inside = mine[y : y + h, x : x + w]
            assert inside.sum() == mine.sum()
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()


def test_every_background_and_class_appears(photos):
    assert {photo.background for photo in photos} == {"soil", "pot", "lab", "field"}
    assert {photo.class_name for photo in photos} == set(DEFAULT_CLASSES)


@pytest.mark.parametrize(("width", "height"), [(32, None), (200, 60), (50, 150), (1500, 1100)])
def test_photos_of_any_size(width, height):
    photo = render(SynthSpec(images=3, size=width, height=height), 1)
    assert photo.pixels.shape == (height or width, width, 3)
    assert photo.leaves.shape == (height or width, width)
    x, y, w, h = photo.boxes[0]
    assert x + w <= width
    assert y + h <= (height or width)


def test_unknown_plants_have_a_leaf_of_their_own():
    spec = SynthSpec(images=2, classes=("quinoa___healthy", "yam___healthy"), size=SMALL)
    one, other = render(spec, 0), render(spec, 1)
    assert one.category == "quinoa"
    assert difference(one.pixels, other.pixels) > 5


# --- the plan ---------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**40), classes=st.integers(1, 6), block=st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_a_plant_has_two_to_six_photos_of_one_class(seed, classes, block):
    spec = SynthSpec(images=1, classes=DEFAULT_CLASSES[:classes], seed=seed)
    start = 20 * classes * block
    places = [slot_of(spec, start + index) for index in range(20 * classes)]
    assert all(place.shown.name == spec.classes[index % classes] for index, place in enumerate(places))
    for name in spec.classes:
        runs = groupby(place.plant for place in places if place.shown.name == name)
        lengths = [len(list(run)) for _, run in runs]
        assert sorted(lengths) == [2, 3, 4, 5, 6]
    assert len({place.plant for place in places}) == 5 * classes


@pytest.mark.parametrize(
    ("disease", "look"),
    [("angular_leaf_spot", "spot"), ("Late blight", "blight"), ("scab", "spot"), ("powdery-mildew", "mildew"),
     ("rust_(severe)", "rust")],
)  # fmt: skip
def test_disease_names_have_looks(disease, look):
    assert look_of(disease) == look


def test_class_names_are_taken_apart():
    healthy, lesions = parse_class("sweet pepper___healthy"), parse_class("bean___leaf_rust")
    assert (healthy.category, healthy.disease, healthy.health) == ("sweet pepper", "none", "healthy")
    assert (lesions.category, lesions.disease, lesions.look, lesions.health) == (
        "bean",
        "leaf_rust",
        "rust",
        "diseased",
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"images": 0},
        {"seed": -1},
        {"size": 8},
        {"size": 256, "height": 20},
        {"size": 4000, "height": 500},
        {"defects": 0.9},
        {"classes": ()},
        {"classes": ("tomato",)},
        {"classes": ("../x___healthy",)},
        {"classes": ("tomato___sadness",)},
        {"classes": ("tomato___healthy", "Tomato___healthy")},
        {"images": 1, "defects": 0.5},
        {"severity": (0.0, 0.5)},
        {"severity": (0.5, 0.3)},
        {"severity": (0.3, 0.9)},
        {"zoom": 0.1},
        {"zoom": 4.0},
        {"layout": "shelf"},
    ],
)
def test_nonsense_is_refused(wrong):
    with pytest.raises(InputError) as caught:
        SynthSpec(**{"images": 10, **wrong})
    assert caught.value.why
    assert caught.value.hint


# --- not too easy -----------------------------------------------------------------------------


def colour_features(spec, start, count):
    photos = [render(spec, index) for index in range(start, start + count)]
    pixels = np.stack([photo.pixels for photo in photos]).astype(np.float64)
    features = np.concatenate((pixels.mean(axis=(1, 2)), pixels.std(axis=(1, 2))), axis=1)
    return features, np.arange(start, start + count) % len(spec.classes)


def softmax_regression(features, labels, classes, steps=400, rate=0.5):
    weights = np.zeros((features.shape[1], classes))
    wanted = np.eye(classes)[labels]
    for _ in range(steps):
        logits = features @ weights
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        odds /= odds.sum(axis=1, keepdims=True)
        weights -= rate * features.T @ (odds - wanted) / len(labels)
    return weights


def test_mean_colour_does_not_solve_it():
    spec = SynthSpec(images=10**6, size=64, seed=11)
    train, train_labels = colour_features(spec, 0, 480)
    test, test_labels = colour_features(spec, 2400, 240)  # other plants
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    train, test = (np.c_[(part - mean) / deviation, np.ones(len(part))] for part in (train, test))
    weights = softmax_regression(train, train_labels, len(spec.classes))
    assert ((test @ weights).argmax(axis=1) == test_labels).mean() < 0.3
    centroids = np.stack([train[train_labels == number].mean(axis=0) for number in range(len(spec.classes))])
    nearest = np.square(test[:, None] - centroids).sum(axis=2).argmin(axis=1)
    assert (nearest == test_labels).mean() < 0.3


# --- a dataset --------------------------------------------------------------------------------

SPEC = SynthSpec(images=96, size=SMALL, seed=2, defects=0.375)  # three defects of each kind


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    out = tmp_path_factory.mktemp("synth") / "out"
    write(SPEC, str(out), workers=1)
    return out


def test_labels_agree_with_folders(dataset):
    rows = read_table(str(dataset), "labels.csv")
    assert len(rows) == 96
    assert len({row["image"] for row in rows}) == 96
    for row in rows:
        assert (dataset / row["image"]).is_file()
        shown = parse_class(row["image"].split("/")[1])
        assert (shown.category, shown.health, shown.disease) == (
            row["category"],
            row["health"],
            row["disease"],
        )
        assert (float(row["severity"]) == 0) == (row["health"] == "healthy")
    on_disk = {str(path.relative_to(dataset)) for path in (dataset / "images").rglob("*") if path.is_file()}
    assert on_disk == {row["image"] for row in rows}


def test_boxes_are_coco(dataset):
    coco = json.loads((dataset / "boxes.json").read_text())
    images = {image["id"]: image for image in coco["images"]}
    assert len(images) == 96
    names = {category["id"]: category["name"] for category in coco["categories"]}
    assert set(names.values()) == {"tomato", "bean", "maize", "strawberry"}
    assert len({note["id"] for note in coco["annotations"]}) == len(coco["annotations"])
    for note in coco["annotations"]:
        image, (x, y, w, h) = images[note["image_id"]], note["bbox"]
        assert x >= 0
        assert y >= 0
        assert w > 0
        assert h > 0
        assert x + w <= image["width"]
        assert y + h <= image["height"]
        assert note["area"] == w * h
        assert image["file_name"].split("/")[1].startswith(names[note["category_id"]])


def test_sizes_in_boxes_are_those_of_the_upright_images(dataset):
    for entry in json.loads((dataset / "boxes.json").read_text())["images"]:
        if can_load(dataset / entry["file_name"]):
            with Image.open(dataset / entry["file_name"]) as image:
                assert ImageOps.exif_transpose(image).size == (entry["width"], entry["height"])


def can_load(path):
    try:
        with Image.open(path) as image:
            image.load()
    except OSError:
        return False
    return True


def test_only_planted_defects_are_broken(dataset):
    broken = {
        row["image"] for row in read_table(str(dataset), "truth.csv") if row["defect"] in {"zero_bytes", "truncated"}
    }
    names = {row["image"] for row in read_table(str(dataset), "labels.csv")}
    assert {name for name in names if not can_load(dataset / name)} == broken


class Truth:
    """The rows of truth.csv of one kind, with what they speak of at hand."""

    def __init__(self, dataset, kind):
        self.dataset = dataset
        self.rows = [row for row in read_table(str(dataset), "truth.csv") if row["defect"] == kind]
        self.labels = {row["image"]: row for row in read_table(str(dataset), "labels.csv")}

    def __iter__(self):
        for row in self.rows:
            details = dict(word.split("=") for word in row["detail"].split())
            yield self.dataset / row["image"], self.dataset / row["of"], details, row

    def label(self, name):
        return self.labels[name]


@pytest.fixture
def truth(dataset, request):
    return Truth(dataset, request.param)


def of_kind(kind):
    return pytest.mark.parametrize("truth", [kind], indirect=True)


def test_all_kinds_of_defects_are_planted(dataset):
    kinds = Counter(row["defect"] for row in read_table(str(dataset), "truth.csv"))
    assert kinds == dict.fromkeys(DEFECTS, 3)


@of_kind("exact_duplicate")
def test_exact_duplicates(truth):
    for file, source, _, row in truth:
        assert file.read_bytes() == source.read_bytes()
        assert truth.label(row["image"])["plant"] == truth.label(row["of"])["plant"]


@of_kind("near_duplicate")
def test_near_duplicates(truth):
    for file, source, details, row in truth:
        image, original = Image.open(file), Image.open(source)
        assert image.width == round(original.width * float(details["scale"]))
        assert difference(image.resize((24, 24)), original.resize((24, 24))) < 6
        assert truth.label(row["image"])["plant"] == truth.label(row["of"])["plant"]


@of_kind("flip")
def test_flips(truth):
    for file, source, details, _ in truth:
        back = ImageOps.mirror if details["axis"] == "horizontal" else ImageOps.flip
        assert difference(back(Image.open(file)), Image.open(source)) < 4


@of_kind("turn")
def test_turns(truth):
    for file, source, details, _ in truth:
        back = Image.open(file).rotate(-int(details["degrees"]), Image.Resampling.BICUBIC)
        middle = (SMALL // 3, SMALL // 3, 2 * SMALL // 3, 2 * SMALL // 3)
        assert abs(int(details["degrees"])) == 25
        assert difference(back.crop(middle), Image.open(source).crop(middle)) < 12


@of_kind("crop")
def test_crops(truth):
    for file, source, details, _ in truth:
        x, y, w, h = (int(details[key]) for key in "xywh")
        assert difference(Image.open(file), Image.open(source).crop((x, y, x + w, y + h))) < 6
        assert (w, h) != (SMALL, SMALL)


@of_kind("zero_bytes")
def test_zero_bytes(truth):
    for file, _, _, row in truth:
        assert file.read_bytes() == b""
        assert not row["of"]


@of_kind("truncated")
def test_truncated_files_open_but_do_not_decode(truth):
    for file, _, details, _ in truth:
        assert len(file.read_bytes()) == int(details["bytes"]) < int(details["of"])
        with Image.open(file) as image, pytest.raises(OSError, match="truncated"):
            image.load()


@of_kind("wrong_label")
def test_wrong_labels(truth):
    for file, _, details, row in truth:
        index = int(file.stem.split("-")[1])
        photo, label = render(SPEC, index), truth.label(row["image"])
        assert file.read_bytes() == encode_jpeg(photo.pixels, photo.quality)
        assert details["class"] == photo.class_name != file.parent.name
        assert float(details["severity"]) == photo.severity
        assert f"{label['category']}___{label['disease'].replace('none', 'healthy')}" == file.parent.name


@of_kind("conflicting_label")
def test_conflicting_labels(truth):
    for file, source, details, _ in truth:
        assert file.read_bytes() == source.read_bytes()
        assert details["class"] == source.parent.name != file.parent.name


@of_kind("wrong_extension")
def test_wrong_extensions(truth):
    for file, _, details, _ in truth:
        with Image.open(file) as image:
            assert image.format == details["format"].upper()
        assert file.suffix == {"jpeg": ".png", "png": ".jpg"}[details["format"]]


@of_kind("exif_turn")
def test_exif_turns_are_the_photo_when_upright(truth):
    for file, _, details, _ in truth:
        photo = render(SPEC, int(file.stem.split("-")[1]))
        with Image.open(file) as image:
            assert image.getexif()[0x0112] == int(details["orientation"]) > 1
            assert difference(image, photo.pixels) > 8
            assert difference(ImageOps.exif_transpose(image), photo.pixels) < 6


@of_kind("leak")
def test_leaks_claim_another_plant(truth):
    for file, source, details, row in truth:
        assert difference(Image.open(file).resize((24, 24)), Image.open(source).resize((24, 24))) < 6
        assert truth.label(row["of"])["plant"] == details["plant"]
        assert truth.label(row["image"])["plant"] != details["plant"]


def test_copies_are_made_from_sound_photos_of_the_same_class():
    plan = plan_defects(SPEC)
    assert len(plan) == 36
    for index, defect in plan.items():
        if defect.source is not None:
            assert defect.source not in plan
            assert defect.source % len(SPEC.classes) == index % len(SPEC.classes)


@given(images=st.integers(2, 60), share=st.floats(0.01, 0.5), seed=st.integers(0, 99), classes=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_the_share_of_defects_is_as_asked(images, share, seed, classes):
    spec = SynthSpec(images=images, classes=DEFAULT_CLASSES[:classes], seed=seed, defects=share)
    plan = plan_defects(spec)
    assert len(plan) == max(1, round(share * images))
    sources = {defect.source for defect in plan.values()} - {None}
    assert not sources & set(plan)
    if classes == 1:
        assert not {"wrong_label", "conflicting_label"} & {defect.kind for defect in plan.values()}


# --- writing ----------------------------------------------------------------------------------


def test_the_bytes_do_not_depend_on_the_workers(tmp_path):
    spec = SynthSpec(images=24, size=48, seed=5, defects=0.25)
    seen = []
    write(spec, str(tmp_path / "alone"), workers=1, progress=lambda done, total: seen.append((done, total)))
    write(spec, str(tmp_path / "together"), workers=2)
    assert read_all(tmp_path / "alone") == read_all(tmp_path / "together")
    assert seen[-1] == (24, 24)
    assert seen == sorted(seen)


def test_a_call_that_was_cut_off_is_mended_by_the_next(tmp_path):
    spec = SynthSpec(images=24, size=32, defects=0.2)
    out = tmp_path / "out"

    def stop(done, total):
        if done > 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(spec, str(out), workers=1, progress=stop)
    assert not (out / "labels.csv").exists()
    write(spec, str(out), workers=1)
    first = read_all(out)
    write(spec, str(out), workers=1)
    write(spec, str(tmp_path / "fresh"), workers=1)
    assert read_all(out) == first == read_all(tmp_path / "fresh")


def test_a_place_that_holds_something_else_is_refused(tmp_path):
    out = tmp_path / "out"
    write(SynthSpec(images=2, size=32), str(out))
    before = read_all(out)
    with pytest.raises(InputError, match="another synthetic dataset"):
        write(SynthSpec(images=2, size=32, seed=1), str(out))
    assert read_all(out) == before
    (out / "synth.json").unlink()
    with pytest.raises(InputError, match="other files"):
        write(SynthSpec(images=2, size=32), str(out))


def test_a_folder_with_a_users_files_is_refused(tmp_path, contents):
    (tmp_path / "mine.jpg").write_bytes(b"leaf")
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"it has mine\.jpg"):
        write(SynthSpec(images=2, size=32), str(tmp_path))
    assert contents(tmp_path) == before


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, '{"images": 1e999999, "\\ud800": 1}'])
def test_a_spec_that_cannot_be_read_is_another_dataset(tmp_path, text):
    (tmp_path / "synth.json").write_text(text)
    with pytest.raises(InputError, match="another synthetic dataset"):
        write(SynthSpec(images=2, size=32), str(tmp_path))


def test_sound_datasets_have_no_truth_table(tmp_path):
    write(SynthSpec(images=3, size=32), str(tmp_path))
    assert not (tmp_path / "truth.csv").exists()


def test_datasets_can_be_written_to_memory():
    out = "memory://synth-test/set"
    write(SynthSpec(images=4, size=32, seed=9), out, workers=2)
    rows = read_table(out, "labels.csv")
    assert Counter(row["category"] for row in rows) == {"tomato": 3, "bean": 1}
    assert Image.open(io.BytesIO(storage.read(storage.join(out, rows[0]["image"])))).size == (32, 32)


def test_no_workers_are_refused(tmp_path):
    with pytest.raises(InputError, match="workers"):
        write(SynthSpec(images=2, size=32), str(tmp_path), workers=0)
