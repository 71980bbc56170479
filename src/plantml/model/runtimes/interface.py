"""What every runtime does, and the metadata keys of exported files."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from plantml.imaging import Pixels
from plantml.model.bundle import CONTRACT_KEY, DIGEST_KEY, PROOF_KEY
from plantml.model.covariates import Columns

WEIGHTS_KEY = "plantml_weights"
"""A further key of an exported file's metadata: the SHA-256 of a `.bin`."""

NOTES = (CONTRACT_KEY, DIGEST_KEY, PROOF_KEY, WEIGHTS_KEY)

Outputs = Mapping[str, NDArray[np.float32]]
"""By output name: `target.<name>` [N, classes], `embedding` [N, D], `unknown` [N]; of a detector, `boxes` [N, K, 4] in
pixels of the input, `score` [N, K] and `target.<name>` [N, K, classes]; of a model of anomalies, `score` [N] and
`heat_map` [N, h, w], whose cells share the input evenly."""


class Runtime(Protocol):
    """The interface of every runtime."""

    name: str

    def run(self, batch: Pixels, columns: Columns | None = None) -> Outputs:
        """Outputs for a batch. Thread-safe.

        Args:
            batch: photos, uint8 RGB [N, H, W, 3] at the model's input size.
            columns: their covariates, of a model that takes some; `None` for photos alone.
        """
        ...
