"""The decoded pictures of a batch of frames, in the pieces in which networks take them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from operators.frame import Frame


def pixels_of(frame: Frame) -> torch.Tensor:
    """The frame's picture: uint8 RGB, shape (H, W, 3); it may have been decoded at a reduced size.

    Raises:
        ValueError: it has not been decoded; operators run after the decode stage.
    """
    if frame.pixels is None:
        raise ValueError(
            f"frame '{frame.image_id}' has no pixels: it was not decoded, or released too early"
        )
    return frame.pixels


def original_size(frame: Frame) -> tuple[int, int]:
    """(height, width) of the upright original, in whose pixels findings give places."""
    image = frame.findings.image
    if image is None:
        height, width = pixels_of(frame).shape[:2]
        return height, width
    return image.height, image.width


def usable(frame: Frame, operator: str) -> bool:
    """Whether there is a picture to look at; a frame without a single pixel fails here, alone."""
    shape = tuple(pixels_of(frame).shape)
    if len(shape) == 3 and shape[2] == 3 and min(shape) > 0:
        return True
    frame.fail(
        operator,
        "no-picture",
        f"the decoded picture has shape {shape}, not (height, width, 3) with at least one pixel",
    )
    return False


def pieces(frames: Sequence[Frame], operator: str, limit: int) -> Iterator[list[Frame]]:
    """The usable frames, at most `limit` at a time, so that a large batch fits into memory.

    Frames whose pixels lie on different devices are not mixed.
    """
    by_device: dict[torch.device, list[Frame]] = {}
    for frame in frames:
        if usable(frame, operator):
            by_device.setdefault(pixels_of(frame).device, []).append(frame)
    for group in by_device.values():
        for start in range(0, len(group), limit):
            yield group[start : start + limit]
