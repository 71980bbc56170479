"""The launcher must start as many processes as --devices and --nodes say."""

import pytest

from plantml.errors import Exit, UsageError
from plantml.train import distributed


@pytest.fixture
def launched(monkeypatch):
    """As torchrun starts one of two processes."""
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("launched")
def test_a_wrong_number_of_processes_is_refused() -> None:
    with pytest.raises(UsageError, match="started 2 processes instead of 1"):
        distributed.join("cpu", 1, 1)


@pytest.mark.usefixtures("launched")
def test_a_wrong_number_of_processes_is_a_usage_error(cli, trained, tmp_path) -> None:
    result = cli("train", trained.data, "--out", tmp_path / "run")
    assert result.code == Exit.USAGE
    assert not (tmp_path / "run").exists()


def test_tasks_that_slurm_counts_in_all_are_a_usage_error(monkeypatch) -> None:
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE", raising=False)
    for name, value in {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "train"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="how many tasks") as error:
        distributed.join("cpu", 2, 1)
    assert "--ntasks-per-node" in error.value.hint


def test_several_machines_need_a_launcher() -> None:
    with pytest.raises(UsageError, match="need a launcher"):
        distributed.join("cpu", 1, 2)


def test_one_process_needs_nothing() -> None:
    distributed.join("auto", 2, 1)  # Lightning starts the second later
    assert distributed.world_size() == 1
    assert distributed.is_first()
