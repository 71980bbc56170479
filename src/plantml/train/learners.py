"""The learner of each task."""

from collections.abc import Mapping

from plantml.train.anomalies.learner import AnomalyLearner
from plantml.train.boxes.learner import BoxLearner
from plantml.train.config import Task
from plantml.train.image_learner import ImageLearner
from plantml.train.learner import Learner

LEARNERS: Mapping[Task, type[Learner]] = {
    "image": ImageLearner, "boxes": BoxLearner, "tray": BoxLearner, "anomaly": AnomalyLearner,
}  # fmt: skip
"""By task; of a tray, the first stage. Add new ones here."""
