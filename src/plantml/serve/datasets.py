"""The datasets that are served, by name: the last path segment of the URL that the operator named."""

from plantml import storage
from plantml.data import versions
from plantml.errors import NotFoundError
from plantml.serve.config import ServeConfig


def served(config: ServeConfig) -> dict[str, str]:
    """URLs of the datasets by name."""
    urls = [versions.dataset_of(url) for url in config.dataset]
    return {storage.basename(url): url for url in urls}


def url_of(config: ServeConfig, name: str) -> str:
    """The URL of a dataset. Raises `NotFoundError` if none of that name is served."""
    names = served(config)
    if name not in names:
        why = f"there are {', '.join(names)}" if names else "no dataset is served"
        raise NotFoundError(f"There is no dataset {name!r:.80}", why, "GET /v1/datasets lists all.")
    return names[name]
