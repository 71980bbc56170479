"""The detector: from maps to boxes."""

import numpy as np
import pytest
import torch
from tests.contracts import make_contract
from torch import nn
from torch.testing import assert_close

from plantml.errors import InputError
from plantml.model import detector
from plantml.model.contract import Architecture, Detection
from plantml.model.detector import CentreNet, DeployedDetector
from plantml.targets import Target

TARGETS = (Target("category", "class", ("bean", "maize")), Target("severity", "value", unit="fraction"))


class Levels(nn.Module):
    """A backbone whose maps are means of the photo at strides 4 to 32."""

    class feature_info:  # noqa: N801 - timm's name
        @staticmethod
        def channels():
            return [3, 3, 3, 3]

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, pixels):
        return [nn.functional.avg_pool2d(self.norm(pixels), stride) for stride in detector.LEVELS]


def net(targets=TARGETS):
    torch.manual_seed(0)
    architecture = Architecture(backbone="", embedding=8, mean=(0.5,) * 3, std=(0.5,) * 3, bank=0)
    return CentreNet(architecture, targets, Levels()).eval()


def deployed(boxes=5, slope=1.0, offset=0.0, targets=TARGETS, overlap=None):
    detection = Detection(boxes=boxes, slope=slope, offset=offset, threshold=0.3, accept=0.5, overlap=overlap)
    return DeployedDetector(net(targets), detection, {}).eval()


def empty_maps(rows=16, columns=24, targets=TARGETS):
    maps = {"centre": torch.full((1, 1, rows, columns), -9.0), "sides": torch.ones(1, 4, rows, columns)}
    # No plateau: a cell that is as high as its neighbours counts as a maximum.
    maps["centre"] -= torch.arange(rows * columns).view(1, 1, rows, columns) * 1e-4
    return maps | {f"target.{target.name}": torch.zeros(1, target.size, rows, columns) for target in targets}


def put(maps, row, column, sides, score):
    maps["centre"][0, 0, row, column] = score
    maps["sides"][0, :, row, column] = torch.tensor(sides)


def test_a_box_is_where_its_centre_and_sides_say():
    maps = empty_maps()
    put(maps, 5, 10, (8.0, 6.0, 4.0, 2.0), 2.0)
    maps["target.category"][0, :, 5, 10] = torch.tensor([0.0, 3.0])
    boxes, score, logits = deployed().decode(maps, 64, 96)
    assert_close(boxes[0, 0], torch.tensor([42.0 - 8, 22.0 - 6, 12.0, 8.0]))
    assert_close(score[0, 0], torch.tensor(2.0).sigmoid())
    assert logits["category"][0, 0].tolist() == [0.0, 3.0]


def test_only_maxima_count_best_first_and_within_the_input():
    maps = empty_maps()
    put(maps, 3, 3, (99.0, 99.0, 99.0, 99.0), 1.0)
    put(maps, 3, 4, (4.0,) * 4, 0.9)  # beside a higher one
    put(maps, 12, 20, (4.0,) * 4, 3.0)
    boxes, score, _ = deployed().decode(maps, 64, 96)
    assert (score[0] > 0.5).sum() == 2
    assert_close(boxes[0, 1], torch.tensor([0.0, 0.0, 96.0, 64.0]))
    assert (score[0, :-1] >= score[0, 1:]).all()


def test_the_calibration_changes_scores_and_not_their_order():
    maps = empty_maps()
    put(maps, 3, 3, (4.0,) * 4, 1.0)
    put(maps, 9, 9, (4.0,) * 4, 2.0)
    boxes, score, _ = deployed().decode(maps, 64, 96)
    same, calibrated, _ = deployed(slope=2.0, offset=-1.0).decode(maps, 64, 96)
    assert_close(boxes[0, :2], same[0, :2])
    assert_close(calibrated[0, :2], torch.tensor([3.0, 1.0]).sigmoid())
    assert_close(score[0, :2], torch.tensor([2.0, 1.0]).sigmoid())


def test_a_box_on_a_better_one_is_left_out():
    maps = empty_maps()
    put(maps, 3, 3, (12.0,) * 4, 2.0)
    put(maps, 3, 5, (12.0,) * 4, 1.0)  # an IoU of 0.5 with the first
    put(maps, 9, 15, (12.0,) * 4, 0.5)
    maps["target.category"][0, 1, 9, 15] = 5.0
    boxes, score, logits = deployed(overlap=0.4).decode(maps, 64, 96)
    assert_close(score[0, :2], torch.tensor([2.0, 0.5]).sigmoid())
    assert (score[0, 2:] < 0.01).all()
    assert_close(boxes[0, 1], torch.tensor([50.0, 26.0, 24.0, 24.0]))
    assert logits["category"][0, 1].tolist() == [0.0, 5.0]
    _, every, _ = deployed(overlap=0.6).decode(maps, 64, 96)
    assert_close(every[0, :3], torch.tensor([2.0, 1.0, 0.5]).sigmoid())


def test_bundles_from_before_keep_their_digest():
    contract = make_contract(*TARGETS, detection=deployed().detection)
    assert b'"overlap"' not in contract.canonical()


@pytest.mark.parametrize("targets", [TARGETS, ()])
def test_outputs_have_the_shapes_of_the_contract(targets):
    model = deployed(targets=targets)
    outputs = dict(zip(model.output_names, model(torch.zeros(2, 64, 96, 3, dtype=torch.uint8)), strict=True))
    shapes = {"boxes": (2, 5, 4), "score": (2, 5)} | {f"target.{each.name}": (2, 5, each.size) for each in targets}
    assert {name: tuple(output.shape) for name, output in outputs.items()} == shapes
    assert all(output.isfinite().all() for output in outputs.values())


def test_a_photo_gives_the_same_boxes_alone_and_in_a_batch():
    model = deployed()
    photos = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8))
    together = model(photos)
    for number in range(3):
        for one, all_ in zip(model(photos[number : number + 1]), together, strict=True):
            assert_close(one[0], all_[number])


def test_statistics_of_the_backbone_can_be_fixed():
    model = net()
    photos = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    before = model.backbone.norm.running_mean.clone()
    model.has_fixed_statistics = True
    model.train()(photos)
    assert_close(model.backbone.norm.running_mean, before)
    assert model.laterals[0][1].training
    model.has_fixed_statistics = False
    model.train()(photos)
    assert not torch.equal(model.backbone.norm.running_mean, before)


def test_a_backbone_without_fine_maps_is_an_input_error():
    with pytest.raises(InputError, match="vit_tiny_patch16_224 has no maps"):
        detector.bare_features("vit_tiny_patch16_224", detector.LEVELS)
    with pytest.raises(ValueError, match="nonsense"):
        detector.bare_features("nonsense", detector.LEVELS)
