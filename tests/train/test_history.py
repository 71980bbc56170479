"""The best epoch is one whose numbers are numbers."""

import math

import pytest

from plantml.train.history import History


def row(epoch: int, score: float, loss: float = 1.0) -> dict[str, float]:
    return {"epoch": float(epoch), "score": score, "val_loss": loss}


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        ([row(0, 0.5), row(1, 0.7), row(2, 0.6)], 1),
        ([row(0, 0.5, 2.0), row(1, 0.5, 1.0)], 1),
        ([row(0, 0.5), row(1, 0.5)], 0),
        ([row(0, math.nan), row(1, 0.1)], 1),
        ([row(0, 0.5, math.nan), row(1, 0.5, 3.0)], 1),
    ],
)
def test_the_best_epoch(rows, best) -> None:
    assert History(rows).best_epoch == best
