import hashlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageFilter

from plantml import imaging
from plantml.data.manifest import SYSTEM
from plantml.data.scan import phashes, scan, scan_all
from plantml.imaging.grey import small_grey

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

REASONLESS = ("image_id", "width", "height", "format", "mode", "orientation", "frames")


def encode(picture, format_="PNG", **save):
    buffer = io.BytesIO()
    picture.save(buffer, format_, **save)
    return buffer.getvalue()


def distance(left, right):
    return (left ^ right).bit_count()


def test_one_read_tells_all(photo):
    data = photo(400, 300)
    found = scan(data)
    assert found.image_id == hashlib.sha256(data).hexdigest()
    assert found.facts == imaging.facts(data)
    assert found.reason == ""
    assert 0 <= found.phash < 2**64
    assert 0 < found.quality.brightness < 1
    assert 0 < found.quality.contrast <= 0.5
    assert found.quality.sharpness > 0


def test_columns_are_those_of_a_manifest(photo):
    columns = scan(photo(400, 300, orientation=6)).columns()
    assert set(columns) <= set(SYSTEM)
    assert (columns["width"], columns["height"], columns["orientation"]) == (400, 300, 6)
    assert (columns["format"], columns["mode"], columns["frames"]) == ("JPEG", "RGB", 1)
    assert all(value is not None for value in columns.values())


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "empty: "), (b"hello", "not-an-image: "), (b"\x89PNG\r\n\x1a\n", "not-an-image: ")]
)
def test_a_file_that_is_no_picture_has_a_hash_and_a_reason(data, reason):
    found = scan(data)
    assert found.reason.startswith(reason)
    assert found.image_id == hashlib.sha256(data).hexdigest()
    assert found.facts is None
    columns = found.columns()
    assert [key for key, value in columns.items() if value is not None] == ["image_id"]


def test_a_cut_file_keeps_what_its_header_says(photo):
    data = photo(400, 300)
    found = scan(data[: len(data) // 2])
    assert found.reason.startswith("truncated: ")
    assert (found.facts.width, found.facts.height) == (400, 300)
    assert (found.phash, found.quality, found.origin) == (None, None, None)
    assert {key for key, value in found.columns().items() if value is not None} == set(REASONLESS)


def test_files_scanned_together_have_the_scans_of_each_alone(photo, upright):
    files = [photo(400, 300), b"hello", encode(upright(90, 120)), photo(400, 300)[:900], photo(64, 64, format="PNG")]
    assert scan_all(files) == [scan(data) for data in files]
    assert scan_all([]) == []
    assert [each.reason for each in scan_all([b"", b"hello"])] == ["empty: the file has 0 bytes", "not-an-image: text"]


@settings(max_examples=60)
@given(st.binary(max_size=300))
def test_whatever_is_in_a_file_the_scan_has_an_answer(data):
    found = scan(data)
    assert bool(found.reason) == (found.phash is None)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 50), (800, 1), (3, 3)])
def test_the_smallest_pictures_can_be_scanned(size):
    found = scan(encode(Image.new("RGB", size, (10, 200, 30))))
    assert found.reason == ""
    assert found.quality.sharpness == 0


# --- perceptual hash --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda picture: encode(picture, "JPEG", quality=60),
        lambda picture: encode(picture.resize((150, 110), Image.Resampling.BICUBIC)),
        lambda picture: encode(ImageEnhance.Brightness(picture).enhance(1.1)),
        lambda picture: encode(picture.convert("L")),
        lambda picture: encode(picture.filter(ImageFilter.GaussianBlur(1))),
    ],
    ids=["compressed", "smaller", "brighter", "grey", "blurred"],
)
def test_a_near_copy_has_a_near_hash(change, upright):
    for seed in range(4):
        picture = upright(400, 300, seed)
        assert distance(scan(encode(picture)).phash, scan(change(picture)).phash) <= 7


def test_different_photos_have_different_hashes(upright):
    hashes = [scan(encode(upright(400, 300, seed))).phash for seed in range(8)]
    assert min(distance(a, b) for i, a in enumerate(hashes) for b in hashes[:i]) > 7


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_stored_turned_has_the_hash_of_an_upright_one(orientation, photo):
    assert (
        scan(photo(400, 300, format="PNG", orientation=orientation)).phash == scan(photo(400, 300, format="PNG")).phash
    )


def test_about_half_of_the_bits_are_set_whatever_the_picture(upright):
    assert all(22 <= scan(encode(upright(300, 200, seed))).phash.bit_count() <= 42 for seed in range(8))


def test_a_hash_is_about_shape_and_not_about_level(upright):
    grey = small_grey(upright(256, 192).convert("L"))
    own, darker, negative = phashes([grey, grey / 255, 255 - grey])
    assert own == darker
    assert distance(own, negative) == 63  # all but the bit of the level itself


# --- quality ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("colour", "brightness"), [("black", 0), ("white", 1), ((128, 128, 128), 128 / 255)])
def test_a_plain_picture_has_its_brightness_and_nothing_else(colour, brightness):
    found = scan(encode(Image.new("RGB", (100, 80), colour)))
    assert found.quality.brightness == pytest.approx(brightness, abs=1e-4)
    assert found.quality.contrast == pytest.approx(0, abs=1e-4)
    assert found.quality.sharpness == pytest.approx(0, abs=1e-4)


def test_half_black_and_half_white_is_the_most_contrast():
    picture = Image.new("L", (100, 80))
    picture.paste(255, (0, 0, 50, 80))
    assert scan(encode(picture)).quality.contrast == pytest.approx(0.5, abs=0.01)


def test_a_blurred_photo_is_less_sharp_and_a_darker_one_darker(upright):
    picture = upright(400, 300)
    sharp = scan(encode(picture))
    assert scan(encode(picture.filter(ImageFilter.GaussianBlur(3)))).quality.sharpness < sharp.quality.sharpness / 4
    assert scan(encode(ImageEnhance.Brightness(picture).enhance(0.3))).quality.brightness < sharp.quality.brightness / 2


def test_sharpness_is_that_of_the_laplacian():
    grey = np.zeros((256, 256), np.uint8)
    grey[:, ::2] = 10
    laplacian = np.where(np.arange(1, 255) % 2 == 0, -20.0, 20.0)
    assert scan(encode(Image.fromarray(grey))).quality.sharpness == pytest.approx(laplacian.var())


def test_sharpness_is_measured_at_one_size_for_every_camera(upright):
    big = upright(1024, 768).filter(ImageFilter.GaussianBlur(4))
    small = big.resize((256, 192), Image.Resampling.BICUBIC)
    assert scan(encode(big)).quality.sharpness == pytest.approx(scan(encode(small)).quality.sharpness, rel=0.1)
