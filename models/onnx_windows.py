"""ONNX operators that slide a window over a picture or change its borders or size.

Convolutions, pooling, padding and resizing. Source: the ONNX operator specification
(github.com/onnx/onnx, docs/Operators.md), opsets 11 to 21.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own documentation calls it F
from torch import Tensor

from models.one_pass import Activation, convolved
from models.onnx_attributes import Attributes, Compute, integers


def _same_padding(
    shape: Sequence[int], kernel: list[int], strides: list[int], dilations: list[int], upper: bool
) -> list[tuple[int, int]]:
    padding = []
    for size, window, stride, dilation in zip(shape, kernel, strides, dilations, strict=True):
        steps = -(-size // stride)
        total = max(0, (steps - 1) * stride + (window - 1) * dilation + 1 - size)
        small, large = total // 2, total - total // 2
        padding.append((small, large) if upper else (large, small))
    return padding


def _padded(x: Tensor, pads: Sequence[tuple[int, int]], fill: float) -> Tensor:
    return F.pad(x, [side for pair in reversed(pads) for side in pair], value=fill)


class _Windows:
    """Strides, dilations and padding of a convolution or a pooling."""

    def __init__(self, attributes: Attributes, rank: int) -> None:
        self.strides = attributes.integers("strides") or [1] * rank
        self.dilations = attributes.integers("dilations") or [1] * rank
        self.mode = attributes.text("auto_pad", "NOTSET")
        pads = attributes.integers("pads") or [0] * (2 * rank)
        self.pads = list(zip(pads[:rank], pads[rank:], strict=True))
        if self.mode == "VALID":
            self.pads = [(0, 0)] * rank

    @property
    def uneven(self) -> bool:
        """Whether a picture gets more on one side than on the other."""
        return any(before != after for before, after in self.pads)

    def wide(self, kernel: list[int]) -> bool:
        """Whether torch's pooling does not take the pads, which it does up to half a window, or
        may have windows of nothing but padding."""
        dilated = any(step > 1 for step in self.dilations) and any(map(any, self.pads))
        over = (2 * max(pair) > window for pair, window in zip(self.pads, kernel, strict=True))
        return dilated or any(over)

    def refuse_doubtful(self, attributes: Attributes, kernel: list[int]) -> None:
        """What onnxruntime pads otherwise: it overlooks dilations, and where steps skip pixels it
        takes some of the picture away.

        Raises:
            ModelError
        """
        if self.mode not in ("SAME_UPPER", "SAME_LOWER"):
            return
        gaps = any(step > window for step, window in zip(self.strides, kernel, strict=True))
        if gaps or any(step > 1 for step in self.dilations):
            raise attributes.refuse(
                f"pooling with auto_pad {self.mode} and dilations, or steps beyond its windows"
            )

    def apply(
        self, x: Tensor, kernel: list[int], fill: float, *, explicit: bool = False
    ) -> tuple[Tensor, list[int]]:
        """Pad `x` where torch's functions cannot, or if it is to be `explicit`; return it with the
        padding that is left."""
        pads = self.pads
        if self.mode in ("SAME_UPPER", "SAME_LOWER"):
            pads = _same_padding(
                x.shape[2:], kernel, self.strides, self.dilations, self.mode == "SAME_UPPER"
            )
        if not explicit and all(before == after for before, after in pads):
            return x, [before for before, _ in pads]
        return _padded(x, pads, fill), [0] * len(pads)

    def fill(self, x: Tensor, kernel: list[int], fill: float) -> Tensor:
        """Pad `x` so that the last window of each axis is full, if it begins in the picture or in
        the padding before it (`ceil_mode`)."""
        padding = []
        for (before, after), size, window, stride, dilation in zip(
            self.pads, x.shape[2:], kernel, self.strides, self.dilations, strict=True
        ):
            extent = (window - 1) * dilation + 1
            steps = -(-(before + size + after - extent) // stride) + 1
            if (steps - 1) * stride >= before + size:
                steps -= 1
            padding.append((before, (steps - 1) * stride + extent - size - before))
        return _padded(x, padding, fill)


def _rank(attributes: Attributes) -> int:
    for name in ("kernel_shape", "strides", "dilations"):
        found = attributes.integers(name)
        if found is not None:
            return len(found)
    return 2


def convolution(attributes: Attributes) -> Compute:
    rank = _rank(attributes)
    if rank not in (1, 2):
        raise attributes.refuse(f"a {rank}-dimensional convolution")
    windows = _Windows(attributes, rank)
    group = attributes.integer("group", 1)

    def along_a_line(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        x, padding = windows.apply(x, list(weight.shape[2:]), 0.0)
        return F.conv1d(x, weight, bias, windows.strides, padding, windows.dilations, group)

    def compute(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        plus: Tensor | None = None,
        then: Activation | None = None,
    ) -> Tensor:
        x, padding = windows.apply(x, list(weight.shape[2:]), 0.0)
        return convolved(
            x, weight, bias, windows.strides, padding, windows.dilations, group, then, plus
        )

    return compute if rank == 2 else along_a_line


def transposed_convolution(attributes: Attributes) -> Compute:
    rank = _rank(attributes)
    windows = _Windows(attributes, rank)
    if rank != 2 or windows.mode != "NOTSET" or attributes.integers("output_shape"):
        raise attributes.refuse("a transposed convolution that is not 2-d with explicit pads")
    if any(before != after for before, after in windows.pads):
        raise attributes.refuse("a transposed convolution with uneven pads")
    padding = [before for before, _ in windows.pads]
    extra = attributes.integers("output_padding") or [0] * rank
    group = attributes.integer("group", 1)

    def compute(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv_transpose2d(
            x, weight, bias, windows.strides, padding, extra, group, windows.dilations
        )

    return compute


def max_pooling(attributes: Attributes) -> Compute:
    kernel = attributes.integers("kernel_shape") or []
    if len(kernel) != 2:
        raise attributes.refuse("pooling that is not 2-d")
    windows = _Windows(attributes, 2)
    windows.refuse_doubtful(attributes, kernel)
    # Padding that the mode chooses leaves no window partly filled.
    ceil = bool(attributes.integer("ceil_mode", 0)) and windows.mode in ("NOTSET", "VALID")
    by_one = all(step == 1 for step in (*windows.strides, *windows.dilations))
    # torch pads by half a window at most, and with uneven padding it does not see where the picture
    # ends.
    wide = windows.wide(kernel)
    filled = ceil and (wide or windows.uneven)

    def compute(x: Tensor) -> Tensor:
        # As in onnxruntime: a window that has nothing but padding gives a number.
        least = torch.finfo(x.dtype).min
        if filled:
            x, padding = windows.fill(x, kernel, least), [0, 0]
        else:
            x, padding = windows.apply(x, kernel, least, explicit=wide)
        if by_one and not any(padding) and not x.is_cuda:
            return _largest_in_windows(x, kernel)
        return F.max_pool2d(
            x, kernel, windows.strides, padding, windows.dilations, ceil and not filled
        )

    return compute


def _largest_in_windows(x: Tensor, kernel: Sequence[int]) -> Tensor:
    """`max_pool2d` by steps of one, first along one axis and then along the other: on a processor
    torch 2.14 takes 13 times as long for 2 x 2 windows of 24 channels in bfloat16."""
    for axis, window in zip((-2, -1), kernel, strict=True):
        length = x.shape[axis] - window + 1
        x = reduce(torch.maximum, [x.narrow(axis, first, length) for first in range(window)])
    return x


def average_pooling(attributes: Attributes) -> Compute:
    kernel = attributes.integers("kernel_shape") or []
    windows = _Windows(attributes, 2)
    if len(kernel) != 2 or windows.dilations != [1, 1]:
        raise attributes.refuse("average pooling that is not 2-d, or is dilated")
    windows.refuse_doubtful(attributes, kernel)
    ceil = bool(attributes.integer("ceil_mode", 0))
    counted = bool(attributes.integer("count_include_pad", 0))
    chosen = windows.mode not in ("NOTSET", "VALID")
    explicit = windows.uneven or windows.wide(kernel)
    if (chosen or explicit) and not counted:
        raise attributes.refuse("average pooling with uneven or wide pads that do not count")
    if explicit and ceil:
        raise attributes.refuse("average pooling with uneven or wide pads and ceil_mode")
    ceil = ceil and not chosen

    def compute(x: Tensor) -> Tensor:
        x, padding = windows.apply(x, kernel, 0.0, explicit=explicit)
        return F.avg_pool2d(x, kernel, windows.strides, padding, ceil, counted)

    return compute


_PADDING = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}


def pad(attributes: Attributes) -> Compute:
    mode = attributes.text("mode", "constant")
    if mode not in _PADDING:
        raise attributes.refuse(f"padding of mode '{mode}'")
    fixed, fill = attributes.integers("pads"), attributes.number("value", 0.0)

    def compute(
        x: Tensor,
        pads: Tensor | None = None,
        value: Tensor | None = None,
        axes: Tensor | None = None,
    ) -> Tensor:
        sides = (fixed or []) if pads is None else integers(pads)
        along = list(range(len(sides) // 2)) if axes is None else integers(axes)
        around = {
            axis % x.ndim: (sides[i], sides[i + len(along)])
            for i, axis in enumerate(along)
            if sides[i] or sides[i + len(along)]
        }
        if mode == "constant":
            flat = [side for i in reversed(range(x.ndim)) for side in around.get(i, (0, 0))]
            return F.pad(x, flat, value=fill if value is None else value.item())
        for axis, (before, after) in around.items():
            size = x.shape[axis]
            index = torch.arange(-before, size + after, device=x.device)
            if mode == "edge":
                index = index.clamp(0, size - 1)
            else:
                index = index.abs()
                index = torch.where(index >= size, 2 * (size - 1) - index, index)
            x = _picked(x, axis, index)
        return x

    return compute


def _picked(x: Tensor, axis: int, index: Tensor) -> Tensor:
    """`index_select` that leaves the axes in the order in which they lie in memory, such as
    channels last, for which what comes next may be ten times as fast."""
    order = sorted(range(x.ndim), key=x.stride, reverse=True)
    back = [order.index(axis) for axis in range(x.ndim)]
    return x.permute(order).index_select(back[axis], index).permute(back)


def resize(attributes: Attributes) -> Compute:
    mode = attributes.text("mode", "nearest")
    where = attributes.text("coordinate_transformation_mode", "half_pixel")
    rounding = attributes.text("nearest_mode", "round_prefer_floor")
    corners: bool | None = None
    if (mode, where, rounding) == ("nearest", "asymmetric", "floor"):
        kind = "nearest"
    elif mode == "nearest" and where == "half_pixel":
        kind = "nearest-exact"
    elif mode in ("linear", "cubic") and where in (
        "half_pixel",
        "pytorch_half_pixel",
        "align_corners",
    ):
        kind, corners = {"linear": "bilinear", "cubic": "bicubic"}[mode], where == "align_corners"
    else:
        raise attributes.refuse(f"resizing of mode '{mode}' with '{where}' and '{rounding}'")

    def compute(
        x: Tensor,
        region: Tensor | None = None,
        scales: Tensor | None = None,
        sizes: Tensor | None = None,
    ) -> Tensor:
        if sizes is not None and sizes.numel():
            size = integers(sizes)[2:]
        elif scales is not None:
            factors = scales.tolist()[2:]
            size = [math.floor(d * f) for d, f in zip(x.shape[2:], factors, strict=True)]
        else:
            raise attributes.refuse("resizing without scales or sizes")
        return F.interpolate(x, size=size, mode=kind, align_corners=corners)

    return compute
