"""The Python interface: `plantml.load(REF).predict(paths)`."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, cast

from plantml.model.contract import Contract
from plantml.model.pipeline import Pipeline


class Model:
    """A trained model. `contract` says what it predicts, `digest` names it."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    @property
    def contract(self) -> Contract:
        """Targets, input, thresholds, and where it came from."""
        return self._pipeline.bundle.contract

    @property
    def digest(self) -> str:
        """SHA-256 that names the model."""
        return self._pipeline.bundle.digest

    def predict(self, images: str | Path | bytes | Iterable[str | Path | bytes]) -> list[dict[str, Any]]:
        """Records for images, as `plantml detect` writes them.

        Args:
            images: URLs, paths or the bytes of image files; one, or many.

        Returns:
            One record per image, in order; see `docs/records.md`. An image that cannot be read gives a
            record with its `failure`.
        """
        return list(self.stream([images] if isinstance(images, (str, Path, bytes)) else images))

    def stream(self, images: Iterable[str | Path | bytes]) -> Iterator[dict[str, Any]]:
        """The same, one by one, for any number of images."""
        for are_bytes, same_kind in groupby(images, lambda image: isinstance(image, bytes)):
            if are_bytes:
                for data in same_kind:
                    yield self._pipeline.predict_bytes([("", cast("bytes", data))])[0].record.as_json()
            else:
                for prediction in self._pipeline.run(map(str, same_kind)):
                    yield prediction.record.as_json()
