"""Rows without a photo: what a training learns from their columns alone.

On such a row, what covariates add to the heads is a prediction by itself, on top of how common each class is. Where
photo and columns are independent given the label, log p(label | photo, columns) is log p(label | photo) plus
log p(label | columns) minus log p(label): so what is learnt from columns alone is what they add to a photo.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from plantml.model.covariates import Covariate
from plantml.model.network import PlantNet
from plantml.targets import Target
from plantml.train.batches.loader import Batch
from plantml.train.covariates import COVARIATES, columns_of, hidden_at_random
from plantml.train.losses import counts, total_loss
from plantml.train.plan import Plan

_WEIGHT = 0.5
"""Share of a photo's loss that its columns have a part in; a row without a photo counts no more than that."""

_DRAW = 3
"""What distinguishes the random numbers of a draw from those of other things in the same step."""


@dataclass(frozen=True)
class BareRows:
    """The rows without a photo that a training learns from.

    Attributes:
        labels: by target name, encoded, and the covariates under `COVARIATES`; a row each.
        priors: of each target before anything is known, in the order of its outputs: logarithms of the classes' shares,
            of a multilabel target log odds, and of a value the mean in its unit.
    """

    labels: Batch
    priors: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.labels[COVARIATES])

    def loss(
        self, net: PlantNet, plan: Plan, step: Sequence[int], batch: int, *, rank: int = 0, size: int = 1
    ) -> Tensor:
        """The loss of a random batch, a scalar, weighted by the share of these rows among all, and by `_WEIGHT`.

        Args:
            net: whose covariates learn.
            plan: of the training.
            step: what the batch depends on, beside the seed.
            batch: rows over all processes; fewer if there are not as many.
            rank: of this process, which takes its share of them.
            size: number of processes, whose losses are averaged.
        """
        device = next(net.heads.parameters()).device
        random = np.random.default_rng([plan.seed, *step, _DRAW])
        drawn = torch.from_numpy(random.choice(len(self), min(batch, len(self)), replace=False))
        rows = {name: values[drawn].to(device) for name, values in self.labels.items()}
        counted = counts(rows, plan.targets) / size
        rows[COVARIATES] = hidden_at_random(rows[COVARIATES], plan.seed, *step, _DRAW)
        rows = {name: values.tensor_split(size)[rank] for name, values in rows.items()}
        loss = total_loss(
            self._outputs(net, rows[COVARIATES]),
            rows,
            plan.targets,
            smoothing=plan.label_smoothing,
            scales=net.scales(),
            counted=counted,
        )
        return loss * (_WEIGHT * len(self) / (len(self) + plan.train_photos))

    def _outputs(self, net: PlantNet, columns: Tensor) -> dict[str, Tensor]:
        """Logits, or values in their unit, of columns alone."""
        encoded = net.encode(columns)
        assert net.covariates is not None
        assert encoded is not None
        scales = net.scales()
        added = net.covariates(encoded)
        return {name: each * scales.get(name, 1) + self.priors[name].to(each.device) for name, each in added.items()}


def of(rows: pl.DataFrame, targets: Sequence[Target], covariates: Sequence[Covariate]) -> BareRows | None:
    """The rows of a manifest without a photo, encoded; `None` if there are none, or no covariates."""
    if rows.is_empty() or not covariates:
        return None
    labels = {target.name: torch.from_numpy(target.encode(rows[target.name].to_list())) for target in targets}
    columns = {name: torch.from_numpy(values) for name, values in columns_of(rows, covariates).items()}
    return BareRows(labels | columns, {target.name: _prior(target, labels[target.name]) for target in targets})


def _prior(target: Target, labels: Tensor) -> Tensor:
    """See `BareRows.priors`; each class counts once more than it occurs."""
    if target.kind == "class":
        number = torch.bincount(labels[labels >= 0], minlength=target.size).float() + 1
        return (number / number.sum()).log()
    known = labels[~labels.isnan()] if target.kind == "value" else labels[~labels.isnan().any(dim=1)]
    if target.kind == "value":
        return known.mean().nan_to_num(0).view(1)
    return torch.log((known.sum(dim=0) + 1) / ((1 - known).sum(dim=0) + 1))
