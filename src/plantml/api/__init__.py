"""The Python interface: what notebooks and scripts use. It calls the functions that the commands call."""

from plantml.api.dataset import Dataset
from plantml.api.model import Model, load
from plantml.api.predictions import Predictions
from plantml.api.registry import Registry
from plantml.api.run import Run
from plantml.api.verbs import export, train, validate

__all__ = ["Dataset", "Model", "Predictions", "Registry", "Run", "export", "load", "train", "validate"]
