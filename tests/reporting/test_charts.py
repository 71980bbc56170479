import io
import warnings

import numpy as np
import pytest
from PIL import Image

from plantml import metrics
from plantml.metrics import calibration, selective
from plantml.reporting import charts
from plantml.targets import Target

HISTORY = [
    {"epoch": 0, "train_loss": 1.2, "val_loss": 1.1, "val_macro_f1": 0.3, "disease.macro_f1": 0.3, "severity.r2": -0.1},
    {"epoch": 1, "train_loss": 0.8, "val_loss": 0.9, "val_macro_f1": 0.6, "disease.macro_f1": 0.6, "severity.r2": 0.4},
]


def report(size, truth, predicted, names=None):
    target = Target("disease", "class", tuple(names or [f"disease {number}" for number in range(size)]))
    return metrics.report(target, np.array(truth), np.eye(size)[predicted])


def opened(png):
    image = Image.open(io.BytesIO(png))
    image.load()
    assert image.format == "PNG"
    return image


def test_confusion_grows_with_the_classes():
    small, large = (opened(charts.confusion(report(size, [0, 1], [0, 1]))) for size in (4, 20))
    assert large.width > small.width + 500
    assert large.height > small.height + 500


def test_confusion_shows_right_and_wrong_answers_in_different_places():
    right = charts.confusion(report(3, [0, 1, 2], [0, 1, 2]))
    wrong = charts.confusion(report(3, [0, 1, 2], [1, 2, 0]))
    assert right != wrong


def test_confusion_puts_the_truth_in_rows():
    # All photos of the first class are called by the last one's name: one dark cell, top right.
    image = np.asarray(opened(charts.confusion(report(3, [0] * 5, [2] * 5))).convert("RGB")).astype(int)
    green = (image[..., 1] - image[..., 0] > 40) & (image[..., 1] - image[..., 2] > 20)
    down, right = np.argwhere(green).mean(axis=0) / green.shape
    assert down < 0.4
    assert right > 0.6


@pytest.mark.parametrize("size", [2, 31])
def test_confusion_of_classes_without_photos_warns_of_nothing(size):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened(charts.confusion(report(size, [0], [1])))


@pytest.mark.parametrize("name", [r"costs $\frac$", "late_blight^2", "$", r"\n"])
def test_class_names_are_text_and_not_formulas(name):
    opened(charts.confusion(report(2, [0, 1], [0, 1], [name, "none"])))


def test_learning_curves_open_and_mark_the_chosen_epoch():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second = charts.learning_curves(HISTORY, 0), charts.learning_curves(HISTORY, 1)
    assert opened(first).width > opened(first).height
    assert first != second


def test_learning_curves_draw_each_score():
    without = [{name: value for name, value in row.items() if name != "severity.r2"} for row in HISTORY]
    assert charts.learning_curves(HISTORY, 1) != charts.learning_curves(without, 1)


@pytest.mark.parametrize("score", ["boxes.ap", "boxes.ap50", "boxes.f1"])
def test_learning_curves_of_a_detector_draw_its_scores(score):
    losses = [{name: row[name] for name in ("epoch", "train_loss", "val_loss")} for row in HISTORY]
    with_score = [row | {score: 0.4 + row["epoch"] / 10} for row in losses]
    assert charts.learning_curves(with_score, 1) != charts.learning_curves(losses, 1)


@pytest.mark.parametrize("history", [HISTORY[:1], [HISTORY[0], {"epoch": 1, "train_loss": 0.8}]])
def test_learning_curves_take_one_epoch_and_missing_numbers(history):
    opened(charts.learning_curves(history, 0))


# --- confidence -------------------------------------------------------------------------------


def answers(count, seed=0):
    draw = np.random.default_rng(seed)
    confidence = np.clip(1 - draw.exponential(0.12, count), 0.34, 1)
    return confidence, draw.random(count) < confidence


def diagram(found, threshold=None):
    messages = calibration.reliability(*found, draws=20)
    return charts.reliability("disease", found, messages, messages, threshold)


@pytest.mark.parametrize("count", [0, 1, 60])
def test_confidence_is_drawn_however_few_answers_there_are(count):
    result = answers(count)
    chosen = calibration.threshold(*result, 0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened(diagram(result, chosen))
        opened(charts.risk_coverage("disease", selective.risk_coverage(*result), 0.05, chosen))


def test_a_reliability_diagram_shows_the_gap_and_the_threshold():
    confidence, right = answers(200)
    honest, boastful = diagram((confidence, right)), diagram((confidence, ~right))
    assert honest != boastful
    assert diagram((confidence, right), calibration.threshold(confidence, right, 0.05)) != honest


def test_a_risk_coverage_curve_marks_the_risk_that_was_asked_for_and_the_choice():
    result = answers(200)
    curve, chosen = selective.risk_coverage(*result), calibration.threshold(*result, 0.05)
    plain = charts.risk_coverage("disease", curve, 0.05)
    assert charts.risk_coverage("disease", curve, 0.05, chosen) != plain
    assert charts.risk_coverage("disease", curve, 0.1) != plain
