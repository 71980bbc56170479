"""Embeddings, neighbours, maps: with a network small enough to look at photos in no time."""

import io
import uuid
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from plantml import storage
from plantml.curate import embeddings, nearest_neighbours, similar
from plantml.data import versions
from plantml.settings import machine


@pytest.fixture
def dataset(tmp_path, write_photos, cli):
    source = write_photos(tmp_path / "photos", [f"{name}/{n}.jpg" for name in ("none", "rust") for n in range(6)])
    url = str(tmp_path / "dataset")
    assert cli("dataset", "import", source, url, "--labels", "disease").code == 0
    return url


def test_photos_are_looked_at_once_and_model(dataset, embedder, monkeypatch):
    version, network = versions.load(dataset), embeddings.open_embedder(embedder, machine())
    ids, vectors = embeddings.embed(version, network, machine())
    assert ids == sorted(set(version.rows["image_id"]))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    monkeypatch.setattr(embeddings.imaging, "decode", lambda *_: pytest.fail("looked again"))
    again = embeddings.embed(version, network, machine())
    assert again[0] == ids
    assert np.allclose(again[1], vectors, atol=2e-3)


def test_only_new_photos_are_looked_at(dataset, embedder, tmp_path, write_photos, cli, monkeypatch):
    network = embeddings.open_embedder(embedder, machine())
    embeddings.embed(versions.load(dataset), network, machine())
    write_photos(tmp_path / "photos", ["rust/new.jpg"], first_seed=99)
    assert cli("dataset", "add", dataset, tmp_path / "photos", "--labels", "disease").code == 0
    looked, decode = [], embeddings.imaging.decode
    monkeypatch.setattr(embeddings.imaging, "decode", lambda data, fit: looked.append(1) or decode(data, fit))
    ids, _ = embeddings.embed(versions.load(dataset), network, machine())
    assert (len(ids), len(looked)) == (13, 1)


def test_a_stop_keeps_what_was_looked_at(dataset, embedder):
    network = embeddings.open_embedder(embedder, machine())

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embeddings.embed(versions.load(dataset), network, machine(), stop)
    assert list(Path(dataset, "derived", network.digest).glob("*.jsonl"))


def test_a_model_without_embeddings_is_refused(dataset, tmp_path, cli):
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no model")
    assert cli("dataset", "embed", dataset, "--model", bad).code == 3


def test_a_photo_is_most_like_itself(dataset, embedder, cli, tmp_path):
    rows = versions.load(dataset).rows
    photo = storage.join(dataset, rows["path"][3])
    sheet = tmp_path / "alike.png"
    done = cli("dataset", "similar", photo, dataset, "--model", embedder, "--json", "--count", 4, "--sheet", sheet)
    assert done.code == 0, done.err
    assert len(done.json["similar"]) == 4
    assert done.json["similar"][0]["name"] == rows["name"][3]
    assert done.json["similar"][0]["cosine"] == pytest.approx(1, abs=2e-3)
    with Image.open(sheet) as picture:
        assert picture.width > 800


def test_embeddings_are_written_and_drawn(dataset, embedder, cli, tmp_path):
    pytest.importorskip("sklearn")
    out, drawn = tmp_path / "vectors.parquet", tmp_path / "map.png"
    done = cli("dataset", "embed", dataset, "--model", embedder, "--pca", "0.9", "--out", out, "--map", drawn, "--json")
    assert done.code == 0, done.err
    table = pl.read_parquet(out)
    assert (table.height, len(table["embedding"][0])) == (12, done.json["components"])
    assert 0.9 <= done.json["explained"] <= 1
    with Image.open(io.BytesIO(drawn.read_bytes())) as picture:
        assert len(set(picture.convert("RGB").resize((200, 150)).get_flattened_data())) > 10
    assert cli("dataset", "embed", dataset, "--model", embedder, "--pca", "1.5").code == 2


def test_a_run_gives_embeddings_too(trained, tmp_path):
    ref = similar.embed(trained.data, machine(), model=trained.run)
    assert ref.vectors.shape[0] == len(ref.ids) > 10


@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_neighbours_are_those_of_a_plain_search(count, k, seed):
    rng = np.random.default_rng(seed)
    vectors = embeddings.unit(rng.normal(size=(count, 5)).astype(np.float32))
    groups = rng.integers(0, 4, count)
    places, cosines = nearest_neighbours.nearest(vectors, vectors, k, apart=(groups, groups))
    plain = vectors @ vectors.T
    plain[groups[:, None] == groups[None, :]] = -2
    best = -np.sort(-plain, axis=1)[:, : min(k, count)]
    assert np.allclose(cosines, best, atol=1e-6)
    assert np.allclose(np.take_along_axis(plain, places, 1), best, atol=1e-6)


def test_components_explain_the_share_that_is_asked_for():
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(200, 10)) * np.array([10, 5, 1, *[0.1] * 7])).astype(np.float32)
    found, explained = nearest_neighbours.principal(vectors, 0.95)
    assert found.shape == (200, 2)
    total = vectors.var(axis=0).sum()
    assert explained == pytest.approx(found.var(axis=0).sum() / total, abs=1e-3)
    assert 0.95 <= explained < 1


def test_a_changed_photo_is_left_out_wherever_it_is_stored(dataset, embedder):
    remote = f"memory://{uuid.uuid4().hex}/dataset"
    for entry in list(storage.list_files(dataset)):
        storage.write(storage.join(remote, entry.name), storage.read(entry.url))
    version, network = versions.load(remote), embeddings.open_embedder(embedder, machine())
    image_id, path = version.rows.select("image_id", "path").row(0)
    storage.write(version.image_url(path), b"other bytes")
    ids, _ = embeddings.embed(version, network, machine())
    assert ids == sorted(set(version.rows["image_id"]) - {image_id})
