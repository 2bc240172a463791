"""One child process that decodes, seen from the parent: shared memory, time limit, cause of death.

The child is not believed either, since an image may have taken it over: what it answers is checked
against the limits, the shared memory is sealed so that it cannot be cut off under the parent, and
pixels are copied out of it before anything looks at them.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from operators.decode_child import MESSAGE_BYTES
from operators.decode_limits import MEBIBYTE, DecodeLimits
from operators.decode_nursery import Nursery, NurseryError
from operators.image_facts import DECODE_REASONS, ImageHeader, Undecodable

T = TypeVar("T")

SLACK = 96 * MEBIBYTE
"""Memory that decoding needs beside the picture's: code that is loaded late, tables, the heap's
reserve."""
TICK = 0.5
"""Seconds between looks at the clock. A look that comes late counts once, so that time in which the
whole machine or this process stood still is not held against the image."""
KEPT_BYTES = 40 * MEBIBYTE
"""Shared memory that a process keeps between images; a larger picture's is given back. The photos
of a 12-megapixel camera, 37 MB, fit: fresh pages for each took longer than decoding it."""


class ProcessDiedError(Exception):
    """The child is gone, or must go; `reason` and `detail` are those of `Undecodable`.

    `by_hand` is true when something outside killed it (a person, the kernel short of memory), which
    says nothing about the image.
    """

    def __init__(self, reason: str, detail: str, by_hand: bool = False) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.by_hand = by_hand


class _Answer(msgspec.Struct):
    height: int = 0
    width: int = 0
    truncated: bool = False
    reason: str = ""
    detail: str = ""
    worn: bool = False


class DecodeProcess:
    """One decoder. For one thread at a time."""

    def __init__(self, nursery: Nursery, limits: DecodeLimits) -> None:
        """
        Raises:
            NurseryError: it cannot be started.
        """
        self._nursery = nursery
        self._limits = limits
        # Pages of their own for the pixels, so that their memory can be given back alone.
        self._pixels_at = -(-limits.max_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        size = self._pixels_at + limits.max_pixels * 3
        # Not in /dev/shm, which containers keep to 64 MiB. Only what is touched takes memory.
        shared = os.memfd_create("imagewire-decode", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            os.ftruncate(shared, size)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(shared, fcntl.F_ADD_SEALS, seals)
            self._memory = mmap.mmap(shared, size)
            self.pid = nursery.fork(theirs, shared, limits.largest_memory + SLACK)
        except BaseException:
            self._connection.close()
            raise
        finally:
            theirs.close()
            os.close(shared)
        self._board: NDArray[np.uint8] = np.frombuffer(self._memory, np.uint8)
        self.worn = False
        self._closed = False
        self._status: int | None = None

    def decode(
        self,
        content: bytes,
        header: ImageHeader,
        reduction: int,
        take: Callable[[NDArray[np.uint8]], T],
    ) -> tuple[T, bool]:
        """Decode one image that was screened.

        Args:
            reduction: what its sides are divided by.
            take: makes what is returned from the pixels, uint8 (height, width, 3); it must copy
                them.

        Returns:
            What `take` made, and whether a part of the picture is missing.

        Raises:
            Undecodable: the image is at fault, and the process is as before.
            ProcessDiedError: the process has to be replaced.
        """
        self._board[: len(content)] = np.frombuffer(content, np.uint8)
        request = {
            "bytes": len(content),
            "header": header,
            "reduction": reduction,
            "memory": self._limits.memory(header, reduction) + SLACK,
            "limits": self._limits,
            "pixels_at": self._pixels_at,
        }
        try:
            self._connection.send(msgspec.json.encode(request))
            answer = self._answer(header)
        except OSError as error:
            raise self._death(header) from error
        self.worn = answer.worn
        if answer.reason:
            if answer.reason not in DECODE_REASONS:
                raise ProcessDiedError(
                    "decoder-crash", f"the decoder answered nonsense to this {header.format}"
                )
            raise Undecodable(answer.reason, answer.detail)
        size = answer.height * answer.width * 3
        if min(answer.height, answer.width) < 1 or size > len(self._board) - self._pixels_at:
            raise ProcessDiedError(
                "decoder-crash", f"the decoder answered nonsense to this {header.format}"
            )
        pixels = self._board[self._pixels_at : self._pixels_at + size]
        taken = take(pixels.reshape(answer.height, answer.width, 3))
        if size > KEPT_BYTES:
            self._memory.madvise(mmap.MADV_REMOVE, self._pixels_at, size)
        return taken, answer.truncated

    def close(self) -> int | None:
        """End the process, however busy it is.

        Returns:
            Its wait status; `None` if its nursery died, which has killed it as well.
        """
        if not self._closed:
            self._closed = True
            self._connection.close()
            # Until it is reaped, its id belongs to no other process.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            with contextlib.suppress(NurseryError):
                self._status = self._nursery.reap(self.pid)
        return self._status

    def _answer(self, header: ImageHeader) -> _Answer:
        left = self._limits.timeout
        while True:
            self._connection.settimeout(min(TICK, left))
            asked = time.monotonic()
            try:
                message = self._connection.recv(MESSAGE_BYTES)
                break
            except TimeoutError:
                left -= min(time.monotonic() - asked, 2 * TICK)
                if left <= 0:
                    raise ProcessDiedError(
                        "timeout",
                        f"the {header.format} of {header.width} x {header.height} was not decoded "
                        f"within {self._limits.timeout:g} s (decode.timeout)",
                    ) from None
        if not message:
            raise self._death(header)
        try:
            return msgspec.json.decode(message, type=_Answer)
        except msgspec.DecodeError as error:
            raise ProcessDiedError(
                "decoder-crash", f"the decoder answered nonsense to this {header.format}"
            ) from error

    def _death(self, header: ImageHeader) -> ProcessDiedError:
        """Why the process ended while it had this image."""
        status = self.close()
        if status is None:
            return ProcessDiedError("decoder-crash", "the nursery of decoders died", by_hand=True)
        code = os.waitstatus_to_exitcode(status)
        cause = signal.strsignal(-code) if code < 0 else f"exit status {code}"
        return ProcessDiedError(
            "decoder-crash",
            f"decoding the {header.format} of {header.width} x {header.height} ended its process: "
            f"{cause}",
            by_hand=-code in (signal.SIGKILL, signal.SIGTERM),
        )
