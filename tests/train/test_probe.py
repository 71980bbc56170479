"""Heads train on embeddings, which are computed once and saved meanwhile."""

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
from plantml.train.embedding_store import EmbeddingStore

DISEASE = Target("disease", "class", ("rust", "none"))
PHOTOS = 70


class Mean(nn.Module):
    """Embeds a photo as the means of its colours, and counts photos."""

    embedded = 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.embedded += len(image)
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
def store(tmp_path) -> EmbeddingStore:
    return EmbeddingStore(tmp_path, 0.0, lambda: None)


def test_heads_warm_up_on_a_sample_of_many_photos(make_plan, net, photos, store, monkeypatch) -> None:
    monkeypatch.setattr(probe, "WARM_UP_PHOTOS", 50)
    before = net.heads["disease"].weight.clone()
    probe.warm_up_heads(net, make_plan(targets=(DISEASE,)), photos, probe.EmbeddingJob("cpu", store, Stop()))
    assert net.backbone.embedded == 50
    assert not torch.equal(net.heads["disease"].weight, before)
    rows = [int(file.stem.split("-")[-1]) for file in store.folder.iterdir()]
    assert sorted(rows) == [32, 50]


def test_embeddings_of_other_photos_are_not_reused(make_plan, net, photos, store) -> None:
    """A photo was missing when the training was killed, and is back now."""
    plan = make_plan(targets=(DISEASE,), mode="probe", augment=0.0, views=1)
    job = probe.EmbeddingJob("cpu", store, Stop())
    fewer = Photos(photos.pixels, photos.keys, photos.labels, photos.rows[1:])
    first, _ = probe._augmented(net, plan, fewer, fewer.rows, job)
    assert len(list(store.folder.iterdir())) == 3
    again, labels = probe._augmented(net, plan, photos, photos.rows, job)
    assert torch.equal(again[1:], first)
    assert len(again) == len(labels["disease"]) == PHOTOS
    assert net.backbone.embedded == PHOTOS - 1 + PHOTOS
    probe._augmented(net, plan, photos, photos.rows, job)
    assert net.backbone.embedded == PHOTOS - 1 + PHOTOS


def test_segments_of_two_machines_are_not_mixed(make_plan, net, photos, store) -> None:
    """One was killed before its last upload, another resumed, and the first now has the segments of both."""
    plan, job = make_plan(targets=(DISEASE,), augment=0.0, views=1), probe.EmbeddingJob("cpu", store, Stop())
    expected, _ = probe._augmented(net, plan, photos, photos.rows, job)
    first, second, last = sorted(store.folder.iterdir())
    last.unlink()
    np.save(store.folder / last.name, expected[32:].numpy())  # it ends where ours ends, and starts earlier
    embeddings, _ = probe._augmented(net, plan, photos, photos.rows, job)
    assert torch.equal(embeddings, expected)
    second.unlink()
    embeddings, _ = probe._augmented(net, plan, photos, photos.rows, job)
    assert torch.equal(embeddings, expected)
    first.write_bytes(first.read_bytes()[:200])
    embeddings, _ = probe._augmented(net, plan, photos, photos.rows, job)
    assert torch.equal(embeddings, expected)
    assert net.backbone.embedded == PHOTOS + 6 + PHOTOS - 32 + PHOTOS


def test_a_process_of_higher_rank_reads_and_does_not_write(make_plan, net, photos, store) -> None:
    plan = make_plan(targets=(DISEASE,), augment=0.0, views=2)
    read_only = EmbeddingStore(store.folder, 0.0, pytest.fail, writes=False)
    embeddings, labels = probe._augmented(net, plan, photos, photos.rows, probe.EmbeddingJob("cpu", read_only, Stop()))
    assert not list(store.folder.iterdir())
    assert embeddings.shape == (2 * PHOTOS, 3)
    assert torch.equal(labels["disease"][:PHOTOS], labels["disease"][PHOTOS:])
    probe._augmented(net, plan, photos, photos.rows, probe.EmbeddingJob("cpu", store, Stop()))
    read, _ = probe._augmented(net, plan, photos, photos.rows, probe.EmbeddingJob("cpu", read_only, Stop()))
    assert torch.equal(read, embeddings)
    assert net.backbone.embedded == 4 * PHOTOS
