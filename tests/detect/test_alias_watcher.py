"""A watch that follows an alias: the model changes over between two images, and nothing is lost or said twice."""

import io
import json
from pathlib import Path

import pytest

from plantml import registry, storage
from plantml.detect.alias_watcher import AliasWatcher, watched_alias
from plantml.detect.config import DetectConfig
from plantml.detect.detect import build_pipeline
from plantml.detect.results import Extras
from plantml.detect.sources import collect
from plantml.detect.watch import watch
from plantml.errors import InputError, StorageError
from plantml.model.bundle import Bundle
from plantml.registry import ledger
from plantml.registry.references import find

from .conftest import CONTRACT, Formula


class Registry:
    """A real registry whose versions are formulas: the acts are real, the files are left out."""

    def __init__(self, url):
        self.url, self.contracts = url, {}
        self.acts = ledger.History(url)

    def add(self, number, contract=CONTRACT):
        self.contracts[number] = contract
        for act in ("begin", "add"):
            content = {"act": act, "version": number, "digest": str(number) * 64, "files": {}, "size": 0, "by": "me"}
            self.acts.log.append(lambda _, content=content: content)

    def promote(self, number):
        content = {"act": "promote", "version": number, "alias": "production", "by": "me"}
        self.acts.log.append(lambda _: content)

    def open(self, config, ref):
        number = self.acts.ledger().entry(ref.rpartition("@")[2]).number
        bundle = Bundle(f"{self.url}/{number:04d}", self.contracts[number], str(number) * 64, {}, ref=ref)
        return build_pipeline(bundle, Formula(), config, 2), Extras()


@pytest.fixture
def models(tmp_path):
    models_registry = Registry(f"{tmp_path}/models/leaf")
    models_registry.add(1)
    models_registry.add(2)
    models_registry.promote(1)
    return models_registry


@pytest.fixture
def watched(models, tmp_path):
    """`watched(*steps, **settings)`: the records of a watch whose looks are preceded by these steps."""

    def work(*steps, out="records.jsonl", **settings):
        todo, stdout, lines = list(steps), io.StringIO(), []
        out = str(tmp_path / out) if out != "-" else out
        config = DetectConfig(out=out, watch=True, interval=1e-6, **settings)

        class Stop:
            done = False

            def __bool__(self):
                return self.done

            def until(self, items):
                yield from items

        stop = Stop()

        def look():
            if todo:
                (todo.pop(0) or (lambda: None))()
            else:
                stop.done = True
            return collect([str(tmp_path / "photos")], may_be_empty=True)

        pipeline, extras = models.open(config, f"{models.url}@production")
        watcher = AliasWatcher(pipeline.bundle, config, lambda ref: models.open(config, ref), lines.append)
        watch(look, pipeline, config, stdout=stdout, stop=stop, extras=extras, say=lines.append, new_model=watcher)
        text = stdout.getvalue() if out == "-" else Path(out).read_text()
        return text if out.endswith(".csv") else [json.loads(line) for line in text.splitlines()], lines

    return work


def models_of(records):
    return [(Path(record["image"]).name, record["model"][0]) for record in records]


@pytest.mark.parametrize("out", ["records.jsonl", "-"])
def test_the_model_changes_over_when_the_alias_moves(watched, models, paint, out):
    paint("a.png", 255)
    records, lines = watched(
        None, None, lambda: models.promote(2), lambda: paint("b.png", 0), None, None,
        lambda: registry.rollback(models.url, "production", by="me"), lambda: paint("c.png", 9), None, None, out=out,
    )  # fmt: skip
    assert models_of(records) == [("a.png", "1"), ("b.png", "2"), ("c.png", "1")]
    moves = [line for line in lines if "production" in line]
    assert [line.split(":")[0].rpartition(" ")[2] for line in moves] == ["2", "1"]


def test_it_changes_over_in_the_midst_of_many(watched, models, paint, monkeypatch):
    monkeypatch.setattr("plantml.detect.watch._BATCH", 3)
    for number in range(7):
        paint(f"{number}.png", 255)
    answered = Formula.run

    def run(self, batch, columns=None):
        if models.acts.ledger().aliases["production"] == 1:
            models.promote(2)
        return answered(self, batch)

    monkeypatch.setattr(Formula, "run", run)
    records, _ = watched(None, None, None)
    assert models_of(records) == [(f"{number}.png", "1" if number < 3 else "2") for number in range(7)]


def test_a_repeat_goes_on_with_the_same_output(watched, models, paint):
    paint("a.png", 255)
    watched(None, None)
    models.promote(2)
    paint("b.png", 0)
    records, _ = watched(None, None)
    assert models_of(records) == [("a.png", "1"), ("b.png", "2")]


def test_what_cannot_be_reached_or_opened_changes_nothing(watched, models, paint, monkeypatch):
    paint("a.png", 255)
    opened = models.open
    broken = {"yes": False}

    def open_(config, ref):
        if broken["yes"] and ref.endswith("@2"):
            raise StorageError("model.onnx is damaged")
        return opened(config, ref)

    monkeypatch.setattr(models, "open", open_)

    def move():
        broken["yes"] = True
        models.promote(2)

    def mend():
        broken["yes"] = False
        paint("c.png", 1)

    records, lines = watched(None, None, move, lambda: paint("b.png", 0), None, None, mend, None, None)
    assert models_of(records) == [("a.png", "1"), ("b.png", "1"), ("c.png", "2")]
    assert sum("stays in use" in line for line in lines) == 1


def test_new_classes_are_welcome_and_other_targets_end_the_watch(watched, models, paint):
    paint("a.png", 255)
    category, *rest = CONTRACT.targets
    more = CONTRACT.model_copy(
        update={"targets": (type(category)("category", "class", ("bean", "tomato", "fig")), *rest)}
    )
    models.add(3, more.model_copy(update={"targets": more.targets}))
    models.add(4, CONTRACT.model_copy(update={"targets": CONTRACT.targets[:1]}))
    models.promote(3)
    models.promote(1)
    with pytest.raises(InputError, match="predicts other targets"):
        watched(None, None, lambda: models.promote(3), None, lambda: models.promote(4), None, None)
    models.promote(3)
    models.promote(4)
    with pytest.raises(InputError, match="another detection"):
        watched(None, None)


def test_only_an_alias_of_a_watch_is_followed(models):
    config = DetectConfig(watch=True)
    named = Bundle("url", CONTRACT, "1" * 64, {}, ref=f"{models.url}@production")
    assert watched_alias(named, config) == f"{models.url}@production"
    assert watched_alias(named, DetectConfig()) == ""
    assert watched_alias(Bundle("url", CONTRACT, "1" * 64, {}, ref=f"{models.url}@1"), config) == ""
    assert watched_alias(Bundle("url", CONTRACT, "1" * 64, {}), config) == ""


def test_the_command_follows_a_registry(trained, cli, tmp_path, write_photos):
    assert cli("models", "add", trained.run, tmp_path / "models/leaf", "--alias", "line").code == 0
    home = write_photos(tmp_path / "photos", ("a.jpg",))
    out = tmp_path / "records.jsonl"
    done = cli("detect", home, "--model", f"{tmp_path}/models/leaf@line", "--out", out)
    assert done.code == 0, done.err
    digest = find(trained.run).digest
    assert json.loads(storage.read(str(out)))["model"] == digest
