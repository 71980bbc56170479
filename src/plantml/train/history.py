"""The history of a training: losses and scores, one row per epoch."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Evaluation:
    """What a network achieves on the validation split.

    Attributes:
        loss: as in training.
        score: the best epoch has the highest one; NaN if there is none.
        scores: for the history, by name.
    """

    loss: float
    score: float
    scores: Mapping[str, float]


class History:
    """The rows so far."""

    def __init__(self, rows: Sequence[dict[str, float]] = ()) -> None:
        self.rows = list(rows)

    @property
    def best_epoch(self) -> int:
        """The epoch with the best validation score; the lower loss breaks ties."""
        return int(max(self.rows, key=_rank)["epoch"])

    def add(self, epoch: int, train_loss: float, evaluation: Evaluation) -> dict[str, float]:
        """Add an epoch, and return its row."""
        row = {
            "epoch": float(epoch),
            "train_loss": train_loss,
            "val_loss": evaluation.loss,
            "score": evaluation.score,
            **evaluation.scores,
        }
        self.rows.append(row)
        return row

    def csv(self) -> bytes:
        """The rows as CSV."""
        text = io.StringIO()
        table = csv.DictWriter(text, list(self.rows[0]), lineterminator="\n")
        table.writeheader()
        for row in self.rows:
            table.writerow({key: round(value, 6) for key, value in row.items()} | {"epoch": int(row["epoch"])})
        return text.getvalue().encode()


def _rank(row: dict[str, float]) -> tuple[float, float]:
    """Sort key: higher is better, NaN is worst."""
    score, loss = row["score"], -row["val_loss"]
    return (-math.inf if math.isnan(score) else score, -math.inf if math.isnan(loss) else loss)
