"""A convolution together with what follows it, in one pass over the memory.

An activation by itself reads and writes the whole result of the convolution, which on a processor
takes as long as many convolutions do: 64 to 256 channels of 56 x 56 and ReLU, 16 pictures in one
thread in bfloat16, 16 ms instead of 5. oneDNN does both at once, but torch 2.14 uses that in
compiled graphs only; here its operators are called by name. Where they are missing, were they to
compute something else, or where a gradient or a trace is wanted, the steps are taken one after the
other.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

logger = logging.getLogger(__name__)

Activation = Literal["relu", "relu6", "silu", "gelu"]

_STEPS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "relu6": functional.relu6,
    "silu": functional.silu,
    "gelu": functional.gelu,
}
_IN_ONEDNN: dict[Activation, tuple[str, list[float], str]] = {
    "relu": ("relu", [], ""),
    "relu6": ("hardtanh", [0.0, 6.0], ""),
    "silu": ("swish", [], ""),
    "gelu": ("gelu", [], "none"),
}
_DTYPES = (torch.float32, torch.bfloat16)


def convolved(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    then: Activation | None = None,
    plus: Tensor | None = None,
) -> Tensor:
    """`conv2d`, to which `plus` is added if it is given, and `then` applied.

    Args:
        x: (N, C, H, W).
        plus: what the sum takes, such as the shortcut of a residual block.

    In one pass `relu` and `relu6` make 0 of what is not a number, where the steps keep it.
    """
    stride, padding, dilation = list(stride), list(padding), list(dilation)
    if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        # What autocast does by itself to `conv2d`, but not to oneDNN's operators.
        dtype = torch.get_autocast_dtype("cpu")
        x, weight = x.to(dtype), weight.to(dtype)
        bias, plus = (value if value is None else value.to(dtype) for value in (bias, plus))
    if x.device.type == "cpu" and not torch._C._is_tracing():
        x, stride, padding = _without_faults(x, weight, stride, padding, dilation)
    if _fits(x, weight):
        if plus is None and then is not None:
            found: Tensor = torch.ops.mkldnn._convolution_pointwise(
                x, weight, bias, padding, stride, dilation, groups, *_IN_ONEDNN[then]
            )
            return found
        # Otherwise it adds in a step of its own, which it has not for every dtype.
        sums = groups == 1 and then in (None, "relu") and _has_channels_last(x)
        if plus is not None and sums and plus.dtype is x.dtype:
            shape = _shape(x, weight, stride, padding, dilation)
            if tuple(plus.shape) == shape:
                return _sum(x, plus, weight, bias, (padding, stride, dilation), then)
    result = functional.conv2d(x, weight, bias, stride, padding, dilation, groups)
    if plus is not None:
        result = result + plus.to(result.device)
    return result if then is None else _STEPS[then](result)


def _without_faults(
    x: Tensor, weight: Tensor, stride: list[int], padding: list[int], dilation: list[int]
) -> tuple[Tensor, list[int], list[int]]:
    """What gives the same result in another way, where torch 2.14 on a processor gives another or
    none: `x`, `stride` and `padding`.

    - Of a result one pixel wide, with one channel to a group and channels last, parts are left
      unwritten if steps are wider than they are high. It needs no steps at all.
    - Windows that have nothing but padding may end the process.
    """
    if stride[1] > 1:
        extent = dilation[1] * (weight.shape[3] - 1) + 1
        beyond = x.shape[3] + 2 * padding[1] - extent
        if 0 <= beyond < stride[1]:
            around = padding[1]
            x = functional.pad(x, (around, extent - around - x.shape[3]))
            stride, padding = [stride[0], 1], [padding[0], 0]
    for axis in (0, 1):
        if padding[axis] > dilation[axis] * (weight.shape[2 + axis] - 1):
            (high, wide), padding = padding, [0, 0]
            x = functional.pad(x, (wide, wide, high, high))
    return x, stride, padding


def _fits(x: Tensor, weight: Tensor) -> bool:
    if torch.is_grad_enabled() or torch._C._is_tracing() or x.device.type != "cpu":
        return False
    # An empty batch may end the process.
    alike = x.dtype is weight.dtype and x.dtype in _DTYPES and x.numel() > 0
    return alike and _can_do_it_in_one_pass(x.dtype)


def _has_channels_last(x: Tensor) -> bool:
    """Whether nobody could take it for planes, as with one channel or one pixel."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _sum(
    x: Tensor,
    plus: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    windows: tuple[list[int], list[int], list[int]],
    then: Activation | None,
) -> Tensor:
    found: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
        x, plus, weight, bias, *windows, 1, "add", 1.0, then, [], ""
    )
    return found


def _shape(
    x: Tensor, weight: Tensor, stride: list[int], padding: list[int], dilation: list[int]
) -> tuple[int, ...]:
    """Of the convolution's result."""
    sides = (
        (size + 2 * around - apart * (window - 1) - 1) // step + 1
        for size, window, step, around, apart in zip(
            x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True
        )
    )
    return (x.shape[0], weight.shape[0], *sides)


@functools.cache
def _can_do_it_in_one_pass(dtype: torch.dtype) -> bool:
    """Whether torch has oneDNN's operators, for this processor too, and they give what the steps
    give."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    with torch.autocast("cpu", enabled=False):
        return _gives_what_the_steps_give(dtype)


def _gives_what_the_steps_give(dtype: torch.dtype) -> bool:
    generator = torch.Generator().manual_seed(0)
    x, weight, plus = (
        torch.randn(shape, generator=generator)
        .to(dtype)
        .contiguous(memory_format=torch.channels_last)
        for shape in ((1, 4, 5, 5), (4, 4, 3, 3), (1, 4, 5, 5))
    )
    result = functional.conv2d(x, weight, None, 1, 1)
    windows = ([1, 1], [1, 1], [1, 1])
    try:
        for then, step in _STEPS.items():
            found = torch.ops.mkldnn._convolution_pointwise(
                x, weight, None, *windows, 1, *_IN_ONEDNN[then]
            )
            torch.testing.assert_close(found, step(result), rtol=0.05, atol=0.05)
        found = _sum(x, plus, weight, None, windows, "relu")
        torch.testing.assert_close(found, (result + plus).relu(), rtol=0.05, atol=0.05)
    except (AttributeError, RuntimeError, TypeError, AssertionError) as error:
        logger.info("convolutions and activations are separate steps here: %s", error)
        return False
    return True


class ConvolutionThen(nn.Conv2d):
    """A convolution that applies an activation to its result."""

    def __init__(self, convolution: nn.Conv2d, then: Activation) -> None:
        """
        Args:
            convolution: gives its weight and bias; padded with zeros on both sides alike.
        """
        super().__init__(1, 1, 1, device="meta")
        self.__dict__.update(convolution.__dict__)
        self.then: Activation = then

    def forward(self, x: Tensor) -> Tensor:
        padding = self.padding
        if isinstance(padding, str):
            raise TypeError(f"padding is '{padding}'; give numbers")
        return convolved(
            x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups, self.then
        )
