"""What a plan depends on besides the configuration: dataset, machine, measured speed, and the bundle to start from."""

from dataclasses import dataclass, replace

from plantml.model.bundle import Bundle
from plantml.train.config import Precision
from plantml.train.selection import Selection
from plantml.train.unlabelled_photos import Unlabelled


@dataclass(frozen=True)
class Hardware:
    """The machine.

    Attributes:
        cores: usable ones.
        device: default device for training: `cpu`, `cuda` or `mps`.
        gpu_memory: bytes of one GPU; 0 without a GPU.
    """

    cores: int
    device: str
    gpu_memory: int = 0


@dataclass(frozen=True)
class Speed:
    """Measurements on this machine, for one network, input size and batch size.

    Attributes:
        step: seconds of a training step including augmentation, in 32 bits.
        embed: seconds to embed one photo.
        decode: seconds to read and decode one photo.
        bf16: speed-up of a step in bf16; None where the processor would emulate it.
    """

    step: float
    embed: float
    decode: float
    bf16: float | None = None

    def step_in(self, precision: Precision) -> float:
        """Seconds of a step in a precision."""
        return self.step / self.bf16 if precision == "bf16" and self.bf16 else self.step

    def slowed(self, factor: float) -> "Speed":
        """Of a network that takes `factor` times as long."""
        return replace(self, step=factor * self.step, embed=factor * self.embed)


@dataclass(frozen=True)
class PlanInputs:
    """Dataset and hardware; speed once it is measured; the parent bundle and unlabelled photos if there are any."""

    dataset: Selection
    hardware: Hardware
    speed: Speed | None = None
    parent: Bundle | None = None
    unlabelled: Unlabelled | None = None

    @property
    def train_photos(self) -> int:
        """Photos to train on, those without labels included."""
        photos = self.dataset.usable("train")["image_id"]
        if self.unlabelled is None:
            return len(photos)
        others = self.unlabelled.rows["image_id"]
        return int((~photos.is_in(others.implode())).sum()) + len(others)  # which may be of the same dataset
