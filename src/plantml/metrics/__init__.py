"""Metrics of predictions, in numpy, so that training and validation report the same numbers.

Definitions follow scikit-learn's; the tests compare them with scikit-learn and torchmetrics. `statistics` defines the
scores, `reports` has those of one set of predictions, `bootstrap` their intervals, `mcnemar` compares two models;
`detection` scores predicted boxes.
"""

from plantml.metrics.bootstrap import Groups, Interval, Replicates, interval, replicate
from plantml.metrics.mcnemar import Paired, mcnemar
from plantml.metrics.reports import (
    ClassReport,
    MultilabelReport,
    Report,
    ValueReport,
    as_json,
    correct_predictions,
    every_score,
    headline,
    higher_is_better,
    joint_accuracy,
    mean_scores,
    report,
    reports_of,
    selection_score,
)
from plantml.metrics.statistics import calibration_error

__all__ = [
    "ClassReport",
    "Groups",
    "Interval",
    "MultilabelReport",
    "Paired",
    "Replicates",
    "Report",
    "ValueReport",
    "as_json",
    "calibration_error",
    "correct_predictions",
    "every_score",
    "headline",
    "higher_is_better",
    "interval",
    "joint_accuracy",
    "mcnemar",
    "mean_scores",
    "replicate",
    "report",
    "reports_of",
    "selection_score",
]
