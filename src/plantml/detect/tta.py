"""`--tta`: each photo is looked at from all its sides, and the answers are averaged (test-time augmentation)."""

from collections.abc import Iterator

import numpy as np

from plantml.imaging import Pixels
from plantml.model.runtimes import Outputs, Runtime


class AveragedRuntime:
    """A runtime that answers with the mean over a picture's mirrored and turned forms.

    Those are the four by mirroring left to right and top to bottom; of a square input also the four that are a quarter
    turn from these. Probabilities, values, embeddings and the unknown score are each averaged. Takes 4 or 8 times as
    long.

    Args:
        runtime: that computes.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.name = runtime.name

    def run(self, batch: Pixels) -> Outputs:
        """See `Runtime.run`."""
        answers = [self._runtime.run(form) for form in forms(batch)]
        return {name: np.mean([answer[name] for answer in answers], axis=0, dtype=np.float32) for name in answers[0]}


def forms(batch: Pixels) -> Iterator[Pixels]:
    """The forms of a batch, uint8 [N, H, W, 3]: itself first."""
    quarters = (batch, batch.swapaxes(1, 2)) if batch.shape[1] == batch.shape[2] else (batch,)
    for form in quarters:
        for rows in (1, -1):
            for columns in (1, -1):
                yield np.ascontiguousarray(form[:, ::rows, ::columns])
