import csv
import io
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from plantml import imaging
from plantml.data.near_duplicates import UPRIGHT, VARIANTS, correlated, near_duplicates, transform, variant
from plantml.data.scan import phashes, scan

hashes_of = st.integers(0, 2**64 - 1)


def changed(hashes, bits, seed=0):
    """Each hash with `bits` of its bits turned over."""
    rng = np.random.default_rng(seed)
    bits = np.broadcast_to(bits, len(hashes))
    out = hashes.copy()
    for at, count in enumerate(bits):
        for bit in rng.choice(64, count, replace=False):
            out[at] ^= np.uint64(1) << np.uint64(bit)
    return out


def random_hashes(count, seed=0):
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


def by_brute_force(hashes, distance, variants=UPRIGHT):
    """Smallest item of each item's group."""
    close = np.zeros((len(hashes), len(hashes)), bool)
    for name in variants:
        close |= np.bitwise_count(variant(hashes, name)[:, None] ^ hashes[None]) <= distance
    close |= close.T
    group = np.arange(len(hashes))
    while True:
        lower = np.where(close, group[None], len(hashes)).min(axis=1, initial=len(hashes))
        lower = np.minimum(lower, group)
        if (lower == group).all():
            return group
        group = lower


def check_edges(found, hashes):
    """The edges span the groups, and each is what it says."""
    assert len(found.first) == len(hashes) - len(np.unique(found.group))
    assert (found.first < found.second).all()
    for first, second, distance, kind in zip(found.first, found.second, found.distance, found.variant, strict=True):
        turned = variant(hashes[first : first + 1], VARIANTS[kind])[0]
        assert int(turned ^ hashes[second]).bit_count() == distance
        assert found.group[first] == found.group[second]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(hashes_of, min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 9), st.integers(0, 99)), max_size=40),
    st.integers(0, 9),
    st.sampled_from([UPRIGHT, ("same", "flip"), ("same", "turn-270"), VARIANTS]),
)
def test_groups_are_those_of_all_pairs(base, copies, distance, variants):
    base = np.array(base, np.uint64)
    made = [changed(base[[source % len(base)]], bits, seed) for source, bits, seed in copies]
    hashes = np.concatenate([base, *made])
    found = near_duplicates(hashes, distance=distance, variants=variants, limit=len(hashes))
    assert (found.group == by_brute_force(hashes, distance, variants)).all()
    assert found.broken == ()
    check_edges(found, hashes)


@pytest.mark.parametrize("distance", [0, 3, 4, 7, 11])
def test_planted_copies_among_many_are_all_found(distance):
    hashes = random_hashes(20_000)
    hashes[10_000:10_500] = changed(hashes[:500], distance)
    hashes[10_500:11_000] = changed(hashes[500:1000], distance + 1)
    found = near_duplicates(hashes, distance=distance)
    assert (found.group[10_000:10_500] == np.arange(500)).all()
    assert (found.group[10_500:11_000] == np.arange(10_500, 11_000)).all()
    check_edges(found, hashes)


def test_hashes_that_share_most_of_their_bits_take_no_longer():
    shared = random_hashes(20_000) & np.uint64(2**40 - 1)
    crowd = changed(np.zeros(3000, np.uint64), np.arange(3000) % 4 + 2)
    hashes = np.concatenate([shared, crowd])
    started = time.process_time()
    found = near_duplicates(hashes, distance=7, limit=len(hashes))
    assert time.process_time() - started < 10
    assert len(np.unique(found.group[20_000:])) == 1
    check_edges(found, hashes)


def test_full_buckets_are_searched_exactly(monkeypatch):
    monkeypatch.setattr("plantml.data.near_duplicates._MANY", 20)
    rng = np.random.default_rng(3)
    base = random_hashes(40, 5) & np.uint64(0xFFFFFFFF)
    hashes = changed(np.repeat(base, 12), rng.integers(0, 6, 480))
    for variants in (UPRIGHT, VARIANTS):
        found = near_duplicates(hashes, distance=6, variants=variants, limit=len(hashes))
        assert (found.group == by_brute_force(hashes, 6, variants)).all()
        check_edges(found, hashes)


def test_a_group_too_large_is_broken_up_and_reported():
    chain = np.array([2**bit - 1 for bit in range(64)], np.uint64)  # each is one bit from the next
    hashes = np.concatenate([chain, random_hashes(36)])
    found = near_duplicates(hashes, limit=10)
    assert len(found.broken) == 1
    broken = found.broken[0]
    assert (broken.first, broken.size, broken.distance, broken.groups, broken.largest) == (0, 64, 0, 0, 1)
    assert len(np.unique(found.group)) == 100


def test_breaking_up_keeps_what_is_closest():
    centre = random_hashes(1)
    clusters = np.concatenate([np.repeat(changed(centre, 3, seed), 8) for seed in range(4)])
    found = near_duplicates(clusters, distance=7, limit=10)
    assert [len(np.flatnonzero(found.group == first)) for first in (0, 8, 16, 24)] == [8, 8, 8, 8]
    assert (found.broken[0].size, found.broken[0].groups, found.broken[0].largest) == (32, 4, 8)
    check_edges(found, clusters)


def test_equal_hashes_stay_together_however_many():
    hashes = np.concatenate([np.repeat(random_hashes(1), 50), random_hashes(50, 1)])
    found = near_duplicates(hashes, limit=10)
    assert (found.group[:50] == 0).all()
    assert (found.broken[0].size, found.broken[0].distance, found.broken[0].largest) == (50, 0, 50)


def test_few_photos_have_a_limit_of_ten():
    centre = random_hashes(1)
    assert near_duplicates(changed(np.repeat(centre, 10), 1)).broken == ()
    assert len(near_duplicates(changed(np.repeat(centre, 11), np.arange(11) % 3)).broken) == 1


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_has_no_copies(count):
    found = near_duplicates(random_hashes(count))
    assert found.group.tolist() == list(range(count))
    assert len(found.first) == len(found.variant) == 0


def test_the_same_hashes_give_the_same_groups():
    hashes = changed(np.repeat(random_hashes(200), 5), np.arange(1000) % 5)
    one, other = near_duplicates(hashes), near_duplicates(hashes)
    assert all((getattr(one, name) == getattr(other, name)).all() for name in ("group", "first", "second", "distance"))


@pytest.mark.parametrize(("distance", "variants"), [(-1, UPRIGHT), (16, UPRIGHT), (4, ("sideways",))])
def test_what_there_is_not_is_refused(distance, variants):
    with pytest.raises(ValueError, match=r"distance is|sideways"):
        near_duplicates(random_hashes(3), distance=distance, variants=variants)


# --- turned copies ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_a_hash_is_laid_as_its_picture_is(name):
    grey = np.random.default_rng(1).integers(0, 256, (5, 32, 32)).astype(np.uint8)
    of_pictures = phashes([picture.astype(np.float32) for picture in transform(grey, name)])
    own = np.array(phashes([picture.astype(np.float32) for picture in grey]), np.uint64)
    assert variant(own, name).tolist() == of_pictures


def test_turns_are_anticlockwise():
    grey = np.random.default_rng(1).integers(0, 256, (1, 8, 8)).astype(np.uint8)
    assert (transform(grey, "turn-90")[0] == np.rot90(grey[0])).all()
    assert (transform(grey, "turn-270")[0] == np.rot90(grey[0], 3)).all()
    assert (transform(grey, "flip")[0] == np.fliplr(grey[0])).all()


@given(hashes_of, st.sampled_from(VARIANTS))
def test_each_variant_has_an_inverse(value, name):
    inverse = {"turn-90": "turn-270", "turn-270": "turn-90"}.get(name, name)
    hashes = np.array([value], np.uint64)
    assert variant(variant(hashes, name), inverse) == hashes


@pytest.mark.parametrize("name", VARIANTS)
def test_the_variant_that_joined_two_is_told(name):
    hashes = random_hashes(30)
    hashes[20] = changed(variant(hashes[3:4], name), 2)[0]
    found = near_duplicates(hashes, variants=VARIANTS)
    assert (found.first.tolist(), found.second.tolist(), found.distance.tolist()) == ([3], [20], [2])
    assert VARIANTS[found.variant[0]] == name


# --- a second opinion -------------------------------------------------------------------------


def test_pairs_that_are_not_confirmed_are_not_joined():
    rng = np.random.default_rng(0)
    looks = rng.integers(0, 256, (4, 32, 32)).astype(np.uint8)
    of = np.array([0, 1, 0, 1, 2, 0, 3, 3])
    thumbnails = looks[of]
    thumbnails[5] = transform(thumbnails[5:6], "flip")[0]
    centre = random_hashes(1)
    hashes = np.repeat(centre, 8)
    hashes[5] = variant(centre, "flip")[0]
    hashes[7] = changed(centre, 3)[0]
    confirm = correlated(lambda items: thumbnails[items], 0.97)
    found = near_duplicates(hashes, variants=("same", "flip"), confirm=confirm)
    assert found.group.tolist() == [0, 1, 0, 1, 4, 0, 6, 6]
    check_edges(found, hashes)


def test_plain_thumbnails_agree_with_nothing():
    confirm = correlated(lambda items: np.full((len(items), 32, 32), 7, np.uint8), 0.5)
    some = np.array([0, 1])
    assert not confirm(some, some[::-1], np.zeros(2, np.int64)).any()


# --- real photos ------------------------------------------------------------------------------


def test_copies_of_real_photos_are_found_and_others_are_not(photos):
    rng = np.random.default_rng(2)
    known, hashes, thumbs = [], [], []

    def add(data, of):
        known.append(of)
        hashes.append(scan(data).phash)
        thumbs.append(np.asarray(imaging.thumbnail(data, 256).convert("L").resize((32, 32))))

    for number, path in enumerate(sorted((photos / "bean" / "val").rglob("*.jpg"))):
        data = path.read_bytes()
        add(data, number)
        picture, buffer = imaging.thumbnail(data, 500), io.BytesIO()
        scale = rng.uniform(0.5, 0.9)
        small = picture.resize((round(picture.width * scale), round(picture.height * scale)))
        turned = small.transpose(Image.Transpose.ROTATE_90) if number % 2 else small
        ImageEnhance.Brightness(turned).enhance(rng.uniform(0.8, 1.2)).save(buffer, "JPEG", quality=50)
        add(buffer.getvalue(), number)
    hashes, thumbs, known = np.array(hashes, np.uint64), np.array(thumbs), np.array(known)
    expected = 2 * known
    assert (near_duplicates(hashes, variants=VARIANTS).group == expected).all()
    confirm = correlated(lambda items: thumbs[items], 0.97)
    assert (near_duplicates(hashes, distance=7, variants=VARIANTS, confirm=confirm).group == expected).all()


def test_the_known_copies_of_a_published_set_are_found(photos):
    with (photos / "plantvillage_leaf_groups.csv").open() as file:
        leaves = {row["path"]: row["leaf"] for row in csv.DictReader(file)}
    folder = photos / "plantvillage" / "Corn___healthy"
    paths = sorted(path for path in folder.iterdir() if path.stat().st_size)
    names = [path.name for path in paths]
    found = near_duplicates(np.array([scan(path.read_bytes()).phash for path in paths], np.uint64))
    copies = [at for at, path in enumerate(paths) if path.stem.endswith("_1")]
    assert len(copies) == 8
    for at in copies:
        assert found.group[at] == found.group[names.index(paths[at].stem.removesuffix("_1") + paths[at].suffix)]
    for first, second, distance in zip(found.first, found.second, found.distance, strict=True):
        one, other = (leaves.get(f"{folder.name}/{names[at]}") for at in (first, second))
        assert distance == 0 or (one and one == other)
