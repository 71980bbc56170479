"""What is chosen follows from the comparison, and from nothing else."""

from types import SimpleNamespace

import numpy as np
import pytest
from tests.contracts import make_contract

from plantml.errors import InputError
from plantml.model.bundle import Bundle
from plantml.model.contract import Detection
from plantml.model.runtimes import TwoStageRuntime
from plantml.retrain import model_steps, retrain, rounds
from plantml.retrain.class_alignment import align_classes
from plantml.retrain.config import GateConfig
from plantml.targets import Target


def compared(this=0.9, other=0.85, sure=0.9, gates=(), groups=40):
    first = {"name": "macro_f1", "this": this, "other": other, "difference": this - other, "sure": sure}
    return {"differences": [first], "gates": list(gates), "groups": groups}


def decide(sets, *, model="m@1", **gates):
    work = SimpleNamespace(
        model=model,
        config=SimpleNamespace(gates=GateConfig.model_validate(gates)),
        result=lambda name: sets if name == "compare" else None,
    )
    return model_steps.choose(work)


FAILED = {"name": "disease.f1[rust]", "max_drop": 0.05, "value": 0.3, "passed": False}
PASSED = FAILED | {"value": 0.01, "passed": True}


def test_better_and_all_gates_passed_is_promoted() -> None:
    choice = decide({"all": compared(gates=[PASSED]), "frozen": compared(), "recent": compared()})
    assert choice["decision"] == "promote"
    assert choice["reasons"] == ["macro_f1 0.9000 against 0.8500, better in 90.0% of resamples"]


@pytest.mark.parametrize(
    ("sets", "reason"),
    [
        ({"all": compared(gates=[PASSED, FAILED])}, "drop of disease.f1[rust] is 0.3000, required at most 0.05"),
        ({"all": compared(this=0.84, sure=0.3)}, "it is not better"),
        ({"all": compared(this=0.85, sure=0.5)}, "it is not better"),  # the same is not better
        ({"all": compared(sure=None, this=0.85)}, "it is not better"),  # too few groups: its number decides
        ({"all": compared(), "frozen": compared(this=0.7)}, "on the frozen test set is 0.7000"),
        ({"all": compared(), "recent": compared(this=0.7)}, "on the recent test set is 0.7000"),
    ],
)
def test_refused_with_the_reason(sets, reason) -> None:
    choice = decide(sets)
    assert choice["decision"] == "refuse"
    assert reason in choice["reasons"][0]


def test_gates_decide_how_sure_and_how_much_worse() -> None:
    assert decide({"all": compared(sure=0.9)}, sure=0.975)["decision"] == "refuse"
    assert decide({"all": compared(this=0.84, sure=0.3)}, sure=0.0)["decision"] == "promote"
    assert decide({"all": compared(), "frozen": compared(this=0.8)}, max_drop=0.1)["decision"] == "promote"
    assert decide({"all": compared(sure=None)})["decision"] == "promote"
    assert decide({"all": compared(), "recent": compared(this=0.5, groups=9)})["decision"] == "promote"


def test_a_first_model_needs_its_own_gates_only() -> None:
    alone = {"differences": [], "gates": [], "groups": 40}
    assert decide({"all": alone}, model="")["decision"] == "promote"
    gate = {"name": "macro_f1", "min": 0.8, "value": 0.5, "passed": False}
    choice = decide({"all": alone | {"gates": [gate]}}, model="")
    assert (choice["decision"], choice["reasons"]) == ("refuse", ["macro_f1 is 0.5000, required at least 0.8"])


def test_a_model_among_more_classes_gives_them_nothing() -> None:
    class Two:
        name = "two"

        def run(self, batch, columns=None):
            return {"target.disease": np.full((len(batch), 2), 0.5, np.float32), "unknown": np.zeros(len(batch))}

    contract = make_contract(Target("disease", "class", ("none", "rust")))
    bundle = Bundle("two", contract, "two", {})
    wide, runtime = align_classes(bundle, Two(), [Target("disease", "class", ("blight", "none", "rust"))])
    assert wide.contract.targets[0].classes == ("none", "rust", "blight")
    assert runtime.run(np.zeros((3, 1)))["target.disease"].tolist() == [[0.5, 0.5, 0.0]] * 3
    assert runtime.name != Two.name  # answers that are kept are not mixed up
    assert wide.digest == bundle.digest
    same = Two()
    assert align_classes(bundle, same, contract.targets) == (bundle, same)


def test_boxes_among_more_classes_give_them_nothing_in_one_stage_or_two() -> None:
    class Boxes:
        name = "runtime"

        def run(self, batch, columns=None):
            return {"score": np.ones((len(batch), 4)), "target.disease": np.full((len(batch), 4, 2), 0.5, np.float32)}

    class Crops:
        name = "runtime"

        def run(self, batch, columns=None):
            return {"target.disease": np.full((len(batch), 2), 0.5, np.float32)}

    detection = Detection(boxes=4, slope=1, offset=0, threshold=0.5, accept=0.5)
    disease, wider = (Target("disease", "class", classes) for classes in (("none", "rust"), ("blight", "none", "rust")))
    one = Bundle("one", make_contract(disease, detection=detection), "one", {})
    _, runtime = align_classes(one, Boxes(), [wider])
    assert runtime.run(np.zeros((1, 1)))["target.disease"].tolist() == [[[0.5, 0.5, 0.0]] * 4]

    tray = detection.model_copy(update={"classifier": "judge"})
    both = Bundle("two", make_contract(disease, detection=tray), "two", {})
    judge = Bundle("judge", make_contract(disease), "judge", {})
    stages = TwoStageRuntime(Boxes(), judge, Crops())
    wide, aligned = align_classes(both, stages, [wider])
    assert (
        wide.contract.targets
        == aligned.bundle.contract.targets
        == (Target("disease", "class", ("none", "rust", "blight")),)
    )
    assert aligned.classifier.run(np.zeros((1, 1)))["target.disease"].tolist() == [[0.5, 0.5, 0.0]]
    assert aligned.name != stages.name  # answers that are kept are not mixed up


@pytest.mark.parametrize(("task", "detection"), [("image", True), ("tray", False)])
def test_a_challenger_that_cannot_be_compared_is_refused_before_it_is_trained(task, detection, monkeypatch) -> None:
    more = {"detection": Detection(boxes=4, slope=1, offset=0, threshold=0.5, accept=0.5)} if detection else {}
    in_service = Bundle("m", make_contract(Target("disease", "class", ("none", "rust")), **more), "m", {})
    monkeypatch.setattr(model_steps.references, "find", lambda *_: in_service)
    work = SimpleNamespace(model="m@1", machine=SimpleNamespace(cache=lambda: None))
    with pytest.raises(InputError, match=f"task {task} cannot be compared with m@1"):
        model_steps._check_task(work, task)
    model_steps._check_task(work, "tray" if detection else "image")


def test_the_table_of_steps_has_the_order_of_their_results() -> None:
    assert tuple(retrain.STEPS) == rounds.STEPS
