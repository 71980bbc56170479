"""Labels of blended photos match the blend, and the batch preview shows them."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from plantml.targets import Target
from plantml.train.batches.loader import Photos
from plantml.train.batches.mixup import MixedBatch, mix
from plantml.train.batches.preview import _captions, example_batch

DISEASE = Target("disease", "class", ("rust", "none"))


@pytest.mark.parametrize("settings", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_blended_photos_have_blended_labels(make_plan, batch, settings: dict[str, float]) -> None:
    plan = make_plan(**settings)
    for step in range(20):
        mixed = mix(batch, plan, step)
        assert mixed.image.shape == batch["image"].shape
        assert sum(mixed.shares) == pytest.approx(1)
        assert sorted(mixed.labels[1]["severity"].tolist()) == sorted(batch["severity"].tolist())
        again = mix(batch, plan, step)
        assert torch.equal(mixed.image, again.image)
        assert mixed.shares == again.shares


def test_shares_of_cutmix_are_the_pasted_area(make_plan) -> None:
    white, black = torch.full((1, 32, 32, 3), 255, dtype=torch.uint8), torch.zeros((1, 32, 32, 3), dtype=torch.uint8)
    batch = {"image": torch.cat([white, black]), "disease": torch.tensor([0, 1])}
    for step in range(20):
        mixed = mix(batch, make_plan(cutmix=1.0), step)
        if mixed.labels[1]["disease"].tolist() == [1, 0]:
            assert float((mixed.image[0] == 255).float().mean()) == pytest.approx(mixed.shares[0])


def test_nothing_is_blended_by_default(make_plan, batch) -> None:
    assert mix(batch, make_plan(), 0) == MixedBatch(batch["image"], (batch,), (1.0,))


@pytest.mark.parametrize(
    ("values", "blended"), [({}, False), ({"mixup": 0.4}, True), ({"mixup": 0.4, "mode": "probe"}, False)]
)
def test_the_preview_shows_the_first_step(make_plan, values, blended) -> None:
    """Photos have one of two colours, and a blend has neither."""
    pixels = np.stack([np.full((40, 40, 3), tone, np.uint8) for tone in (50, 250) * 4])
    photos = Photos(pixels, np.arange(8, dtype=np.uint64), {"disease": np.array([0, 1] * 4)}, np.arange(8))
    plan = make_plan(targets=(DISEASE,), augment=0.0, epoch_photos=8, batch_size=8, **values)
    png = example_batch(photos, plan)
    assert png == example_batch(photos, plan)
    image = np.asarray(Image.open(io.BytesIO(png)))
    tiles = [
        image[6 + row * (53 + 15 * blended) + 16, 6 + column * 38 + 16, 0] for row in range(2) for column in range(4)
    ]
    assert (set(tiles) <= {50, 250}) != blended


def test_captions_of_blended_photos_show_the_shares() -> None:
    one, two = ({"disease": torch.tensor([0, 1])}, {"disease": torch.tensor([0, 0])})
    mixed = MixedBatch(torch.zeros(2, 4, 4, 3), (one, two), (0.75, 0.25))
    assert _captions(DISEASE, mixed, 0) == ["disease: rust"]
    assert _captions(DISEASE, mixed, 1) == ["75% disease: none", "25% disease: rust"]
