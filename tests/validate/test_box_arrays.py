"""All boxes of a photo, also the weak ones, as records have them."""

import io

import numpy as np
from PIL import Image
from tests.validate.conftest import contract

from plantml.imaging import Fit
from plantml.model.bundle import Bundle
from plantml.model.pipeline import Pipeline
from plantml.model.runtimes import TwoStageRuntime
from plantml.targets import Target
from plantml.validate import box_arrays

ANSWERS = [[(2, 2, 10, 10, 0.9, 0), (18, 2, 10, 10, 0.6, 1), (18, 18, 8, 8, 0.1, 1), (0, 0, 4, 4, 0.001, 0)]]


def png(number=0, right=0):
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[0, 0] = number
    pixels[:, 16:] = right
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_weak_boxes_are_kept_and_the_decision_is_about_those_that_count(finder):
    pipeline = finder(ANSWERS)
    (prediction,) = box_arrays.predictor(pipeline)([("a.png", png())])
    (record,) = (each.record for each in pipeline.predict_bytes([("a.png", png())]))
    outputs = prediction.probabilities
    assert box_arrays.scores(outputs).tolist() == [0.9, 0.6, 0.1]
    assert [[box[side] for side in "xywh"] for box in record.boxes] == outputs["boxes"][:2].tolist()
    decisions = [box_arrays.DECISIONS[int(number)] for number in outputs["decision"][:2, 0]]
    assert decisions == [box["decision"] for box in record.boxes] == ["accept", "review"]
    assert outputs["target.health"].argmax(axis=1).tolist() == [0, 1, 1]
    assert prediction.record.decision == record.decision == "review"
    assert not prediction.record.boxes


def test_outputs_come_back_from_one_array(finder):
    pipeline = finder([ANSWERS[0], []])
    of = pipeline.bundle.contract
    for prediction in box_arrays.predictor(pipeline)([("a.png", png()), ("b.png", png(1))]):
        numbers = box_arrays.joined(of, prediction.probabilities)
        assert box_arrays.fits(of, numbers)
        for name, values in box_arrays.split(of, numbers).items():
            np.testing.assert_array_equal(values, prediction.probabilities[name])
    assert not box_arrays.fits(of, np.zeros(5, np.float32))


def test_a_score_at_the_threshold_counts():
    scores = np.array([[0.7]], np.float32)
    assert float(scores[0, 0]) < 0.7
    assert box_arrays.scores({"score": scores}).tolist() == [0.7]


def test_a_photo_that_cannot_be_read_stays_a_failure(finder):
    (prediction,) = box_arrays.predictor(finder(ANSWERS))([("a.png", b"no photo")])
    assert prediction.record.failure
    assert prediction.probabilities is None


class Brightness:
    """Says `diseased` of a bright crop."""

    name = "brightness"

    def run(self, batch, columns=None):
        bright = (batch.mean(axis=(1, 2, 3)) > 100).astype(np.float32)
        outputs = {"target.health": np.stack([1 - bright, bright], axis=1), "unknown": np.zeros(len(batch), np.float32)}
        return outputs | {"embedding": np.zeros((len(batch), 3), np.float32)}


def test_boxes_of_two_stages_have_the_targets_of_their_crops(finder):
    one = finder([[(2, 2, 10, 10, 0.9, 0), (18, 2, 10, 10, 0.2, 0)]])
    health = Target("health", "class", ("healthy", "diseased"))
    of_crops = contract([health]).model_copy(update={"input": Fit(8, 8)})
    detection = one.bundle.contract.detection.model_copy(update={"classifier": "crops"})
    tray = one.bundle.contract.model_copy(update={"detection": detection})
    runtime = TwoStageRuntime(one.runtime, Bundle("memory://crops", of_crops, "crops", {}), Brightness())
    pipeline = Pipeline(Bundle("memory://tray", tray, "tray", {}), runtime)
    (prediction,) = box_arrays.predictor(pipeline)([("a.png", png(right=255))])
    assert prediction.probabilities["target.health"].tolist() == [[1, 0], [0, 1]]
