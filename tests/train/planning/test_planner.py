"""The plan is a pure function of configuration and inputs."""

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from plantml.data import manifest
from plantml.data.manifest import Version
from plantml.errors import InputError
from plantml.imaging import Fit
from plantml.model.bundle import Bundle
from plantml.targets import Target
from plantml.train import budget
from plantml.train import plan as plans
from plantml.train.config import Task, TrainConfig
from plantml.train.plan import Plan
from plantml.train.plan_inputs import Hardware, PlanInputs, Speed
from plantml.train.planning import planner
from plantml.train.selection import select
from plantml.train.unlabelled_photos import Unlabelled


def version(labels: dict[str, list], split: list[str], **columns: object) -> Version:
    rows = pl.DataFrame(
        {"source": "s", "name": [str(n) for n in range(len(split))], "status": "ok", "split": split, "image_id": "x"}
        | labels
        | columns
    )
    targets = manifest.derive_targets(rows, [Target(name, "class") for name in labels])
    return Version("data", 3, manifest.conform(rows, targets), targets)


def photos(train: int, val: int = 10, **columns: object) -> Version:
    labels = ["a", "b"] * ((train + val + 1) // 2)
    return version({"disease": labels[: train + val]}, ["train"] * train + ["val"] * val, **columns)


def plan(config: TrainConfig, data: Version, device: str = "cpu", speed: Speed | None = None) -> Plan:
    data = select(data, config)
    return planner.plan(config, PlanInputs(data, Hardware(4, device, 80 * 2**30 if device == "cuda" else 0), speed))


TWO = version({"disease": ["a", "b", "a", "b"]}, ["train", "train", "val", "test"])
FAST = Speed(0.5, 0.01, 0.005)


def test_same_input_same_plan() -> None:
    assert plan(TrainConfig(), TWO, speed=FAST) == plan(TrainConfig(), TWO, speed=FAST)


def test_the_plan_pins_the_dataset() -> None:
    planned = plan(TrainConfig(), TWO)
    assert (planned.dataset, planned.dataset_version, planned.fingerprint) == ("data", 3, TWO.fingerprint)


def test_the_plan_of_crops_names_the_photos_that_they_were_cut_from() -> None:
    crops = replace(select(TWO, TrainConfig()), url="run/crops", number=7)
    planned = plan(TrainConfig(), replace(crops, origin=TWO))
    assert (planned.dataset, planned.dataset_version, planned.fingerprint) == ("data", 3, TWO.fingerprint)
    assert (planned.crops, plan(TrainConfig(), crops).crops) == (True, False)


@pytest.mark.parametrize(("number", "epochs"), [(100, 19), (240, 15), (10_000, 6), (10_000_000, 4), (5, 30)])
def test_more_photos_need_fewer_epochs(number: int, epochs: int) -> None:
    assert budget.usual_epochs(number, "balanced", "finetune") == epochs


def test_settings_are_kept_and_need_no_reason() -> None:
    config = TrainConfig(epochs=3, batch_size=2, lr=0.1, workers=2, device="cpu", precision="bf16", patience=2)
    planned = plan(config, TWO, "cuda")
    assert (planned.epochs, planned.batch_size, planned.lr, planned.workers, planned.device) == (3, 2, 0.1, 2, "cpu")
    assert (planned.precision, planned.patience) == ("bf16", 2)
    assert not {"epochs", "batch_size", "lr", "workers", "device", "precision", "patience"} & set(planned.reasons)


def test_every_default_has_a_reason() -> None:
    planned = plan(TrainConfig(), photos(300), speed=FAST)
    keys = "mode epochs batch_size lr ema precision workers device backbone augment input"
    for key in keys.split():
        assert planned.reasons.get(key) or (key == "input" and planned.reasons["size"]), key


def test_the_cpu_gets_no_workers_and_a_gpu_does() -> None:
    assert plan(TrainConfig(), TWO).workers == 0
    assert plan(TrainConfig(), TWO, "cuda").workers == 3


@pytest.mark.parametrize(
    ("values", "number", "mode"),
    [
        ({}, 300, "finetune"),
        ({}, 20, "probe"),
        ({"preset": "quick"}, 300, "probe"),
        ({"pretrained": False}, 300, "full"),
        ({"preset": "quick", "mode": "finetune"}, 300, "finetune"),
    ],
)
def test_the_mode_depends_on_preset_photos_and_weights(values: dict, number: int, mode: str) -> None:
    assert plan(TrainConfig(**values), photos(number)).mode == mode


@pytest.mark.parametrize(("largest", "balance"), [(20, "off"), (100, "weights"), (900, "logits")])
def test_uneven_classes_are_balanced(largest: int, balance: str) -> None:
    data = version({"disease": ["a"] * largest + ["b"] * 10 + ["a"]}, ["train"] * (largest + 10) + ["val"])
    planned = plan(TrainConfig(), data)
    assert planned.balance == balance
    assert bool(planned.class_weights) == (balance == "weights")
    assert bool(planned.class_logits) == (balance == "logits")
    assert "times the smallest" in planned.reasons["balance"]


def test_the_input_follows_the_photos() -> None:
    small = photos(300, width=[120] * 310, height=[120] * 310)
    wide = photos(300, width=[4000] * 310, height=[3000] * 310)
    assert (plan(TrainConfig(), small).input.height, plan(TrainConfig(), small).input.mode) == (160, "squash")
    assert (plan(TrainConfig(), wide).input.height, plan(TrainConfig(), wide).input.mode) == (224, "pad")
    assert plan(TrainConfig(preset="best"), wide).input.height == 288


def with_boxes(boxes: int, side: float) -> Version:
    """Photos of 4000 x 3000 pixels with `boxes` square boxes each."""
    box = [{"x": 1.0, "y": 1.0, "w": float(side), "h": float(side), "labels": "{}"}] * boxes
    data = photos(300, width=[4000] * 310, height=[3000] * 310)
    rows = data.rows.with_columns(boxes=pl.Series([box] * 310, dtype=data.rows.schema["boxes"]))
    return Version(data.url, 3, rows, data.targets)


def test_small_boxes_need_a_larger_input() -> None:
    planned = plan(TrainConfig(), with_boxes(1, 100))
    assert planned.input.height == 320  # 100 of 4000 pixels are 8 of 320
    assert "2.5%" in planned.reasons["size"]


@pytest.mark.parametrize(
    ("values", "side", "tile", "reason"),
    [
        ({}, 100, 0, "at least 16 pixels in an input of 640"),
        ({}, 60, 1760, "less than 10 pixels in an input of 640"),  # 60 of 1760 pixels are 22 of 640
        ({}, 10, 640, "less than 2 pixels"),  # tiles are not enlarged
        ({"preset": "best"}, 60, 0, "at least 14 pixels in an input of 960"),
        ({"size": 1024}, 60, 0, "in an input of 1024"),
        ({"tile": 0}, 10, 0, None),
        ({"tile": 2000}, 100, 2000, None),
    ],
)
def test_photos_are_cut_into_tiles_where_boxes_would_be_too_small(
    values: dict, side: float, tile: int, reason: str | None
) -> None:
    data = with_boxes(1, side)
    planned = plan(TrainConfig(task="boxes", **values), data)
    assert planned.tile == tile
    assert reason in planned.reasons["tile"] if reason else "tile" not in planned.reasons
    assert planned.reasons.get("photos", "").startswith(f"--tile {tile}: 310 photos became") == bool(tile)
    assert (planned.dataset, planned.fingerprint) == ("data", select(data, TrainConfig(task="boxes")).fingerprint)


def test_the_plan_of_tiles_counts_and_measures_them() -> None:
    planned = plan(TrainConfig(task="boxes", tile=1760), with_boxes(1, 60))
    # The tile with the box, and one without, of each of 300 photos.
    assert (planned.train_photos, planned.val_photos) == (600, 20)
    assert planned.input.height == 640
    assert "3.4% of a photo, 22 pixels here" in planned.reasons["size"]


@pytest.mark.parametrize(
    ("values", "side", "message"),
    [
        ({"task": "image", "tile": 640}, 60, "Whole photos are not cut into tiles"),
        ({"task": "boxes", "tile": 640}, 2000, "No tile of 640 pixels shows a plant"),
    ],
)
def test_tiles_from_which_nothing_can_be_learnt_are_refused(values: dict, side: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(TrainConfig(**values), with_boxes(1, side))


@pytest.mark.parametrize(
    ("values", "number", "views"),
    [
        ({}, 300, 6),
        ({}, 628, 4),
        ({}, 5000, 3),
        ({"augment": 0}, 300, 1),
        ({"views": 9}, 300, 9),
        ({"budget": 100}, 5000, 1),
        ({"budget": 200}, 5000, 2),
    ],
)
def test_views_of_a_probe(values: dict, number: int, views: int) -> None:
    planned = plan(TrainConfig(preset="quick", **values), photos(number), speed=FAST)
    assert planned.views == views
    if "budget" in values:
        assert "budget" in planned.reasons["views"]


def test_many_photos_need_fewer_views() -> None:
    data = photos(300)
    many = Version(data.url, 3, pl.concat([data.rows] * 200), data.targets)
    planned = plan(TrainConfig(preset="quick"), many)
    assert planned.views == 2
    assert "60000 photos are enough" in planned.reasons["views"]


@pytest.mark.parametrize(
    ("boxes", "side", "strength"), [(0, 0, 1.0), (1, 100, 0.5), (2, 400, 0.5), (1, 2000, 1.0), (3, 100, 1.0)]
)
def test_cuts_are_small_where_they_could_lose_what_is_with_boxes(boxes: int, side: float, strength: float) -> None:
    planned = plan(TrainConfig(), with_boxes(boxes, side))
    assert planned.augment == strength
    assert ("could lose" in planned.reasons["augment"]) == (strength < 1)


def test_backgrounds_are_replaced_in_whole_photos_only() -> None:
    with pytest.raises(InputError, match="whole photos only"):
        plan(TrainConfig(background=0.5, task="boxes"), with_boxes(2, 400))
    assert plan(TrainConfig(background=0.5), TWO).background == 0.5


@pytest.mark.parametrize(("gain", "precision"), [(2.0, "bf16"), (1.05, "32"), (0.7, "32"), (None, "32")])
def test_bf16_is_used_where_it_is_faster(gain: float | None, precision: str) -> None:
    planned = plan(TrainConfig(device="cuda"), photos(300), speed=Speed(0.5, 0.01, 0.005, gain))
    assert planned.precision == precision
    assert planned.step_seconds == (0.25 if precision == "bf16" else 0.5)
    on_cpu = plan(TrainConfig(device="cpu"), photos(300), speed=Speed(0.5, 0.01, 0.005, gain))
    assert on_cpu.precision == "32"
    assert ("precision=bf16 chooses it" in on_cpu.reasons["precision"]) == (gain == 2.0)


@settings(deadline=None, max_examples=50)
@given(st.integers(40, 5000), st.integers(60, 20_000), st.floats(0.01, 3))
def test_a_budget_is_kept_where_possible(number: int, seconds: int, step: float) -> None:
    speed = Speed(step, step / 60, 0.005)
    planned = plan(TrainConfig(budget=seconds), _MANY[min(_MANY, key=lambda size: abs(size - number))], speed=speed)
    least = plan(TrainConfig(preset="quick"), _MANY[planned.train_photos], speed=speed)
    assert planned.seconds <= max(seconds, least.seconds + 1)


_MANY = {number: photos(number, 20, width=500, height=400) for number in (40, 300, 2000, 5000)}


@pytest.mark.parametrize(
    ("values", "side", "size"),
    [
        ({"preset": "quick", "budget": 120}, 500, 288),
        ({"budget": "20m"}, 500, 288),
        ({"budget": "20m", "epochs": 200}, 500, 224),
        ({"budget": "4m"}, 500, 224),
        ({"preset": "quick", "budget": 45}, 500, 224),
        ({}, 500, 224),
        ({"budget": "20m"}, 256, 224),
        ({"budget": "20m", "size": 224}, 500, 224),
        ({"budget": "20m", "pretrained": False}, 500, 224),
    ],
)
def test_a_budget_with_room_is_spent_on_pixels(values: dict, side: int, size: int) -> None:
    planned = plan(TrainConfig(**values), photos(300, width=[side] * 310, height=[side] * 310), speed=FAST)
    assert planned.input == Fit(size, size, "squash")
    assert ("more pixels" in planned.reasons.get("size", "")) == (size == 288)
    if size == 288:
        assert planned.seconds <= planned.budget
        assert planned.epochs >= budget.usual_epochs(300, planned.preset, planned.mode)


def test_a_larger_budget_gives_more_epochs_up_to_a_limit() -> None:
    epochs = [plan(TrainConfig(budget=60 * minutes), photos(300), speed=FAST).epochs for minutes in (3, 6, 60)]
    assert epochs == sorted(epochs)
    assert epochs[0] < epochs[1] < epochs[2] == 3 * budget.usual_epochs(300, "balanced", "finetune")


def test_a_budget_shorter_than_an_epoch_uses_part_of_the_photos() -> None:
    planned = plan(TrainConfig(budget=300), photos(5000), speed=FAST)
    assert planned.mode == "finetune"
    assert (planned.epochs, planned.epoch_photos < 5000) == (3, True)
    assert "epoch_photos" in planned.reasons


def test_a_budget_too_short_for_the_backbone_trains_the_heads() -> None:
    planned = plan(TrainConfig(budget=40), photos(300), speed=FAST)
    assert planned.mode == "probe"
    assert "budget" in planned.reasons["mode"]


@pytest.mark.parametrize("missing", ["train", "val"])
def test_a_missing_split_names_the_next_command(missing: str) -> None:
    there = "val" if missing == "train" else "train"
    data = version({"disease": ["a", "b"]}, [there, there])
    with pytest.raises(InputError, match=missing) as caught:
        plan(TrainConfig(), data)
    assert "plantml dataset split data --resplit" in caught.value.hint


def test_a_dataset_without_a_split_needs_no_other_one() -> None:
    with pytest.raises(InputError, match="train split") as caught:
        plan(TrainConfig(), version({"disease": ["a", "b"]}, [None, None]))
    assert "--resplit" not in caught.value.hint


def test_photos_without_boxes_do_not_make_a_val_split_of_boxes() -> None:
    boxes = [[{"x": 1.0, "y": 1.0, "w": 9.0, "h": 9.0, "labels": "{}"}]] * 2 + [None]
    data = version({}, ["train", "train", "val"], boxes=boxes, width=64, height=64)
    with pytest.raises(InputError, match="no photos that were annotated with boxes in its val split"):
        plan(TrainConfig(), data)


def test_a_target_with_one_class_is_left_out_unless_asked_for() -> None:
    data = version({"disease": ["a", "b", "a"], "category": ["bean"] * 3}, ["train", "train", "val"])
    assert [target.name for target in plan(TrainConfig(), data).targets] == ["disease"]
    with pytest.raises(InputError, match="category"):
        plan(TrainConfig(targets=("category",)), data)


def test_a_val_split_without_a_single_box_cannot_choose_an_epoch() -> None:
    boxes = [[{"x": 1.0, "y": 1.0, "w": 9.0, "h": 9.0, "labels": "{}"}], []]
    with pytest.raises(InputError, match="no boxes in its val split"):
        plan(TrainConfig(), version({}, ["train", "val"], boxes=boxes, width=64, height=64))


def test_boxes_that_nobody_asked_for_are_offered() -> None:
    boxes = [[{"x": 1.0, "y": 1.0, "w": 9.0, "h": 9.0, "labels": "{}"}]] * 2
    data = version({}, ["train", "val"], boxes=boxes, width=64, height=64)
    with pytest.raises(InputError, match="nothing to predict") as caught:
        plan(TrainConfig(task="image"), data)
    assert "Learn its boxes" in caught.value.hint


@pytest.mark.parametrize(("task", "size"), [("image", 128), ("boxes", 256)])
def test_boxes_need_another_size_than_the_photos_that_a_model_starts_from(trained_on, task: Task, size: int) -> None:
    boxes = [[{"x": 1.0, "y": 1.0, "w": 32.0, "h": 32.0, "labels": "{}"}]] * 4
    data = version(
        {"disease": ["a", "b", "a", "b"]}, ["train", "train", "val", "val"], boxes=boxes, width=64, height=64
    )
    config = TrainConfig(task=task)
    planned = planner.plan(config, PlanInputs(select(data, config), Hardware(4, "cpu", 0), None, trained_on(None)))
    assert planned.input.height == size


@pytest.mark.parametrize("task", ["boxes", "anomaly"])
def test_a_model_of_photos_does_not_start_from_one_that_finds_boxes_or_anomalies(trained_on, task) -> None:
    parent = trained_on("detection") if task == "boxes" else trained_on(None, anomaly="anomaly")
    with pytest.raises(InputError, match="cannot start from model") as caught:
        planner.plan(TrainConfig(), PlanInputs(select(TWO, TrainConfig()), Hardware(4, "cpu", 0), None, parent))
    assert f"finds {'boxes' if task == 'boxes' else 'anomalies'}" in caught.value.why
    assert "--from" in caught.value.hint


def unlabelled(photos: int) -> Unlabelled:
    rows = pl.DataFrame({"image_id": [str(number) for number in range(photos)]})
    commit = SimpleNamespace(fingerprint="of season")
    return Unlabelled("season", 2, rows, (), commit, {"near-duplicate": 3})


def test_photos_without_labels_are_counted_and_pinned() -> None:
    inputs = PlanInputs(select(photos(100), TrainConfig()), Hardware(4, "cpu", 0), unlabelled=unlabelled(900))
    planned = planner.plan(TrainConfig(unlabelled="season"), inputs)
    assert (planned.unlabelled, planned.unlabelled_photos) == ("season@2", 900)
    assert planned.unlabelled_left_out == {"near-duplicate": 3}
    assert planned.unlabelled_fingerprint == "of season"
    assert (planned.train_photos, planned.epoch_photos) == (100, 1000)
    assert planned.epochs == budget.usual_epochs(1000, "balanced", "finetune")
    assert planned.reasons["unlabelled_photos"]


def test_photos_without_boxes_need_a_detector_to_start_from(trained_on) -> None:
    data, config = with_boxes(1, 100), TrainConfig(task="boxes")
    inputs = PlanInputs(select(data, config), Hardware(4, "cpu", 0), unlabelled=unlabelled(9))
    for parent in (None, trained_on(None)):
        with pytest.raises(InputError, match="no detector") as caught:
            planner.plan(config, replace(inputs, parent=parent))
        assert "--from" in caught.value.hint


def test_a_detector_has_an_input_that_its_maps_fit() -> None:
    with pytest.raises(InputError, match="48 pixels") as caught:
        plan(TrainConfig(task="boxes", size=48), with_boxes(1, 100))
    assert "--size 64" in caught.value.hint


def test_photos_without_boxes_are_not_cut_into_tiles(trained_on) -> None:
    data, config = with_boxes(1, 100), TrainConfig(task="boxes", tile=64)
    inputs = PlanInputs(
        select(data, config), Hardware(4, "cpu", 0), None, trained_on(SimpleNamespace(tile=0)), unlabelled(9)
    )
    with pytest.raises(InputError, match="tiles") as caught:
        planner.plan(config, inputs)
    assert "--tile" in caught.value.hint


@pytest.mark.parametrize("values", [{"pretrained": False}, {"devices": 2}])
def test_photos_without_labels_need_pretrained_weights_and_one_device(values) -> None:
    with pytest.raises(ValidationError, match="unlabelled"):
        TrainConfig(unlabelled="season", **values)


@pytest.fixture
def trained_on():
    """`trained_on(detection)`: a bundle to start from, at 128 pixels."""

    def make(detection: object, anomaly: object = None) -> Bundle:
        contract = SimpleNamespace(
            detection=detection,
            anomaly=anomaly,
            task="boxes" if detection else "anomaly" if anomaly else "image",
            input=Fit(128, 128),
            architecture=SimpleNamespace(backbone="tf_efficientnet_lite0"),
        )
        return cast("Bundle", SimpleNamespace(contract=contract, digest="d", place="model"))

    return make


def test_an_unknown_target_is_named() -> None:
    with pytest.raises(InputError, match="colour"):
        plan(TrainConfig(targets=("colour",)), TWO)


def test_differences_are_described() -> None:
    first = plan(TrainConfig(epochs=3), TWO)
    same = plans.differences(first, TrainConfig(epochs=3, workers=2), "data", 3, TWO.fingerprint)
    other = plans.differences(first, TrainConfig(epochs=4), "data", 4, TWO.fingerprint)
    assert same == []
    assert other == ["dataset_version was 3 and is 4", "epochs was 3 and is 4"]


def test_a_plan_round_trips_through_json() -> None:
    planned = plan(TrainConfig(budget="20m"), photos(300), speed=FAST)
    assert Plan.model_validate(planned.model_dump(mode="json")) == planned
    assert planned.budget == 1200


@pytest.mark.parametrize(("text", "seconds"), [("20m", 1200), ("8h", 28800), ("1h30m", 5400), ("90s", 90), ("45", 45)])
def test_budgets_accept_common_notations(text: str, seconds: int) -> None:
    assert TrainConfig(budget=text).budget == seconds


@pytest.mark.parametrize("text", ["soon", "-5m", "0", "5 parsecs"])
def test_other_budgets_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="budget"):
        TrainConfig(budget=text)


def test_a_probe_has_defaults_of_a_probe() -> None:
    quick = plan(TrainConfig(preset="quick"), photos(100))
    assert (quick.mode, quick.batch_size, quick.lr, quick.patience) == ("probe", 256, 5e-3, quick.epochs)
    custom = plan(TrainConfig(preset="quick", lr=0.1, batch_size=8, patience=3), photos(100))
    assert (custom.batch_size, custom.lr, custom.patience) == (8, 0.1, 3)


@pytest.mark.parametrize("written", [32, "32"])
def test_a_precision_may_be_written_as_a_number(written):
    assert TrainConfig(precision=written).precision == "32"
    with pytest.raises(ValueError, match="precision"):
        TrainConfig(precision=16)
