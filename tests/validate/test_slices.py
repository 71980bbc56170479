import numpy as np
import pytest


def by(found, name):
    return {(each.value, each.target): each for each in found.slices if each.by == name}


@pytest.fixture
def sites(paint):
    """Forty photos: all right in the greenhouse, half of them wrong in the field."""
    photos = [("rust", "rust", {"site": "greenhouse"})] * 20
    photos += [("none", "none", {"site": "field"}), ("rust", "none", {"site": "field"})] * 10
    return paint(photos)


def test_the_worst_slice_comes_first(sites, painted, judged):
    result = judged(sites, painted())
    first = result.slices[0]
    assert (first.by, first.value) == ("site", "field")
    assert (first.number, first.rest, first.photos) == (0.5, 1.0, 20)
    assert 0.2 < first.interval.low < 0.5 < first.interval.high < 0.8
    gaps = [each.gap for each in result.slices if each.photos >= 10]
    assert gaps == sorted(gaps, reverse=True)


def test_slices_of_a_measure_are_its_quarters(sites, painted, judged):
    light = by(judged(sites, painted()), "light")
    of_disease = [each for (_, target), each in light.items() if target == "disease"]
    assert len(of_disease) == 4
    assert sum(each.photos for each in of_disease) == 40
    assert max(each.photos for each in of_disease) <= 12


def test_small_slices_come_last(paint, painted, judged):
    data = paint([("rust", "rust", {"site": "a"})] * 20 + [("rust", "none", {"site": "b"})] * 3)
    result = judged(data, painted())
    small = [each.photos < 10 for each in result.slices]
    assert small == sorted(small)
    assert by(result, "site")["b", "disease"].number == 0


def test_a_column_that_only_repeats_the_label_is_no_slice(paint, painted, judged):
    photos = [(name, name, {"site": f"folder of {name}"}) for name in ("none", "rust", "blight")] * 5
    assert not by(judged(paint(photos), painted()), "site")


def test_rare_classes_are_a_slice_by_what_there_was_to_learn_from(paint, painted, judged):
    train = [("none", "none", {"split": "train"})] * 9 + [("rust", "rust", {"split": "train"})] * 4
    train += [("blight", "blight", {"split": "train"})]
    test = [("none", "none", {}), ("rust", "rust", {}), ("blight", "none", {})] * 2
    frequency = by(judged(paint(train + test), painted()), "frequency")
    numbers = {value: (each.number, each.photos) for (value, _), each in frequency.items()}
    assert numbers == {
        "rare classes (1 training photos each)": (0.0, 2),
        "middle classes (4 training photos each)": (1.0, 2),
        "common classes (9 training photos each)": (1.0, 2),
    }


def test_datasets_are_slices(paint, painted, judged):
    good = paint([("rust", "rust", {})] * 12, "good")
    bad = paint([("rust", "none", {})] * 12, "bad")
    result = judged([good, bad], painted())
    assert {value: each.number for (value, target), each in by(result, "dataset").items() if target == "disease"} == {
        f"{good}@1": 1.0,
        f"{bad}@1": 0.0,
    }
    assert [photos for _, _, photos in result.versions] == [12, 12]


def test_intervals_of_slices_are_over_groups(paint, painted, judged):
    def width(groups):
        rng = np.random.default_rng(0)
        right = np.repeat(rng.random(10) < 0.6, 4)
        photos = [
            (
                "rust",
                "rust" if good else "none",
                {"site": "a", "group": f"{groups}{at // (4 if groups == 'plant' else 1)}"},
            )
            for at, good in enumerate(right)
        ]
        photos += [("rust", "rust", {"site": "b"})] * 10
        result = judged(paint(photos, groups), painted())
        return by(result, "site")["a", "disease"].interval.width

    assert width("plant") > 1.5 * width("photo")
