import io
import os
import struct
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, features

from plantml.imaging import EXTENSIONS, MAX_PIXELS, PAD, Fit, ImageError, decode, facts, read, read_picture, thumbnail
from plantml.imaging import fit as fitting
from plantml.imaging.decode import MAX_ASPECT
from plantml.imaging.formats import register_heif

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

WIDTH, HEIGHT = 60, 40
SAME = Fit(HEIGHT, WIDTH, "squash")
"""The geometry that leaves the picture of `photo(WIDTH, HEIGHT)` as it is."""

FORMATS = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "AVIF": {"quality": 95},
    "HEIF": {"quality": 95},
}


CODES = {"empty", "not-an-image", "truncated", "too-large", "too-thin", "unsupported", "damaged"}


def encode(picture, format_, **save):
    buffer = io.BytesIO()
    picture.save(buffer, format_, **save)
    return buffer.getvalue()


def difference(left, right):
    return np.abs(np.asarray(left, int) - np.asarray(right, int)).mean()


def code_of(data, **options):
    with pytest.raises(ImageError) as caught:
        decode(data, SAME, **options)
    return caught.value.code


def pixels_or_reason(data, fit, **options):
    try:
        return decode(data, fit, **options)
    except ImageError as error:
        return error


def raw_png(width, height, depth, colour, pixels=b""):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.fixture
def encoder(photo):
    def make(format_, **options):
        if format_ == "AVIF" and not features.check("avif"):
            pytest.skip("this Pillow has no AVIF")
        if format_ == "HEIF":
            pytest.importorskip("pillow_heif").register_heif_opener()
        return photo(WIDTH, HEIGHT, format=format_, **FORMATS.get(format_, {}), **options)

    return make


# --- orientation ------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", FORMATS)
def test_a_picture_is_upright_however_it_was_stored(format_, orientation, encoder, upright):
    image_facts, pixels = read(encoder(format_, orientation=orientation), SAME)
    assert (image_facts.width, image_facts.height) == (WIDTH, HEIGHT)
    assert image_facts.format == format_
    assert difference(pixels, upright(WIDTH, HEIGHT)) < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_gives_exactly_the_pixels_of_an_upright_one(orientation, photo):
    for fit in (SAME, Fit(32, 32, "pad"), Fit(24, 30, "crop")):
        turned = photo(WIDTH, HEIGHT, format="PNG", orientation=orientation)
        assert np.array_equal(decode(turned, fit), decode(photo(WIDTH, HEIGHT, format="PNG"), fit))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_big_turned_photo_is_scaled_along_the_right_sides(orientation, photo):
    big = photo(480, 120, orientation=orientation, quality=95, subsampling=0)
    whole = Image.open(io.BytesIO(photo(480, 120, format="PNG")))
    for width, height in ((60, 15), (15, 60)):
        reference = whole.resize((width, height), Image.Resampling.BICUBIC)
        assert difference(decode(big, Fit(height, width, "squash")), reference) < 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_thumbnail_is_upright_and_small(orientation, photo, upright):
    small = thumbnail(photo(WIDTH, HEIGHT, format="PNG", orientation=orientation), 30)
    assert small.size == (30, 20)
    assert small.mode == "RGB"
    assert difference(small, upright(WIDTH, HEIGHT).resize((30, 20), Image.Resampling.BICUBIC)) == 0


@pytest.mark.parametrize("orientation", [0, 9, 77, 65535])
def test_an_orientation_that_means_nothing_is_none(orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(upright(WIDTH, HEIGHT), "PNG", exif=exif)
    image_facts, pixels = read(data, SAME)
    assert image_facts.orientation == 1
    assert np.array_equal(pixels, np.asarray(upright(WIDTH, HEIGHT)))


def test_broken_exif_does_not_spoil_the_pixels(upright):
    data = encode(upright(WIDTH, HEIGHT), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff", quality=95)
    image_facts, pixels = read(data, SAME)
    assert image_facts.orientation == 1
    assert difference(pixels, upright(WIDTH, HEIGHT)) < 4


# --- colour modes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "format_", "tolerance"),
    [
        ("RGB", "PNG", 0),
        ("RGB", "BMP", 0),
        ("RGBA", "PNG", 0),
        ("CMYK", "TIFF", 0),
        ("CMYK", "JPEG", 5),
        ("YCbCr", "JPEG", 5),
        ("YCbCr", "TIFF", 2),
        ("P", "PNG", 20),
        ("P", "GIF", 20),
    ],
)
def test_every_colour_mode_gives_the_same_picture(mode, format_, tolerance, photo, upright):
    save = {"quality": 95, "subsampling": 0} if format_ == "JPEG" else {}
    pixels = decode(photo(WIDTH, HEIGHT, mode=mode, format=format_, **save), SAME)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert difference(pixels, upright(WIDTH, HEIGHT)) <= tolerance


@pytest.mark.parametrize(
    ("mode", "format_"), [("L", "PNG"), ("L", "JPEG"), ("LA", "PNG"), ("1", "PNG"), ("1", "TIFF"), ("L", "TIFF")]
)
def test_grey_modes_give_three_equal_channels(mode, format_, photo, upright):
    save = {"quality": 95} if format_ == "JPEG" else {}
    pixels = decode(photo(WIDTH, HEIGHT, mode=mode, format=format_, **save), SAME)
    assert (pixels[..., 0] == pixels[..., 1]).all()
    assert (pixels[..., 1] == pixels[..., 2]).all()
    expected = upright(WIDTH, HEIGHT).convert(mode).convert("L")
    assert difference(pixels[..., 0], expected) <= (4 if format_ == "JPEG" else 0)


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_to_eight_and_not_cut(format_):
    levels = np.array([[0, 127, 129, 257, 32896, 65278, 65535]], np.uint16).repeat(4, 0)
    image_facts, pixels = read(encode(Image.fromarray(levels), format_), Fit(4, 7, "squash"))
    assert image_facts.mode.startswith("I;16")
    assert pixels[0, :, 0].tolist() == [0, 0, 1, 1, 128, 254, 255]
    assert (pixels == pixels[..., :1]).all()


def test_sixteen_bits_of_colour_are_scaled_to_eight():
    row = b"\x00" + struct.pack(">12H", *[0, 32896, 65535] * 4)
    pixels = decode(raw_png(4, 4, 16, 2, row * 4), Fit(4, 4, "squash"))
    assert pixels[0, 0].tolist() == [0, 128, 255]


def test_thirty_two_bit_whole_numbers_are_refused_as_no_level_of_them_is_white():
    levels = Image.fromarray(np.array([[0, 128, 255, 65535]], np.int32).repeat(4, 0))
    for attempt in (lambda: decode(encode(levels, "TIFF"), SAME), lambda: read_picture(levels, SAME)):
        with pytest.raises(ImageError, match="white") as caught:
            attempt()
        assert caught.value.code == "unsupported"


def test_a_sixteen_bit_pgm_is_read_by_its_full_range():
    pgm = b"P5\n4 4\n65535\n" + np.array([0, 32896, 65535, 65535], ">u2").tobytes() * 4
    assert decode(pgm, Fit(4, 4, "squash"))[0, :, 0].tolist() == [0, 128, 255, 255]


def test_no_decoder_but_those_of_photos_sees_a_file(tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {ran}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for head in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", b"8BPS", b"GIMP"):
        with pytest.raises(ImageError):
            decode(head, SAME)
    assert not ran.exists()


def test_floating_point_pixels_are_refused_with_advice(upright):
    with pytest.raises(ImageError, match="white") as caught:
        decode(encode(upright(WIDTH, HEIGHT).convert("F"), "TIFF"), SAME)
    assert caught.value.code == "unsupported"
    assert "8 or 16 bits" in caught.value.hint


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_over_white(mode, upright):
    picture = upright(WIDTH, HEIGHT).convert(mode)
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[:, 20:40], alpha[:, 40:] = 255, 51
    picture.putalpha(Image.fromarray(alpha))
    pixels = decode(encode(picture, "PNG"), SAME).astype(float)
    colour = np.asarray(upright(WIDTH, HEIGHT).convert(mode).convert("RGB"), float)
    assert (pixels[:, :20] == 255).all()
    assert (pixels[:, 20:40] == colour[:, 20:40]).all()
    assert np.abs(pixels[:, 40:] - (0.2 * colour[:, 40:] + 0.8 * 255)).max() <= 1


@pytest.mark.parametrize(
    ("mode", "transparency", "format_", "grey"),
    [
        ("P", 1, "PNG", 255),
        ("P", 1, "GIF", 255),
        ("P", b"\xff\x00", "PNG", 255),
        ("P", b"\xff\x80", "PNG", 127),
        ("P", None, "PNG", 0),
        ("L", 0, "PNG", 255),
        ("1", 0, "PNG", 255),
        ("RGB", (0, 0, 0), "PNG", 255),
        ("RGB", (9, 9, 9), "PNG", 0),
    ],
)
def test_a_transparent_colour_is_laid_over_white(mode, transparency, format_, grey):
    picture = Image.new(mode, (WIDTH, HEIGHT), {"P": 1, "RGB": (0, 0, 0)}.get(mode, 0))
    if mode == "P":
        picture.putpalette([200, 30, 40, 0, 0, 0])
        picture.putpixel((0, 0), 0)
    save = {} if transparency is None else {"transparency": transparency}
    pixels = decode(encode(picture, format_, **save), SAME)
    assert pixels[-1, -1].tolist() == [grey] * 3


def test_inks_are_not_read_upside_down():
    data = encode(Image.new("CMYK", (WIDTH, HEIGHT), (0, 255, 255, 0)), "JPEG", quality=95)
    image_facts, pixels = read(data, SAME)
    assert image_facts.mode == "CMYK"
    assert difference(pixels, np.full(pixels.shape, [255, 0, 0])) < 5


# --- formats ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format_", "tolerance"), [("JPEG", 4), ("PNG", 0), ("WEBP", 0), ("TIFF", 0), ("BMP", 0), ("AVIF", 4), ("HEIF", 4)]
)
def test_formats_are_known_by_content_and_give_the_same_picture(format_, tolerance, encoder, upright):
    image_facts, pixels = read(encoder(format_), SAME)
    assert (image_facts.format, image_facts.width, image_facts.height, image_facts.frames) == (
        format_,
        WIDTH,
        HEIGHT,
        1,
    )
    assert difference(pixels, upright(WIDTH, HEIGHT)) <= tolerance


@pytest.mark.parametrize(("format_", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("PNG", {})])
def test_of_several_frames_the_first_counts(format_, options, upright):
    frames = [upright(WIDTH, HEIGHT, seed).quantize(64, dither=0).convert("RGB") for seed in range(3)]
    data = encode(frames[0], format_, save_all=True, append_images=frames[1:], **options)
    image_facts, pixels = read(data, SAME)
    assert image_facts.frames == 3
    assert difference(pixels, frames[0]) < 2
    assert facts(data) == image_facts


def test_a_stereo_photo_is_its_first_picture(upright):
    pictures = [upright(WIDTH, HEIGHT, seed) for seed in range(2)]
    data = encode(pictures[0], "MPO", save_all=True, append_images=pictures[1:], quality=95)
    image_facts, pixels = read(data, SAME)
    assert (image_facts.format, image_facts.frames) == ("MPO", 2)
    assert difference(pixels, pictures[0]) < 5


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_facts_are_told_without_decoding(format_, encoder):
    data = encoder(format_)
    assert facts(data) == read(data, SAME)[0]


def test_facts_are_those_of_the_upright_picture(photo):
    image_facts = facts(photo(WIDTH, HEIGHT, orientation=6))
    assert (image_facts.width, image_facts.height, image_facts.orientation) == (WIDTH, HEIGHT, 6)


def test_a_pictures_formats_are_found_in_folders():
    assert {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp", ".avif", ".heic", ".mpo"} <= EXTENSIONS
    assert all(extension == extension.lower() and extension.startswith(".") for extension in EXTENSIONS)


# --- HEIC -------------------------------------------------------------------------------------

HEIC_HEAD = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + b"\x00" * 100


@pytest.fixture
def no_heif(monkeypatch):
    """As on a machine where the decoder of HEIC is not installed."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    register_heif.cache_clear()
    yield
    register_heif.cache_clear()


def test_a_heic_photo_is_decoded_where_its_decoder_is_installed(photo, upright):
    pillow_heif = pytest.importorskip("pillow_heif")
    data = encode_heif(pillow_heif, upright(WIDTH, HEIGHT))
    register_heif.cache_clear()
    image_facts, pixels = read(data, SAME)
    assert image_facts.format == "HEIF"
    assert difference(pixels, upright(WIDTH, HEIGHT)) < 4


def test_a_heic_photo_without_its_decoder_gives_the_install_line(no_heif):
    with pytest.raises(ImageError, match="HEIC") as caught:
        decode(HEIC_HEAD, SAME)
    assert caught.value.code == "unsupported"
    assert "pip install 'plantml[heif]'" in caught.value.hint


def test_a_real_heic_photo_without_its_decoder_gives_the_install_line(upright, request):
    data = encode_heif(pytest.importorskip("pillow_heif"), upright(WIDTH, HEIGHT))
    request.getfixturevalue("no_heif")
    with pytest.raises(ImageError) as caught:
        facts(data)
    assert caught.value.code == "unsupported"
    assert "plantml[heif]" in caught.value.hint


def test_a_damaged_heic_photo_does_not_end_in_another_error():
    assert code_of(HEIC_HEAD) in {"unsupported", "damaged", "truncated"}


def encode_heif(pillow_heif, picture):
    buffer = io.BytesIO()
    pillow_heif.from_pillow(picture).save(buffer, quality=95)
    return buffer.getvalue()


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code", "why"),
    [
        (b"", "empty", "0 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not-an-image", "Git LFS"),
        (b"<html><body>404</body></html>", "not-an-image", "HTML"),
        (b"<?xml version='1.0'?><!DOCTYPE html>", "not-an-image", "HTML"),
        (b"<?xml version='1.0'?><a/>", "not-an-image", "XML"),
        (b"\n<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported", "SVG"),
        (b'{"token": "1"}', "not-an-image", "JSON"),
        (b"root:x:0:0:root:/root:/bin/bash\n", "not-an-image", "text"),
        ("Bl\u00e4tter".encode() * 100, "not-an-image", "text"),
        (b"\x1f\x8b\x08\x00", "not-an-image", "gzip"),
        (b"PK\x03\x04" + b"\x00" * 60, "not-an-image", "zip"),
        (b"%PDF-1.7\n\xff\xfe\x00", "not-an-image", "PDF"),
        (b"\x00" * 2000, "not-an-image", "no known"),
        (b"\x00\x00\x00\x18ftypcrx " + b"\x00" * 60, "unsupported", "CR3"),
        (b"II*\x00\x10\x00\x00\x00CR\x02\x00" + b"\x00" * 60, "unsupported", "raw"),
        (b"IIRO\x08\x00\x00\x00" + b"\x00" * 60, "unsupported", "raw"),
    ],
    ids=[
        "empty",
        "pointer",
        "html",
        "xhtml",
        "xml",
        "svg",
        "json",
        "text",
        "umlauts",
        "gzip",
        "zip",
        "pdf",
        "zeros",
        "cr3",
        "cr2",
        "orf",
    ],
)
def test_what_is_no_picture_is_told_with_what_it_is(data, code, why):
    for look in (lambda: decode(data, SAME), lambda: facts(data), lambda: thumbnail(data, 10)):
        with pytest.raises(ImageError) as caught:
            look()
        assert caught.value.code == caught.value.what == code
        assert why in caught.value.why


@settings(max_examples=50)
@given(
    st.sampled_from([b"", b"<html>", b"<?xml ", b"{", b"%PDF", b"PK", b"GIF89a", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
)
def test_a_reason_never_holds_what_the_file_does(start):
    secret = b"hunter2secret"
    with pytest.raises(ImageError) as caught:
        facts(start + secret * 9)
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF"])
def test_a_cut_file_is_never_taken_for_a_whole_one(format_, share, photo):
    data = photo(120, 90, format=format_)
    codes = {"WEBP": {"truncated", "damaged"}}.get(format_, {"truncated"})
    assert code_of(data[: int(len(data) * share)]) in codes


def test_a_big_photo_that_is_cut_is_not_taken_for_a_whole_one_at_a_small_scale(photo):
    data = photo(800, 600)
    assert decode(data, Fit(32, 32)).shape == (32, 32, 3)
    with pytest.raises(ImageError) as caught:
        decode(data[: len(data) * 2 // 3], Fit(32, 32))
    assert caught.value.code == "truncated"


def test_a_damaged_png_never_gives_other_pixels(photo, upright):
    whole = photo(WIDTH, HEIGHT, format="PNG")
    smooth = encode(Image.linear_gradient("L").resize((WIDTH, HEIGHT)).convert("RGB"), "PNG")
    for data in (whole, smooth):
        expected = decode(data, SAME)
        start = data.index(b"IDAT") + 4
        for place in range(start, len(data) - 20, max(1, (len(data) - start) // 150)):
            damaged = bytearray(data)
            damaged[place] ^= 0xFF
            outcome = pixels_or_reason(bytes(damaged), SAME)
            if isinstance(outcome, ImageError):
                assert outcome.code in {"damaged", "truncated"}
            else:
                assert np.array_equal(outcome, expected)


@pytest.mark.parametrize("size", [(100_000, 100_000), (13_400, 13_400), (MAX_PIXELS // 2 + 1, 2)])
def test_a_bomb_is_refused_by_its_header(size):
    data = raw_png(*size, 8, 2, b"\x00" * 100)
    assert code_of(data) == "too-large"
    with pytest.raises(ImageError) as caught:
        facts(data)
    assert caught.value.code == "too-large"
    assert "179 million" in caught.value.why


@pytest.mark.parametrize("format_", ["JPEG", "GIF", "BMP"])
def test_a_bomb_of_any_format_is_refused(format_, photo):
    data = bytearray(photo(WIDTH, HEIGHT, format=format_))
    if format_ == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", 65_000, 65_000)
    elif format_ == "GIF":
        data[6:10] = struct.pack("<HH", 60_000, 60_000)
    else:
        data[18:26] = struct.pack("<ii", 60_000, 60_000)
    assert code_of(bytes(data)) == "too-large"


def test_the_limit_of_pixels_is_a_limit_and_not_a_size(photo):
    data = photo(WIDTH, HEIGHT)
    assert decode(data, SAME, max_pixels=WIDTH * HEIGHT).shape == (HEIGHT, WIDTH, 3)
    assert code_of(data, max_pixels=WIDTH * HEIGHT - 1) == "too-large"
    with pytest.raises(ImageError, match=f"{WIDTH} x {HEIGHT}"):
        thumbnail(data, 10, max_pixels=10)


@pytest.mark.parametrize("size", [(MAX_ASPECT, 1), (1, MAX_ASPECT)])
def test_a_thin_picture_can_be_shown(size):
    data = encode(Image.new("RGB", size, (10, 200, 30)), "PNG")
    for mode in ("pad", "squash", "crop"):
        pixels = decode(data, Fit(16, 16, mode))
        assert pixels.shape == (16, 16, 3)
        assert [10, 200, 30] in pixels.reshape(-1, 3).tolist()


@pytest.mark.parametrize("size", [(MAX_ASPECT + 1, 1), (1, MAX_ASPECT + 1), (2 * MAX_ASPECT + 1, 2)])
def test_a_thinner_one_is_refused(size):
    data = encode(Image.new("RGB", size), "PNG")
    assert code_of(data) == "too-thin"
    with pytest.raises(ImageError, match=f"{size[0]} x {size[1]}"):
        facts(data)


def test_too_little_memory_is_a_reason(photo, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr("plantml.imaging.fit.resize_into", fail)
    with pytest.raises(ImageError, match="memory") as caught:
        decode(photo(WIDTH, HEIGHT), Fit(8, 8))
    assert caught.value.code == "too-large"


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_bytes_raise_anything_but_a_reason(photo, data):
    heads = [b"", b"\xff\xd8\xff", b"GIF89a", b"II*\x00", b"RIFF\x10\x00\x00\x00WEBP", b"BM", b"\x89PNG\r\n\x1a\n"]
    if data.draw(st.booleans()):
        content = data.draw(st.sampled_from(heads)) + data.draw(st.binary(max_size=200))
    else:
        format_ = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"]))
        changed = bytearray(photo(12, 8, format=format_))
        for _ in range(data.draw(st.integers(1, 6))):
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
        content = bytes(changed)
    outcome = pixels_or_reason(content, Fit(8, 8), max_pixels=1_000_000)
    if isinstance(outcome, ImageError):
        assert outcome.code in CODES
        assert outcome.why
    else:
        assert outcome.shape == (8, 8, 3)


# --- geometry ---------------------------------------------------------------------------------

sizes = st.integers(1, 400)


@given(sizes, sizes, sizes, sizes)
def test_pad_keeps_everything_and_crop_fills_everything(width, height, to_width, to_height):
    padded = Fit(to_height, to_width, "pad").scaled(width, height)
    assert padded[0] <= to_width
    assert padded[1] <= to_height
    assert padded[0] == to_width or padded[1] == to_height
    cropped = Fit(to_height, to_width, "crop").scaled(width, height)
    assert cropped[0] >= to_width
    assert cropped[1] >= to_height
    assert cropped[0] == to_width or cropped[1] == to_height
    assert Fit(to_height, to_width, "squash").scaled(width, height) == (to_width, to_height)


@given(st.integers(50, 400), st.integers(50, 400), st.integers(50, 400), st.sampled_from(["pad", "crop"]))
def test_pad_and_crop_keep_the_aspect(width, height, side, mode):
    scaled = Fit(side, side, mode).scaled(width, height)
    longer = max(scaled)
    assert abs(scaled[0] * height - scaled[1] * width) <= max(width, height) * 0.5 + longer


@given(st.sampled_from([(1, 1), (7, 3), (40, 30), (3, 50)]), st.sampled_from(["pad", "crop", "squash"]), sizes, sizes)
@settings(max_examples=40)
def test_pixels_have_the_shape_that_was_asked_for(photo, size, mode, height, width):
    pixels = decode(photo(*size, format="PNG"), Fit(height, width, mode))
    assert pixels.shape == (height, width, 3)
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize(
    ("size", "rows", "columns"),
    [((40, 20), slice(10, 30), slice(0, 40)), ((20, 40), slice(0, 40), slice(10, 30))],
    ids=["wide", "high"],
)
def test_padding_is_grey_and_on_both_sides(size, rows, columns):
    data = encode(Image.new("RGB", size, (250, 10, 60)), "PNG")
    pixels = decode(data, Fit(40, 40, "pad"))
    inside = np.zeros((40, 40), bool)
    inside[rows, columns] = True
    assert (pixels[inside] == [250, 10, 60]).all()
    assert (pixels[~inside] == PAD).all()


def test_crop_keeps_the_middle(upright):
    picture = upright(60, 40)
    pixels = decode(encode(picture, "PNG"), Fit(40, 40, "crop"))
    assert np.array_equal(pixels, np.asarray(picture)[:, 10:50])
    pixels = decode(encode(picture, "PNG"), Fit(20, 60, "crop"))
    assert np.array_equal(pixels, np.asarray(picture)[10:30])


def test_squash_bends_the_aspect(upright):
    picture = upright(60, 40)
    pixels = decode(encode(picture, "PNG"), Fit(50, 20, "squash"))
    assert np.array_equal(pixels, np.asarray(picture.resize((20, 50), Image.Resampling.BICUBIC)))


@pytest.mark.parametrize("size", [(24, 16), (120, 80)], ids=["smaller", "larger"])
def test_the_one_kernel_is_bicubic_and_antialiased(size, upright):
    picture = upright(60, 40)
    pixels = decode(encode(picture, "PNG"), Fit(size[1], size[0], "pad"))
    assert np.array_equal(pixels, np.asarray(picture.resize(size, Image.Resampling.BICUBIC)))


def test_decoding_at_a_smaller_scale_is_close_to_a_full_decode(photo):
    data = photo(1600, 1200, quality=92)
    fit = Fit(120, 160, "pad")
    full = Image.open(io.BytesIO(data)).resize((160, 120), Image.Resampling.BICUBIC)
    assert difference(decode(data, fit), full) < 1
    other = Image.open(io.BytesIO(data)).resize((160, 120), Image.Resampling.NEAREST)
    assert difference(other, full) > 2


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_big_jpeg_is_decoded_at_the_smallest_scale_that_keeps_twice_the_size(orientation, photo, monkeypatch):
    decoded = []
    resize_into = fitting.resize_into

    def watch(image, *arguments):
        decoded.append(image.size)
        return resize_into(image, *arguments)

    data = photo(800, 600, orientation=orientation)
    monkeypatch.setattr(fitting, "resize_into", watch)
    for side in (45, 48, 55):
        decode(data, Fit(side, side, "pad"))
    assert decoded == [(100, 75), (100, 75), (200, 150)]


@pytest.mark.parametrize(("size", "side", "expected"), [((60, 40), 30, (30, 20)), ((40, 60), 30, (20, 30))])
def test_a_thumbnail_keeps_the_aspect(size, side, expected, photo):
    assert thumbnail(photo(*size), side).size == expected


def test_a_thumbnail_is_never_enlarged(photo):
    assert thumbnail(photo(60, 40), 500).size == (60, 40)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_the_same_bytes_give_the_same_pixels_in_any_thread(format_, photo):
    data = photo(300, 200, format=format_)
    fit = Fit(64, 64)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: decode(data, fit), range(8)))
    assert all(np.array_equal(result, results[0]) for result in results)


def test_pixels_can_be_batched_and_sent_on(photo):
    for fit in (Fit(40, 60, "squash"), Fit(32, 32, "pad"), Fit(32, 32, "crop")):
        pixels = decode(photo(60, 40), fit)
        assert np.stack([pixels, pixels]).shape == (2, *pixels.shape)
        assert np.ascontiguousarray(pixels).tobytes() == pixels.tobytes()


def test_bytes_are_not_changed_by_reading_them(photo):
    data = bytearray(photo(60, 40, orientation=6))
    before = bytes(data)
    decode(bytes(data), SAME)
    assert bytes(data) == before


# --- real files -------------------------------------------------------------------------------

ODD_UNREADABLE = {
    "NIR_SV_0_z2500_h2_g0_e65_4859_0.png": "empty",
    "NIR_TV_0_z300_h1_g0_e15000_v500_93059.png": "not-an-image",
    "VIS_SV_0_z1_h1_g0_e82_999999.jpeg": "not-an-image",
}


def test_of_thirteen_odd_files_three_are_refused_with_their_reason(photos):
    refused, modes = {}, set()
    for file in sorted((photos / "odd").iterdir()):
        try:
            image_facts, pixels = read(file.read_bytes(), Fit(64, 64))
        except ImageError as error:
            refused[file.name] = error.code
        else:
            modes.add(image_facts.mode)
            assert pixels.shape == (64, 64, 3)
            assert pixels.std() > 0
    assert refused == ODD_UNREADABLE
    assert {"I;16", "P", "L", "RGBA"} <= modes


def test_real_files_are_known_by_content_and_not_by_name(photos):
    formats = [facts(file.read_bytes()).format for file in sorted((photos / "odd").iterdir()) if file.suffix == ".jpg"]
    assert formats.count("PNG") == 2


def test_all_photos_of_a_camera_are_read_close_to_a_full_decode(photos):
    files = sorted((photos / "hires").iterdir())
    image_facts = [facts(file.read_bytes()) for file in files]
    assert len(image_facts) == 10
    assert [each.format for each in image_facts].count("MPO") == 3
    assert all(4.9e6 < each.width * each.height < 21e6 for each in image_facts)
    for file in files:
        assert decode(file.read_bytes(), Fit(224, 224)).std() > 5
    data = files[0].read_bytes()
    full = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert difference(decode(data, Fit(224, 224, "squash")), full.resize((224, 224), Image.Resampling.BICUBIC)) < 1
