import numpy as np
import pytest

from plantml import metrics
from plantml.errors import InputError
from plantml.targets import Target
from plantml.validate.compare import Terms, compare
from plantml.validate.config import ValidateConfig
from plantml.validate.scoring import Outcomes, evaluate

TARGET = Target("disease", "class", ("none", "rust", "blight"))
OTHERS = Target("disease", "class", ("blight", "rust", "none"))


def answers(truth, said, target=TARGET, groups=None, order=None):
    """An answer of probability 0.9 for each photo."""
    outputs = np.full((len(truth), target.size), 0.1 / (target.size - 1), np.float32)
    outputs[np.arange(len(said)), said] = 0.9
    groups = metrics.Groups(range(len(truth)) if groups is None else groups)
    return Outcomes([target], {target.name: np.asarray(truth)}, {target.name: outputs}, groups, {})


def against(mine, others, max_drop=None, resamples=400):
    both = [(each, evaluate(each, ValidateConfig(resamples=resamples))) for each in (mine, others)]
    names = [f"{number}.jpg" for number in range(len(mine.truth["disease"]))]
    return compare(both[0], both[1], Terms("other", "digest", names, max_drop))


def with_mistakes(truth, share, rng, size=3, of=None):
    wrong = rng.random(len(truth)) < share
    if of is not None:
        wrong &= truth == of
    return np.where(wrong, (truth + rng.integers(1, size, len(truth))) % size, truth)


def test_a_better_model_is_to_be_kept_and_it_is_said_how_sure_that_is():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 600)
    result = against(answers(truth, with_mistakes(truth, 0.02, rng)), answers(truth, with_mistakes(truth, 0.1, rng)))
    first = result.differences[0]
    assert first.name == "macro_f1"
    assert first.difference == pytest.approx(0.08, abs=0.03)
    assert first.interval.low > 0
    assert (first.verdict, first.probability > 0.99) == ("better", True)
    assert result.verdict.startswith("Keep this model, better with over 99.9 % probability")
    assert {each.name: each.verdict for each in result.differences}["disease.brier"] == "better"


def test_the_other_way_round_the_other_is_to_be_kept():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 600)
    result = against(answers(truth, with_mistakes(truth, 0.1, rng)), answers(truth, with_mistakes(truth, 0.02, rng)))
    assert result.verdict.startswith("Keep the other model")
    assert result.differences[0].verdict == "worse"


def test_equal_models_are_not_told_apart():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 200)
    predicted = with_mistakes(truth, 0.05, rng)
    result = against(answers(truth, predicted), answers(truth, predicted), max_drop=0.0)
    assert result.differences[0].probability == 0.5
    assert "No significant difference" in result.verdict
    assert not result.changed
    assert all(gate.passed for gate in result.gates)
    assert [duel.paired.p for duel in result.duels] == [1.0] * 4


def test_wins_and_losses_are_counted_by_class():
    truth = np.array([0] * 10 + [1] * 10 + [2] * 10)
    mine, theirs = truth.copy(), truth.copy()
    mine[[0, 1, 2]], theirs[[10, 11]] = 1, 2
    result = against(answers(truth, mine), answers(truth, theirs))
    duels = {duel.label: (duel.paired.wins, duel.paired.losses) for duel in result.duels}
    assert duels == {"": (2, 3), "none": (0, 3), "rust": (2, 0), "blight": (0, 0)}
    assert list(result.changed) == [0, 1, 2, 10, 11]
    assert result.names[10] == "10.jpg"


def test_classes_are_joined_by_name():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 60)
    result = against(answers(truth, truth), answers(2 - truth, 2 - truth, OTHERS))
    assert not result.changed
    assert result.differences[0].difference == 0


def test_differences_are_paired_and_over_groups():
    rng = np.random.default_rng(2)
    truth = np.repeat(rng.integers(0, 3, 60), 10)
    shared = with_mistakes(truth, 0.3, rng)  # mistakes that both make cancel
    mine = shared.copy()
    mine[:200] = np.where(np.repeat(rng.random(20) < 0.3, 10), truth[:200], shared[:200])
    widths = {}
    for name, groups in (("plants", np.repeat(np.arange(60), 10)), ("photos", np.arange(600))):
        result = against(answers(truth, mine, groups=groups), answers(truth, shared, groups=groups))
        widths[name] = result.differences[0].interval.width
        assert widths[name] < 0.1  # each alone is uncertain by more
    assert widths["plants"] > 1.5 * widths["photos"]


def test_a_drop_is_judged_for_the_mean_and_for_each_class():
    truth = np.repeat([0, 1, 2], 50)
    mine = truth.copy()
    mine[50:60] = 2
    result = against(answers(truth, mine), answers(truth, truth), max_drop=0.08)
    judged = {gate.name: gate for gate in result.gates}
    f1 = metrics.report(TARGET, truth, answers(truth, mine).outputs["disease"]).per_class
    assert judged["disease.f1[rust]"].value == pytest.approx(1 - f1["rust"]["f1"])
    assert [name for name, gate in judged.items() if not gate.passed] == ["disease.f1[rust]", "disease.f1[blight]"]
    assert judged["disease.macro_f1"].passed
    assert judged["disease.f1[rust]"].photos == 50


def test_what_the_photos_cannot_resolve_is_said():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], 20)
    mine, theirs = with_mistakes(truth, 0.1, rng), with_mistakes(truth, 0.1, rng)
    few = against(answers(truth, mine), answers(truth, theirs), max_drop=0.01)
    assert any("not resolvable with 20 photos" in str(gate) for gate in few.gates)
    truth = np.repeat([0, 1, 2], 3000)
    mine, theirs = with_mistakes(truth, 0.01, rng), with_mistakes(truth, 0.01, rng)
    many = against(answers(truth, mine), answers(truth, theirs), max_drop=0.01)
    assert not any("not resolvable" in str(gate) for gate in many.gates)


def test_a_class_of_few_plants_is_not_resolvable_however_many_photos_it_has():
    truth = np.repeat([0, 1, 2], 300)
    plants = np.concatenate([np.arange(300) // 100, 10 + np.arange(600)])
    result = against(answers(truth, truth, groups=plants), answers(truth, truth, groups=plants), max_drop=0.02)
    resolvable = {gate.name: gate.resolvable for gate in result.gates}
    assert not resolvable["disease.f1[none]"]
    assert resolvable["disease.f1[rust]"]
    assert all(gate.passed for gate in result.gates)


def test_no_difference_on_few_photos_is_no_proof_of_none():
    truth = np.repeat([0, 1, 2], 20)
    result = against(answers(truth, truth), answers(truth, truth), max_drop=0.01)
    gate = {gate.name: gate for gate in result.gates}["disease.f1[rust]"]
    assert gate.interval.high == pytest.approx(1 - 0.025 ** (1 / 20))
    assert gate.passed
    assert not gate.resolvable


# --- does the gate decide rightly? -------------------------------------------------------------


def confusion_f1(truth, said, size):
    confusion = np.bincount(truth * size + said, minlength=size * size).reshape(size, size)
    return 2 * confusion.diagonal() / (confusion.sum(axis=0) + confusion.sum(axis=1))


def pair(seed, photos, worse, size=3, disagree=0.02):
    """Truth and two models' answers: 5 % mistakes in common, 2 % on which one alone is wrong; the second is worse
    in the first class by so much."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(size), photos)
    wrong = (truth + rng.integers(1, size, len(truth))) % size
    both = rng.random(len(truth)) < 0.05
    alone = rng.random(len(truth))
    first = np.where(both | (alone < disagree / 2), wrong, truth)
    second = np.where(both | (alone > 1 - disagree / 2), wrong, truth)
    second = np.where((truth == 0) & (rng.random(len(truth)) < worse), wrong, second)
    return truth, first, second


def refused(photos, worse, bound=0.01, size=3, disagree=0.02, seeds=200):
    """How often the gate refuses the second model, by the numbers that it decides by."""
    result = 0
    for seed in range(seeds):
        truth, first, second = pair(seed, photos, worse, size, disagree)
        drop = confusion_f1(truth, first, size) - confusion_f1(truth, second, size)
        result += bool(drop.max() > bound or drop.mean() > bound)
    return result / seeds


def test_the_shortcut_of_the_simulation_is_the_gate_itself():
    for seed in range(3):
        truth, first, second = pair(seed, 200, 0.03)
        result = against(answers(truth, second), answers(truth, first), max_drop=0.01, resamples=100)
        drop = confusion_f1(truth, first, 3) - confusion_f1(truth, second, 3)
        gates = {gate.name: gate for gate in result.gates}
        assert gates["disease.macro_f1"].value == pytest.approx(drop.mean())
        assert [gates[f"disease.f1[{name}]"].value for name in TARGET.classes] == pytest.approx(drop)
        assert all(gate.passed for gate in result.gates) == (drop.max() <= 0.01 and drop.mean() <= 0.01)


@pytest.mark.parametrize(
    ("disagree", "bound", "photos"),
    [
        (0.02, 0.005, 2000),
        (0.02, 0.01, 500),
        (0.02, 0.02, 100),
        (0.02, 0.03, 100),
        (0.02, 0.05, 50),
        (0.05, 0.01, 1000),
        (0.05, 0.02, 300),
        (0.05, 0.03, 150),
        (0.05, 0.05, 50),
    ],
)
def test_so_many_photos_a_class_are_enough_as_the_documentation_says(disagree, bound, photos):
    assert refused(photos, 0.0, bound, disagree=disagree) <= 0.05
    assert refused(photos, 3 * bound, bound, disagree=disagree) >= 0.8


@pytest.mark.parametrize("size", [2, 3, 10])
def test_equal_models_pass_and_a_worse_one_is_refused(size):
    assert refused(1000, worse=0.0, size=size) <= 0.05
    assert refused(1000, worse=0.03, size=size) >= 0.8


def test_a_worse_model_ends_the_command_with_the_gates_code(paint, painted, judged):
    photos = [("rust", "rust", {}), ("none", "none", {}), ("blight", "blight", {})] * 8
    better, worse = painted(), painted(digest="worse")
    answer = worse.runtime.run
    worse.runtime.run = lambda batch: answer(np.where(batch[:, :1, :1, :1] > 128, batch, batch[..., [1, 0, 2]]))
    result = judged(paint(photos), worse, better, against="old", max_drop=0.01)
    assert not result.passed
    assert result.comparison.verdict.startswith("Keep the other model")


def test_means_over_other_targets_are_not_compared(paint, painted, judged):
    photos = [("rust", "rust", {}), ("none", "none", {}), ("blight", "none", {})] * 4
    data = paint(photos)
    disease = Target("disease", "class", ("none", "rust", "blight"))
    result = judged(data, painted(), painted(targets=[disease], digest="other"), against="old", max_drop=0.1)
    names = [each.name for each in result.comparison.differences]
    assert names[0] == "disease.macro_f1"
    assert not {"macro_f1", "accuracy", "joint_accuracy"} & set(names)
    assert {gate.name.partition(".")[0] for gate in result.gates} == {"disease"}


def test_models_without_a_common_target_are_told(paint, painted, judged):
    data = paint([("rust", "rust", {})] * 2)
    disease, health = (
        Target("disease", "class", ("none", "rust", "blight")),
        Target("health", "class", ("diseased", "healthy")),
    )
    with pytest.raises(InputError, match="share no target"):
        judged(data, painted(targets=[disease]), painted(targets=[health], digest="other"), against="old")
