"""Heads train on embeddings, which are computed once and saved meanwhile."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from plantml.concurrency import Stop
from plantml.imaging import Fit
from plantml.model.contract import Architecture
from plantml.model.network import PlantNet
from plantml.targets import Target
from plantml.train import probe
from plantml.train.batches.loader import Photos
from plantml.train.plan import Plan

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
def job(tmp_path) -> probe.EmbeddingJob:
    """Saves after each batch."""
    return probe.EmbeddingJob("cpu", tmp_path, 0.0, lambda: None, Stop())


def views(net: PlantNet, plan: Plan, photos: Photos, job: probe.EmbeddingJob) -> tuple[torch.Tensor, dict]:
    with torch.inference_mode():
        return probe._views(probe.in_torch(net, "cpu"), plan, photos, photos.rows, job)


def test_the_first_view_of_a_photo_is_the_photo_itself(make_plan, net, photos, job) -> None:
    plan = make_plan(targets=(DISEASE,), augment=2.0, views=2, input=Fit(40, 40))
    embeddings, _ = views(net, plan, photos, job)
    plain = net.embed(torch.from_numpy(photos.pixels))
    assert torch.allclose(embeddings[:PHOTOS], plain)
    assert not torch.isclose(embeddings[PHOTOS:], plain).all(1).any()


def test_many_photos_are_embedded_in_onnxruntime_as_in_torch(make_plan, photos, job, monkeypatch) -> None:
    monkeypatch.setattr(probe, "_WORTH", PHOTOS)
    plan = make_plan(targets=(DISEASE,), input=Fit(40, 40))
    layers = nn.Conv2d(3, 3, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    architecture = Architecture(backbone="x", embedding=3, mean=(0.5,) * 3, std=(0.5,) * 3, bank=1)
    colours = PlantNet(architecture, (DISEASE,), nn.Sequential(*layers))
    job = replace(job, threads=2)
    with torch.inference_mode():
        expected = probe.embedding(colours, plan, PHOTOS - 1, job)(photos.pixels)
        actual = probe.embedding(colours, plan, PHOTOS, job)(photos.pixels)
    assert not torch.equal(actual, torch.zeros_like(actual))
    assert torch.allclose(actual, expected, atol=1e-5)
    assert colours.backbone[1].inplace  # the exporter had a copy
    assert all(parameter.requires_grad for parameter in colours.parameters())


def test_heads_warm_up_on_a_sample_of_many_photos(make_plan, net, photos, job, monkeypatch) -> None:
    monkeypatch.setattr(probe, "WARM_UP_PHOTOS", 50)
    before = net.heads["disease"].weight.clone()
    probe.warm_up_heads(net, make_plan(targets=(DISEASE,)), photos, job)
    assert net.backbone.embedded == 50
    assert not torch.equal(net.heads["disease"].weight, before)
    assert [file.name[:17] for file in sorted(job.folder.iterdir())] == ["000001.embeddings", "000002.embeddings"]


def test_embeddings_of_other_photos_are_not_reused(make_plan, net, photos, job) -> None:
    """A photo was missing when the training was killed, and is back now."""
    plan = make_plan(targets=(DISEASE,), mode="probe", augment=0.0, views=1)
    fewer = Photos(photos.pixels, photos.keys, photos.labels, photos.rows[1:])
    first, _ = views(net, plan, fewer, job)
    assert len(list(job.folder.iterdir())) == 3
    again, labels = views(net, plan, photos, job)
    assert torch.equal(again[1:], first)
    assert len(again) == len(labels["disease"]) == PHOTOS
    assert net.backbone.embedded == PHOTOS - 1 + PHOTOS
    views(net, plan, photos, job)
    assert net.backbone.embedded == PHOTOS - 1 + PHOTOS


def test_segments_of_two_machines_give_the_same_embeddings(make_plan, net, photos, job) -> None:
    """One was killed before its last upload, another resumed, and the first now has the segments of both."""
    plan = make_plan(targets=(DISEASE,), augment=0.0, views=1)
    expected, _ = views(net, plan, photos, job)
    first, second, last = sorted(job.folder.iterdir())
    last.write_bytes(second.read_bytes())
    second.unlink()
    assert torch.equal(views(net, plan, photos, job)[0], expected)
    assert net.backbone.embedded == PHOTOS + 6
    (job.folder / f".{first.name[:20]}.abc.part").write_bytes(b"left by a killed write")
    first.write_bytes(first.read_bytes()[:200])
    assert torch.equal(views(net, plan, photos, job)[0], expected)
    assert net.backbone.embedded == PHOTOS + 6 + 32
    assert not list(job.folder.glob(".*.part"))


def test_a_process_of_higher_rank_reads_and_does_not_write(make_plan, net, photos, job) -> None:
    plan = make_plan(targets=(DISEASE,), augment=0.0, views=2)
    read_only = replace(job, on_save=pytest.fail, writes=False)
    embeddings, labels = views(net, plan, photos, read_only)
    assert not list(job.folder.iterdir())
    assert embeddings.shape == (2 * PHOTOS, 3)
    assert torch.equal(labels["disease"][:PHOTOS], labels["disease"][PHOTOS:])
    views(net, plan, photos, job)
    read, _ = views(net, plan, photos, read_only)
    assert torch.equal(read, embeddings)
    assert net.backbone.embedded == 4 * PHOTOS
