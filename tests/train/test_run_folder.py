"""A run's folder at a URL, and its local copy."""

import pytest

from plantml import storage
from plantml.errors import InputError
from plantml.settings import Machine
from plantml.train.run_folder import PSEUDO_LABELS, RunFolder


@pytest.fixture
def folder(memory_url, tmp_path):
    """`folder(machine)`: the run, as one machine sees it."""
    return lambda machine: RunFolder(
        f"{memory_url}/run", Machine.model_validate({"cache_dir": str(tmp_path / machine)})
    )


def names(run: RunFolder) -> list[str]:
    return sorted(file.name for file in run.checkpoints.glob("*"))


def write_checkpoint(run: RunFolder, name: str, data: bytes = b"state") -> None:
    storage.write(str(run.checkpoints / name), data)


def test_another_machine_gets_the_checkpoints(folder, make_plan) -> None:
    one, other = folder("one"), folder("other")
    one.create(make_plan())
    one.fetch_checkpoints()
    write_checkpoint(one, "state-000000001-0000.ckpt")
    one.upload_in_background()
    one.upload()
    other.fetch_checkpoints()
    assert names(other) == ["state-000000001-0000.ckpt"]


def test_checkpoints_of_an_earlier_run_at_the_same_url_are_removed(folder, make_plan) -> None:
    """One machine starts a run, another starts it over, and the first resumes that of the second."""
    one, other = folder("one"), folder("other")
    one.create(make_plan(seed=1))
    one.fetch_checkpoints()
    write_checkpoint(one, "state-000000100-0009.ckpt")
    one.upload()
    other.clear()
    other.create(make_plan(seed=2))
    other.fetch_checkpoints()
    assert not names(other)
    write_checkpoint(other, "state-000000003-0000.ckpt", b"of the second")
    other.upload()
    one.fetch_checkpoints()
    assert names(one) == ["state-000000003-0000.ckpt"]


def test_partial_files_are_not_uploaded_and_the_newest_checkpoint_is(folder, make_plan) -> None:
    run = folder("one")
    run.create(make_plan())
    write_checkpoint(run, "state-000000001-0000.ckpt")
    write_checkpoint(run, ".state-000000002-0000.ckpt.abc.part")
    run.upload_in_background()
    write_checkpoint(run, "state-000000002-0000.ckpt")
    (run.checkpoints / "state-000000001-0000.ckpt").unlink()
    run.upload_in_background()  # possibly while the first upload is running
    run._uploader.shutdown(wait=True)
    remote = [entry.name for entry in storage.list_files(f"{run.url}/checkpoints")]
    assert remote == ["state-000000002-0000.ckpt"]


def test_storage_errors_after_a_signal_are_reported(folder, make_plan, monkeypatch) -> None:
    messages: list[str] = []
    run = folder("one")
    run._say = messages.append
    run.create(make_plan())
    write_checkpoint(run, "state-000000001-0000.ckpt")

    def broken(url, data, **_):
        from plantml.errors import StorageError

        raise StorageError(f"Could not write {url}", "the network is down")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write", broken)
        run.try_upload()
        run.try_write("history.csv", b"")
    assert len(messages) == 2
    assert "could not be uploaded" in messages[0]
    assert "history.csv could not be written" in messages[1]


def test_a_model_without_its_plan_is_not_overwritten(folder, make_plan, monkeypatch) -> None:
    run = folder("one")
    monkeypatch.setattr(run, "finished_bundle", object)
    with pytest.raises(InputError, match="without its plan"):
        run.create(make_plan())


def test_a_plan_comes_back(folder, make_plan) -> None:
    run, plan = folder("one"), make_plan()
    run.create(plan)
    assert run.plan() == plan


def test_an_edited_or_cut_plan_is_refused_with_what_to_do_instead(folder, make_plan) -> None:
    run = folder("one")
    run.create(make_plan())
    url = storage.join(run.url, "plan.yaml")
    whole = storage.read(url)
    lines = whole.splitlines(keepends=True)
    edited = [
        b"".join(lines[:-1]),
        b"".join(lines[1:-1]),
        whole.replace(b"epochs: ", b"epochs: 1"),
        whole + b"# note\n",
        b"".join(lines[:-2]),
    ]
    for place in range(0, 8 * len(whole), 97):
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        edited.append(bytes(changed))
    for data in edited:
        storage.write(url, data)
        with pytest.raises(InputError) as error:
            run.plan()
        assert "--fresh" in error.value.hint


def test_pseudo_labels_of_a_run_whose_plan_was_removed_are_not_taken(folder, make_plan) -> None:
    run = folder("one")
    run.write(PSEUDO_LABELS, b"of an earlier run")
    run.create(make_plan())
    assert not storage.exists(storage.join(run.url, PSEUDO_LABELS))
