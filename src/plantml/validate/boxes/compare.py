"""Two models that find boxes, on the same photos."""

from plantml.metrics import ValueReport
from plantml.validate.boxes.scoring import BOXES, MACRO_AP, BoxEvaluation, BoxOutcomes, class_groups
from plantml.validate.compare import Comparison, Terms, difference, drop_gates

_BIAS = f"{BOXES}.count_bias"
"""Neither a larger nor a smaller one is better."""


def compare(
    ours: tuple[BoxOutcomes, BoxEvaluation], theirs: tuple[BoxOutcomes, BoxEvaluation], terms: Terms
) -> Comparison:
    """Compare two models that find boxes; see `validate.compare`. Nobody wins a single photo.

    Average precision decides: the mean of that of targets with classes, so that a plant that is found and misjudged
    counts as an error, or that of all boxes where there is no such target.
    """
    (mine, this), (others, other) = ours, theirs
    same = {target.name for target in mine.targets} == {target.name for target in others.targets}
    means = {name for name in this.scores if "." not in name} | {MACRO_AP}
    both = [name for name in this.scores if name in other.scores and (same or name not in means) and name != _BIAS]
    if MACRO_AP in both:
        both = [MACRO_AP, *(name for name in both if name != MACRO_AP)]
    dropping = [(f"{BOXES}.{score}", mine.photos) for score in ("ap", "f1")]
    for target in mine.classified:
        report = this.detections[target.name]
        rows = report.per_class.items()
        dropping += [(f"{BOXES}.{target.name}.f1[{label}]", report.photos) for label, row in rows if row["support"]]
    dropping += [(f"{each.target}.r2", each.photos) for each in this.reports if isinstance(each, ValueReport)]
    groups = mine.groups, class_groups(mine)
    first, second = mine.counts(), others.counts()
    changed = {
        at: [name for name in first if name in second and first[name][at] != second[name][at]]
        for at in range(mine.photos)
    }
    return Comparison(
        model=terms.model,
        ref=terms.ref,
        differences=[difference(name, this, other) for name in both],
        duels=(),
        changed={at: differing for at, differing in changed.items() if differing},
        names=terms.names,
        gates=drop_gates(dropping, groups, (this, other), terms),
    )
