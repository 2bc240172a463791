"""EfficientNet-Lite in fewer steps gives what its package's steps give."""

from __future__ import annotations

import copy

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from models.efficientnet_lite import EfficientNetFeatures, fused


@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite1"])
@torch.inference_mode()
def test_convolutions_that_pad_and_normalise_give_the_same_features(name: str) -> None:
    torch.manual_seed(0)
    network = EfficientNet.from_name(name).eval()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):  # as if it had learned something
            part.running_mean.uniform_(-0.5, 0.5)
            part.running_var.uniform_(0.5, 2.0)
            part.weight.uniform_(0.5, 1.5)
            part.bias.uniform_(-0.5, 0.5)
    fewer = fused(copy.deepcopy(network))
    size = EfficientNet.get_image_size(name)
    pictures = torch.rand((2, 3, size, size)) * 2 - 1
    expected = EfficientNetFeatures(network)(pictures)
    torch.testing.assert_close(
        EfficientNetFeatures(fewer)(pictures),
        expected,
        rtol=0,
        atol=1e-4 * float(expected.abs().max()),
    )
    torch.testing.assert_close(fewer(pictures), network(pictures), rtol=1e-3, atol=1e-4)
    steps = [type(part) for part in fewer.modules()]
    assert nn.BatchNorm2d not in steps
    assert nn.ZeroPad2d not in steps
