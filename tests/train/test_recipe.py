"""The plan is a pure function of configuration and facts."""

import polars as pl
import pytest

from plantml.data import manifest
from plantml.data.manifest import Version
from plantml.errors import InputError
from plantml.targets import Target
from plantml.train import recipe
from plantml.train.recipe import Facts, TrainConfig


def version(labels: dict[str, list], split: list[str]) -> Version:
    rows = pl.DataFrame(
        {"source": "s", "name": [str(n) for n in range(len(split))], "status": "ok", "split": split, "image_id": "x"}
        | labels
    )
    targets = manifest.derive_targets(rows, [Target(name, "class") for name in labels])
    return Version("data", 3, manifest.conform(rows, targets), targets)


def facts(data: Version, device: str = "cpu") -> Facts:
    return Facts(data, data.usable("train").height, data.usable("val").height, 4, device)


TWO = version({"disease": ["a", "b", "a", "b"]}, ["train", "train", "val", "test"])


def test_same_input_same_plan() -> None:
    assert recipe.plan(TrainConfig(), facts(TWO)) == recipe.plan(TrainConfig(), facts(TWO))


def test_the_plan_pins_the_dataset() -> None:
    plan = recipe.plan(TrainConfig(), facts(TWO))
    assert (plan.dataset, plan.dataset_version, plan.fingerprint) == ("data", 3, TWO.fingerprint)


@pytest.mark.parametrize(("photos", "epochs"), [(100, 19), (240, 15), (10_000, 6), (10_000_000, 4), (5, 30)])
def test_more_photos_need_fewer_epochs(photos: int, epochs: int) -> None:
    known = Facts(TWO, photos, 1, 4, "cpu")
    assert recipe.plan(TrainConfig(), known).epochs == epochs


def test_what_is_set_is_kept() -> None:
    plan = recipe.plan(TrainConfig(epochs=3, batch_size=5, lr=0.1, workers=2, device="cpu"), facts(TWO, "cuda"))
    assert (plan.epochs, plan.batch_size, plan.lr, plan.workers, plan.device) == (3, 5, 0.1, 2, "cpu")


def test_the_cpu_gets_no_workers_and_a_gpu_does() -> None:
    assert recipe.plan(TrainConfig(), facts(TWO)).workers == 0
    assert recipe.plan(TrainConfig(), facts(TWO, "cuda")).workers == 3


@pytest.mark.parametrize("missing", ["train", "val"])
def test_a_missing_split_names_the_next_command(missing: str) -> None:
    there = "val" if missing == "train" else "train"
    data = version({"disease": ["a", "b"]}, [there, there])
    with pytest.raises(InputError, match=missing) as caught:
        recipe.plan(TrainConfig(), facts(data))
    assert "plantml dataset split" in caught.value.hint


def test_a_target_with_one_class_is_left_out_unless_asked_for() -> None:
    data = version({"disease": ["a", "b", "a"], "category": ["bean"] * 3}, ["train", "train", "val"])
    assert [target.name for target in recipe.plan(TrainConfig(), facts(data)).targets] == ["disease"]
    with pytest.raises(InputError, match="category"):
        recipe.plan(TrainConfig(targets=("category",)), facts(data))


def test_an_unknown_target_is_named() -> None:
    with pytest.raises(InputError, match="colour"):
        recipe.plan(TrainConfig(targets=("colour",)), facts(TWO))


def test_differences_are_told_in_words() -> None:
    first, second = (recipe.plan(TrainConfig(epochs=n), facts(TWO)) for n in (3, 4))
    assert recipe.differences(first, second) == ["epochs was 3 and is 4"]
    assert recipe.differences(first, first) == []


@pytest.mark.parametrize(
    ("preset", "mode", "size", "epochs"),
    [("quick", "probe", 224, 60), ("balanced", "finetune", 224, 15), ("best", "finetune", 288, 30)],
)
def test_a_preset_sets_what_nobody_set(preset: str, mode: str, size: int, epochs: int) -> None:
    known = Facts(TWO, 240, 1, 4, "cpu")
    plan = recipe.plan(TrainConfig(preset=preset), known)
    assert (plan.mode, plan.input.height, plan.epochs) == (mode, size, epochs)
    assert recipe.plan(TrainConfig(preset=preset, size=64, epochs=3), known).input.height == 64
    assert bool(plan.ema) == (mode == "finetune")


def test_unequal_classes_are_weighed_and_even_ones_are_not() -> None:
    even = version({"disease": ["a", "b"] * 10 + ["a", "b"]}, ["train"] * 20 + ["val"] * 2)
    assert recipe.plan(TrainConfig(), facts(even)).class_weights == {}
    unequal = version({"disease": ["a"] * 40 + ["b"] * 4 + ["a", "b"]}, ["train"] * 44 + ["val"] * 2)
    common, rare = recipe.plan(TrainConfig(), facts(unequal)).class_weights["disease"]
    assert rare > 5 * common
    assert 40 * common + 4 * rare == pytest.approx(44, abs=0.01)
    assert recipe.plan(TrainConfig(balance=False), facts(unequal)).class_weights == {}


def test_reasons_are_given_for_what_nobody_set() -> None:
    config = TrainConfig(epochs=3, size=64)
    why = recipe.reasons(config, recipe.plan(config, facts(TWO)))
    assert {"batch_size", "lr", "ema", "device"} <= set(why)
    assert not {"epochs", "input"} & set(why)
