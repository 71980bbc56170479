"""Scores of models of anomalies, against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from plantml.metrics import Groups, replicate
from plantml.metrics.anomaly import AnomalyStatistic


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from([-1, 0, 1, 1])), min_size=2, max_size=40))
def test_they_are_those_of_scikit_learn(photos):
    values, truth = np.array([value / 6 for value, _ in photos]), np.array([label for _, label in photos])
    kinds = ["rust" if number % 2 else "mould" for number in range(len(photos))]
    scores = AnomalyStatistic(values, truth, kinds, 0.5).of_all()
    known = truth >= 0
    if len(set(truth[known].tolist())) < 2:
        assert "anomaly.auroc" not in scores
        return
    assert scores["anomaly.auroc"] == pytest.approx(roc_auc_score(truth[known], values[known]))
    assert scores["anomaly.average_precision"] == pytest.approx(average_precision_score(truth[known], values[known]))
    assert scores["anomaly.sensitivity"] == pytest.approx((values[truth == 1] > 0.5).mean())
    assert scores["anomaly.false_alarms"] == pytest.approx((values[truth == 0] > 0.5).mean())
    rust = known & ((truth == 0) | (np.array(kinds) == "rust"))
    if "anomaly.auroc[rust]" in scores:
        assert scores["anomaly.auroc[rust]"] == pytest.approx(roc_auc_score(truth[rust], values[rust]))


def test_a_resample_of_all_photos_once_is_the_score_itself():
    rng = np.random.default_rng(0)
    values, truth = rng.random(50), rng.integers(0, 2, 50)
    statistic = AnomalyStatistic(values, truth, ["rust"] * 50, 0.5)
    every = replicate([statistic], Groups(list(range(50))), resamples=200, seed=0)
    for name, value in statistic.of_all().items():
        assert np.nanquantile(every[name], 0.001) < value < np.nanquantile(every[name], 0.999), name
