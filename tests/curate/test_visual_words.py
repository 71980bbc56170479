import numpy as np
import pytest

from plantml.curate.visual_words import Codebook, nearest


def as_words(*photos):
    return [np.array(photo, np.int32) for photo in photos]


def pairs(words, mirrored, top):
    return {tuple(pair) for pair in nearest(words, mirrored, top).tolist()}


def test_photos_that_share_words_are_near():
    words = as_words([1, 2, 3, 4], [7, 8, 9], [3, 4, 5], [9, 9, 10])
    nothing = as_words(*[[]] * 4)
    assert pairs(words, nothing, 1) == {(0, 2), (2, 0), (1, 3), (3, 1)}


def test_rare_words_count_more():
    words = as_words([1, 2, 3], [1, 2, 4, 5], [3, 6, 7, 8], [1, 2, 9], [1, 2, 10])
    assert (0, 2) in pairs(words, as_words(*[[]] * 5), 1)


def test_mirrored_words_count_too():
    words, mirrored = as_words([1, 2], [3, 4], [5, 6]), as_words([3, 4], [1, 2], [7, 8])
    assert pairs(words, mirrored, 2) == {(0, 1), (1, 0)}


@pytest.mark.parametrize("photos", [[], [[1, 2]], [[], []]])
def test_where_nothing_is_shared_nothing_is_near(photos):
    words = as_words(*photos)
    assert nearest(words, words, 5).shape == (0, 2)


def test_equal_descriptors_have_equal_words_and_far_ones_others():
    rng = np.random.default_rng(0)
    descriptors = rng.integers(0, 256, (400, 128)).astype(np.uint8)
    book = Codebook(descriptors)
    words = book.words(descriptors)
    assert (words.dtype, words.shape) == (np.int32, (400,))
    assert (book.words(descriptors[::-1]) == words[::-1]).all()
    nudged = np.clip(descriptors.astype(int) + rng.integers(-3, 4, descriptors.shape), 0, 255).astype(np.uint8)
    assert (book.words(nudged) == words).mean() > 0.8
    assert len(np.unique(words)) > 200


def test_no_samples_give_one_word():
    book = Codebook(np.zeros((0, 128), np.uint8))
    assert book.words(np.zeros((3, 128), np.uint8)).tolist() == [0, 0, 0]
