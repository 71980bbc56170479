"""A training that is killed anywhere and repeated ends with the weights of an uninterrupted one."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from tests import warm

from plantml.data import versions
from plantml.errors import Exit

SMALL = ("--size", "48", "--epochs", "3", "--set", "backbone=test_efficientnet", "--set", "pretrained=false",
         "--batch-size", "8", "--checkpoint-every", "0.01")  # fmt: skip

# Code that a subprocess runs before the command, so that it ends at a certain moment.
AT_A_FILE = """
from plantml import storage
from plantml.storage import writing

def fatal(work):
    def kills(url, *rest, **more):
        if {name!r} in url:
            os.kill(os.getpid(), signal.SIGKILL)
        return work(url, *rest, **more)
    return kills

writing.write = storage.write = fatal(storage.write)
storage.staged = fatal(storage.staged)
"""
AT_A_STEP = """
from plantml.train.checkpoint import CheckpointCallback
after = CheckpointCallback.on_train_batch_end

def ended(self, *arguments):
    if self.module.step == {step}:
        os.kill(os.getpid(), {signal})
    after(self, *arguments)

CheckpointCallback.on_train_batch_end = ended
"""
AT_A_COPY = """
import time
from plantml import storage
from plantml.train.checkpoint import CheckpointCallback
from plantml.train.run_folder import RunFolder
after, copy = CheckpointCallback.on_train_batch_end, RunFolder._upload

def ended(self, *arguments):
    after(self, *arguments)
    time.sleep(0.1)

def copied(self):
    copy(self)
    names = [entry.name for entry in storage.list_files(storage.join(self.url, "checkpoints"))]
    if max(names) >= {name!r}:
        os.kill(os.getpid(), signal.SIGKILL)

CheckpointCallback.on_train_batch_end, RunFolder._upload = ended, copied
"""


def digest(run: Path | str) -> str:
    return json.loads((Path(run) / "bundle" / "model.json").read_text())["digest"]


def start(data: str, run: Path | str, *more: str, before: str = "") -> warm.Process:
    """Start the command in a process of its own, which runs `before` first."""
    code = f"import os, signal\n{before}\nfrom plantml.cli.app import main\nmain()"
    return warm.Process(code, ["train", data, "--out", str(run), *SMALL, *more])


def killed(data: str, run: Path | str, before: str) -> None:
    process = start(data, run, before=before)
    _, err = process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL, err


def wait_for(process: subprocess.Popen[str], path: Path, pattern: str) -> None:
    deadline = time.monotonic() + 120
    while not list(path.glob(pattern)):
        if process.poll() is not None:  # it may finish between two polls
            assert process.returncode == Exit.DONE, process.communicate()[1]
            return
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(scope="module")
def uninterrupted(cli, trained, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    result = cli("train", trained.data, "--out", run, *SMALL)
    assert result.code == Exit.DONE, result.err
    return run


@pytest.mark.usefixtures("unexported")
def test_the_same_seed_gives_the_same_weights(cli, trained, uninterrupted, tmp_path) -> None:
    result = cli("train", trained.data, "--out", tmp_path / "run", *SMALL, "--set", "workers=2")
    assert result.code == Exit.DONE, result.err
    assert digest(tmp_path / "run") == digest(uninterrupted)


@pytest.mark.parametrize(
    "file",
    [
        pytest.param("plots/batch.png", marks=pytest.mark.slow),  # before the first step
        "state-000000005-",  # in an epoch
        pytest.param("best-0000.safetensors", marks=pytest.mark.slow),  # at an epoch's end
        pytest.param("bundle/model.json", marks=pytest.mark.slow),  # while the model is published
    ],
)
def test_killed_and_repeated_it_ends_with_the_same_weights(
    cli, trained, uninterrupted, tmp_path, file, request
) -> None:
    killed(trained.data, tmp_path / "run", AT_A_FILE.format(name=file))
    left = sorted(path.name for path in (tmp_path / "run").rglob("*.*"))
    assert not any(Path(file).name in name for name in left)
    assert any(name.startswith("state-000000004-") for name in left) == (file == "state-000000005-")
    assert ("model.onnx" in left) == (file == "bundle/model.json")
    if file != "bundle/model.json":
        request.getfixturevalue("unexported")
    result = cli("train", trained.data, "--out", tmp_path / "run", *SMALL)
    assert result.code == Exit.DONE, result.err
    assert digest(tmp_path / "run") == digest(uninterrupted)
    assert (tmp_path / "run" / "history.csv").read_text() == (uninterrupted / "history.csv").read_text()


@pytest.mark.usefixtures("unexported")
def test_an_epoch_killed_before_its_evaluation_is_evaluated_on_resume(
    cli, trained, uninterrupted, tmp_path, monkeypatch
) -> None:
    from plantml.train import image_learner

    class Killed(BaseException):
        pass

    def never(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(image_learner, "evaluate", never)
        with pytest.raises(Killed):
            cli("train", trained.data, "--out", tmp_path / "run", *SMALL)
    steps = [int(file.stem.split("-")[1]) for file in (tmp_path / "run" / "checkpoints").glob("state-*")]
    rows = (uninterrupted / "history.csv").read_text().splitlines()[1:]
    assert steps
    assert not list((tmp_path / "run" / "checkpoints").glob("best-*"))
    result = cli("train", trained.data, "--out", tmp_path / "run", *SMALL)
    assert result.code == Exit.DONE, result.err
    assert (tmp_path / "run" / "history.csv").read_text().splitlines()[1:] == rows
    assert digest(tmp_path / "run") == digest(uninterrupted)


@pytest.mark.usefixtures("unexported")
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (signal.SIGTERM, Exit.TERMINATED),
        pytest.param(signal.SIGINT, Exit.INTERRUPTED, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_training_with_its_code_and_nothing_is_lost(
    cli, trained, uninterrupted, tmp_path, sent, code
) -> None:
    at = AT_A_STEP.format(step=10, signal=int(sent))
    process = start(trained.data, tmp_path / "run", "--checkpoint-every", "1h", before=at)
    _, err = process.communicate(timeout=200)
    assert process.returncode == code, err
    assert "Repeat the same command" in err
    assert "Traceback" not in err
    result = cli("train", trained.data, "--out", tmp_path / "run", *SMALL)
    assert result.code == Exit.DONE, result.err
    assert "epoch 1/3" not in result.err
    assert digest(tmp_path / "run") == digest(uninterrupted)


@pytest.mark.usefixtures("unexported")
def test_on_an_object_store_another_machine_resumes(cli, trained, uninterrupted, tmp_path, s3_url, monkeypatch) -> None:
    from plantml import storage

    monkeypatch.setenv("PLANTML_CACHE_DIR", str(tmp_path / "of-one-machine"))
    killed(trained.data, f"{s3_url}/run", AT_A_COPY.format(name="state-000000010"))
    monkeypatch.setenv("PLANTML_CACHE_DIR", str(tmp_path / "of-another-machine"))
    result = cli("train", trained.data, "--out", f"{s3_url}/run", *SMALL, "--json")
    assert result.code == Exit.DONE, result.err
    assert result.json["model"] == digest(uninterrupted)
    assert result.json["resumed"] is True
    assert "epoch 1/3" not in result.err
    assert storage.read(f"{s3_url}/run/history.csv") == (uninterrupted / "history.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("unexported")
def test_two_processes_train_the_same_model_as_one(cli, trained, tmp_path) -> None:
    """With LayerNorm, the output for a photo does not depend on the rest of the batch."""
    same = ("--size", "32", "--epochs", "1", "--batch-size", "8", "--device", "cpu", "--set", "backbone=test_convnext",
            "--set", "pretrained=false", "--set", "dropout=0", "--set", "drop_path=0")  # fmt: skip
    assert cli("train", trained.data, "--out", tmp_path / "one", *same).code == Exit.DONE
    command = [sys.executable, "-m", "plantml", "train", trained.data, "--out", str(tmp_path / "two"), *same]
    done = subprocess.run(
        [*command, "--devices", "2", "--strategy", "ddp"], capture_output=True, text=True, check=False
    )
    assert done.returncode == Exit.DONE, done.stderr
    assert done.stdout.count("Model ") == 1  # one of the two speaks
    one, two = (next(csv.DictReader((tmp_path / name / "history.csv").open())) for name in ("one", "two"))
    for key in ("train_loss", "val_loss", "score", "disease.macro_f1"):
        assert float(one[key]) == pytest.approx(float(two[key]), abs=2e-4), key


@pytest.mark.slow
def test_killed_at_twenty_random_moments(cli, trained, uninterrupted, tmp_path, s3_url) -> None:
    random_ = random.Random(0)
    for place in (str(tmp_path / "run"), f"{s3_url}/run"):
        for _ in range(10):
            process = start(trained.data, place)
            time.sleep(random_.uniform(3, 15))
            process.kill()
            process.communicate()
        result = cli("train", trained.data, "--out", place, *SMALL, "--json")
        assert result.code == Exit.DONE, result.err
        assert result.json["model"] == digest(uninterrupted)
    shutil.rmtree(tmp_path / "run")


class Killed(BaseException):
    """Caught by nothing."""


@pytest.fixture
def probed(cli, trained, tmp_path, unexported) -> Path:
    """An uninterrupted probe."""
    run = tmp_path / "probed"
    result = cli("train", trained.data, "--out", run, *SMALL, "--set", "mode=probe")
    assert result.code == Exit.DONE, result.err
    assert not list(run.glob("checkpoints/*"))
    return run


@pytest.mark.parametrize("remote", [pytest.param(False, marks=pytest.mark.slow), True])
def test_embeddings_of_a_probe_outlive_a_kill(cli, trained, probed, tmp_path, s3_url, monkeypatch, remote) -> None:
    from plantml import storage
    from plantml.model.network import PlantNet

    out = f"{s3_url}/run" if remote else str(tmp_path / "run")
    command = ("train", trained.data, "--out", out, *SMALL, "--set", "mode=probe")
    original, batches = PlantNet.embed, []

    def embed(net, photos):
        if len(batches) == 5:
            raise Killed
        batches.append(len(photos))
        time.sleep(0.02)  # longer than --checkpoint-every
        return original(net, photos)

    monkeypatch.setenv("PLANTML_CACHE_DIR", str(tmp_path / "of-one-machine"))
    monkeypatch.setattr(
        "plantml.train.planning.throughput._medians", lambda works, *_: [0.01 for _ in works]
    )  # as it embeds photos, too
    with monkeypatch.context() as patch:
        patch.setattr(PlantNet, "embed", embed)
        with pytest.raises(Killed):
            cli(*command)
    if remote:
        monkeypatch.setenv("PLANTML_CACHE_DIR", str(tmp_path / "of-another-machine"))
        deadline = time.monotonic() + 60
        while len(list(storage.list_files(f"{out}/checkpoints"))) < 5:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    again = []
    with monkeypatch.context() as patch:
        patch.setattr(PlantNet, "embed", lambda net, photos: again.append(len(photos)) or original(net, photos))
        result = cli(*command)
    assert result.code == Exit.DONE, result.err
    assert json.loads(storage.read(f"{out}/bundle/model.json"))["digest"] == digest(probed)
    plan = yaml.safe_load(storage.read(f"{out}/plan.yaml"))
    views = plan["views"] * plan["train_photos"]
    assert sum(batches) == 5 * 32
    assert views - sum(batches) <= sum(again) < views
    assert not [entry for entry in storage.list_files(out) if "checkpoints" in entry.url]


AT_AN_EMBEDDING = """
from plantml.model.network import PlantNet
honest, seen = PlantNet.embed, []

def embed(net, photos):
    seen.append(len(photos))
    if seen.count(32) == 3:  # smaller ones belong to the measurement
        os.kill(os.getpid(), signal.SIGTERM)
    return honest(net, photos)

PlantNet.embed = embed
"""


@pytest.mark.slow
def test_a_signal_while_embedding_saves_the_embeddings(trained, probed, cli, tmp_path) -> None:
    from plantml.train import probe

    process = start(
        trained.data, tmp_path / "run", "--set", "mode=probe", "--checkpoint-every", "1h", before=AT_AN_EMBEDDING
    )
    _, err = process.communicate(timeout=100)
    assert process.returncode == Exit.TERMINATED, err
    assert "Repeat the same command to resume" in err
    assert "Traceback" not in err
    assert len(list((tmp_path / "run" / "checkpoints").glob(probe.SAVED))) == 1
    assert cli("train", trained.data, "--out", tmp_path / "run", *SMALL, "--set", "mode=probe").code == Exit.DONE
    assert digest(tmp_path / "run") == digest(probed)


AT_DECODING = """
from plantml import imaging
decode = imaging.decode

def decoded(*arguments):
    os.kill(os.getpid(), signal.SIGTERM)
    return decode(*arguments)

imaging.decode = decoded
"""


@pytest.mark.slow
def test_a_signal_while_decoding_stops_training(trained, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PLANTML_CACHE_DIR", str(tmp_path / "cache"))
    # At every photo, so that the measurement at the start is not the only one to see it.
    process = start(trained.data, tmp_path / "run", before=AT_DECODING)
    _, err = process.communicate(timeout=200)
    assert process.returncode == Exit.TERMINATED, err
    assert "while decoding photos" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_second_interrupt_ends_at_once_with_its_code(trained, tmp_path) -> None:
    twice = AT_A_STEP.format(step=3, signal=int(signal.SIGINT)).replace(
        "    after(", "        os.kill(os.getpid(), 2)\n    after("
    )
    process = start(trained.data, tmp_path / "run", before=twice)
    _, err = process.communicate(timeout=200)
    assert process.returncode == Exit.INTERRUPTED, err
    assert "Traceback" not in err
    assert "bug" not in err


@pytest.mark.usefixtures("unexported")
def test_signals_stay_with_the_command_while_lightning_runs(cli, trained, tmp_path, monkeypatch) -> None:
    """Lightning's own handler communicates with other processes at any point of their work."""
    from plantml.concurrency import Stop
    from plantml.train.checkpoint import CheckpointCallback

    original, owners = CheckpointCallback.on_train_batch_end, set()

    def ended(self, *arguments):
        owners.add(type(getattr(signal.getsignal(signal.SIGTERM), "__self__", None)))
        original(self, *arguments)

    monkeypatch.setattr(CheckpointCallback, "on_train_batch_end", ended)
    assert cli("train", trained.data, "--out", tmp_path / "run", *SMALL, "--epochs", "1").code == Exit.DONE
    assert owners == {Stop}


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named(cli, trained, tmp_path) -> None:
    killed(trained.data, tmp_path / "run", AT_A_STEP.format(step=6, signal=int(signal.SIGKILL)))
    (state,) = (tmp_path / "run" / "checkpoints").glob("state-*")
    state.write_bytes(state.read_bytes()[:5000])
    (state.parent / ".state-000000009-0001.ckpt.abc.part").write_bytes(b"half")
    result = cli("train", trained.data, "--out", tmp_path / "run", *SMALL)
    assert result.code == Exit.INPUT, result.err
    assert state.name in result.err
    assert "--fresh" in result.err
    assert not list(state.parent.glob(".*.part"))


def test_two_commands_do_not_train_in_one_run(cli, trained, tmp_path) -> None:
    from plantml import settings
    from plantml.train.run_folder import RunFolder

    with RunFolder(str(tmp_path / "run"), settings.machine()).locked():
        result = cli("train", trained.data, "--out", tmp_path / "run", *SMALL)
    assert result.code == Exit.INPUT
    assert "Another process is training" in result.err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("unexported")
def test_checkpoints_of_a_lost_plan_are_not_used_by_another_run(cli, trained, tmp_path) -> None:
    run = tmp_path / "run"
    killed(trained.data, run, AT_A_STEP.format(step=6, signal=int(signal.SIGKILL)))
    (run / "plan.yaml").unlink()
    result = cli("train", trained.data, "--out", run, *SMALL, "--seed", "5")
    assert result.code == Exit.DONE, result.err
    assert "epoch 1/3" in result.err  # from the start, not from the checkpoints of another seed
    (run / "plan.yaml").unlink()
    result = cli("train", trained.data, "--out", run, *SMALL, "--seed", "6")
    assert result.code == Exit.INPUT
    assert "without its plan" in result.err


@pytest.mark.slow
@pytest.mark.usefixtures("unexported")
def test_checkpoints_of_an_earlier_run_at_the_same_url_are_removed(cli, trained, tmp_path, s3_url, monkeypatch) -> None:
    """One machine starts a run, another starts it over, and the first resumes that of the second."""
    one, other = (str(tmp_path / f"of-{name}") for name in ("one", "another"))
    monkeypatch.setenv("PLANTML_CACHE_DIR", one)
    killed(trained.data, f"{s3_url}/run", AT_A_STEP.format(step=10, signal=int(signal.SIGKILL)))
    monkeypatch.setenv("PLANTML_CACHE_DIR", other)
    command = ("train", trained.data, "--out", f"{s3_url}/run", *SMALL, "--seed", "4")
    with monkeypatch.context() as patch:
        from plantml.train import probe

        patch.setattr(probe, "warm_up_heads", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        assert cli(*command, "--fresh", "--set", "mode=finetune").code == Exit.INTERRUPTED
    monkeypatch.setenv("PLANTML_CACHE_DIR", one)
    result = cli(*command, "--set", "mode=finetune")
    assert result.code == Exit.DONE, result.err
    assert "epoch 1/3" in result.err


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["first", "all"])
@pytest.mark.parametrize("after", [0.0, 0.3, 0.7])
def test_a_signal_ends_two_processes_that_train_together(trained, tmp_path, whom, after) -> None:
    same = ("--size", "32", "--epochs", "500", "--batch-size", "8", "--device", "cpu", "--devices", "2",
            "--strategy", "ddp", "--set", "backbone=test_convnext", "--set", "pretrained=false",
            "--set", "patience=500")  # fmt: skip
    command = [sys.executable, "-m", "plantml", "train", trained.data, "--out", str(tmp_path / "run"), *same]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for(process, tmp_path / "run", "checkpoints/state-*.ckpt")
    time.sleep(after)
    if whom == "all":
        os.killpg(process.pid, signal.SIGTERM)
    else:
        process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == Exit.TERMINATED, err
    assert "All of it is saved" in err
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.usefixtures("unexported")
@pytest.mark.parametrize("mode", ["probe", "finetune"])
def test_with_unlabelled_photos_it_ends_with_the_same_weights_too(cli, trained, uninterrupted, tmp_path, mode) -> None:
    """The brighter half of the training photos counts as unlabelled."""
    median = versions.load(trained.data).usable("train")["brightness"].median()
    more = ("--where", f'split != "train" or brightness < {median}', "--unlabelled", trained.data,
            "--from", str(uninterrupted), "--set", f"mode={mode}", "--set", "pseudo_threshold=0.5")  # fmt: skip
    whole = cli("train", trained.data, "--out", tmp_path / "whole", *SMALL, *more)
    assert whole.code == Exit.DONE, whole.err
    assert "Pseudo-labels of" in whole.err
    process = start(trained.data, tmp_path / "run", *more, before=AT_A_FILE.format(name="history.csv"))
    _, err = process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL, err
    result = cli("train", trained.data, "--out", tmp_path / "run", *SMALL, *more)
    assert result.code == Exit.DONE, result.err
    assert digest(tmp_path / "run") == digest(tmp_path / "whole") != digest(uninterrupted)
    counts = json.loads((tmp_path / "run" / "metrics.json").read_text())["pseudo_labels"]
    assert 0 < counts["health"] <= versions.load(trained.data).usable("train").height // 2 + 1


@pytest.fixture
def measured(cli, trained, tmp_path) -> str:
    """The photos of `trained`, and rows without one, of which the background tells the disease."""
    log = ["image,disease,background,split"]
    log += [f",{disease},{background},train" for disease, background in [("rust", "soil"), ("none", "pot")] * 20]
    (tmp_path / "log.csv").write_text("\n".join(log) + "\n")
    for command in (
        ("merge", tmp_path / "data", trained.data, "--splits"),
        ("import", tmp_path / "log.csv", tmp_path / "data"),
    ):
        result = cli("dataset", *command)
        assert result.code == Exit.DONE, result.err
    return str(tmp_path / "data")


@pytest.mark.usefixtures("unexported")
@pytest.mark.parametrize("mode", ["full", pytest.param("finetune", marks=pytest.mark.slow)])
def test_with_rows_without_a_photo_it_ends_with_the_same_weights_too(cli, measured, tmp_path, mode) -> None:
    """Which rows a step draws, and what it hides of them, depend on seed and step only."""
    more = ("--covariates", "background", "--targets", "disease", "--set", f"mode={mode}")
    whole = cli("train", measured, "--out", tmp_path / "whole", *SMALL, *more)
    assert whole.code == Exit.DONE, whole.err
    assert "Learning from 40 rows without a photo, too." in whole.err
    process = start(measured, tmp_path / "run", *more, before=AT_A_FILE.format(name="state-000000005-"))
    _, err = process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL, err
    assert sorted((tmp_path / "run" / "checkpoints").glob("state-000000004-*"))
    result = cli("train", measured, "--out", tmp_path / "run", *SMALL, *more)
    assert result.code == Exit.DONE, result.err
    assert digest(tmp_path / "run") == digest(tmp_path / "whole")
    photos = cli("train", measured, "--out", tmp_path / "photos", *SMALL, *more, "--set", "without_photo=false")
    assert photos.code == Exit.DONE, photos.err
    assert digest(tmp_path / "photos") != digest(tmp_path / "whole")
