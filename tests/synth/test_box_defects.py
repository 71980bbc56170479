import csv
import json
from collections import Counter

import numpy as np
import pytest

from plantml.synth import BOX_DEFECTS, SynthSpec, render_stand, write
from plantml.synth.box_defects import spoil_boxes

SPEC = SynthSpec(images=6, size=240, layout="tray", seed=3, defects=0.3)


@pytest.fixture(scope="module")
def spoiled():
    """Photo, boxes as delivered, and (kind, details) of every defect, of six photos."""
    photos = []
    for index in range(6):
        photo = render_stand(SPEC, index)
        boxes, defects = spoil_boxes(SPEC, index, photo)
        photos.append(
            (photo, boxes, [(kind, dict(word.split("=") for word in text.split())) for kind, text in defects])
        )
    return photos


def of_kind(spoiled, kind):
    cases = [(photo, boxes, details) for photo, boxes, defects in spoiled for each, details in defects if each == kind]
    assert len(cases) >= 3
    return cases


def box_at(boxes, details):
    place = tuple(int(details[side]) for side in "xywh")
    return next((box for box in boxes if (box.x, box.y, box.w, box.h) == place), None)


def test_the_share_of_faulty_boxes_is_as_asked(spoiled):
    faulty = sum(len(defects) for _, _, defects in spoiled)
    assert faulty / sum(len(photo.boxes) for photo, _, _ in spoiled) == pytest.approx(0.3, abs=0.03)


def test_all_other_boxes_are_untouched(spoiled):
    for photo, boxes, defects in spoiled:
        kinds = Counter(kind for kind, _ in defects)
        changed = kinds["box-shifted"] + kinds["box-mislabelled"]
        assert len(set(map(repr, photo.boxes)) - set(map(repr, boxes))) == changed + kinds["box-missing"]
        assert len(set(map(repr, boxes)) - set(map(repr, photo.boxes))) == changed + kinds["box-extra"]


def test_missing_boxes(spoiled):
    for photo, boxes, details in of_kind(spoiled, "box-missing"):
        assert box_at(photo.boxes, details)
        assert not box_at(boxes, details)


def test_extra_boxes_are_around_nothing(spoiled):
    plants = []
    for photo, boxes, details in of_kind(spoiled, "box-extra"):
        extra = box_at(boxes, details)
        assert extra
        assert not box_at(photo.boxes, details)
        plants.append((photo.plants[extra.y : extra.y + extra.h, extra.x : extra.x + extra.w] > 0).mean())
    assert max(plants) < 0.2
    assert np.mean(plants) < 0.05


def test_shifted_boxes_are_moved_by_about_half_their_size_within_the_photo(spoiled):
    for photo, boxes, details in of_kind(spoiled, "box-shifted"):
        shifted, dx, dy = box_at(boxes, details), int(details["dx"]), int(details["dy"])
        own = box_at(photo.boxes, {**details, "x": shifted.x - dx, "y": shifted.y - dy})
        assert own.labels == shifted.labels
        assert 0.4 - 0.5 / min(own.w, own.h) <= np.hypot(dx / own.w, dy / own.h) <= 0.8 + 1 / min(own.w, own.h)
        assert shifted.x >= 0
        assert shifted.y >= 0
        assert shifted.x + shifted.w <= 240
        assert shifted.y + shifted.h <= 180


def test_mislabelled_boxes_claim_another_class(spoiled):
    for photo, boxes, details in of_kind(spoiled, "box-mislabelled"):
        own, wrong = box_at(photo.boxes, details).labels, box_at(boxes, details).labels
        disease = "healthy" if own["disease"] == "none" else own["disease"]
        assert details["class"] == f"{own['category']}___{disease}"
        assert float(details["severity"]) == own["severity"]
        assert (wrong["category"], wrong["disease"]) != (own["category"], own["disease"])
        assert (wrong["severity"] == 0) == (wrong["health"] == "healthy") == (wrong["disease"] == "none")
        assert wrong["viability"] == own["viability"]


def test_a_single_class_cannot_be_mislabelled():
    spec = SynthSpec(images=3, classes=("bean___rust",), size=64, layout="row", defects=0.5)
    kinds = {kind for index in range(3) for kind, _ in spoil_boxes(spec, index, render_stand(spec, index))[1]}
    assert kinds
    assert "box-mislabelled" not in kinds


def test_the_truth_lists_every_defect(tmp_path):
    spec = SynthSpec(images=4, size=64, layout="tray", seed=1, defects=0.3)
    write(spec, str(tmp_path), workers=1)
    expected = [
        (index, *defect) for index in range(4) for defect in spoil_boxes(spec, index, render_stand(spec, index))[1]
    ]
    with (tmp_path / "truth.csv").open() as file:
        truth = list(csv.DictReader(file))
    assert [(row["defect"], row["detail"]) for row in truth] == [defect[1:] for defect in expected]
    assert {row["defect"] for row in truth} <= set(BOX_DEFECTS)
    images = [image["file_name"] for image in json.loads((tmp_path / "boxes.json").read_text())["images"]]
    assert [row["image"] for row in truth] == [images[index] for index, *_ in expected]
