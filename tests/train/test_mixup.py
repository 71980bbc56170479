"""A blend is what its labels say, and the picture of a batch shows it."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from plantml.targets import Target
from plantml.train.batch_preview import _captions, example_batch
from plantml.train.batches import Photos
from plantml.train.mixup import MixedBatch, mixed

DISEASE = Target("disease", "class", ("rust", "none"))


@pytest.mark.parametrize("way", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_blended_photos_have_blended_labels(make_plan, batch, way: dict[str, float]) -> None:
    plan, given = make_plan(**way), batch
    for step in range(20):
        seen = mixed(given, plan, step)
        assert seen.image.shape == given["image"].shape
        assert sum(seen.shares) == pytest.approx(1)
        assert sorted(seen.labels[1]["severity"].tolist()) == sorted(given["severity"].tolist())
        again = mixed(given, plan, step)
        assert torch.equal(seen.image, again.image)
        assert seen.shares == again.shares


def test_cutmix_pastes_as_much_as_it_says(make_plan) -> None:
    white, black = torch.full((1, 32, 32, 3), 255, dtype=torch.uint8), torch.zeros((1, 32, 32, 3), dtype=torch.uint8)
    given = {"image": torch.cat([white, black]), "disease": torch.tensor([0, 1])}
    for step in range(20):
        seen = mixed(given, make_plan(cutmix=1.0), step)
        if seen.labels[1]["disease"].tolist() == [1, 0]:
            assert float((seen.image[0] == 255).float().mean()) == pytest.approx(seen.shares[0])


def test_nothing_is_blended_unless_the_plan_says_so(make_plan, batch) -> None:
    given = batch
    assert mixed(given, make_plan(), 0) == MixedBatch(given["image"], (given,), (1.0,))


@pytest.mark.parametrize(
    ("values", "blended"), [({}, False), ({"mixup": 0.4}, True), ({"mixup": 0.4, "mode": "probe"}, False)]
)
def test_the_picture_shows_the_first_step(make_plan, values, blended) -> None:
    """Two colours, of which a blend has neither."""
    pixels = np.stack([np.full((40, 40, 3), tone, np.uint8) for tone in (50, 250) * 4])
    photos = Photos(pixels, np.arange(8, dtype=np.uint64), {"disease": np.array([0, 1] * 4)}, np.arange(8))
    plan = make_plan(targets=(DISEASE,), augment=0.0, epoch_photos=8, batch_size=8, **values)
    made = example_batch(photos, plan)
    assert made == example_batch(photos, plan)
    image = np.asarray(Image.open(io.BytesIO(made)))
    tiles = [
        image[6 + row * (53 + 15 * blended) + 16, 6 + column * 38 + 16, 0] for row in range(2) for column in range(4)
    ]
    assert (set(tiles) <= {50, 250}) != blended


def test_a_blend_is_told_with_its_shares() -> None:
    one, two = ({"disease": torch.tensor([0, 1])}, {"disease": torch.tensor([0, 0])})
    seen = MixedBatch(torch.zeros(2, 4, 4, 3), (one, two), (0.75, 0.25))
    assert _captions(DISEASE, seen, 0) == ["disease: rust"]
    assert _captions(DISEASE, seen, 1) == ["75% disease: none", "25% disease: rust"]
