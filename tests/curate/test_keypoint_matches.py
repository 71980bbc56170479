import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

pytest.importorskip("cv2", reason="opencv is not installed: pip install 'plantml[curate]'")

from threadpoolctl import threadpool_info, threadpool_limits

from plantml import imaging
from plantml.curate import keypoint_matches
from plantml.curate.keypoint_matches import find_copies
from plantml.synth import SynthSpec
from plantml.synth.scene import render

ORIGINALS = 10


def encode(picture, quality=90, format_="JPEG"):
    buffer = io.BytesIO()
    picture.save(buffer, format_, quality=quality)
    return buffer.getvalue()


def edits(picture, number):
    """Copies of a photo: how `find_copies` should call each, and the copy."""
    width, height = picture.size
    x, y = (number * 7) % 30 / 100 * width, (number * 11) % 30 / 100 * height
    window = tuple(round(value) for value in (x, y, x + 0.62 * width, y + 0.66 * height))
    return {
        "crop": picture.crop(window),
        "flip": picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "turn": picture.rotate(25 if number % 2 else -25, Image.Resampling.BICUBIC),
    }


@pytest.fixture(scope="module")
def drawn():
    spec = SynthSpec(ORIGINALS, size=256)
    return [Image.fromarray(render(spec, index).pixels) for index in range(ORIGINALS)]


def copies_among(files, **options):
    return find_copies(len(files), files.__getitem__, **options)


def pairs_of(copies):
    return {(copy.first, copy.second): copy for copy in copies}


def test_edited_copies_are_found_and_called_by_name(drawn):
    files, expected = [encode(picture) for picture in drawn], {}
    for number, picture in enumerate(drawn):
        kind, copy = list(edits(picture, number).items())[number % 3]
        expected[number, len(files)] = kind
        files.append(encode(copy, quality=60))
    copies = pairs_of(copies_among(files))
    assert {pair: copy.kind for pair, copy in copies.items()} == expected
    for (first, _), copy in copies.items():
        assert copy.inliers >= keypoint_matches.INLIERS
        assert copy.correlation >= keypoint_matches.CORRELATION
        assert copy.mirrored == (copy.kind == "flip")
        if copy.kind == "turn":
            assert copy.angle == pytest.approx(25 if first % 2 else -25, abs=1)
        if copy.kind == "crop":
            assert copy.first_share == pytest.approx(0.62 * 0.66, abs=0.04)
            assert copy.second_share == pytest.approx(1, abs=0.02)
            assert copy.scale == pytest.approx(1, abs=0.02)


def test_numpy_starts_no_threads_of_its_own_where_photos_are_compared(drawn, monkeypatch):
    matches, seen = keypoint_matches._matches, []

    def threads():
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    def spied(similar):
        seen.append(threads())
        return matches(similar)

    monkeypatch.setattr(keypoint_matches, "_matches", spied)
    with threadpool_limits(2, user_api="blas"):
        found = copies_among([encode(drawn[0]), encode(drawn[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT))])
        assert threads() == {2}
    assert [copy.kind for copy in found] == ["flip"]
    assert seen
    assert all(each == {1} for each in seen)


def test_different_photos_are_no_copies(drawn):
    assert copies_among([encode(picture) for picture in drawn]) == []


def test_a_smaller_copy_says_by_how_much(drawn):
    small = drawn[1].resize((160, 160), Image.Resampling.BICUBIC)
    (copy,) = copies_among([encode(drawn[1]), encode(ImageEnhance.Brightness(small).enhance(0.8))])
    assert (copy.kind, copy.mirrored) == ("resize", False)
    assert copy.scale == pytest.approx(160 / 256, abs=0.01)
    assert copy.angle == pytest.approx(0, abs=0.5)


def test_a_photo_upside_down_in_a_mirror_is_a_flip(drawn):
    (copy,) = copies_among([encode(drawn[2]), encode(drawn[2].transpose(Image.Transpose.FLIP_TOP_BOTTOM))])
    assert (copy.kind, copy.mirrored) == ("flip", True)
    assert abs(copy.angle) == pytest.approx(180, abs=1)


def test_parts_of_one_photo_that_overlap_are_a_kind_of_their_own():
    wide = Image.fromarray(render(SynthSpec(1, size=512, height=300), 0).pixels)
    left, right = wide.crop((0, 0, 300, 300)), wide.crop((212, 0, 512, 300))
    (copy,) = copies_among([encode(left), encode(right)])
    assert copy.kind == "overlap"
    assert copy.first_share == pytest.approx(88 / 300, abs=0.03)
    assert copy.second_share == pytest.approx(88 / 300, abs=0.03)


def test_another_plant_before_the_same_wall_is_no_copy(drawn):
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (40, 40, 3)).astype(np.uint8))
    wall = noise.resize((256, 256), Image.Resampling.BICUBIC)
    files = []
    for plant in drawn[:4]:
        photo = wall.copy()
        photo.paste(plant.resize((150, 150)), (53, 53))
        files.append(encode(photo))
    assert copies_among(files) == []


def test_known_copies_are_passed_over(drawn):
    copy = encode(drawn[0], quality=50)
    files = [encode(drawn[0]), copy, encode(drawn[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT)), encode(drawn[3])]
    copies = copies_among(files, known=np.array([0, 0, 2, 3]))
    assert [(copy.first, copy.second) for copy in copies] == [(0, 2)]


def test_what_cannot_be_read_and_what_is_plain_has_no_copies(drawn):
    plain = encode(Image.new("RGB", (200, 200), "green"))
    assert copies_among([b"", plain, b"hello", plain, encode(drawn[0])]) == []


@pytest.mark.parametrize("count", [0, 1])
def test_no_photo_and_one_photo_have_no_copies(count, drawn):
    assert copies_among([encode(drawn[0])] * count) == []


def test_threads_and_memory_change_nothing(drawn):
    files = [encode(picture) for picture in drawn[:4]]
    files += [encode(edits(picture, 1)["turn"]) for picture in drawn[:4]]
    alone = copies_among(files, threads=1)
    assert len(alone) == 4
    assert copies_among(files, threads=4, memory=0) == alone


def test_progress_ends_where_everything_is_done(drawn):
    reports = []
    copies_among([encode(picture) for picture in drawn[:4]], progress=lambda *step: reports.append(step))
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)
    assert reports[-1][0] == reports[-1][1] >= 4


# --- real photos ------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["bean/val", "plantvillage/Apple___scab", "plantvillage/Strawberry___healthy"])
def test_edited_copies_of_real_photos_are_found_and_others_are_not(folder, photos):
    paths = sorted(path for path in (photos / folder).rglob("*") if path.is_file() and not path.stem.endswith("_1"))
    files = [path.read_bytes() for path in paths[::5][:6]]
    originals = len(files)
    expected = {}
    for number in range(originals):
        for kind, copy in edits(imaging.thumbnail(files[number], 500), number).items():
            expected[number, len(files)] = kind
            files.append(encode(copy))
    source = [*range(originals), *(number for number, _ in expected)]
    copies = pairs_of(copies_among(files))
    assert all(source[first] == source[second] for first, second in copies)
    hits = [pair for pair, kind in expected.items() if pair in copies and copies[pair].kind == kind]
    assert len(hits) >= 0.9 * len(expected)


def test_tiles_of_one_photo_overlap_and_those_of_others_do_not(photos):
    paths = sorted((photos / "apple_boxes" / "images").glob("*.jpg"))
    taken = [path for path in paths if path.name.startswith(("DSC_1103", "DSC_1116"))][:24]
    copies = copies_among([path.read_bytes() for path in taken])
    assert len(copies) >= 10
    assert {copy.kind for copy in copies} == {"overlap"}
    assert all(taken[copy.first].name[:8] == taken[copy.second].name[:8] for copy in copies)
