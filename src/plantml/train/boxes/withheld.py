"""Which targets do not apply where another one has some class, learnt from the labels of training boxes.

An empty cell of a tray has no species. Its annotators say so by what they leave out: they label the species of the
plants around it, and never that of a cell whose `viability` is `missing`. Only a photo that shows both is evidence:
where nobody looked for diseases of some species, in photos of its own, they are unknown, and not impossible.
"""

from collections.abc import Sequence

import polars as pl

from plantml.model.contract import Withheld
from plantml.targets import Target

ENOUGH = 20
"""Boxes of the class, and others in the same photos, from which a rule is learnt."""

_LABELLED = 0.9
"""Share of the others that have the label which boxes of the class never have."""


def learn(labels: pl.DataFrame, photo: pl.Series, targets: Sequence[Target]) -> tuple[Withheld, ...]:
    """The targets that do not apply, by class of another target.

    Args:
        labels: one row per training box, a column per target, null where not labelled.
        photo: of each box.
        targets: of the boxes.
    """
    rules = []
    for where in (target for target in targets if target.kind == "class"):
        for label in where.classes:
            is_one = (labels[where.name] == label).fill_null(value=False)
            of_class = labels.filter(is_one)
            is_beside = ~is_one & labels[where.name].is_not_null() & photo.is_in(photo.filter(is_one).implode())
            beside = labels.filter(is_beside)
            if min(of_class.height, beside.height) < ENOUGH:
                continue
            names = tuple(
                each.name
                for each in targets
                if of_class[each.name].is_null().all()
                and beside[each.name].is_not_null().sum() >= _LABELLED * beside.height
            )
            if names:
                rules.append(Withheld(targets=names, where=where.name, label=label))
    return tuple(rules)
