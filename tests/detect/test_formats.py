import json
import os

import pytest

from plantml.data.formats import list_source
from plantml.detect import writers
from plantml.detect.output_row import OutputRow
from plantml.errors import UsageError
from plantml.model.records import Record, failed


def record(image, label="bean", score=0.9, decision="accept", boxes=()):
    other = "tomato" if label == "bean" else "bean"
    targets = {
        "category": {"label": label, "score": score, "top": [[label, score], [other, round(1 - score, 6)]]},
        "symptoms": {"labels": [["spots", 0.95]]},
        "severity": {"value": 0.5, "unit": "fraction"},
    }
    return Record(image, "ab" * 32, 400, 300, "digest", targets, boxes, decision, 0.1, None).as_json()


RECORDS = [
    record("a.jpg"),
    record("b/c.jpg", "tomato", 0.6, "review"),
    failed("d.jpg", "digest", "empty: 0 bytes").as_json(),
]


@pytest.fixture
def written(tmp_path, contract):
    def write(form, records=RECORDS):
        out = tmp_path / "out.json"
        writers.write(str(out), map(OutputRow, records), contract, form)
        return json.loads(out.read_text())

    return write


def test_coco_has_every_image_and_an_annotation_for_each_label(written):
    found = written("coco")
    assert [(image["id"], image["file_name"], image["width"]) for image in found["images"]] == [
        (1, "a.jpg", 400),
        (2, "b/c.jpg", 400),
        (3, "d.jpg", 0),
    ]
    assert found["images"][2]["failure"] == "empty: 0 bytes"
    assert found["images"][0]["values"] == {"severity": 0.5}
    names = {category["id"]: (category["supercategory"], category["name"]) for category in found["categories"]}
    said = [(note["image_id"], *names[note["category_id"]], note["score"]) for note in found["annotations"]]
    assert said == [
        (1, "category", "bean", 0.9),
        (1, "symptoms", "spots", 0.95),
        (2, "category", "tomato", 0.6),
        (2, "symptoms", "spots", 0.95),
    ]
    assert [note["id"] for note in found["annotations"]] == [1, 2, 3, 4]
    assert found["annotations"][0]["bbox"] == [0, 0, 400, 300]
    assert found["annotations"][0]["area"] == 120_000


def test_coco_is_read_by_the_importer(written, write_photos, tmp_path):
    write_photos(tmp_path, ["a.jpg", "b/c.jpg"])
    written("coco", RECORDS[:2])
    source = list_source(str(tmp_path / "out.json"))
    assert {photo.name for photo in source.items} == {"a.jpg", "b/c.jpg"}


def check_megadetector(content):
    """The rules of MegaDetector's format 1.4, as its documentation and validator have them."""
    assert set(content) <= {"info", "images", "detection_categories", "classification_categories"}
    assert float(content["info"]["format_version"]) >= 1.3
    for names in (content["detection_categories"], content["classification_categories"]):
        assert all(int(key) >= 0 and isinstance(name, str) for key, name in names.items())
    for image in content["images"]:
        if image.get("failure") is not None:
            assert isinstance(image["failure"], str)
            assert image["detections"] is None
            continue
        for found in image["detections"]:
            assert found["category"] in content["detection_categories"]
            assert isinstance(found["conf"], float)
            left, top, width, height = found["bbox"]
            assert 0 <= left <= left + width <= 1
            assert 0 <= top <= top + height <= 1
            scores = [score for key, score in found["classifications"]]
            assert scores == sorted(scores, reverse=True)
            assert all(key in content["classification_categories"] for key, _ in found["classifications"])


def test_megadetector_keeps_to_its_format(written):
    found = written("megadetector")
    check_megadetector(found)
    assert [image["file"] for image in found["images"]] == ["a.jpg", "b/c.jpg", "d.jpg"]
    names = found["classification_categories"]
    (whole,) = found["images"][1]["detections"]
    assert whole["bbox"] == [0, 0, 1, 1]
    assert whole["conf"] == found["images"][1]["max_detection_conf"] == 0.6
    assert [(names[key], score) for key, score in whole["classifications"]] == [
        ("symptoms: spots", 0.95),
        ("category: tomato", 0.6),
        ("category: bean", 0.4),
    ]


def test_megadetector_keeps_to_its_format_with_boxes(detector_contract, tmp_path):
    """No box goes beyond the photo, however its fractions are rounded."""
    fruit = {"label": "plum", "score": 0.9, "top": [["plum", 0.9], ["apple", 0.1]]}
    boxes = [
        {"x": x, "y": x / 2, "w": 1000 - x, "h": 300 - x / 2, "score": 0.8, "targets": {"fruit": fruit}}
        for x in (0, 0.13, 333.35, 333.45, 512.25)
    ]
    photo = record("a.jpg", boxes=boxes) | {"width": 1000, "targets": {}}
    out = tmp_path / "mega.json"
    writers.write(str(out), [OutputRow(photo)], detector_contract, "megadetector")
    check_megadetector(content := json.loads(out.read_text()))
    assert [each["conf"] for each in content["images"][0]["detections"]] == [0.8] * 5


@pytest.mark.parametrize("form", ["coco", "megadetector"])
def test_nothing_and_odd_names_are_written(written, form):
    assert written(form, [])["images"] == []
    assert len(written(form, [record(os.fsdecode(b"caf\xe9.jpg"))])["images"]) == 1


def test_an_unknown_format_lists_those_that_are():
    with pytest.raises(UsageError, match="voc") as error:
        writers.writer_of("out.json", "voc")
    assert "jsonl, csv, parquet, coco, megadetector, yolo, label-studio" in error.value.hint
