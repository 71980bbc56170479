"""What each cell of the map should answer, and its loss."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from plantml.targets import Target
from plantml.train.boxes.cells import cells_of, focal, loss_of

CATEGORY = Target("category", "class", ("bean", "maize"))


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def test_the_middle_of_a_box_is_a_centre_and_its_neighbourhood_learns_the_box():
    cells = cells_of(boxes((20, 12, 32, 16)), 64, 96)
    assert cells.centre.shape == (16, 24)
    assert np.argwhere(cells.centre == 1).tolist() == [[5, 9]]
    assert cells.box[5, 9] == 0
    assert (cells.box >= 0).sum() == (cells.weight > 0).sum() > 1
    assert ((cells.centre > 0) == (cells.box >= 0)).all()


def test_the_smaller_of_two_overlapping_boxes_is_learnt_in_the_middle():
    for order in (((0, 0, 64, 64), (28, 28, 8, 8)), ((28, 28, 8, 8), (0, 0, 64, 64))):
        cells = cells_of(boxes(*order), 64, 64)
        assert order[cells.box[8, 8]] == (28, 28, 8, 8)


def test_boxes_at_the_edge_and_tiny_ones_have_a_centre():
    cells = cells_of(boxes((0, 0, 2, 2), (61, 61, 3, 3)), 64, 64)
    assert cells.centre[0, 0] == cells.centre[15, 15] == 1


def test_a_photo_without_boxes_has_no_centre():
    cells = cells_of(boxes(), 64, 64)
    assert not cells.centre.any()
    assert (cells.box == -1).all()


def test_a_doubtful_box_is_neither_an_object_nor_background():
    certain, doubtful = (0, 0, 16, 16), (32, 32, 16, 16)
    cells = cells_of(boxes(certain, doubtful), 64, 64, np.array([False, True]))
    assert np.argwhere(cells.centre == 1).tolist() == [[2, 2]]
    assert not (cells.box == 1).any()
    sure = torch.full((1, 16, 16), -9.0)
    sure[0, 2, 2] = 9  # it finds the certain one
    truth = torch.from_numpy(cells.centre)[None]
    for row, column, counts in ((10, 10, False), (14, 2, True)):
        logits = sure.clone()
        logits[0, row, column] = 3
        assert (focal(logits, truth) > focal(sure, truth) + 0.1) == counts


def test_a_doubtful_box_takes_no_cell_from_a_certain_one():
    alone = cells_of(boxes((8, 8, 32, 32)), 64, 64)
    both = cells_of(boxes((8, 8, 32, 32), (0, 0, 64, 64)), 64, 64, np.array([False, True]))
    assert (both.box == alone.box).all()
    assert (both.centre[alone.box == 0] == alone.centre[alone.box == 0]).all()


def batch_of(*photos):
    cells = [cells_of(each, 64, 64) for each in photos]
    most = max(map(len, photos)) or 1
    padded = np.stack([np.vstack([each, np.zeros((most - len(each), 4), np.float32)]) for each in photos])
    batch = {
        name: torch.from_numpy(np.stack([getattr(each, name) for each in cells]))
        for name in ("centre", "box", "weight")
    }
    return batch | {
        "boxes": torch.from_numpy(padded),
        "target.category": torch.zeros(len(photos), most, dtype=torch.int64),
    }


def perfect_maps(batch):
    centre = torch.where(batch["centre"] == 1, 12.0, -12.0).unsqueeze(1)
    step = torch.arange(16) * 4 + 2.0
    x, y = step.view(1, 1, 16), step.view(1, 16, 1)
    number = batch["box"].clamp_min(0)
    box = torch.stack([each[index] for each, index in zip(batch["boxes"], number, strict=True)])
    left, top, w, h = box.unbind(dim=3)
    sides = torch.stack([x - left, y - top, left + w - x, top + h - y], dim=1)
    category = torch.stack(
        [torch.full_like(number, 12.0, dtype=torch.float32), torch.zeros_like(number).float()], dim=1
    )
    return {"centre": centre, "sides": sides, "target.category": category}


def loss(maps, batch, targets=(CATEGORY,), **options):
    return loss_of(maps, batch, targets, scales={}, **options)


def test_the_loss_of_the_right_answers_is_almost_nothing_and_each_mistake_adds_to_its_part():
    batch = batch_of(boxes((10, 10, 20, 30), (40, 36, 16, 16)), boxes((4, 30, 40, 20)))
    maps = perfect_maps(batch)
    right = loss(maps, batch)
    assert right.centre < 0.01
    assert_close(right.sides, torch.tensor(0.0), atol=1e-5, rtol=0)
    assert right.targets < 1e-4
    wrong = {
        "centre": maps | {"centre": -maps["centre"]},
        "sides": maps | {"sides": maps["sides"] * 1.5},
        "targets": maps | {"target.category": -maps["target.category"]},
    }
    for part, changed in wrong.items():
        for name in ("centre", "sides", "targets"):
            assert (getattr(loss(changed, batch), name) > getattr(right, name) + 0.1) == (name == part)


def test_a_batch_without_boxes_and_one_without_labels_have_a_finite_loss_with_a_gradient():
    for batch, targets in ((batch_of(boxes(), boxes()), (CATEGORY,)), (batch_of(boxes((10, 10, 20, 30))), ())):
        maps = {name: each.clone().requires_grad_() for name, each in perfect_maps(batch).items()}
        total = loss(maps, batch, targets).total
        total.backward()
        assert total.isfinite()
        assert maps["centre"].grad.isfinite().all()


def test_unlabelled_boxes_teach_no_class():
    batch = batch_of(boxes((10, 10, 20, 30)))
    batch["target.category"] -= 1
    assert loss(perfect_maps(batch), batch).targets == 0


def test_weights_and_shifts_of_classes_reach_the_loss():
    batch = batch_of(boxes((10, 10, 20, 30)))
    maps = perfect_maps(batch) | {"target.category": torch.zeros(1, 2, 16, 16)}
    plain = loss(maps, batch).targets
    assert_close(plain, torch.tensor(2.0).log())
    assert loss(maps, batch, shifts={"category": (-3.0, 0.0)}).targets > plain + 1
    assert_close(loss(maps, batch, weights={"category": (0.5, 1.5)}).targets, plain)  # its mean over one class


@pytest.mark.parametrize("logit", [-3.0, 0.0, 3.0])
def test_the_focal_loss_is_that_of_the_paper(logit):
    truth, p = torch.tensor([[[1.0, 0.5]]]), 1 / (1 + np.exp(-logit))
    expected = -((1 - p) ** 2 * np.log(p) + (1 - 0.5) ** 4 * p**2 * np.log(1 - p))
    assert_close(focal(torch.full((1, 1, 2), logit), truth), torch.tensor(expected, dtype=torch.float32))
