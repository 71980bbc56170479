"""`--similar`: the photos of a dataset that the model finds most like an image."""

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
        photos: what a record says of each: its `name`, `url` and `labels`.
        vectors: their embeddings by the same model, float32 [N, D], of length 1.
        count: how many are named.
    """

    ref: str
    photos: Sequence[dict[str, Any]]
    vectors: NDArray[np.float32]
    count: int

    def of(self, embedding: NDArray[np.float32]) -> list[dict[str, Any]]:
        """The nearest photos by cosine, the likest first, of one embedding, float32 [D]."""
        cosines = self.vectors @ (embedding / max(float(np.linalg.norm(embedding)), 1e-12))
        nearest = np.lexsort((np.arange(len(cosines)), -cosines))[: self.count]
        return [{**self.photos[place], "cosine": round(float(cosines[place]), 4)} for place in nearest.tolist()]
