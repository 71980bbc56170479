"""What forms offer: the models."""

from plantml import storage
from plantml.registry import inspection
from plantml.serve.service import Service


def models(service: Service) -> list[str]:
    """Names of the models."""
    return [storage.basename(model.url) for model in inspection.models(service.registry)]
