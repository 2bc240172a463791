"""What a convolution does in one pass is what it and its steps do one after the other."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.one_pass import Activation, ConvolutionThen, convolved

STEPS = {
    "relu": functional.relu,
    "relu6": functional.relu6,
    "silu": functional.silu,
    "gelu": functional.gelu,
}


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    values = torch.randn(shape, generator=generator) * 2
    return values.to(dtype).contiguous(memory_format=torch.channels_last)


def close(found: Tensor, expected: Tensor) -> None:
    exact = found.dtype is torch.float32
    torch.testing.assert_close(
        found, expected, rtol=1e-4 if exact else 2e-2, atol=1e-4 if exact else 0.1
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("then", get_args(Activation))
@torch.inference_mode()
def test_an_activation(then: Activation, groups: int, dtype: torch.dtype) -> None:
    x, weight = random(2, 8, 11, 9, dtype=dtype), random(8, 8 // groups, 3, 3, dtype=dtype)
    bias = torch.linspace(-2, 2, 8).to(dtype)
    windows = ((2, 1), (1, 0), (1, 2), groups)
    found = convolved(x, weight, bias, *windows, then)
    close(found, STEPS[then](functional.conv2d(x, weight, bias, *windows)))
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("then", [None, "relu", "gelu"])
@pytest.mark.parametrize("summand", ["alike", "one for each channel", "planes", "other dtype"])
@torch.inference_mode()
def test_a_sum_and_an_activation(
    then: Activation | None, groups: int, dtype: torch.dtype, summand: str
) -> None:
    x, weight = random(2, 8, 7, 9, dtype=dtype), random(8, 8 // groups, 3, 3, dtype=dtype)
    plus = {
        "alike": random(2, 8, 7, 9, dtype=dtype),
        "one for each channel": random(1, 8, 1, 1, dtype=dtype),
        "planes": random(2, 8, 7, 9, dtype=dtype).contiguous(),
        "other dtype": random(2, 8, 7, 9, dtype=torch.float64).to(dtype).double(),
    }[summand]
    before = plus.clone()
    windows = ((1, 1), (1, 1), (1, 1), groups)
    expected = functional.conv2d(x, weight, None, *windows) + plus
    found = convolved(x, weight, None, *windows, then, plus)
    close(found.to(dtype), (expected if then is None else STEPS[then](expected)).to(dtype))
    assert torch.equal(plus, before)  # others may need it


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("plane", [(1, 1), (1, 7), (6, 6)])
@pytest.mark.parametrize("channels", [1, 8])
@pytest.mark.parametrize("batch", [0, 1, 3])
@torch.inference_mode()
def test_batches_of_any_size_and_order_in_memory(
    batch: int, channels: int, plane: tuple[int, int], dtype: torch.dtype
) -> None:
    weight = random(8, channels, 1, 1, dtype=dtype)
    windows = ((1, 1), (0, 0), (1, 1), 1)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = random(batch, channels, *plane, dtype=dtype).contiguous(memory_format=memory_format)
        plus = random(batch, 8, *plane, dtype=dtype).contiguous(memory_format=memory_format)
        result = functional.conv2d(x, weight, None, *windows)
        close(convolved(x, weight, None, *windows, "silu"), functional.silu(result))
        close(convolved(x, weight, None, *windows, "relu", plus), (result + plus).relu())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("width", [1, 3, 4, 5])
@pytest.mark.parametrize("then", [None, "relu"])
@torch.inference_mode()
def test_one_channel_to_a_group_and_a_result_one_pixel_wide(
    then: Activation | None, width: int, groups: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(1)
    plain = torch.randn((3, groups, 8, width), generator=generator).to(dtype)
    weight = torch.randn((2 * groups, 1, 3, 3), generator=generator).to(dtype)
    sides = [(stride, around) for stride in (2, 3) for around in (0, 1)]
    for stride, around in sides:
        if width + 2 * around < 3:
            continue
        windows = ((1, stride), (0, around), (2, 1), groups)
        expected = functional.conv2d(plain.double(), weight.double(), None, *windows)
        if then is not None:
            expected = expected.relu()
        for x in (plain, channels_last(plain)):
            for of in (weight, channels_last(weight)):
                found = convolved(x, of, None, *windows, then)
                close(found, expected.to(dtype))


@pytest.mark.parametrize("then", [None, "relu6"])
@torch.inference_mode()
def test_windows_that_have_nothing_but_padding(then: Activation | None) -> None:
    generator = torch.Generator().manual_seed(1)
    x = channels_last(torch.randn((1, 12, 7, 1), generator=generator))
    weight = torch.randn((4, 3, 5, 1), generator=generator)
    windows = ((4, 2), (0, 1), (1, 1), 4)
    found = convolved(x, weight, None, *windows, then)
    assert found.shape == (1, 4, 1, 2)
    assert not found.any()  # both columns lie beside the picture
    wide = convolved(x, weight, None, (4, 1), (0, 1), (1, 1), 4, then)
    assert wide[..., 1].any()


def channels_last(x: Tensor) -> Tensor:
    """With strides that say so for one channel too."""
    channels, height, width = x.shape[1:]
    strides = (channels * height * width, 1, width * channels, channels)
    return torch.empty_strided(x.shape, strides, dtype=x.dtype).copy_(x)


@torch.inference_mode()
def test_autocast_is_obeyed() -> None:
    x, weight = random(1, 8, 5, 5), random(8, 8, 3, 3)
    windows = ((1, 1), (1, 1), (1, 1), 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert convolved(x, weight, None, *windows, "relu").dtype is torch.bfloat16
    assert convolved(x, weight, None, *windows, "relu").dtype is torch.float32


def test_a_processor_without_bfloat16_takes_the_steps_one_after_the_other() -> None:
    code = (
        "import torch; from models.one_pass import convolved\n"
        "x = torch.ones(1, 8, 4, 4, dtype=torch.bfloat16)\n"
        "x = x.contiguous(memory_format=torch.channels_last)\n"
        "with torch.inference_mode():\n"
        "    y = convolved(x, x.new_ones(8, 8, 1, 1), None, (1, 1), (0, 0), (1, 1), 1, 'relu')\n"
        "assert float(y.min()) == float(y.max()) == 8.0\n"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_gradient_passes() -> None:
    convolution = ConvolutionThen(nn.Conv2d(3, 4, 3, padding=1), "silu")
    x = random(1, 3, 6, 6).requires_grad_()
    convolution(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert convolution.weight.grad is not None


@torch.inference_mode()
def test_a_trace_holds_steps_that_run_everywhere() -> None:
    convolution = ConvolutionThen(nn.Conv2d(3, 4, 3, padding=1), "relu").eval()
    x = random(1, 3, 6, 6)
    traced = torch.jit.trace(convolution, x)
    assert "mkldnn" not in str(traced.inlined_graph)
    close(traced(x), convolution(x))


@torch.inference_mode()
def test_a_convolution_keeps_its_weights_and_its_place_in_memory() -> None:
    plain = nn.Conv2d(8, 16, 3, stride=2, padding=1)
    both = nn.Sequential(ConvolutionThen(plain, "relu6"))
    x = random(2, 8, 9, 9)
    close(both(x), functional.relu6(plain(x)))
    assert both.state_dict().keys() == {"0.weight", "0.bias"}
    both.to(torch.bfloat16).to(memory_format=torch.channels_last)
    assert both(x.bfloat16()).is_contiguous(memory_format=torch.channels_last)
