"""The learner of each task."""

from collections.abc import Mapping

from plantml.train.box_learner import BoxLearner
from plantml.train.config import Task
from plantml.train.image_learner import ImageLearner
from plantml.train.learner import Learner

LEARNERS: Mapping[Task, type[Learner]] = {"image": ImageLearner, "boxes": BoxLearner}
"""By task. Add new ones here."""
