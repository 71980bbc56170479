"""plantml: from a folder of plant photos to a model that a machine can trust."""

from typing import TYPE_CHECKING, Any

from plantml.about import __version__

if TYPE_CHECKING:
    from plantml.model.predictor import Model

__all__ = ["__version__", "load"]


def load(ref: str, **options: Any) -> "Model":
    """A trained model, ready to predict: `plantml.load("run").predict(["leaf.jpg"])`.

    See `plantml.registry.references.load` for the options.
    """
    from plantml.registry.references import load as load_model

    return load_model(ref, **options)
