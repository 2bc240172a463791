"""Keeps what goes wrong in a stage to the frame that causes it.

Decoder and chain isolate what single images and operators do. This is for defects of their own: the
batch is tried again frame by frame, and the one that makes it fail becomes a dead letter.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from operators.chain import DeviceLostError, OutOfMemory
from operators.frame import Frame, Stage
from streams.stages import DecodesFrames, ProcessesFrames

logger = logging.getLogger(__name__)


def decoded_parts(decoder: DecodesFrames, frames: Sequence[Frame]) -> Iterator[list[Frame]]:
    """Decode a batch in parts that fit into memory, each taken over before the next begins; if the
    decoder itself fails, find the frame that makes it."""
    left = dict.fromkeys(frames)
    try:
        for part in decoder.decode_parts(frames):
            for frame in part:
                left.pop(frame, None)
            yield _with_pictures(part)
    except Exception as error:
        if len(frames) > 1:
            for frame in left:
                if frame.pixels is None and not frame.failed:
                    yield from decoded_parts(decoder, [frame])
                else:
                    yield [frame]
            return
        logger.exception("the decoder failed on image %r", frames[0].image_id)
        frames[0].fail(
            Stage.DECODE,
            "decoder-error",
            f"the decoder failed with {type(error).__name__}: {error}; see the worker's log",
        )
        yield list(frames)
    else:
        if left:
            yield _with_pictures(list(left))


def analysed(chain: ProcessesFrames, frames: Sequence[Frame]) -> OutOfMemory | None:
    """Let the operators look at a batch.

    Raises:
        DeviceLostError: nothing will work until the process is new: end it, the frames stay
            unacknowledged.
    """
    try:
        return chain.analyse(frames)
    except DeviceLostError:
        raise
    except Exception as error:
        logger.exception("a batch of %d frames failed", len(frames))
        for frame in frames:
            # A frame that still has its pixels can be tried again by itself.
            if frame.failed or (frame.pixels is None and len(frames) > 1):
                continue
            if len(frames) > 1:
                analysed(chain, [frame])
                continue
            frame.fail("operators", "internal-error", _defect("the operators", error))
        return None


def decided(chain: ProcessesFrames, frames: Sequence[Frame]) -> None:
    """Let the policy decide over a batch."""
    try:
        chain.decide(frames)
    except Exception as error:
        logger.exception("the policy failed on a batch of %d frames", len(frames))
        for frame in frames:
            if not frame.failed and frame.findings.verdict is None:
                frame.fail(Stage.POLICY, "internal-error", _defect("the policy", error))


def _defect(what: str, error: Exception) -> str:
    return f"{what} failed with {type(error).__name__}: {error}; see the worker's log"


def _with_pictures(frames: list[Frame]) -> list[Frame]:
    """The same frames; one that the decoder forgot is a dead letter, not a crash further on."""
    for frame in frames:
        if frame.pixels is None:
            frame.fail(Stage.DECODE, "decoder-error", "the decoder returned no picture")
    return frames
