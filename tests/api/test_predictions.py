"""What a model says of images in memory, and what can be done with its predictions."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import plantml
from plantml.errors import UsageError


@pytest.fixture(scope="module")
def model(trained):
    return plantml.load(trained.run, threads=2, batch=2)


@pytest.fixture(scope="module")
def leaves(trained):
    return [str(file) for file in sorted(Path(trained.photos).rglob("*.jpg"))[:5]]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "I;16"])
def test_a_pillow_image_and_its_file_give_the_same_prediction(model, upright, mode):
    picture = upright(120, 90, 1).convert("I" if mode == "I;16" else mode)
    if mode == "I;16":
        picture = Image.fromarray((np.asarray(picture) * 257).astype(np.uint16))
    file = io.BytesIO()
    picture.save(file, "PNG")  # lossless, and decoded at its full size
    predictions = model.predict([file.getvalue(), picture, Image.open(file)])
    of_file, *of_pixels = predictions.records
    for record in of_pixels:
        assert record == of_file | {"image_id": None}
    assert np.array_equal(predictions.embeddings[0], predictions.embeddings[1])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_pillow_image_is_turned_upright_as_its_file_is(model, photo, orientation):
    data = photo(60, 40, format="PNG", orientation=orientation)
    of_file, of_picture = model.predict([data, Image.open(io.BytesIO(data))]).records
    assert of_picture == of_file | {"image_id": None}
    assert (of_picture["width"], of_picture["height"]) == (60, 40)


def test_pixels_are_images_alone_in_a_list_and_in_a_batch(model, upright):
    arrays = [np.asarray(upright(64, 64, seed)) for seed in range(3)]
    expected = model.predict([Image.fromarray(array) for array in arrays]).records
    assert model.predict(arrays).records == expected
    assert model.predict(np.stack(arrays)).records == expected
    assert model.predict(arrays[0]).records == expected[:1]
    assert model.predict(arrays[0][:, ::-1]).records != expected[:1]  # a view with negative strides


def test_a_picture_is_not_changed_by_a_prediction(model, photo):
    picture = Image.open(io.BytesIO(photo(800, 600)))
    model.predict(picture)
    assert picture.size == (800, 600)
    assert np.asarray(picture).shape == (600, 800, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        17,
        None,
    ],
)
def test_what_is_no_image_is_an_error_of_the_caller(model, wrong):
    with pytest.raises(UsageError, match="not an image"):
        model.predict([wrong])


def test_a_picture_that_cannot_be_read_fails_like_its_file(model, photo):
    cut = Image.open(io.BytesIO(photo(200, 200)[:2000]))
    thin = Image.new("RGB", (5000, 1))
    predictions = model.predict([cut, thin])
    assert [prediction.failure.split(":")[0] for prediction in predictions] == ["truncated", "too-thin"]
    assert [prediction.targets for prediction in predictions] == [{}, {}]
    assert predictions.plot().width > 0


def test_predictions_are_a_typed_sequence(model, leaves):
    predictions = model.predict([*leaves, b"no image"])
    assert len(predictions) == 6
    assert predictions[0].image == leaves[0]
    assert predictions[0].decision in {"accept", "review", "unknown"}
    assert predictions[0].targets["disease"]["label"] in {"none", "rust", "blight"}
    assert predictions[-1].failure is not None
    assert predictions[-1].decision is None
    assert predictions[1:3].records == predictions.records[1:3]
    assert predictions[1:3].images == leaves[1:3]


def test_embeddings_are_rows_and_nan_where_an_image_failed(model, leaves):
    predictions = model.predict([leaves[0], b"no image"])
    assert predictions.embeddings.dtype == np.float32
    assert predictions.embeddings.shape == (2, model.contract.architecture.embedding)
    assert np.isfinite(predictions.embeddings[0]).all()
    assert np.isnan(predictions.embeddings[1]).all()
    assert model.predict([]).embeddings.shape[0] == 0


def test_the_table_is_the_one_that_detect_writes(cli, trained, model, leaves, tmp_path):
    import polars as pl

    out = tmp_path / "records.parquet"
    assert cli("detect", *leaves, "--model", trained.run, "--out", out).code == 0
    assert model.predict(leaves).to_polars().equals(pl.read_parquet(out))
    assert model.predict([]).to_polars().columns == pl.read_parquet(out).columns


def test_a_sheet_shows_each_image_whatever_it_came_as(model, leaves, upright):
    images = [leaves[0], Path(leaves[1]).read_bytes(), upright(), np.asarray(upright())]
    sheet = model.predict(images).plot()
    six, four = 6 * 208 + 8, 4 * 208 + 8
    assert sheet.width == four
    assert model.predict(images * 3).plot(limit=7).width == six


def test_a_notebook_shows_escaped_text(model, photo, tmp_path):
    file = tmp_path / "<script>alert(1)<b>.jpg"
    file.write_bytes(photo())
    shown = model.predict([str(file)])._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert shown.startswith("<img")
    assert model.predict([])._repr_html_().startswith("<table")


def test_a_record_is_json(model, upright):
    (record,) = json.loads(json.dumps(model.predict(upright()).records))
    assert record["image"] == ""
    assert record["image_id"] is None
    assert math.isfinite(record["unknown"])
