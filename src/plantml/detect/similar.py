"""`--similar`: the photos of a dataset that are most similar to an image, by the model's embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Similar:
    """Photos that an image can be compared with.

    Attributes:
        ref: of the dataset's version.
        photos: name, `url` and `labels` of each, as in the record.
        vectors: their embeddings by the same model, float32 [N, D], of length 1.
        count: how many a record names.
    """

    ref: str
    photos: Sequence[dict[str, Any]]
    vectors: NDArray[np.float32]
    count: int

    def of(self, embedding: NDArray[np.float32]) -> list[dict[str, Any]]:
        """The nearest photos to an embedding, float32 [D], by cosine similarity, nearest first."""
        cosines = self.vectors @ (embedding / max(float(np.linalg.norm(embedding)), 1e-12))
        nearest = np.lexsort((np.arange(len(cosines)), -cosines))[: self.count]
        return [{**self.photos[row], "cosine": round(float(cosines[row]), 4)} for row in nearest.tolist()]
