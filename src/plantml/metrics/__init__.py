"""Metrics of predictions, in numpy, so that training and validation report the same numbers.

Definitions follow scikit-learn's; the tests compare them with scikit-learn and torchmetrics. `reports` has the
numbers of one set of answers, `bootstrap` how sure so many photos make of them, `mcnemar` tells two models apart.
"""

from plantml.metrics.bootstrap import Groups, Interval, Replicates, interval, replicate
from plantml.metrics.mcnemar import Paired, mcnemar
from plantml.metrics.reports import (
    ClassReport,
    MultilabelReport,
    Report,
    ValueReport,
    as_json,
    calibration_error,
    class_report,
    every_score,
    headline,
    higher_is_better,
    joint_accuracy,
    multilabel_report,
    report,
    report_encoded,
    reports_of,
    right_answers,
    selection_score,
    value_report,
)

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
    "class_report",
    "every_score",
    "headline",
    "higher_is_better",
    "interval",
    "joint_accuracy",
    "mcnemar",
    "multilabel_report",
    "replicate",
    "report",
    "report_encoded",
    "reports_of",
    "right_answers",
    "selection_score",
    "value_report",
]
