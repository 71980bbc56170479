"""bfloat16 on a processor, with depthwise convolutions in float32."""

import pytest
import torch
from torch import nn

from plantml.train.mixed_precision import depthwise_in_float32


class Watched(nn.Conv2d):
    """A convolution that notes in which precision it computes."""

    def forward(self, photos):
        output = super().forward(photos)
        self.seen = output.dtype
        return output


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(Watched(4, 8, 1), Watched(8, 8, 3, groups=8), Watched(8, 2, 1))


def outputs(net, photos):
    with torch.autocast("cpu", torch.bfloat16):
        return net(photos)


def test_only_depthwise_convolutions_are_in_float32_and_only_inside(net):
    photos = torch.randn(2, 4, 8, 8)
    plain = outputs(net, photos)
    assert [each.seen for each in net] == [torch.bfloat16] * 3
    with depthwise_in_float32(net, "cpu"):
        mixed = outputs(net, photos)
        assert [each.seen for each in net] == [torch.bfloat16, torch.float32, torch.bfloat16]
        mixed.float().sum().backward()
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed, plain, atol=0.02, rtol=0.02)
    assert all(each.weight.grad is not None and each.weight.grad.dtype == torch.float32 for each in net)
    assert torch.equal(outputs(net, photos), plain)
    assert net[1].seen == torch.bfloat16


def test_other_devices_are_left_alone(net):
    with depthwise_in_float32(net, "cuda"):
        outputs(net, torch.randn(1, 4, 8, 8))
    assert net[1].seen == torch.bfloat16


def test_an_error_in_a_forward_pass_leaves_autocast_as_it_was(net):
    with torch.autocast("cpu", torch.bfloat16), depthwise_in_float32(net, "cpu"):
        with pytest.raises(RuntimeError):
            net[1](torch.randn(1, 3, 8, 8))
        assert torch.is_autocast_enabled("cpu")
