"""bfloat16 on a processor: everything but depthwise convolutions, whose gradients are slow in it.

oneDNN has no fast kernel for the backward pass of a depthwise convolution in bfloat16: with the default backbone it
took 4.7 of 6.6 s of a step, and 0.7 s in float32, so that training in bfloat16 was slower than in float32. With the
depthwise convolutions in float32 it is 1.4 times as fast (see `docs/performance.md`).
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def depthwise_in_float32(net: nn.Module, device: str) -> Iterator[None]:
    """Compute the depthwise convolutions of a network in float32, inside an autocast to bfloat16 on a processor.

    Their outputs are bfloat16, as without it. On other devices nothing changes.
    """
    handles = []
    if device == "cpu":
        for module in net.modules():
            if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
                switch = _Float32()
                handles.append(module.register_forward_pre_hook(switch.enter))
                handles.append(module.register_forward_hook(switch.leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Float32:
    """Switches autocast off for one module's forward pass."""

    def __init__(self) -> None:
        self._off = ExitStack()

    def enter(self, _: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        self._off.enter_context(torch.autocast("cpu", enabled=False))
        return (inputs[0].float(),)

    def leave(self, _: nn.Module, __: Any, output: Tensor | None) -> Tensor | None:
        self._off.close()
        return None if output is None else output.to(torch.bfloat16)
