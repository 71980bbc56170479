"""What one call of `train` works with."""

from dataclasses import dataclass

from plantml.concurrency import Listener, Stop
from plantml.settings import Machine
from plantml.train import distributed
from plantml.train.config import TrainConfig
from plantml.train.embedding_store import EmbeddingStore
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
        run, every = self.run, self.config.checkpoint_every
        store = EmbeddingStore(run.checkpoints, every, run.upload_in_background, writes=distributed.is_first())
        return EmbeddingJob(device, store, self.stop, self.listener.progress(stage))
