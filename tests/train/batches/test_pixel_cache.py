"""Photos are decoded once; unreadable photos are reported and never replaced."""

import errno
import hashlib
import os
import pickle
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from plantml import imaging, storage
from plantml.concurrency import Stop
from plantml.errors import NotFoundError, StoppedError, StorageError
from plantml.imaging import Fit
from plantml.train.batches import pixel_cache
from plantml.train.batches.pixel_cache import Photo

FIT = Fit(40, 48, "pad")


@pytest.fixture
def photos(tmp_path, photo) -> list[Photo]:
    photos = []
    for seed in range(5):
        data = photo(seed=seed)
        file = tmp_path / f"{seed}.jpg"
        file.write_bytes(data)
        photos.append(Photo(hashlib.sha256(data).hexdigest(), str(file)))
    return photos


def test_rows_are_what_detection_decodes(photos, tmp_path) -> None:
    built = pixel_cache.build(photos, FIT, tmp_path / "store")
    for row, photo in enumerate(photos):
        assert np.array_equal(built.pixels[row], imaging.decode(storage.read(photo.url), FIT))


def test_the_second_build_reads_no_photo(photos, tmp_path) -> None:
    first = pixel_cache.build(photos, FIT, tmp_path / "store").pixels[:].copy()
    for photo in photos:
        storage.remove(photo.url)
    assert np.array_equal(pixel_cache.build(photos, FIT, tmp_path / "store").pixels[:], first)


@pytest.mark.parametrize("other", [Fit(40, 48, "crop"), Fit(48, 40, "pad")])
def test_another_geometry_is_another_store(photos, tmp_path, other) -> None:
    pixel_cache.build(photos, FIT, tmp_path / "store")
    assert pixel_cache.build(photos, other, tmp_path / "store").pixels.shape == (5, other.height, other.width, 3)
    assert len(list((tmp_path / "store").rglob("*.pixels"))) == 2


def test_only_photos_that_are_not_decoded_yet_are_read(photos, tmp_path, monkeypatch) -> None:
    """Folds, splits and versions share photos in another order."""
    read = []
    honest = pixel_cache.fetch
    monkeypatch.setattr(pixel_cache, "fetch", lambda photo, cache: read.append(photo) or honest(photo, cache))
    first = pixel_cache.build(photos[:3], FIT, tmp_path / "store").pixels
    progress = []
    second = pixel_cache.build(
        [photos[4], photos[1], photos[3], photos[0]], FIT, tmp_path / "store", progress=lambda *at: progress.append(at)
    ).pixels
    assert len(read) == 5
    assert set(read[3:]) == {photos[3], photos[4]}
    assert progress == [(3, 4), (4, 4)]
    assert np.array_equal(second[[1, 3]], first[[1, 0]])
    assert np.array_equal(second[2], imaging.decode(storage.read(photos[3].url), FIT))


def test_a_kill_loses_one_segment(photos, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(pixel_cache, "_SEGMENT", 2 * FIT.height * FIT.width * 3)
    honest, read = pixel_cache.fetch, []

    def killed(photo, cache):
        read.append(photo)
        if photo == photos[3] and read.count(photo) == 1:
            raise KeyboardInterrupt
        return honest(photo, cache)

    monkeypatch.setattr(pixel_cache, "fetch", killed)
    with pytest.raises(KeyboardInterrupt):
        pixel_cache.build(photos, FIT, tmp_path / "store", threads=1)
    built = pixel_cache.build(photos, FIT, tmp_path / "store")
    assert read.count(photos[0]) == read.count(photos[1]) == 1
    assert len(built.pixels.files) == 3
    for row, photo in enumerate(photos):
        assert np.array_equal(built.pixels[row], imaging.decode(storage.read(photo.url), FIT))


def test_the_same_photo_twice_is_decoded_once(photos, tmp_path) -> None:
    pixels = pixel_cache.build([photos[0], photos[1], photos[0]], FIT, tmp_path / "store").pixels
    assert pixels.shape == (3, 40, 48, 3)
    assert np.array_equal(pixels[0], pixels[2])
    assert pixels.positions.max() == 1


def test_an_unreadable_photo_is_named(photos, tmp_path) -> None:
    text = b"no picture at all"
    (tmp_path / "2.jpg").write_bytes(text)
    photos[2] = Photo(hashlib.sha256(text).hexdigest(), photos[2].url)
    for _ in range(2):  # decoded, then from the cache
        built = pixel_cache.build(photos, FIT, tmp_path / "store")
        assert list(built.unreadable) == [2]
        assert "not-an-image" in built.unreadable[2]


def test_a_build_that_was_killed_is_built_again(photos, tmp_path) -> None:
    pixel_cache.build(photos, FIT, tmp_path / "store")
    pixels = next((tmp_path / "store").rglob("*.pixels"))
    next((tmp_path / "store").rglob("*.photos")).unlink()
    pixels.write_bytes(bytes(pixels.stat().st_size))
    assert pixel_cache.build(photos, FIT, tmp_path / "store").pixels[:].any()


def test_another_process_gets_the_name_and_not_the_pixels(photos, tmp_path) -> None:
    pixels = pixel_cache.build(photos, FIT, tmp_path / "store").pixels
    sent = pickle.dumps(pixels)
    assert len(sent) < 1000
    assert np.array_equal(pickle.loads(sent)[3], pixels[3])


def test_a_photo_whose_bytes_changed_is_not_used(photos, tmp_path) -> None:
    right = (tmp_path / "2.jpg").read_bytes()
    (tmp_path / "2.jpg").write_bytes((tmp_path / "3.jpg").read_bytes())
    assert "SHA-256" in pixel_cache.build(photos, FIT, tmp_path / "store").unreadable[2]
    (tmp_path / "2.jpg").write_bytes(right)
    assert not pixel_cache.build(photos, FIT, tmp_path / "store").unreadable


def test_storage_errors_are_not_blamed_on_a_photo(photos, tmp_path, monkeypatch) -> None:
    def broken(url, *_):
        raise StorageError(f"{url} cannot be read", "the network is down")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "read", broken)
        with pytest.raises(StorageError, match="cannot be read"):
            pixel_cache.build(photos, FIT, tmp_path / "store")
    assert not pixel_cache.build(photos, FIT, tmp_path / "store").unreadable


def test_a_missing_photo_is_decoded_once_it_is_back(photos, tmp_path) -> None:
    data = storage.read(photos[3].url)
    storage.remove(photos[3].url)
    assert list(pixel_cache.build(photos, FIT, tmp_path / "store").unreadable) == [3]
    storage.write(photos[3].url, data)
    assert not pixel_cache.build(photos, FIT, tmp_path / "store").unreadable


@pytest.mark.parametrize("left", [None, 100])
def test_a_store_without_its_pixels_is_built_again(photos, tmp_path, left) -> None:
    expected = pixel_cache.build(photos, FIT, tmp_path / "store").pixels[:].copy()
    (file,) = (tmp_path / "store").rglob("*.pixels")
    if left is None:
        file.unlink()
    else:
        os.truncate(file, left)
    assert np.array_equal(pixel_cache.build(photos, FIT, tmp_path / "store").pixels[:], expected)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room cannot be taken ahead here")
def test_a_disk_that_becomes_full_is_reported(photos, tmp_path, monkeypatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StorageError, match="No space left"):
        pixel_cache.build(photos, FIT, tmp_path / "store")
    assert not [file for file in (tmp_path / "store").rglob("*") if file.is_file()]


def test_a_full_disk_is_reported_before_decoding(photos, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 1000))
    monkeypatch.setattr(pixel_cache, "fetch", lambda *_: pytest.fail("a photo was read"))
    with pytest.raises(StorageError, match=r"0\.0 GB are free"):
        pixel_cache.build(photos, FIT, tmp_path / "store")


def test_segments_unused_for_a_day_are_removed(photos, tmp_path) -> None:
    folder, one = tmp_path / "store", FIT.height * FIT.width * 3

    def segments() -> set[int]:
        return {photo for photo in range(5) if _known(photos[photo], folder)}

    for number, days in ((0, 3), (1, 2), (2, 0)):
        pixel_cache.build(photos[number : number + 1], FIT, folder)
        for file in folder.rglob("*.photos"):
            if file.read_text() == photos[number].image_id:
                os.utime(file, (time.time() - 86_401 * days,) * 2)
    (folder / ".half.part").write_bytes(b"")
    os.utime(folder / ".half.part", (0, 0))
    pixel_cache.build(photos[3:4], FIT, folder, limit=3 * one)
    assert segments() == {1, 2, 3}
    assert not (folder / ".half.part").exists()
    pixel_cache.build(photos[4:], FIT, folder, limit=one)
    assert segments() == {2, 3, 4}  # segments used today stay, limit or not


def test_segments_in_use_are_kept(photos, tmp_path) -> None:
    folder, one = tmp_path / "store", FIT.height * FIT.width * 3
    pixel_cache.build(photos[:1], FIT, folder)
    (notes,) = folder.rglob("*.photos")
    os.utime(notes, (0, 0))
    pixel_cache.build(photos[:1], FIT, folder)
    pixel_cache.build(photos[1:2], FIT, folder, limit=one)
    assert _known(photos[0], folder)


def test_requested_segments_are_not_removed(photos, tmp_path) -> None:
    folder = tmp_path / "store"
    pixel_cache.build(photos[:3], FIT, folder)
    (notes,) = folder.rglob("*.photos")
    os.utime(notes, (0, 0))
    built = pixel_cache.build(photos, FIT, folder, limit=0)
    assert all(built.pixels[row].any() for row in range(5))


def test_removed_pixels_are_reported(photos, tmp_path) -> None:
    built = pixel_cache.build(photos, FIT, tmp_path / "store")
    next((tmp_path / "store").rglob("*.pixels")).unlink()
    with pytest.raises(StorageError, match="is gone"):
        built.pixels[0]


def test_one_readable_copy_of_a_photo_is_enough(photos, tmp_path) -> None:
    away = Photo(photos[0].image_id, str(tmp_path / "gone.jpg"))
    for order in ([photos[0], away], [away, photos[0]]):
        built = pixel_cache.build([*order, photos[1]], FIT, tmp_path / f"store-{order[0].url[-5]}")
        assert not built.unreadable
        assert built.pixels[0].any()
        assert np.array_equal(built.pixels[0], built.pixels[1])


def test_processes_that_decode_the_same_photos_do_not_share_a_file(photos, tmp_path, monkeypatch) -> None:
    """One of them lacks a photo, and finishes between the other's two files."""
    folder, write_index, missing = tmp_path / "store", pixel_cache._Segment.write_index, [photos[1]]

    def fetch(photo, _):
        if photo in missing:
            raise NotFoundError(f"{photo.url} is not there")
        return storage.read(photo.url)

    def late(segment, length):
        if not missing:
            missing.append(photos[1])
            pixel_cache.build(photos, FIT, folder)
        write_index(segment, length)

    monkeypatch.setattr(pixel_cache, "fetch", fetch)
    monkeypatch.setattr(pixel_cache._Segment, "write_index", late)
    missing.clear()
    pixel_cache.build(photos, FIT, folder)
    assert missing
    missing.clear()
    again = pixel_cache.build(photos, FIT, folder)
    for row, photo in enumerate(photos):
        assert np.array_equal(again.pixels[row], imaging.decode(storage.read(photo.url), FIT))


def _known(photo: Photo, folder: Path) -> bool:
    return any(file.read_text().startswith(photo.image_id) for file in folder.rglob("*.photos"))


def test_a_signal_stops_decoding(photos, tmp_path) -> None:
    class Stopped(Stop):
        def __bool__(self) -> bool:
            return True

    with pytest.raises(StoppedError, match="1 of 5"):
        pixel_cache.build(photos, FIT, tmp_path / "store", stop=Stopped())
