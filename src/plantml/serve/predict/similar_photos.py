"""The photos of a served dataset that look most like a photo, by the model's own embeddings."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plantml import storage
from plantml.curate import similar
from plantml.data import versions
from plantml.detect.similar import Similar
from plantml.errors import UsageError
from plantml.model import bundle as bundles
from plantml.serve.models.model_pool import OpenModel
from plantml.serve.photos.datasets import Datasets
from plantml.serve.recent import Recent
from plantml.serve.users.caller import Caller
from plantml.serve.users.visibility import visible_labels
from plantml.settings import Machine

_MOST_KEPT = 4
"""Datasets by model whose embeddings are in memory."""


class SimilarPhotos:
    """Embeddings of datasets, computed in the background when they are first asked for, once per version and model.

    Args:
        datasets: that are served.
        machine: threads and cache.
    """

    def __init__(self, datasets: Datasets, machine: Machine) -> None:
        self._datasets, self._machine = datasets, machine
        self._kept: Recent[tuple[str, str], Future[Similar]] = Recent(_MOST_KEPT)
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="embed")

    def of_model(self, model: OpenModel) -> Future[Similar]:
        """The photos that a model's predictions are compared with: of the dataset it was trained on, if it is served.

        Raises:
            UsageError: no dataset is served.
            InputError: the model finds boxes, and has no embeddings of whole photos.
        """
        bundles.check_whole_photos(model.pipeline.bundle, "similar")
        names = self._datasets.names
        if not names:
            raise UsageError("There are no photos to compare with", "no dataset is served", "Leave similar out.")
        name = storage.basename(model.pipeline.bundle.contract.dataset.url)
        name = name if name in names else names[0]
        url, number = versions.find(self._datasets.url(name))
        key = f"{url}@{number}", model.digest
        with self._lock:
            future = self._kept.use(key)
            if future is None or (future.done() and future.exception()):
                future = self._kept[key] = self._pool.submit(self._embed, name, key[0], model.pipeline.bundle.ref)
        return future

    def close(self) -> None:
        """Forget all; what is being embedded is finished, and stored in its dataset."""
        self._pool.shutdown(cancel_futures=True)
        self._kept.clear()

    def _embed(self, name: str, ref: str, model: str) -> Similar:
        embedded = similar.embed(ref, self._machine, model=model)
        version = embedded.version
        targets = [target.name for target in version.targets]
        rows = {row["image_id"]: row for row in version.usable().iter_rows(named=True)}
        photos = [
            {
                "name": rows[image_id]["name"],
                "url": f"/v1/datasets/{name}/photos/{image_id}",
                "labels": {target: rows[image_id][target] for target in targets if rows[image_id][target] is not None},
            }
            for image_id in embedded.ids
        ]
        return Similar(version.ref, photos, embedded.vectors, count=0)


def nearest(
    photos: Similar, embedding: NDArray[np.float32] | None, count: int, caller: Caller
) -> Sequence[dict[str, Any]] | None:
    """The photos nearest to an embedding, with the labels that a caller may see; `None` without an embedding.

    A file's name often is a label. It is shown to callers who may see all labels of the photos.
    """
    if embedding is None:
        return None
    shown = []
    for photo in replace(photos, count=count).of(embedding):
        labels = visible_labels(photo["labels"], caller)
        is_whole = len(labels) == len(photo["labels"])
        shown.append({**photo, "labels": labels, "name": photo["name"] if is_whole else ""})
    return shown
