"""Detection with a model that finds boxes: counts, filters, tables, other programs' formats, pictures."""

import json
import zipfile

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageColor
from tests.contracts import make_contract

from plantml.api.predictions import Predictions
from plantml.data.formats import list_source
from plantml.detect import annotate, record_filters, shards
from plantml.detect.alias_watcher import output_schema
from plantml.detect.config import DetectConfig
from plantml.detect.formats.box_classes import BoxClasses
from plantml.detect.record_sheet import COLOURS, counts_text
from plantml.errors import UsageError
from plantml.model.bundle import Bundle
from plantml.model.pipeline import Prediction
from plantml.model.records import Record
from plantml.targets import Target

APPLE, PLUM = "red", "blue"


@pytest.fixture
def trays(paint_spots):
    """Two apples and a plum; nothing; a file that is no picture."""
    paint_spots("1.png", (2, 4, 10, 8, APPLE), (30, 4, 6, 20, PLUM), (40, 40, 12, 12, APPLE))
    paint_spots("2.png")
    folder = paint_spots("3.png").parent
    (folder / "3.png").write_bytes(b"text")
    return folder


def names(records):
    return [record["image"].rpartition("/")[2] for record in records]


def test_records_hold_boxes_and_their_counts(find, trays):
    done, (first, empty, failed) = find(trays)
    assert [[box[side] for side in "xywh"] for box in first["boxes"]] == [
        [2, 4, 10, 8],
        [40, 40, 12, 12],
        [30, 4, 6, 20],
    ]
    assert [box["targets"]["fruit"]["label"] for box in first["boxes"]] == ["apple", "apple", "plum"]
    assert first["counts"] == {"boxes": 3, "fruit": {"apple": 2, "plum": 1}}
    assert empty["counts"] == {"boxes": 0, "fruit": {"apple": 0, "plum": 0}}
    assert (empty["boxes"], empty["decision"], empty["targets"]) == ([], "accept", {})
    assert failed["boxes"] == []
    assert "counts" not in failed
    assert (done.boxes, done.labels, done.failed) == (3, {"fruit": {"apple": 2, "plum": 1}}, 1)


@pytest.mark.parametrize(
    "option",
    [{"tta": True}, {"similar": "data"}, {"embeddings": "e.npy"}, {"advice": "a.yaml"}, {"sort_into": "sorted"}],
)
def test_what_needs_predictions_of_photos_is_refused(find, spots, trays, tmp_path, option):
    with pytest.raises(UsageError, match="a model that finds boxes"):
        find(trays, out=tmp_path / "r.jsonl", **option)
    assert not spots.calls


def test_a_killed_detection_resumes_and_ends_with_the_same_bytes(find, spots, paint_spots, tmp_path):
    for number in range(6):
        folder = paint_spots(f"{number}.png", (2, 4, 10, 8, APPLE if number % 2 else PLUM)).parent
    find(folder, out=tmp_path / "whole.jsonl", batch=1)
    out, spots.calls, spots.dies_after = tmp_path / "r.jsonl", 0, 3
    with pytest.raises(KeyboardInterrupt):
        find(folder, out=out, batch=1)
    spots.dies_after = None
    done, _ = find(folder, out=out, batch=1)
    assert 0 < done.resumed < 6
    assert done.boxes == 6
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_shards_hold_counts_too(find, trays, tmp_path):
    parts = [tmp_path / f"{number}.jsonl" for number in (1, 2)]
    for number, part in enumerate(parts, start=1):
        find(trays, out=part, shard=f"{number}/2")
    shards.merge([str(part) for part in parts], str(tmp_path / "merged.jsonl"))
    find(trays, out=tmp_path / "whole.jsonl")
    assert (tmp_path / "merged.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_the_summary_counts_boxes_by_class(find, trays):
    from plantml.cli.detect import boxes_line

    done, _ = find(trays)
    assert boxes_line(done, done.boxes) == "3 boxes in 2 photos: 2 apple, 1 plum"
    assert boxes_line(done, 0) == "0 boxes in 2 photos"


# --- filters and tables -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ("count() >= 3", ["1.png"]),
        ('count("apple") > 1 and count("fruit", "plum") == 1', ["1.png"]),
        ('count("apple") == 0', ["2.png"]),  # a photo that could not be read has no count
        ('not count("plum") > 0', ["2.png"]),
        ('count("apple") > count("plum") or failure is not None', ["1.png", "3.png"]),
        ("boxes == 0", ["2.png"]),
    ],
)
def test_where_asks_for_counts(find, trays, condition, wanted):
    assert names(find(trays, where=condition)[1]) == wanted


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ('count("pear") > 0', "the classes are fruit: apple, plum"),
        ('count("colour", "apple") > 0', "no such class"),
        ("count(fruit) > 0", "words in quotation marks"),
        ('count(name="apple") > 0', "words in quotation marks"),
        ('number("apple") > 0', "not allowed"),
    ],
)
def test_a_count_that_cannot_be_is_wrong_usage(find, spots, trays, condition, why):
    with pytest.raises(UsageError) as raised:
        find(trays, where=condition)
    assert why in raised.value.why
    assert not spots.calls


def test_only_a_model_that_finds_boxes_counts(run, trays):
    with pytest.raises(UsageError, match="where") as raised:
        run(trays, where="count() > 1")
    assert "finds no boxes" in raised.value.why


def test_a_class_of_two_targets_is_counted_by_target():
    ripe, plant = Target("ripe", "class", ("yes", "no")), Target("sold", "class", ("yes", "no"))
    contract = make_contract(
        ripe, plant, detection={"boxes": 9, "slope": 1, "offset": 0, "threshold": 0.5, "accept": 0.8}
    )
    with pytest.raises(UsageError) as raised:
        record_filters.check('count("yes") > 1', contract)
    assert "count('ripe', 'yes')" in raised.value.why
    record_filters.check('count("sold", "yes") > 1', contract)


@pytest.mark.parametrize("extension", ["csv", "parquet"])
def test_tables_have_a_row_per_photo_or_per_box(find, trays, tmp_path, extension):
    read = pl.read_csv if extension == "csv" else pl.read_parquet
    find(trays, out=(photos := tmp_path / f"photos.{extension}"))
    table = read(photos)
    assert table.columns[-3:] == ["boxes", "fruit: apple", "fruit: plum"]
    assert table.select(table.columns[-3:]).rows() == [(3, 2, 1), (0, 0, 0), (None, None, None)]
    find(trays, out=(boxes := tmp_path / f"boxes.{extension}"), rows="boxes")
    rows = read(boxes)
    assert rows.select("box", "x", "y", "w", "h", "decision", "fruit", "fruit_score").rows() == [
        (1, 2.0, 4.0, 10.0, 8.0, "accept", "apple", 0.9),
        (2, 40.0, 40.0, 12.0, 12.0, "accept", "apple", 0.9),
        (3, 30.0, 4.0, 6.0, 20.0, "accept", "plum", 0.9),
    ]
    assert set(names(rows.to_dicts())) == {"1.png"}
    assert rows["image_id"].n_unique() == 1


def test_rows_of_boxes_need_boxes_and_a_table(find, run, trays, tmp_path):
    with pytest.raises(UsageError, match="finds boxes"):
        run(trays, out=tmp_path / "r.csv", rows="boxes")
    with pytest.raises(UsageError, match="needs a table"):
        find(trays, out=tmp_path / "r.jsonl", rows="boxes")
    with pytest.raises(UsageError, match="Standard output"):
        find(trays, rows="boxes")


def test_the_python_table_is_that_of_the_file(find, detector_contract, trays, tmp_path):
    _, records = find(trays)
    items = [Prediction(Record(**{key: each.get(key) for key in Record.__slots__}), {}, None) for each in records]
    predictions = Predictions(items, detector_contract)
    for rows in ("photos", "boxes"):
        find(trays, out=(out := tmp_path / f"{rows}.parquet"), rows=rows)
        assert predictions.to_polars(rows).equals(pl.read_parquet(out))


def test_a_watched_alias_may_not_move_from_photos_to_boxes_nor_change_the_columns(detector_contract):
    def schema(contract, **settings):
        return output_schema(Bundle("b", contract, "d" * 64, {}), DetectConfig(**settings))

    other = make_contract(Target("fruit", "class", ("apple", "pear")), detection=detector_contract.detection)
    of_photos = make_contract(*detector_contract.targets)
    assert schema(of_photos) != schema(detector_contract)
    assert schema(other, out="r.jsonl") == schema(detector_contract, out="r.jsonl")
    assert schema(other, out="r.csv") != schema(detector_contract, out="r.csv")


# --- other programs ---------------------------------------------------------------------------


def boxes_of(source):
    """Class and rounded box of each box that an import reads, by the stem of the photo's name."""
    return {
        photo.name.rpartition("/")[2].split(".")[0]: [
            (*box.labels.values(), *(round(side, 3) for side in (box.x, box.y, box.w, box.h)))
            for box in photo.boxes or ()
        ]
        for photo in list_source(str(source)).items
    }


DRAWN = {"1": [("apple", 2, 4, 10, 8), ("apple", 40, 40, 12, 12), ("plum", 30, 4, 6, 20)], "2": []}


def test_coco_gives_the_boxes_back(find, trays, tmp_path):
    (trays / "3.png").unlink()
    find(trays, out=(out := tmp_path / "coco.json"), format="coco")
    assert boxes_of(out) == DRAWN
    content = json.loads(out.read_text())
    assert [category["name"] for category in content["categories"]] == ["apple", "plum"]
    assert [note["score"] for note in content["annotations"]] == [0.9, 0.9, 0.9]


def test_yolo_gives_the_boxes_back(find, trays, tmp_path):
    find(trays, out=(out := tmp_path / "yolo.zip"), format="yolo")
    assert boxes_of(out) == DRAWN
    with zipfile.ZipFile(out) as file:
        labels = [file.read(name).decode() for name in sorted(file.namelist()) if name.startswith("labels/1")]
    assert labels[0].splitlines()[0] == "0 0.109375 0.125 0.15625 0.125 0.9"


def test_megadetector_has_a_detection_per_box_and_none_for_an_empty_photo(find, trays, tmp_path):
    find(trays, out=(out := tmp_path / "mega.json"), format="megadetector")
    first, empty, failed = json.loads(out.read_text())["images"]
    assert next((each["conf"], each["bbox"]) for each in first["detections"]) == (0.9, [0.0312, 0.0625, 0.1563, 0.125])
    assert [each["classifications"][0] for each in first["detections"]] == [["0", 0.9], ["0", 0.9], ["1", 0.9]]
    assert (empty["detections"], empty["max_detection_conf"]) == ([], 0.0)
    assert failed["detections"] is None


def test_label_studio_gives_corrected_predictions_back(find, trays, tmp_path):
    (trays / "3.png").unlink()
    find(trays, out=(out := tmp_path / "tasks.json"), format="label-studio")
    tasks = json.loads(out.read_text())
    assert [result["score"] for result in tasks[0]["predictions"][0]["result"]] == [0.9, 0.9, 0.9]
    assert tasks[0]["data"]["image"].startswith("/data/local-files/?d=/")
    for task in tasks:  # as Label Studio exports them after somebody has looked
        task["annotations"] = task.pop("predictions")
    out.write_text(json.dumps(tasks))
    assert boxes_of(out) == DRAWN


def test_label_studio_has_choices_for_whole_photos(run, paint, tmp_path):
    run(paint("bean.png", 255), out=(out := tmp_path / "tasks.json"), format="label-studio")
    (task,) = json.loads(out.read_text())
    results = {result["from_name"]: result["value"]["choices"] for result in task["predictions"][0]["result"]}
    assert results == {"category": ["bean"], "symptoms": ["spots"]}


def test_yolo_needs_boxes_and_a_zip(find, run, trays, tmp_path):
    with pytest.raises(UsageError, match="finds boxes"):
        run(trays, out=tmp_path / "yolo.zip", format="yolo")
    with pytest.raises(UsageError, match="cannot hold"):
        find(trays, out=tmp_path / "yolo.txt", format="yolo")


def test_boxes_with_several_targets_have_one_class_elsewhere():
    contract = make_contract(
        Target("category", "class", ("apple", "plum")), Target("health", "class", ("healthy", "diseased"))
    )
    classes = BoxClasses(contract)
    boxes = [{"targets": {"category": {"label": "plum"}, "health": {"label": health}}} for health in ("diseased",) * 2]
    assert [classes.number(box) for box in boxes] == [0, 0]
    assert classes.names == ["plum___diseased"]
    assert classes.name({"targets": {"health": {"label": "dead"}}}) == "dead"  # the category does not apply


# --- pictures ---------------------------------------------------------------------------------


def test_boxes_are_drawn_in_the_colour_of_their_class_with_a_key_below(find, trays, tmp_path):
    find(trays, out=tmp_path / "r.jsonl", annotate=tmp_path / "drawn", sheet=tmp_path / "sheet.png")
    assert len(list((tmp_path / "drawn").iterdir())) == 2
    (file,) = (tmp_path / "drawn").glob("1.*.jpg")
    picture = np.asarray(Image.open(file)).astype(int)
    scale = picture.shape[1] / 64
    below = picture[round(64 * scale) :]
    colours = annotate._class_colours(["apple", "plum"])

    def has(colour, pixels):
        return (np.abs(pixels - ImageColor.getrgb(colour)).max(axis=2) < 40).any()

    edge = round(4 * scale)
    assert has(colours["plum"], picture[edge - 4 : edge + 4, round(31 * scale) : round(35 * scale)])
    assert has(colours["apple"], below)
    assert has(colours["plum"], below)


def test_one_class_is_drawn_in_the_colour_of_its_decision():
    box = {"x": 1, "y": 1, "w": 5, "h": 5, "score": 0.7, "targets": {"fruit": {"label": "apple"}}, "decision": "review"}
    record = {"boxes": [box], "counts": {"boxes": 1, "fruit": {"apple": 1}}}
    assert annotate._box_key(record) == [(COLOURS["review"], "review 1")]


def test_a_box_without_the_target_of_the_colours_is_grey_and_called_by_another_one():
    plant = {"category": {"label": "plum", "score": 0.8}, "viability": {"label": "viable", "score": 0.9}}
    empty = {"viability": {"label": "missing", "score": 0.9}}
    boxes = [{"score": 0.7, "targets": targets, "decision": "accept"} for targets in (plant, empty, empty)]
    record = {"boxes": boxes, "counts": {"boxes": 3, "category": {"apple": 0, "plum": 1}}}
    key = annotate._box_key(record)
    assert [words for _, words in key] == ["plum 1", "missing 2"]
    assert key[1][0] == annotate._NEUTRAL
    assert [annotate._words(box, "category") for box in boxes] == ["plum 0.80", "missing 0.90", "missing 0.90"]


def test_counts_in_words():
    counts = {"boxes": 48, "health": {"viable": 41, "weak": 5, "missing": 2, "dead": 0}, "category": {"pear": 48}}
    assert counts_text(counts) == "48 boxes: 41 viable, 5 weak, 2 missing; 48 pear"
    assert counts_text({"boxes": 1}) == "1 box"
