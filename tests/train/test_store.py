"""Photos are decoded once; what cannot be decoded is told and never becomes something else."""

import hashlib
import pickle

import numpy as np
import pytest

from plantml import images, storage
from plantml.images import Fit
from plantml.train import store
from plantml.train.store import Photo

FIT = Fit(40, 48, "pad")


@pytest.fixture
def photos(tmp_path, photo) -> list[Photo]:
    found = []
    for seed in range(5):
        data = photo(seed=seed)
        file = tmp_path / f"{seed}.jpg"
        file.write_bytes(data)
        found.append(Photo(hashlib.sha256(data).hexdigest(), str(file)))
    return found


def test_rows_are_what_detection_decodes(photos, tmp_path) -> None:
    built = store.build(photos, FIT, tmp_path / "store")
    for row, photo in enumerate(photos):
        assert np.array_equal(built.pixels[row], images.decode(storage.read(photo.url), FIT))


def test_the_second_build_reads_no_photo(photos, tmp_path) -> None:
    first = store.build(photos, FIT, tmp_path / "store").pixels[:].copy()
    for photo in photos:
        storage.remove(photo.url)
    assert np.array_equal(store.build(photos, FIT, tmp_path / "store").pixels[:], first)


@pytest.mark.parametrize("other", [Fit(40, 48, "crop"), Fit(48, 40, "pad")])
def test_another_geometry_is_another_store(photos, tmp_path, other) -> None:
    store.build(photos, FIT, tmp_path / "store")
    assert store.build(photos, other, tmp_path / "store").pixels.shape == (5, other.height, other.width, 3)
    assert len(list((tmp_path / "store").glob("*.pixels"))) == 2


def test_an_unreadable_photo_is_named(photos, tmp_path) -> None:
    text = b"no picture at all"
    (tmp_path / "2.jpg").write_bytes(text)
    photos[2] = Photo(hashlib.sha256(text).hexdigest(), photos[2].url)
    for _ in range(2):  # freshly built, and found again
        built = store.build(photos, FIT, tmp_path / "store")
        assert list(built.unreadable) == [2]
        assert "not-an-image" in built.unreadable[2]


def test_a_build_that_was_killed_is_built_again(photos, tmp_path) -> None:
    store.build(photos, FIT, tmp_path / "store")
    pixels = next((tmp_path / "store").glob("*.pixels"))
    next((tmp_path / "store").glob("*.unreadable")).unlink()
    pixels.write_bytes(bytes(pixels.stat().st_size))
    assert store.build(photos, FIT, tmp_path / "store").pixels[:].any()


def test_another_process_gets_the_name_and_not_the_pixels(photos, tmp_path) -> None:
    pixels = store.build(photos, FIT, tmp_path / "store").pixels
    sent = pickle.dumps(pixels)
    assert len(sent) < 1000
    assert np.array_equal(pickle.loads(sent)[3], pixels[3])


def test_a_photo_whose_bytes_changed_is_not_used(photos, tmp_path) -> None:
    (tmp_path / "2.jpg").write_bytes((tmp_path / "3.jpg").read_bytes())
    assert "SHA-256" in store.build(photos, FIT, tmp_path / "store").unreadable[2]
