"""Answering only when sure enough: the laws of curves and bounds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from plantml.metrics import selective

ANSWERS = st.lists(st.tuples(st.sampled_from([0.2, 0.4, 0.5, 0.7, 0.9]), st.booleans()), min_size=1, max_size=60)
COUNTS = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def arrays(photos):
    return np.array([score for score, _ in photos]), np.array([right for _, right in photos], bool)


@given(ANSWERS)
def test_each_point_of_the_curve_is_what_its_threshold_accepts(photos) -> None:
    scores, right = arrays(photos)
    curve = selective.risk_coverage(scores, right)
    assert (np.diff(curve.coverage) > 0).all()
    assert (np.diff(curve.scores) < 0).all()
    assert (np.diff(curve.errors) >= 0).all()
    assert curve.coverage[-1] == 1.0
    for score, coverage, risk in zip(curve.scores, curve.coverage, curve.risk, strict=True):
        accepted = scores >= score
        assert coverage == pytest.approx(accepted.mean())
        assert risk == pytest.approx((~right[accepted]).mean())


@given(ANSWERS, st.sampled_from([0.0, 0.05, 0.3, 1.0]))
def test_coverage_at_a_risk_is_the_largest_that_keeps_it(photos, risk) -> None:
    scores, right = arrays(photos)
    result = selective.coverage_at(scores, right, risk)
    curve = selective.risk_coverage(scores, right)
    kept = [c for c, r in zip(curve.coverage, curve.risk, strict=True) if r <= risk]
    assert result == max(kept, default=0.0)


def test_no_photos_cover_nothing() -> None:
    nothing = np.array([]), np.array([], bool)
    assert selective.coverage_at(*nothing, 0.05) == 0.0
    assert selective.aurc(*nothing) == 0.0
    assert len(selective.risk_coverage(*nothing).scores) == 0


def test_the_area_is_the_mean_risk_over_coverages() -> None:
    # Sure to unsure: right, wrong, right, right: risks 0, 1/2, 1/3, 1/4.
    scores, right = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, True])
    assert selective.aurc(scores, right) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4) / 4)


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_a_score_that_knows_nothing_has_the_plain_error_as_area(right) -> None:
    right = np.array(right)
    assert selective.aurc(np.full(len(right), 0.5), right) == pytest.approx((~right).mean())


@given(COUNTS, st.sampled_from([0.01, 0.05, 0.3]), st.sampled_from([1, 6, 60]))
def test_a_bound_is_above_what_was_seen_and_grows_with_errors_doubt_and_search(counts, delta, searched) -> None:
    errors, n = counts
    bound = selective.risk_bound(errors, n, delta, searched)
    assert errors / n <= bound <= 1
    assert selective.risk_bound(errors, n, delta / 2, searched) >= bound
    assert selective.risk_bound(errors, n, delta, searched + 1) >= bound
    if errors:
        assert selective.risk_bound(errors - 1, n, delta, searched) < bound


@given(COUNTS.filter(lambda counts: counts[0] < counts[1]))
def test_at_the_bound_so_few_errors_have_the_probability_delta(counts) -> None:
    errors, n = counts
    assert binom.cdf(errors, n, selective.risk_bound(errors, n, 0.05)) == pytest.approx(0.05, rel=1e-6)


def test_no_accepted_photo_promises_nothing() -> None:
    assert selective.risk_bound(0, 0) == 1.0
    assert selective.risk_bound(3, 3) == 1.0


def test_59_photos_without_an_error_bound_the_risk_by_5_in_100() -> None:
    assert selective.risk_bound(0, 59) == pytest.approx(0.05, abs=0.001)


@pytest.mark.parametrize(("photos", "true_risk"), [(60, 0.1), (1000, 0.07)])
def test_a_threshold_that_was_searched_for_keeps_its_bound_19_times_of_20(photos, true_risk) -> None:
    """Scores that tell nothing, and the widest coverage that looks good enough: the worst case of choosing."""
    draw = np.random.default_rng(1)
    broken = plain = 0
    for _ in range(400):
        right = draw.random(photos) >= true_risk
        curve = selective.risk_coverage(draw.random(photos), right)
        good = np.flatnonzero(curve.risk <= 0.05)
        if len(good):
            errors, accepted = int(curve.errors[good[-1]]), int(curve.accepted[good[-1]])
            steps = selective.search_steps(photos)
            broken += true_risk > selective.risk_bound(errors, accepted, searched=steps)
            plain += true_risk > selective.risk_bound(errors, accepted)
    assert broken / 400 <= 0.05
    assert broken <= plain
