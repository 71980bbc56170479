"""A training that starts from an alias stays with the version that it got."""

import pytest

from plantml import registry, settings
from plantml.errors import InputError
from plantml.train import network_training, selection, warm_start
from plantml.train.config import TrainConfig


def test_the_plan_names_the_version_and_not_the_alias(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(network_training.throughput, "measure", lambda *_: None)
    model = f"{tmp_path}/models/leaf"
    entry = registry.add(trained.run, model, by="me", alias="here")
    config = TrainConfig(warm_start=f"{model}@here")
    plan = network_training.make_plan(selection.select(trained.data, config), config, settings.machine())
    assert (plan.warm_start, plan.parent) == (entry.url, entry.digest)
    assert plan.asked["warm_start"] == f"{model}@here"
    registry.unalias(model, "here", by="me")
    assert warm_start.parent_bundle(plan).digest == entry.digest
    with pytest.raises(InputError, match="has changed since the run started"):
        warm_start.parent_bundle(plan.model_copy(update={"parent": "f" * 64}))
