import hashlib
import io
import itertools
import struct
import zlib

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.contracts import make_contract

from plantml.errors import StorageError
from plantml.imaging import Fit
from plantml.model.bundle import Bundle
from plantml.model.contract import Detection
from plantml.model.pipeline import Pipeline
from plantml.model.runtimes import TwoStageRuntime
from plantml.targets import Target

GREY = Target("grey", "value")
BRIGHT = Target("bright", "class", ("no", "yes"))
BUNDLE = Bundle(
    "memory://model",
    make_contract(
        GREY,
        BRIGHT,
        embedding=3,
    ),
    "digest",
    {},
)


class Photometer:
    """A model that says how grey a photo is."""

    name = "photometer"

    def __init__(self):
        self.batches = []

    def run(self, batch, columns=None):
        assert batch.dtype == np.uint8
        assert batch.shape[1:] == (8, 8, 3)
        self.batches.append(len(batch))
        colour = batch.mean(axis=(1, 2), dtype=np.float32)
        grey = colour.mean(axis=1, keepdims=True)
        bright = np.clip(grey / 255, 0, 1)
        return {
            "target.grey": grey,
            "target.bright": np.concatenate([1 - bright, bright], axis=1),
            "embedding": colour,
            "unknown": np.zeros(len(batch), np.float32),
        }


def pipeline(threads=2, batch=3):
    return Pipeline(BUNDLE, Photometer(), threads=threads, batch=batch)


def grey_png(level):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (level,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


def giant_png():
    """A header that promises 10 thousand million pixels."""
    size = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", size), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


BROKEN = {
    "empty": b"",
    "not-an-image": b"a shopping list",
    "too-large": giant_png(),
    "truncated": grey_png(9)[:-30],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One grey photo for each of 16 levels, and one file for each way to fail; `not-found` is not there."""
    home = tmp_path_factory.mktemp("photos")
    for level in range(16):
        (home / f"{level}.png").write_bytes(grey_png(level * 16))
    for code, data in BROKEN.items():
        (home / f"{code}.png").write_bytes(data)
    return home


def check(kind, url, prediction):
    """The prediction is the one of that very file."""
    record = prediction.record
    assert record.image == url
    assert record.model == "digest"
    if isinstance(kind, int):
        assert record.failure is None
        assert record.targets["grey"]["value"] == kind * 16
        assert record.image_id == hashlib.sha256(grey_png(kind * 16)).hexdigest()
        assert (record.width, record.height) == (8, 8)
        assert prediction.embedding.tolist() == [kind * 16] * 3
        assert prediction.probabilities["grey"].tolist() == [kind * 16]
        assert prediction.probabilities["bright"][1] == pytest.approx(kind * 16 / 255)
    else:
        assert record.failure.startswith(f"{kind}: ")
        assert record.targets is record.decision is prediction.probabilities is prediction.embedding is None
        read = BROKEN.get(kind)
        assert record.image_id == (None if read is None else hashlib.sha256(read).hexdigest())


kinds = st.lists(st.one_of(st.integers(0, 15), st.sampled_from([*BROKEN, "not-found"])), max_size=25)


@given(kinds, st.integers(1, 4), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_every_url_has_its_prediction_in_its_place(folder, kinds, threads, batch):
    urls = [str(folder / f"{kind}.png") for kind in kinds]
    made = pipeline(threads, batch)
    predictions = list(made.run(urls))
    assert len(predictions) == len(kinds)
    for kind, url, prediction in zip(kinds, urls, predictions, strict=True):
        check(kind, url, prediction)
    assert sum(made.runtime.batches) == sum(isinstance(kind, int) for kind in kinds)
    assert max(made.runtime.batches, default=0) <= batch


@given(st.lists(st.tuples(st.booleans(), kinds), max_size=5), st.integers(1, 3), st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_near_and_far_photos_may_be_mixed(folder, parts, threads, batch):
    fs = fsspec.filesystem("memory")
    wanted = [(far, kind) for far, some in parts for kind in some]
    for file in folder.iterdir():
        fs.pipe_file(f"/far/{file.name}", file.read_bytes())
    urls = [f"memory://far/{kind}.png" if far else str(folder / f"{kind}.png") for far, kind in wanted]
    made = pipeline(threads, batch)
    for (_, kind), url, prediction in zip(wanted, urls, made.run(urls), strict=True):
        check(kind, url, prediction)
    assert max(made.runtime.batches, default=0) <= batch


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch", [1, 4])
def test_urls_are_taken_as_they_are_needed(folder, threads, batch):
    taken = 0

    def endless():
        nonlocal taken
        for _ in itertools.count():
            taken += 1
            yield str(folder / "5.png")

    predictions = pipeline(threads, batch).run(endless())
    next(predictions)
    ahead = (2 * threads + 1) * batch
    assert taken <= ahead
    for _ in range(10 * batch):
        next(predictions)
    assert taken <= ahead + 10 * batch
    predictions.close()


def test_chunks_are_as_large_as_the_batch(folder):
    urls = [str(folder / f"{level}.png") for level in range(7)]
    assert [len(chunk) for chunk in pipeline(batch=3).run_chunks((url, None) for url in urls)] == [3, 3, 1]


def test_storage_that_does_not_answer_is_told_from_a_file_that_is_not_there():
    (prediction,) = pipeline().predict_bytes([("s3://bucket/leaf.jpg", StorageError("No route", "no network"))])
    assert prediction.record.failure == "unreachable: No route: no network"


def test_an_error_of_the_model_is_not_taken_for_one_of_the_image(folder):
    made = pipeline()
    made.runtime.run = lambda batch: 1 / 0
    with pytest.raises(ZeroDivisionError):
        list(made.run([str(folder / "5.png")]))


# --- two stages -------------------------------------------------------------------------------

FINDER = Bundle(
    "memory://finder",
    make_contract(
        GREY, BRIGHT, input=Fit(8, 8), detection=Detection(
            boxes=2, slope=1.0, offset=0.0, threshold=0.3, accept=0.6, classifier="digest"
        )
    ),
    "tray",
    {},
)  # fmt: skip


class Finder:
    """A detector that finds the left and the right half of every photo."""

    name = "finder"

    def run(self, batch, columns=None):
        halves = np.array([[0, 0, 4, 8], [4, 0, 4, 8]], np.float32)
        scores = np.array([0.9, 0.5], np.float32)
        return {"boxes": np.tile(halves, (len(batch), 1, 1)), "score": np.tile(scores, (len(batch), 1))}


def halves(left, right):
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, :32], pixels[:, 32:] = left, right
    return Image.fromarray(pixels)


def two_stages():
    return Pipeline(FINDER, TwoStageRuntime(Finder(), BUNDLE, Photometer()), threads=1, batch=3)


def test_each_box_is_judged_from_its_own_crop():
    predictions = two_stages().predict_pictures([halves(0, 250), halves(255, 0)])
    for prediction, labels in zip(predictions, (["no", "yes"], ["yes", "no"]), strict=True):
        assert [box["targets"]["bright"]["label"] for box in prediction.boxes] == labels
        assert [box["unknown"] for box in prediction.boxes] == [0, 0]
        assert [box["decision"] for box in prediction.boxes] == ["accept", "review"]
        assert prediction.decision == "review"
        assert prediction.record.model == "tray"


def test_bytes_and_pictures_give_the_same_boxes_and_a_failure_none():
    buffer = io.BytesIO()
    halves(0, 250).save(buffer, "PNG")
    first, second = two_stages().predict_bytes([("a.png", buffer.getvalue()), ("b.png", b"no photo")])
    assert first.boxes == two_stages().predict_pictures([halves(0, 250)])[0].boxes
    assert second.failure
    assert not second.boxes
