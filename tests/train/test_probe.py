"""Heads learn from embeddings, which are computed once and kept while more are made."""

import numpy as np
import pytest
import torch
from torch import nn

from plantml.concurrency import Stop
from plantml.model.contract import Architecture
from plantml.model.network import PlantNet
from plantml.targets import Target
from plantml.train import probe
from plantml.train.batches import Photos
from plantml.train.embedding_store import Parts

DISEASE = Target("disease", "class", ("rust", "none"))
PHOTOS = 70


class Mean(nn.Module):
    """Embeds a photo as the means of its colours, and counts."""

    seen = 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.seen += len(image)
        return image.mean(dim=(2, 3))


@pytest.fixture
def net() -> PlantNet:
    torch.manual_seed(0)
    return PlantNet(
        Architecture(backbone="x", embedding=3, mean=(0.5,) * 3, std=(0.5,) * 3, bank=1), (DISEASE,), Mean()
    )


@pytest.fixture
def photos() -> Photos:
    truth = np.arange(PHOTOS) % 2
    pixels = np.random.default_rng(0).integers(0, 100, (PHOTOS, 40, 40, 3)).astype(np.uint8)
    pixels += (truth * 100).astype(np.uint8)[:, None, None, None]
    return Photos(pixels, np.arange(PHOTOS, dtype=np.uint64), {"disease": truth}, np.arange(PHOTOS))


@pytest.fixture
def parts(tmp_path) -> Parts:
    return Parts(tmp_path, 0.0, lambda: None)


def test_heads_start_with_some_photos_where_there_are_many(make_plan, net, photos, parts, monkeypatch) -> None:
    monkeypatch.setattr(probe, "HEADS_FIRST", 50)
    before = net.heads["disease"].weight.clone()
    probe.fit_heads_first(net, make_plan(targets=(DISEASE,)), photos, probe.Looking("cpu", parts, Stop()))
    assert net.backbone.seen == 50
    assert not torch.equal(net.heads["disease"].weight, before)
    kept = [int(file.stem.split("-")[-1]) for file in parts.folder.iterdir()]
    assert sorted(kept) == [32, 50]


def test_what_was_kept_of_other_photos_is_not_taken_for_theirs(make_plan, net, photos, parts) -> None:
    """A photo that was missing when the training was killed came back."""
    plan = make_plan(targets=(DISEASE,), mode="probe", augment=0.0, views=1)
    looking = probe.Looking("cpu", parts, Stop())
    some = Photos(photos.pixels, photos.keys, photos.labels, photos.rows[1:])
    first, _ = probe._features(net, plan, some, some.rows, looking)
    assert len(list(parts.folder.iterdir())) == 3
    again, labels = probe._features(net, plan, photos, photos.rows, looking)
    assert torch.equal(again[1:], first)
    assert len(again) == len(labels["disease"]) == PHOTOS
    assert net.backbone.seen == PHOTOS - 1 + PHOTOS
    probe._features(net, plan, photos, photos.rows, looking)
    assert net.backbone.seen == PHOTOS - 1 + PHOTOS


def test_parts_of_two_machines_are_not_put_behind_each_other(make_plan, net, photos, parts) -> None:
    """One was killed before its last part was copied, another went on, and the first has the parts of both."""
    plan, looking = make_plan(targets=(DISEASE,), augment=0.0, views=1), probe.Looking("cpu", parts, Stop())
    wanted, _ = probe._features(net, plan, photos, photos.rows, looking)
    first, second, last = sorted(parts.folder.iterdir())
    last.unlink()
    np.save(parts.folder / last.name, wanted[32:].numpy())  # which ends where ours ends, and begins earlier
    found, _ = probe._features(net, plan, photos, photos.rows, looking)
    assert torch.equal(found, wanted)
    second.unlink()
    found, _ = probe._features(net, plan, photos, photos.rows, looking)
    assert torch.equal(found, wanted)
    first.write_bytes(first.read_bytes()[:200])
    found, _ = probe._features(net, plan, photos, photos.rows, looking)
    assert torch.equal(found, wanted)
    assert net.backbone.seen == PHOTOS + 6 + PHOTOS - 32 + PHOTOS


def test_a_helping_process_reads_and_does_not_write(make_plan, net, photos, parts) -> None:
    plan = make_plan(targets=(DISEASE,), augment=0.0, views=2)
    helping = Parts(parts.folder, 0.0, pytest.fail, writes=False)
    made, labels = probe._features(net, plan, photos, photos.rows, probe.Looking("cpu", helping, Stop()))
    assert not list(parts.folder.iterdir())
    assert made.shape == (2 * PHOTOS, 3)
    assert torch.equal(labels["disease"][:PHOTOS], labels["disease"][PHOTOS:])
    probe._features(net, plan, photos, photos.rows, probe.Looking("cpu", parts, Stop()))
    read, _ = probe._features(net, plan, photos, photos.rows, probe.Looking("cpu", helping, Stop()))
    assert torch.equal(read, made)
    assert net.backbone.seen == 4 * PHOTOS
