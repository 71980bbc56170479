"""`--tta`: test-time augmentation, averaging predictions over flips and rotations."""

import functools
from collections.abc import Iterator

import numpy as np

from plantml.imaging import Pixels
from plantml.model.covariates import Columns
from plantml.model.runtimes import Outputs, Runtime


class AveragedRuntime:
    """A runtime that averages its outputs over flips and rotations of each image.

    There are four combinations of horizontal and vertical flips; for a square input, also these rotated by 90 degrees.
    Probabilities, values, embeddings and the unknown score are averaged. Takes 4 or 8 times as long.

    Args:
        runtime: runs the model.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.name = runtime.name

    def run(self, batch: Pixels, columns: Columns | None = None) -> Outputs:
        """See `Runtime.run`."""
        outputs = [self._runtime.run(view, columns) for view in augmented(batch)]
        # One after another: numpy's mean adds in another order, and rounds differently, if the batch is one photo.
        sums = {name: functools.reduce(np.add, [each[name] for each in outputs]) for name in outputs[0]}
        return {name: total / np.float32(len(outputs)) for name, total in sums.items()}


def augmented(batch: Pixels) -> Iterator[Pixels]:
    """Flips and rotations of a batch, uint8 [N, H, W, 3]; the batch itself first."""
    rotations = (batch, batch.swapaxes(1, 2)) if batch.shape[1] == batch.shape[2] else (batch,)
    for view in rotations:
        for rows in (1, -1):
            for columns in (1, -1):
                yield np.ascontiguousarray(view[:, ::rows, ::columns])
