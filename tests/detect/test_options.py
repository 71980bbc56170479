"""What options add to records and put beside the output."""

import io
import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from plantml import storage
from plantml.detect import advice, annotate, options, shards
from plantml.detect.config import DetectConfig
from plantml.detect.results import Extras
from plantml.detect.similar import Similar
from plantml.detect.tta import AveragedRuntime, augmented
from plantml.errors import InputError, UsageError


@pytest.fixture
def photos(paint):
    """A bean, a tomato, one that is for review, and a file that is no picture."""
    paint("bean.png", 255)
    paint("deep/tomato.png", 0)
    paint("unsure.png", 140)
    folder = paint("bad.png", 0).parent
    (folder / "bad.png").write_bytes(b"text")
    return folder


def names(records):
    return [Path(record["image"]).name for record in records]


@pytest.mark.parametrize(
    "outputs",
    [
        {"out": "r.jsonl", "sheet": "./r.jsonl"},
        {"out": "r.jsonl", "embeddings": "e.npy", "annotate": "e.npy"},
        {"out": "r.jsonl", "sheet": "leaf.onnx"},
        {"out": "leaf.onnx/model.json"},
    ],
)
def test_no_output_replaces_another_or_the_model(outputs):
    with pytest.raises(UsageError, match=r"same place|part of the model"):
        options.check_places(DetectConfig(model="leaf.onnx", **outputs))


# --- which records ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ('decision == "review"', ["unsure.png"]),
        ('category == "tomato" or category_score < 0.7', ["tomato.png", "unsure.png"]),
        ("failure is not None", ["bad.png"]),
        ('"deep" in image', ["tomato.png"]),
        ("width > 100", []),
    ],
)
def test_where_chooses_what_is_written_and_looks_at_all(run, photos, tmp_path, condition, wanted):
    done, records = run(photos, out=tmp_path / "out.jsonl", where=condition)
    assert sorted(names(records)) == wanted
    assert (done.images, done.written) == (4, len(wanted))
    assert run(photos, where=condition)[1] == records
    again, everything = run(photos, out=tmp_path / "out.jsonl")  # the choice is no other question
    assert again.resumed == 4
    assert len(everything) == 4


@pytest.mark.parametrize("condition", ["colour == 1", "decision ==", "open('x')", "1"])
def test_a_senseless_condition_is_wrong_usage_before_anything_is_done(run, photos, tmp_path, formula, condition):
    with pytest.raises(UsageError, match="--where"):
        run(photos, out=tmp_path / "out.jsonl", where=condition)
    assert formula.calls == 0
    assert not (tmp_path / "out.jsonl.journal").exists()


def test_changed_only_writes_what_is_new_and_loses_nothing_to_a_kill(run, photos, paint, tmp_path, monkeypatch):
    given = {"out": tmp_path / "new.jsonl", "changed_only": True}
    assert len(run(photos, **given)[1]) == 4
    assert run(photos, **given)[1] == []
    paint("bean.png", 0, size=(20, 20))
    paint("more.png", 0)
    with monkeypatch.context() as patch:  # killed after the work and before the output is there
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(photos, **given)
    done, records = run(photos, **given)
    assert names(records) == ["bean.png", "more.png"]
    assert done.resumed == 5
    assert run(photos, **given)[1] == []


def test_one_journal_serves_an_output_a_night(run, photos, paint, tmp_path):
    given = {"journal": tmp_path / "journal", "changed_only": True}
    assert len(run(photos, out=tmp_path / "monday.jsonl", **given)[1]) == 4
    paint("more.png", 0)
    assert names(run(photos, out=tmp_path / "tuesday.jsonl", **given)[1]) == ["more.png"]
    assert len((tmp_path / "monday.jsonl").read_text().splitlines()) == 4
    assert not (tmp_path / "tuesday.jsonl.journal").exists()


# --- beside the output ------------------------------------------------------------------------


def test_embeddings_belong_to_their_images_and_survive_a_repeat(run, photos, tmp_path):
    table, array = tmp_path / "vectors.parquet", tmp_path / "vectors.npy"
    _, records = run(photos, out=tmp_path / "out.jsonl", embeddings=table)
    run(photos, out=tmp_path / "out.jsonl", embeddings=array)
    by_name = pl.read_parquet(table)
    assert by_name["image_id"].to_list() == [one["image_id"] for one in records if one["failure"] is None]
    assert by_name.schema["embedding"] == pl.Array(pl.Float32, 3)
    vectors = np.load(array)
    assert vectors.shape == (4, 3)
    assert vectors.dtype == np.float32
    for record, vector in zip(records, vectors, strict=True):
        if record["failure"] is not None:
            assert np.isnan(vector).all()
        else:
            green = np.asarray(Image.open(record["image"]))[0, 0, 1] / 255
            assert vector[1] == pytest.approx(green, abs=1e-3)
    assert np.array_equal(vectors[~np.isnan(vectors[:, 0])], np.stack(by_name["embedding"].to_list()))
    with pytest.raises(InputError, match="embeddings was True"):
        run(photos, out=tmp_path / "out.jsonl")
    with pytest.raises(UsageError, match="cannot hold embeddings"):
        run(photos, out=tmp_path / "other.jsonl", embeddings=tmp_path / "vectors.csv")


def test_photos_are_linked_into_a_folder_for_each_label(run, photos, tmp_path, contents):
    before = contents(photos)
    done, records = run(photos, out=tmp_path / "out.jsonl", sort_into=tmp_path / "sorted")
    by_name = {str(file.relative_to(tmp_path / "sorted")): file for file in (tmp_path / "sorted").rglob("*.png")}
    short = {one["image"]: one["image_id"][:8] for one in records if one["failure"] is None}
    assert set(by_name) == {
        f"bean/bean.{short[f'{photos}/bean.png']}.png",
        f"tomato/tomato.{short[f'{photos}/deep/tomato.png']}.png",
        f"_unsure/bean/unsure.{short[f'{photos}/unsure.png']}.png",
    }
    assert all(file.is_symlink() and file.resolve().is_relative_to(photos) for file in by_name.values())
    assert done.sorted == {"bean": 1, "tomato": 1, "_unsure/bean": 1}
    assert run(photos, out=tmp_path / "out.jsonl", sort_into=tmp_path / "sorted")[0].sorted == {}
    assert contents(photos) == before


def test_photos_are_copied_where_that_is_asked_or_links_cannot_be(run, photos, tmp_path, memory_url):
    run(photos, out=tmp_path / "out.jsonl", sort_into=tmp_path / "sorted", sort_how="copy")
    (copy,) = (tmp_path / "sorted" / "tomato").iterdir()
    assert not copy.is_symlink()
    assert copy.read_bytes() == (photos / "deep" / "tomato.png").read_bytes()
    run(photos, out=tmp_path / "out.jsonl", sort_into=memory_url)
    assert len(list(storage.list_files(memory_url))) == 3
    with pytest.raises(UsageError, match="severity") as error:
        run(photos, out=tmp_path / "out.jsonl", sort_into=tmp_path / "sorted", sort_by="severity")
    assert "category" in error.value.why


def test_photos_are_drawn_upright_with_room_for_words(run, paint, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    paint("turned.jpg", 255, size=(800, 500), exif=exif.tobytes())
    folder = paint("tiny.png", 140, size=(20, 10)).parent
    done, _ = run(folder, out=tmp_path / "out.jsonl", annotate=tmp_path / "drawn")
    assert done.annotated == 2
    drawn = {file.name.split(".")[0]: Image.open(file) for file in (tmp_path / "drawn").iterdir()}
    turned, tiny = drawn["turned"], drawn["tiny"]
    assert turned.width == 500
    assert turned.height > 800 + 60
    assert tiny.width == 480  # enlarged, so that its words can be read
    bar = np.asarray(turned.convert("RGB"))[803, 490], np.asarray(tiny.convert("RGB"))[243, 470]
    assert np.allclose(bar, [(46, 125, 50), (239, 108, 0)], atol=12)  # accept, review
    assert (np.asarray(turned.convert("L"))[840:] < 80).any()  # letters


def test_only_new_or_lost_pictures_are_drawn_again(run, photos, paint, tmp_path):
    given = {"out": tmp_path / "out.jsonl", "annotate": tmp_path / "drawn"}
    assert run(photos, **given)[0].annotated == 3
    assert run(photos, **given)[0].annotated == 0
    next((tmp_path / "drawn").glob("tomato.*")).unlink()
    paint("bean.png", 250)
    assert run(photos, **given)[0].annotated == 2


# --- other answers ----------------------------------------------------------------------------


def test_each_tile_gets_its_answer_and_a_place(run, tmp_path):
    picture = Image.new("RGB", (100, 60), (100, 0, 40))
    picture.paste((100, 255, 40), (60, 0, 100, 60))  # beans on the right
    picture.save(tmp_path / "tray.png")
    done, (record,) = run(
        tmp_path / "tray.png", out=tmp_path / "o.jsonl", tile=20, overlap=0.0, annotate=tmp_path / "d"
    )
    tiles = record["tiles"]
    assert (tiles["size"], tiles["columns"], tiles["rows"], len(tiles["grid"])) == (20, 5, 3, 15)
    said = [[tile["targets"]["category"]["label"] for tile in tiles["grid"][row * 5 : row * 5 + 5]] for row in range(3)]
    assert said == [["tomato"] * 3 + ["bean"] * 2] * 3
    assert tiles["labels"]["category"] == {"tomato": 9, "bean": 6}
    assert [tiles["grid"][6][key] for key in "xywh"] == [20, 20, 20, 20]
    assert set(tiles["grid"][0]) == {"x", "y", "w", "h", "targets", "decision", "unknown"}
    plain = run(tmp_path / "tray.png")[1][0]
    assert {key: value for key, value in record.items() if key != "tiles"} == plain
    assert done.annotated == 1
    with pytest.raises(InputError, match="tile was 20"):
        run(tmp_path / "tray.png", out=tmp_path / "o.jsonl", tile=30)


def test_tiles_are_cut_from_the_upright_picture(run, tmp_path):
    picture = Image.new("RGB", (40, 20), (100, 0, 40))
    picture.paste((100, 255, 40), (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # the left is the top
    picture.save(tmp_path / "a.jpg", exif=exif.tobytes(), quality=95)
    (record,) = run(tmp_path / "a.jpg", tile=20, overlap=0.0)[1]
    assert [(tile["y"], tile["targets"]["category"]["label"]) for tile in record["tiles"]["grid"]] == [
        (0, "bean"),
        (20, "tomato"),
    ]


def test_a_damaged_photo_has_no_tiles(run, photos):
    assert "tiles" not in run(photos / "bad.png", tile=20)[1][0]


def test_turned_answers_are_the_mean_over_all_forms(run, tmp_path, formula):
    picture = Image.new("RGB", (8, 8), (100, 0, 40))
    picture.putpixel((0, 0), (100, 255, 40))  # seen by the formula in 2 of 8 forms: it is on the diagonal
    picture.save(tmp_path / "a.png")
    (plain,), (turned,) = run(tmp_path / "a.png")[1], run(tmp_path / "a.png", tta=True)[1]
    assert plain["targets"]["category"]["score"] == 1.0
    assert turned["targets"]["category"]["top"] == [["tomato", 0.75], ["bean", 0.25]]
    assert formula.calls == 9
    assert len({view.tobytes() for view in augmented(np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3))}) == 8
    assert len(list(augmented(np.zeros((1, 4, 6, 3), np.uint8)))) == 4
    assert AveragedRuntime(formula).name == "formula"


@pytest.mark.parametrize("size", [2, 5])
def test_turned_answers_do_not_depend_on_the_batch(size):
    class Noise:
        name = "noise"

        def run(self, batch, columns=None):
            return {"score": np.sin(batch[:, :1, 0, 0].astype(np.float32) * 1.7)}

    batch = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), np.uint8)
    averaged = AveragedRuntime(Noise())
    single = np.concatenate([averaged.run(batch[at : at + 1])["score"] for at in range(20)])
    many = np.concatenate([averaged.run(batch[at : at + size])["score"] for at in range(0, 20, size)])
    assert single.dtype == many.dtype == np.float32
    assert single.tobytes() == many.tobytes()


def test_similar_photos_are_named_the_likest_first(run, photos):
    vectors = np.array([[0, 1, 0], [1, 0, 0], [0.6, 0.8, 0]], np.float32)
    known = Similar("beans@3", [{"name": name, "url": name, "labels": {}} for name in "abc"], vectors, 2)
    by_name = {Path(record["image"]).name: record for record in run(photos, extras=Extras(similar=known))[1]}
    assert [one["name"] for one in by_name["bean.png"]["similar"]] == ["c", "a"]
    assert [one["name"] for one in by_name["tomato.png"]["similar"]] == ["b", "c"]
    assert by_name["bean.png"]["similar"][0]["cosine"] == pytest.approx((0.6 * 100 + 0.8 * 255) / np.hypot(
        np.hypot(100, 255), 40), abs=1e-3)  # fmt: skip
    assert by_name["bad.png"]["similar"] is None


def test_the_nearest_training_photo_of_a_training_photo_is_itself(cli, trained, tmp_path):
    out = tmp_path / "out.jsonl"
    line = ("detect", trained.data, "--split", "test", "--model", trained.run, "--out", out, "--similar", trained.data)
    assert cli(*line, "--neighbours", 3).code == 0
    for record in map(json.loads, out.read_text().splitlines()):
        first, *others = record["similar"]
        assert first["url"] == record["image"]
        assert first["cosine"] > 0.999
        assert len(others) == 2
        assert first["labels"]["category"] in {"bean", "tomato"}


ADVICE = """
category:
  bean: Stake it.
  maize: Not known here.
symptoms:
  spots: Look below the leaves.
decision:
  review: Ask somebody.
"""


@pytest.fixture
def texts(tmp_path, contract):
    (tmp_path / "advice.yaml").write_text(ADVICE)
    return advice.read(str(tmp_path / "advice.yaml"), contract)


def test_advice_is_attached_by_label_only_where_the_answer_is_accepted(run, photos, texts):
    by_name = {Path(record["image"]).name: record for record in run(photos, extras=Extras(advice=texts))[1]}
    assert by_name["bean.png"]["advice"] == {"category": "Stake it.", "symptoms": "Look below the leaves."}
    assert by_name["tomato.png"]["advice"] == {}
    assert by_name["unsure.png"]["advice"] == {"decision": "Ask somebody."}
    assert by_name["bad.png"]["advice"] == {}
    assert texts.unused == ["category: maize"]


def test_changed_advice_needs_no_new_look(run, photos, texts, tmp_path, formula):
    run(photos, out=tmp_path / "out.jsonl")
    calls = formula.calls
    _, records = run(photos, out=tmp_path / "out.jsonl", extras=Extras(advice=texts))
    assert formula.calls == calls
    assert all("advice" in record for record in records)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("category: Stake it.", "is not an advice file"),
        ("- a", "is not an advice file"),
        ("category: {maize: Water.}", "no advice for this model"),
        ("decision: {accept: Good.}", "accept"),
        ("a: [", "not valid YAML"),
    ],
)
def test_what_is_no_advice_is_refused(tmp_path, contract, text, said):
    (tmp_path / "advice.yaml").write_text(text)
    with pytest.raises(InputError, match=said):
        advice.read(str(tmp_path / "advice.yaml"), contract)


def test_the_example_of_advice_is_advice(contract):
    file = Path(__file__).parents[2] / "configs" / "advice.yaml"
    assert advice.read(str(file), contract).decisions.keys() == {"review", "unknown"}


def test_long_words_are_drawn():
    picture = io.BytesIO()
    Image.new("RGB", (600, 400), "black").save(picture, "PNG")
    answer = {"label": "a very long label " * 20, "score": 0.9, "top": []}
    record = {
        "image": "a.png", "image_id": "0" * 64, "width": 600, "height": 400, "decision": "accept", "failure": None,
        "targets": {"category": answer},
        "boxes": [],
    }  # fmt: skip
    drawn = Image.open(io.BytesIO(annotate.draw(picture.getvalue(), record)))
    assert drawn.width == 600
    assert drawn.height > 400 + 100  # the words go over several lines


@pytest.mark.parametrize("option", ["sheet", "embeddings", "annotate", "sort_into", "changed_only", "journal"])
def test_what_needs_a_file_says_so(run, photos, tmp_path, option):
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')} needs an output file"):
        run(photos, **{option: True if option == "changed_only" else str(tmp_path / "x.npy")})


def test_photos_and_all_outputs_may_be_in_any_storage(run, photos, url):
    for file in sorted(photos.rglob("*.png")):
        storage.write(f"{url}/photos/{file.relative_to(photos)}", file.read_bytes())
    given = {
        "out": f"{url}/out.jsonl",
        "annotate": f"{url}/drawn",
        "sort_into": f"{url}/sorted",
        "embeddings": f"{url}/vectors.npy",
        "sheet": f"{url}/sheet.png",
    }
    done, records = run(f"{url}/photos", **given)
    assert (done.images, done.annotated, sum(done.sorted.values())) == (4, 3, 3)
    assert [record["image"] for record in records] == [
        f"{url}/photos/{name}" for name in ("bad.png", "bean.png", "deep/tomato.png", "unsure.png")
    ]
    before = storage.read(given["out"])
    again, _ = run(f"{url}/photos", **given)
    assert (again.resumed, again.annotated, again.sorted) == (4, 0, {})
    assert storage.read(given["out"]) == before
    assert np.load(io.BytesIO(storage.read(given["embeddings"]))).shape == (4, 3)
    for number in (1, 2):
        run(f"{url}/photos", out=f"{url}/part-{number}.jsonl", shard=f"{number}/2")
    shards.merge([f"{url}/part-{number}.jsonl" for number in (1, 2)], f"{url}/merged.jsonl")
    run(f"{url}/photos", out=f"{url}/whole.jsonl")
    assert storage.read(f"{url}/merged.jsonl") == storage.read(f"{url}/whole.jsonl")
