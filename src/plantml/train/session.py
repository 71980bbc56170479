"""What one call of `train` works with."""

from dataclasses import dataclass

from plantml.concurrency import Listener, Stop
from plantml.settings import Machine
from plantml.train import distributed
from plantml.train.config import TrainConfig
from plantml.train.probe import EmbeddingJob
from plantml.train.run_folder import RunFolder


@dataclass(frozen=True)
class Session:
    """The configuration of a call, the run, and its surroundings."""

    config: TrainConfig
    run: RunFolder
    machine: Machine
    stop: Stop
    listener: Listener

    def embedding_job(self, stage: str, device: str) -> EmbeddingJob:
        """How to embed photos. `stage` names it in the progress display."""
        return EmbeddingJob(
            device,
            self.run.checkpoints,
            self.config.checkpoint_every,
            self.run.upload_in_background,
            self.stop,
            self.listener.progress(stage),
            writes=distributed.is_first(),
            threads=self.machine.threads,
        )
